"""Linters and the import rules."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from src.config import FLAGS, build_parser
from tests.conftest import ROOT, run_python

BIN = Path(sys.executable).parent
ENTRY_POINTS = ("train", "test", "export", "preprocess", "postprocess")
# All others import it neither at their beginning nor later, inside a function.
WITH_MINDSPORE = {
    *("callbacks", "cpu_operators", "dataset", "distributed", "exporter", "loss", "model_file"),
    *("pth2ckpt", "resnet", "run_state", "stpm", "teacher", "trainer", "utils"),
}
SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci/run", ROOT / "ascend_310_infer/build.sh"]


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


def test_imports():
    """They point downwards, and slow packages stay where they belong."""
    for path in (ROOT / "src").glob("*.py"):
        names = set(imported(path))
        assert not names & {*ENTRY_POINTS, "tests", "benchmarks"}, path
        assert "torch" not in names or path.name == "pth2ckpt.py", path
        assert "moxing" not in names or path.name == "modelarts.py", path
        assert "ray" not in names or path.name == "sweep.py", path
        assert "onnxruntime" not in names or path.name == "model_file.py", path
        assert ("mindspore" in names) == (path.stem in WITH_MINDSPORE), path
    for name in ENTRY_POINTS:
        assert not set(imported(ROOT / f"{name}.py")) & {*ENTRY_POINTS, "mindspore"}


def test_usage():
    """Bad usage is told without the slow imports."""
    slow = "{'mindspore', 'torch', 'onnxruntime'}"
    code = f"import sys, {', '.join(ENTRY_POINTS)}; sys.exit(bool({slow} & sys.modules.keys()))"
    assert run_python("-c", code).returncode == 0


def test_worker():
    """A sweep's worker imports no package."""
    assert run_python("-c", "import sys, src.sweep.worker; sys.exit('numpy' in sys.modules)").returncode == 0


def test_help():
    """It tells defaults where there are some."""
    text = build_parser("", tuple(FLAGS)).format_help()
    assert "(default: 0.4)" in text
    assert "None" not in text
