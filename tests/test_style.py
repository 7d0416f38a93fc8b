"""Linters, and what --help tells."""

import subprocess
import sys
from pathlib import Path

import pytest

from src.config import FLAGS, build_parser
from tests.conftest import ROOT

BIN = Path(sys.executable).parent
SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci/run", ROOT / "ascend_310_infer/build.sh"]


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_ruff(command):
    done = subprocess.run([BIN / "ruff", *command, "--quiet", ROOT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_mypy():
    """It keeps what it knows in .cache: some seconds the first time, one later."""
    done = subprocess.run([BIN / "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck():
    done = subprocess.run([BIN / "shellcheck", "-x", *SCRIPTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_help():
    """It tells defaults where there are some."""
    text = build_parser("", tuple(FLAGS)).format_help()
    assert "(default: 0.4)" in text
    assert "None" not in text
