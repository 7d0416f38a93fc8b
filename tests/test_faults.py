"""A training that is killed at any moment goes on to the same weights, and what is on disk is whole at every moment."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from src.checkpoint import load_stpm, read_checkpoint
from src.data.view import square
from src.files import file_sha256, read_json, write_json
from src.model.model_file import inspect_model
from src.model.record import TrainingFolder
from src.model.sidecar import record_calibration
from src.stpm import STPM
from src.training.run import TrainingRun
from src.utils import InputError
from tests.conftest import ROOT, run_python, train_arguments, user_environment

pytestmark = pytest.mark.usefixtures("device")


def train_until_killed(arguments, *, epochs, seconds):
    """Train, and kill the training so many seconds after it has told of so many epochs."""
    command = [sys.executable, "-u", str(ROOT / "train.py"), *(str(a) for a in arguments)]
    told = []
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=user_environment(PYTHONPATH=str(ROOT)), **pipes) as process:
        while sum(line.startswith("epoch ") for line in told) < epochs:
            line = process.stdout.readline()
            assert line, told
            told.append(line)
        time.sleep(seconds)
        process.kill()
        told += process.stdout.readlines()
    assert process.returncode == -9, told


def check_files(folder):
    """Whatever there is can be read and belongs together; return how many epochs a resumed training begins with."""
    if (folder / "widget_last.ckpt").exists():
        model = inspect_model(folder / "widget_last.ckpt", category="widget")
        assert model.sidecar is not None
        arrays = read_checkpoint(model.path)
        assert len(arrays) == 2 * 75
        assert all(np.isfinite(array).all() for array in arrays.values())
    if (folder / "train.json").exists():
        record = read_json(folder / "train.json")
        assert [epoch["epoch"] for epoch in record["epochs"]] == list(range(1, record["epochs_trained"] + 1))
    if not (folder / "widget_resume.ckpt").exists():
        return 0
    return len(
        json.loads(read_checkpoint(folder / "widget_resume.ckpt")["run_state"].astype(np.uint8).tobytes())["epochs"]
    )


@pytest.mark.parametrize("kills", [3, pytest.param(24, marks=pytest.mark.slow)])
def test_kills(kills, session_tree, random_backbone, tmp_path):
    """The weights are those of a training that was not killed."""
    epochs = 8 * kills
    arguments = train_arguments(session_tree, random_backbone, tmp_path / "killed", epoch=epochs)
    with ThreadPoolExecutor(1) as beside:
        flags = train_arguments(session_tree, random_backbone, tmp_path / "whole", epoch=epochs)
        whole = beside.submit(run_python, "train.py", *flags)
        kill_and_go_on(arguments, tmp_path / "killed/widget", kills=kills, epochs=epochs)
    assert whole.result().returncode == 0, whole.result().stderr

    ours, theirs = (read_checkpoint(tmp_path / run / "widget/widget_last.ckpt") for run in ("killed", "whole"))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    losses = [
        [e["loss"] for e in read_json(tmp_path / run / "widget/train.json")["epochs"]] for run in ("killed", "whole")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == epochs
    left = sorted(path.name for path in (tmp_path / "killed/widget").iterdir())
    assert left == [".train.lock", "train.json", "widget_last.ckpt", "widget_last.json", "widget_resume.ckpt"]


def kill_and_go_on(arguments, folder, *, kills, epochs):
    rng, reached = np.random.default_rng(kills), [0]
    for number in range(kills):
        resume = ["--resume"] if (folder / "widget_resume.ckpt").exists() else []
        # one in six while it starts, the others while it trains and writes
        told, seconds = (0, rng.uniform(0, 4)) if number % 6 == 0 else (rng.integers(1, 4), rng.uniform(0, 0.5))
        train_until_killed([*arguments, *resume], epochs=told, seconds=seconds)
        reached.append(check_files(folder))
    assert reached == sorted(reached)
    print(f"{kills} kills; epochs after each: {reached[1:]} of {epochs}")
    finished = run_python("train.py", *arguments, *(["--resume"] if reached[-1] else []))
    assert finished.returncode == 0, finished.stderr
    check_files(folder)


def test_kill_between_files(trained, tmp_path):
    """The earlier model is left."""
    shutil.copytree(trained[0] / "widget", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "widget_last.ckpt"
    about = read_json(tmp_path / "widget_last.json")
    later = {"file": path.name, "sha256": "0" * 64, "replaces": file_sha256(path)}
    write_json(tmp_path / "widget_last.json", about | {"checkpoint": later})
    assert inspect_model(path).view == square(64)
    record_calibration(path, {"threshold": 0.5}, sha256=file_sha256(path))  # of this one alone
    assert inspect_model(path).threshold == 0.5
    assert read_json(tmp_path / "widget_last.json")["checkpoint"] == {"file": path.name, "sha256": file_sha256(path)}


def test_replaced_while_calibrated(trained, tmp_path):
    """The later model keeps its own threshold."""
    shutil.copytree(trained[0] / "widget", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "widget_last.ckpt"
    before, seen = read_json(tmp_path / "widget_last.json"), inspect_model(path).sha256
    path.chmod(0o644)
    path.write_bytes(b"weights of a later training")
    with pytest.raises(InputError, match=r"widget_last\.ckpt: was replaced while its threshold was measured"):
        record_calibration(path, {"threshold": 0.5}, sha256=seen)
    assert read_json(tmp_path / "widget_last.json") == before


@pytest.mark.parametrize(("change", "is_known"), [({}, True), ({"image_size": 96}, False)])
def test_successor(trained, tmp_path, change, is_known):
    """A training is killed as its first checkpoint is about to replace that of an earlier one."""
    shutil.copytree(trained[0] / "widget", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "widget_last.ckpt"
    earlier, config = path.read_bytes(), read_json(tmp_path / "widget_last.json")["config"] | change
    stpm = load_stpm(STPM(), path)
    stpm.model_s.conv1.weight.set_data(-stpm.model_s.conv1.weight)
    TrainingRun(
        TrainingFolder(tmp_path, "widget"), stpm, None, view=square(64), config=config, circumstances={}
    ).save_model()
    path.unlink()
    path.write_bytes(earlier)
    if is_known:
        assert inspect_model(path).view == square(64)
    else:
        with pytest.raises(InputError, match=r"is not the checkpoint that widget_last\.json describes"):
            inspect_model(path)


def test_same_results(trained, session_tree, tmp_path):
    def evaluate(out):
        flags = ("--ckpt_path", trained[0] / "widget/widget_last.ckpt", "--category", "widget", "--threshold", "0.01")
        done = run_python("test.py", "--eval_url", session_tree, *flags, "--out_dir", tmp_path / out)
        assert done.returncode == 0, done.stderr
        return (tmp_path / out / "widget/results.json").read_bytes()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(evaluate, ("first", "second"))
    assert first == second


def test_sigterm(trained, session_tree, tmp_path):
    """Prediction holds three files open all the time."""
    (tmp_path / "many").mkdir()
    for i in range(2000):
        (tmp_path / f"many/{i}.png").symlink_to(session_tree / "widget/test/hole/000.png")
    out = tmp_path / "out"
    flags = ("--image_path", tmp_path / "many", "--ckpt_path", trained[0] / "widget/widget_last.ckpt", "--out_dir", out)
    command = [sys.executable, "-m", "src.predict", *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not list(out.glob(".predictions.*.tmp.json")):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == -signal.SIGTERM
    assert list(out.iterdir()) == []


def test_sigterm_export(trained, tmp_path):
    """While MindSpore compiles: without a page of errors, and without its own folder of temporaries."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    flags = ("--ckpt_file", trained[0] / "widget/widget_last.ckpt", "--category", "widget", "--out_dir", tmp_path / "o")
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen(
        [sys.executable, ROOT / "export.py", *flags],
        cwd=tmp_path / "here",
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        while process.poll() is None and not list((tmp_path / "temporary").glob("stpm-*")):
            time.sleep(0.01)
        time.sleep(0.05)
        process.terminate()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGTERM
    assert [list((tmp_path / name).iterdir()) for name in ("temporary", "here", "o")] == [[], [], []]


def test_fork(tmp_path):
    """A fork that is ended removes nothing."""
    code = """if True:
        import os, pathlib, signal, sys
        from src.files import atomic_path
        with atomic_path(pathlib.Path(sys.argv[1])) as temporary:
            temporary.write_text("model")
            ready, tell = os.pipe()
            child = os.fork()
            if not child:
                os.write(tell, b"x")
                signal.pause()
            os.read(ready, 1)
            os.kill(child, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    """
    done = run_python("-c", code, tmp_path / "widget.mindir")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "widget.mindir").read_text() == "model"


def test_leftovers(tmp_path):
    """Its own machine's alone: on another one that shares the folder the same number may be a living process."""
    code = "import pathlib; from src.files import atomic_path; a = atomic_path(pathlib.Path({!r})); t = a.__enter__()"
    run = code.format(str(tmp_path / "widget.mindir")) + "; t.write_text('half'); import os; os.kill(os.getpid(), 9)"
    assert run_python("-c", run).returncode == -9
    (dead,) = tmp_path.iterdir()
    kept = [
        dead.with_name(dead.name.replace(f".{platform.node()}-", ".elsewhere-")),
        tmp_path / f".widget.{platform.node()}-{os.getppid()}.tmp.json",
        tmp_path / "mine.tmp",
    ]
    for path in kept:
        path.write_text("")
    write_json(tmp_path / "new.json", {})
    assert set(tmp_path.iterdir()) == {*kept, tmp_path / "new.json"}
