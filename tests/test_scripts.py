"""The shell scripts: arguments, paths with spaces, background and foreground."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, user_environment

FAST = ("--image_size", "64", "--batch_size", "4", "--epoch", "1")


def run_script(name, *arguments, cwd, **environment):
    command = ["bash", str(ROOT / "scripts" / name), *map(str, arguments)]
    environment = user_environment(STPM_PYTHON=sys.executable) | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, env=environment, check=False)


def wait_for(condition, what):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)


def test_train_in_the_background_then_evaluate_in_the_foreground(session_tree, random_backbone, tmp_path):
    """Relative paths are the caller's, and what is written goes below the caller's folder."""
    here = tmp_path / "a folder"
    here.mkdir()
    (here / "data").symlink_to(session_tree)
    (here / "teacher.ckpt").symlink_to(random_backbone)
    started = run_script("run_standalone_train.sh", "data", "teacher.ckpt", "widget", 0, *FAST, cwd=here)
    assert started.returncode == 0, started.stderr
    assert "started in the background: pid " in started.stdout
    log = here / "widget/train.log"
    assert f"log {log}" in started.stdout
    wait_for(lambda: log.exists() and "trained 1 epochs" in log.read_text(), log)

    checkpoint = "widget/widget_last.ckpt"
    done = run_script("run_eval.sh", "data", checkpoint, "widget", cwd=here, STPM_FOREGROUND="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-3] == "category:  widget"
    assert (here / "widget/eval.log").read_text().splitlines()[-3:] == done.stdout.splitlines()[-3:]
    assert (here / "widget/results.json").exists()


def test_foreground_returns_the_exit_status(session_tree, random_backbone, tmp_path):
    flags = (*FAST, "--lr", "-1")
    done = run_script(
        "run_standalone_train.sh", session_tree, random_backbone, "widget", *flags, cwd=tmp_path, STPM_FOREGROUND="1"
    )
    assert done.returncode == 2
    assert "argument --lr: expected a number above 0" in done.stdout
    assert "argument --lr" in (tmp_path / "widget/train.log").read_text()


@pytest.fixture
def stand_in(tmp_path):
    """A program in place of Python that says so, waits for a signal, and has a last word."""
    path = tmp_path / "stand_in"
    path.write_text(
        "#!/bin/bash\ntrap 'echo last word; kill $! 2>/dev/null; exit 3' INT TERM\necho begun\nsleep 60 & wait\n"
    )
    path.chmod(0o755)
    return path


def test_a_second_call_leaves_the_log_of_the_first(session_tree, tmp_path, stand_in):
    arguments = ("run_standalone_train.sh", session_tree, "random", "widget")
    started = run_script(*arguments, cwd=tmp_path, STPM_PYTHON="./stand_in")  # relative: the scripts change folders
    log = tmp_path / "widget/train.log"
    wait_for(lambda: log.read_text() == "begun\n", log)
    second = run_script(*arguments, cwd=tmp_path, STPM_PYTHON=str(stand_in))
    assert second.returncode == 1
    assert f"{log}: is in use by another call" in second.stderr
    assert log.read_text() == "begun\n"

    os.kill(int(re.search(r"pid (\d+)", started.stdout)[1]), signal.SIGTERM)
    third = run_script(*arguments, cwd=tmp_path, STPM_PYTHON=str(stand_in))  # waits for the first to end
    assert third.returncode == 0, third.stderr
    os.kill(int(re.search(r"pid (\d+)", third.stdout)[1]), signal.SIGTERM)


def test_a_second_inference_leaves_the_files_of_the_first(session_tree, random_backbone, tmp_path):
    (tmp_path / "widget/310_infer").mkdir(parents=True)
    with (tmp_path / "widget/310_infer/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_script("run_310_infer.sh", random_backbone, session_tree, "y", 0, "widget", "CPU", cwd=tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path}/widget/310_infer: is in use by another call" in done.stderr


def test_what_is_said_on_an_interruption_is_seen(session_tree, tmp_path, stand_in):
    """A terminal interrupts all programs of a pipe at once."""
    command = ["bash", ROOT / "scripts/run_standalone_train.sh", session_tree, "random", "widget"]
    environment = os.environ | {"STPM_PYTHON": str(stand_in), "STPM_FOREGROUND": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "last word\n"
    assert (tmp_path / "widget/train.log").read_text() == "begun\nlast word\n"


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("run_standalone_train.sh", (), "usage: run_standalone_train.sh DATASET_PATH BACKBONE_PATH CATEGORY"),
        ("run_standalone_train.sh", ("DATA", "BACKBONE", "--epoch", "1"), "usage: run_standalone_train.sh"),
        ("run_standalone_train.sh", ("/nowhere", "BACKBONE", "widget"), "DATASET_PATH /nowhere: no such folder"),
        ("run_standalone_train.sh", ("DATA", "/nowhere", "widget"), "BACKBONE_PATH /nowhere: no such file"),
        ("run_standalone_train.sh", ("DATA", "BACKBONE", "gizmo"), "CATEGORY gizmo: no such folder in"),
        (
            "run_standalone_train.sh",
            ("DATA", "BACKBONE", "widget", "one"),
            "DEVICE_ID: expected a whole number",
        ),
        ("run_distribute_train.sh", ("DATA", "BACKBONE", "widget", "--epoch", "1"), "usage: run_distribute_train.sh"),
        ("run_distribute_train.sh", ("/nowhere", "BACKBONE", "widget", "2"), "DATASET_PATH /nowhere: no such folder"),
        ("run_distribute_train.sh", ("DATA", "/nowhere", "widget", "2"), "BACKBONE_PATH /nowhere: no such file"),
        ("run_distribute_train.sh", ("DATA", "BACKBONE", "gizmo", "2"), "CATEGORY gizmo: no such folder in"),
        ("run_distribute_train.sh", ("DATA", "BACKBONE", "widget", "0"), "DEVICE_NUM: expected a whole number of at"),
        ("run_eval.sh", ("DATA",), "usage: run_eval.sh DATASET_PATH CHECKPOINT_PATH CATEGORY [DEVICE_ID]"),
        ("run_eval.sh", ("DATA", "/nowhere", "widget"), "CHECKPOINT_PATH /nowhere: no such file"),
        ("run_eval.sh", ("DATA", "BACKBONE", "gizmo"), "CATEGORY gizmo: no such folder in DATASET_PATH"),
        ("run_eval.sh", ("DATA", "BACKBONE", "widget", "1x"), "DEVICE_ID: expected a whole number, got '1x'"),
        ("run_demo.sh", ("--fast",), "usage: run_demo.sh [--pre_ckpt_path FILE]"),
        ("run_demo.sh", ("--pre_ckpt_path", "/nowhere"), "--pre_ckpt_path /nowhere: no such file"),
    ],
)
def test_scripts_refuse(session_tree, random_backbone, tmp_path, script, arguments, message):
    real = {"DATA": session_tree, "BACKBONE": random_backbone}
    done = run_script(script, *(real.get(argument, argument) for argument in arguments), cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"
