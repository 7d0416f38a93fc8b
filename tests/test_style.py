"""Linters, the import rules, and what the documents promise."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.config import FLAGS
from tests.conftest import ROOT, run_python

BIN = Path(sys.executable).parent
WITHOUT_MINDSPORE = ("images", "metrics", "evaluate", "config", "sidecar", "store", "dataset_check")
SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci/run"]


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_ruff(command):
    done = subprocess.run([BIN / "ruff", *command, "--quiet", ROOT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_shellcheck():
    done = subprocess.run([BIN / "shellcheck", "-x", *SCRIPTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_imports_point_downwards():
    entry_points = {"train", "test", "export", "preprocess", "postprocess"}
    for path in (ROOT / "src").glob("*.py"):
        names = set(imported(path))
        assert not names & (entry_points | {"tests", "benchmarks"}), path
        assert "torch" not in names or path.name == "pth2ckpt.py", path
        assert "moxing" not in names or path.name == "modelarts.py", path
        if path.name in (
            "images.py",
            "metrics.py",
            "evaluate.py",
            "config.py",
            "sidecar.py",
            "store.py",
            "dataset_check.py",
        ):
            assert "mindspore" not in names, path
    for name in ("train.py", "test.py"):
        assert not set(imported(ROOT / name)) & (entry_points | {"mindspore"})


def test_bad_usage_is_told_without_the_slow_import():
    code = "import sys, train, test; train.parse_args; sys.exit('mindspore' in sys.modules or 'torch' in sys.modules)"
    assert run_python("-c", code).returncode == 0


@pytest.mark.parametrize("readme", ["README.md", "README_CN.md"])
def test_readme_names_every_flag_and_only_existing_files(readme):
    text = (ROOT / readme).read_text()
    for flag in FLAGS:
        assert f"`--{flag}`" in text, flag
    for name in re.findall(r"\]\((?!http|#)([^)]+)\)", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"bash (scripts/\w+\.sh)", text):
        assert (ROOT / name).exists(), name


def test_main_functions_are_short():
    for name in ("train.py", "test.py"):
        for node in ast.parse((ROOT / name).read_text()).body:
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{name}: {node.name}"
