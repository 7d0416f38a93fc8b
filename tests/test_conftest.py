"""What the fixtures promise to all tests."""

import fcntl
import logging
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from src.files import lock_folder, write_json
from src.utils import run_entry_point
from tests import conftest
from tests.conftest import ROOT, examples, make_once, run_python


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One that the tests share."""
    return tmp_path_factory.mktemp("state")


@pytest.mark.parametrize("turn", [1, 2])
def test_nothing_leaks(folder, turn):
    """Each turn finds a process as new, and leaves log handlers, a lock and a tidied folder behind."""
    root = logging.getLogger()
    assert not [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    assert root.level == logging.WARNING
    assert logging.raiseExceptions
    with open(folder / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = folder / f".a.{platform.node()}-{gone.pid}.tmp"
    left.touch()
    write_json(folder / "a.json", {})
    assert not left.exists()

    lock_folder(folder, ".lock")
    for handler in root.handlers[:]:  # pytest's, without which a program sets up its own
        root.removeHandler(handler)
    assert run_entry_point(lambda args: 0, None) == 0
    assert not logging.raiseExceptions
    assert root.level == logging.INFO
    assert [type(handler) for handler in root.handlers] == [logging.StreamHandler]


def test_make_once(tmp_path):
    """By the first of workers that all need it now; what was made in part is made anew."""
    made = []

    def make(folder):
        made.append(folder)
        (folder / "file").touch(exist_ok=False)
        if len(made) == 1:
            raise ValueError("a full disk")
        time.sleep(0.01)  # so that all are there

    with pytest.raises(ValueError, match="a full disk"):
        make_once(tmp_path / "one", make)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: make_once(tmp_path / "one", make), range(4))) == {tmp_path / "one"}
    assert made == [tmp_path / "one"] * 2
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["file"]


def collected(*words):
    """Names of the tests that pytest would run, a line each."""
    quiet = ("--collect-only", "-q", "-o", "addopts=", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *quiet, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_shared_marker():
    """It selects the tests that need the real data, and no others."""
    found = collected("-m", "shared", "tests/test_dataset.py")
    assert "::test_check_on_real_data\n" in found
    assert found.count("::") == 1


@pytest.mark.parametrize("in_ci", [True, False])
def test_missing(monkeypatch, in_ci):
    """A user's test is skipped for want of something, that of CI fails."""
    monkeypatch.setattr(conftest, "IN_CI", in_ci)
    with pytest.raises(pytest.fail.Exception if in_ci else pytest.skip.Exception, match="no compiler"):
        conftest.missing("no compiler")


@pytest.mark.parametrize("count", [None, "0", "7"])
def test_examples(monkeypatch, count):
    """The same few in every run; a campaign asks for many, and for others each time."""
    if count is None:
        monkeypatch.delenv("STPM_FUZZ_EXAMPLES", raising=False)
    else:
        monkeypatch.setenv("STPM_FUZZ_EXAMPLES", count)
    found = examples(50)
    is_campaign = count == "7"
    assert (found.max_examples, found.derandomize) == ((7, False) if is_campaign else (50, True))
    assert found.database is None
    assert found.deadline is None


def test_environment_of_programs():
    """In the test's process, or in a worker's, they get what the user has, not what the tests set for themselves."""
    code = "import os; print([name for name in os.environ if name.startswith(('ONEDNN_', 'STPM_TESTS_'))])"
    assert run_python("-c", code).stdout == "[]\n"
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
