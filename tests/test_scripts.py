"""The shell scripts: arguments, paths with spaces, background and foreground."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import test as evaluation
import train
from src import predict
from src.sweep import __main__ as sweep
from tests.conftest import ROOT, user_environment
from tests.vendor_package import make_package

FAST = ("--image_size", "64", "--batch_size", "3", "--epoch", "1")


def run_script(name, *arguments, cwd, timeout=300, **environment):
    command = ["bash", str(ROOT / "scripts" / name), *map(str, arguments)]
    environment = user_environment(STPM_PYTHON=sys.executable) | environment
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, cwd=cwd, env=environment, check=False
    )


def wait_for(condition, what, *, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)


def test_background_and_foreground(session_tree, random_backbone, tmp_path):
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


def test_exit_status(session_tree, random_backbone, tmp_path):
    """Of what ran in the foreground."""
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


def test_log_lock(session_tree, tmp_path, stand_in):
    """A second call leaves the log of the first."""
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


def test_infer_lock(session_tree, tmp_path):
    """A second inference leaves the files of the first."""
    (tmp_path / "widget/310_infer").mkdir(parents=True)
    with (tmp_path / "widget/310_infer/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_script("run_310_infer.sh", __file__, session_tree, "y", 0, "widget", "CPU", cwd=tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path}/widget/310_infer: is in use by another call" in done.stderr


def test_maps_in_use(infer):
    """By a program that was started by hand: nothing that it reads or writes is touched."""
    (infer.out / "maps").mkdir(parents=True)
    (infer.out / "maps/a_0.bin").touch()
    infer.acc.write_text("of an earlier run")
    with (infer.out / "maps/.infer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done, calls = infer()
    assert done.returncode == 1
    assert f"{infer.out}/maps: is in use by another call" in done.stderr
    assert calls == {}
    assert infer.acc.exists()
    assert (infer.out / "maps/a_0.bin").exists()


def test_interruption(session_tree, tmp_path, stand_in):
    """A terminal interrupts all programs of a pipe at once."""
    command = ["bash", ROOT / "scripts/run_standalone_train.sh", session_tree, "random", "widget"]
    environment = os.environ | {"STPM_PYTHON": str(stand_in), "STPM_FOREGROUND": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background ignores it
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "last word\n"
    assert (tmp_path / "widget/train.log").read_text() == "begun\nlast word\n"


RECORDER = """#!/bin/bash
printf '%s\\0' "$PWD" "$@" $'\\n' >>"$CALLS"
exit "${STATUS:-0}"
"""


@pytest.fixture
def recorder(tmp_path):
    """In place of Python: notes its words. Returns the function that runs a script with it, in ``tmp_path/here``."""
    program, log, here = tmp_path / "recorder", tmp_path / "calls", tmp_path / "here"
    program.write_text(RECORDER)
    program.chmod(0o755)
    (here / "data/widget/test").mkdir(parents=True)
    (here / "data/widget/test/a.png").touch()
    (here / "model").touch()

    def run(script, *arguments, **environment):
        log.write_text("")
        environment = {"STPM_PYTHON": str(program), "STPM_FOREGROUND": "1", "CALLS": str(log)} | environment
        done = run_script(script, *arguments, cwd=here, **environment)
        return done, [call.split("\0") for call in log.read_text().split("\0\n\0")[:-1]]

    return run


def parsed(module, call):
    """What an entry point takes a recorded call for, its paths made absolute."""
    folder, *words = call
    start = 2 if words[0] == "-m" else 1
    if module in (sweep, predict):
        assert words[:2] == ["-m", module.__name__.removesuffix(".__main__")]
    else:
        assert Path(words[0]) == ROOT / f"{module.__name__}.py"
    given = vars(module.parse_args(words[start:]))
    paths = ("data_url", "eval_url", "train_url", "out_dir", "pre_ckpt_path", "ckpt_path", "image_path")
    return {
        name: os.path.normpath(Path(folder) / value) if name in paths and value else value
        for name, value in given.items()
    }


@pytest.mark.parametrize(("device", "expected"), [((), 0), (("0",), 0), (("7",), 7), (("012",), 12)])
def test_train_arguments(recorder, tmp_path, device, expected):
    """All arguments reach train.py, the number of the card among them, and flags after it."""
    words = ("data", "model", "widget", *device, "--epoch", "3")
    done, (call,) = recorder("run_standalone_train.sh", *words)
    assert done.returncode == 0, done.stderr
    here = tmp_path / "here"
    assert parsed(train, call).items() >= {
        "data_url": str(here / "data"), "pre_ckpt_path": str(here / "model"), "category": "widget",
        "train_url": str(here), "device_id": expected, "epoch": 3,
    }.items()  # fmt: skip


@pytest.mark.parametrize(("device", "expected"), [((), 0), (("7",), 7)])
def test_eval_arguments(recorder, tmp_path, device, expected):
    done, (call,) = recorder("run_eval.sh", "data", "model", "widget", *device, "--mask_rule", "dilate")
    assert done.returncode == 0, done.stderr
    here = tmp_path / "here"
    assert parsed(evaluation, call).items() >= {
        "eval_url": str(here / "data"), "ckpt_path": str(here / "model"), "category": "widget",
        "out_dir": str(here), "device_id": expected, "mask_rule": "dilate",
    }.items()  # fmt: skip


def test_predict_arguments(recorder, tmp_path):
    done, (call,) = recorder("run_predict.sh", "data", "model", "--device_id", "7", "--threshold", "0.5", STATUS="4")
    assert done.returncode == 4
    here = tmp_path / "here"
    assert parsed(predict, call).items() >= {
        "image_path": str(here / "data"), "ckpt_path": str(here / "model"), "device_id": 7, "threshold": 0.5,
        "out_dir": str(here / "predictions"),
    }.items()  # fmt: skip


def test_sweep_arguments(recorder, tmp_path):
    done, (call,) = recorder("run_all_mvtec.sh", "data", "model", "3", "--epoch", "9", STATUS="4")
    assert done.returncode == 4
    here = tmp_path / "here"
    assert parsed(sweep, call).items() >= {
        "data_url": str(here / "data"), "pre_ckpt_path": str(here / "model"), "train_url": str(here), "device_num": 3,
        "training_flags": ["--epoch", "9"],
    }.items()  # fmt: skip
    assert parsed(sweep, recorder("run_all_mvtec.sh", "data", "random", "1")[1][0])["pre_ckpt_path"] == str(
        ROOT / "random"
    )


def test_distributed_arguments(recorder, tmp_path):
    """What msrun is told, and the training that it starts in every rank."""
    options = {"MSRUN_PORT": "8118", "STPM_MSRUN_OPTIONS": "--worker_num=8 --node_rank=1"}
    done, (call,) = recorder("run_distribute_train.sh", "data", "model", "widget", "4", "--epoch", "3", **options)
    assert done.returncode == 0, done.stderr
    here, place = tmp_path / "here", call.index("python3")
    told = call[3:place]
    assert call[1:3] == ["-m", "mindspore.parallel.cluster.run"]
    assert {"--worker_num=4", "--local_worker_num=4", "--master_port=8118", "--join=True"} <= set(told)
    assert f"--log_dir={here}/widget/msrun" in told
    assert told[-2:] == ["--worker_num=8", "--node_rank=1"]  # the later one counts
    assert parsed(train, [call[0], *call[place + 1 :]]).items() >= {
        "data_url": str(here / "data"), "pre_ckpt_path": str(here / "model"), "category": "widget",
        "train_url": str(here), "distributed": True, "epoch": 3,
    }.items()  # fmt: skip
    for port in ("0", "65536", "81x", "008118000"):
        done, calls = recorder("run_distribute_train.sh", "data", "model", "widget", "4", MSRUN_PORT=port)
        assert done.returncode == 1
        assert f"error: MSRUN_PORT: expected a port, 1 to 65535, got '{port}'" in done.stderr
        assert calls == []


PYTHON = """#!/bin/bash
printf '%s\\0' python "$@" $'\\n' >>"$CALLS"
[[ -z ${LD_LIBRARY_PATH:-} ]] || { echo "error: libraries in Python's way: $LD_LIBRARY_PATH" >&2; exit 9; }
case "$*" in
  *sidecar*) ;;
  *--result_dir*) printf 'first\\nsecond\\nthird\\nfourth\\n' ;;
esac
[[ "$*" != *preprocess.py* || -z ${FAILS:-} ]] || { echo "it went wrong"; exit 5; }
"""
INFER = """#!/bin/bash
name=infer
if [[ "$*" == *--selftest ]]; then name=selftest; fi
printf '%s\\0' "$name" "$@" $'\\n' >>"$CALLS"
echo "$name: ${LD_LIBRARY_PATH:-}" >>"$CALLS.libraries"
if [[ $name == selftest ]]; then echo "score: 0.5"; exit "${SELFTEST_STATUS:-0}"; fi
while (($# > 0)); do declare "${1#--}=$2"; shift 2; done
mkdir -p "$result_path"
touch "$result_path/new.bin"
echo "images: 1" >"$time_path/timing.txt"
exit "${INFER_STATUS:-0}"
"""


@pytest.fixture
def infer(recorder, tmp_path):
    """Run run_310_infer.sh in a copy of the checkout where Python, the build and the program are stand-ins."""
    root, here = tmp_path / "checkout", tmp_path / "here"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    build = root / "ascend_310_infer/build"
    build.mkdir(parents=True)
    for path, text in {
        tmp_path / "recorder": PYTHON,
        build / "stpm_infer": INFER,
        build.parent / "build.sh": "printf 'build\\0\\n\\0' >>\"$CALLS\"",
    }.items():
        path.write_text(text)
        path.chmod(0o755)

    def run(*, need="y", device="0", category="widget", data="data", target=(), **environment):
        script = root / "scripts/run_310_infer.sh"
        environment = {"MS_LITE_HOME": "", "LD_LIBRARY_PATH": ""} | environment
        done, calls = recorder(script, "model", data, need, device, category, *target, **environment)
        return done, {Path(call[1] if call[0] == "python" else call[0]).stem: call[1:] for call in calls}

    run.out, run.acc = here / "widget/310_infer", here / "acc.log"
    run.package = make_package(tmp_path / "mindspore-lite-2.2.14-linux-x64")
    run.libraries = tmp_path / "calls.libraries"
    return run


def flag(words, name):
    return words[words.index(name) + 1]


def test_infer_arguments(infer, tmp_path):
    """The number of the card reaches the program, which takes the threshold from the model's JSON by itself."""
    done, calls = infer(device="7", target=("GPU",), MS_LITE_HOME=str(infer.package))
    assert done.returncode == 0, done.stderr
    here, words = tmp_path / "here", calls["infer"]
    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        "--mindir_path": str(here / "model"), "--input_path": f"{infer.out}/inputs",
        "--result_path": f"{infer.out}/maps", "--time_path": str(infer.out), "--device_type": "GPU",
        "--device_id": "7",
    }  # fmt: skip
    assert list(calls)[-4:] == ["build", "preprocess", "infer", "postprocess"]
    assert "--check" not in calls["preprocess"]
    for stage in ("preprocess", "postprocess"):
        assert flag(calls[stage], "--data_dir") == str(here / "data")
        assert flag(calls[stage], "--category") == "widget"
        assert flag(calls[stage], "--mindir_path") == str(here / "model")
    assert flag(calls["preprocess"], "--img_dir") == flag(calls["postprocess"], "--label_dir") == f"{infer.out}/inputs"
    assert flag(calls["postprocess"], "--result_dir") == f"{infer.out}/maps"
    assert "inferring on GPU" in done.stdout
    assert done.stdout.endswith("images: 1\nsecond\nthird\nfourth\n")
    assert infer.acc.read_text() == "second\nthird\nfourth\n"

    _, calls = infer(need="n", STPM_DAVINCI="/nowhere")
    assert "--check" in calls["preprocess"]
    assert flag(calls["infer"], "--device_type") == "CPU"


def test_ascend_found(infer, tmp_path):
    """By the file that its driver makes; without the vendor's package it is refused before anything is done."""
    driver = tmp_path / "davinci_manager"
    driver.touch()
    done, calls = infer(STPM_DAVINCI=str(driver))
    assert done.returncode == 1
    assert "error: DEVICE_TARGET Ascend: MS_LITE_HOME is not set" in done.stderr
    assert calls == {}
    assert not infer.out.exists()
    done, calls = infer(STPM_DAVINCI=str(driver), MS_LITE_HOME=str(infer.package))
    assert done.returncode == 0, done.stderr
    assert flag(calls["infer"], "--device_type") == "Ascend"
    assert "building with MindSpore Lite 2.2.14 ..." in done.stdout
    for file in ("runtime/lib/libmindspore-lite.so", "runtime/lib/libruntime_convert_plugin.so"):
        (infer.package / file).unlink()
        done, calls = infer(target=("CPU",), MS_LITE_HOME=str(infer.package))
        assert (done.returncode, calls) == (1, {})
        assert f"{infer.package}/{file}: no such file" in done.stderr
        (infer.package / file).touch()


def test_library_path(infer):
    """Of the program alone, as the vendor's samples set it, before what the user has; a relative package is found."""
    home = os.path.relpath(infer.package, infer.out.parent.parent)
    done, _ = infer(target=("Ascend",), MS_LITE_HOME=home, ASCEND_HOME="/opt/Ascend")
    assert done.returncode == 0, done.stderr
    folders = ("runtime/lib", "runtime/third_party/dnnl", "tools/converter/lib", "runtime/third_party/glog",
               "runtime/third_party/libjpeg-turbo/lib")  # fmt: skip
    expected = [*(f"{infer.package}/{folder}" for folder in folders), "/opt/Ascend/driver/lib64"]
    assert infer.libraries.read_text() == f"infer: {':'.join(expected)}\n"
    infer(target=("CPU",))
    assert infer.libraries.read_text().splitlines()[1:] == ["infer: "]


def test_selftest_once(infer, tmp_path):
    """Before anything else is computed, once for a model, a device and a library."""
    model, sidecar = tmp_path / "here/model", tmp_path / "here/model.json"
    home = {"MS_LITE_HOME": str(infer.package)}
    done, calls = infer(target=("GPU",), **home)
    assert "no self-test: " in done.stdout
    assert "selftest" not in calls
    sidecar.write_text(json.dumps({"selftest": {"input": "pattern-1"}}, indent=2))
    done, calls = infer(target=("GPU",), device="3", SELFTEST_STATUS="1", **home)
    assert done.returncode == 1
    assert "error: stage selftest failed with status 1; its log is" in done.stderr
    assert "score: 0.5" in done.stderr
    assert list(calls)[-1] == "selftest"
    done, calls = infer(target=("GPU",), device="3", **home)
    assert done.returncode == 0, done.stderr
    assert calls["selftest"] == [
        "--mindir_path", str(model), "--device_type", "GPU", "--device_id", "3", "--selftest"
    ]  # fmt: skip
    assert list(calls)[-5:] == ["build", "selftest", "preprocess", "infer", "postprocess"]
    assert "testing the model on GPU ...\nscore: 0.5\n" in done.stdout
    assert infer.libraries.read_text().splitlines()[-2].startswith(f"selftest: {infer.package}/runtime/lib:")

    def is_tested(**options):
        return "selftest" in infer(**({"target": ("GPU",), "device": "3"} | home | options))[1]

    assert not is_tested()
    assert is_tested(device="4")
    assert is_tested(target=("CPU",))
    assert is_tested(target=("CPU",), MS_LITE_HOME="")
    assert not is_tested()
    model.write_text("another")
    assert is_tested()
    assert not is_tested()


@pytest.mark.parametrize("failing", [{"FAILS": "1"}, {"INFER_STATUS": "6"}])
def test_earlier_results(infer, failing):
    """Neither figures nor maps of an earlier model pass for those of this one."""
    (infer.out / "maps").mkdir(parents=True)
    (infer.out / "maps/old_0.bin").touch()
    infer.acc.write_text("of an earlier model")
    done, calls = infer(**failing)
    stage, status = ("preprocess", 5) if "FAILS" in failing else ("infer", 6)
    assert done.returncode == status
    assert f"error: stage {stage} failed with status {status}; its log is {infer.out}/{stage}.log" in done.stderr
    assert ("it went wrong" in done.stderr) == (stage == "preprocess")
    assert list(calls)[-1] == stage
    assert not infer.acc.exists()
    if stage == "infer":
        assert [path.name for path in (infer.out / "maps").iterdir()] == ["new.bin"]


def test_order_of_the_zoo(infer):
    """Its README has DEVICE_TARGET before DEVICE_ID; its scripts have not."""
    done, calls = infer(device="Ascend", category="0", target=("widget",))
    assert (done.returncode, calls) == (1, {})
    assert "error: DEVICE_ID: got 'Ascend', but DEVICE_TARGET comes last: run_310_infer.sh MINDIR_PATH " in done.stderr
    assert "error: DEVICE_ID: expected a whole number, got 'one'" in infer(device="one")[0].stderr


def test_infer_unlabelled(infer, tmp_path):
    (tmp_path / "here/new").mkdir()
    (tmp_path / "here/new/a.png").touch()
    done, _ = infer(data="new")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("images: 1\nfourth\n")
    assert not infer.acc.exists()


def test_other_kind_of_data(infer, tmp_path):
    """Of labelled and unlabelled images in turn: the results of the call before do not pass for a part of the new."""
    (tmp_path / "here/new").mkdir()
    (tmp_path / "here/new/a.png").touch()
    infer.out.mkdir(parents=True)
    scores, results = infer.out / "scores.csv", infer.out / "results.json"
    for data, fails, left in (
        ("data", {"INFER_STATUS": "6"}, [results, scores]), ("data", {}, [results]), ("new", {}, [scores]),
    ):  # fmt: skip
        scores.touch()
        results.touch()
        infer(data=data, **fails)
        assert [path for path in (results, scores) if path.exists()] == left


def test_python(recorder, tmp_path):
    """The checkout's own environment, unless STPM_PYTHON names another one."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").symlink_to(tmp_path / "recorder")
    script = (root / "scripts/run_eval.sh", "data", "model", "widget")
    assert len(recorder(*script, STPM_PYTHON="")[1]) == 1
    assert recorder(*script, STPM_PYTHON="true")[1] == []
    done, _ = recorder(*script, STPM_PYTHON="/nowhere/python")
    assert "error: STPM_PYTHON /nowhere/python: no such program" in done.stderr
    done, _ = recorder(*script, STPM_FOREGROUND="yes")
    assert "error: STPM_FOREGROUND: expected 1, or 0 for the background, got 'yes'" in done.stderr


def test_environment(tmp_path):
    """It is made once, and again for other requirements; what runs then."""
    root, tools = tmp_path / "checkout", tmp_path / "tools"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for name in ("requirements.txt", "requirements-dev.txt"):
        (root / name).write_text("one==1\n")
    (root / "tests/mutants").mkdir(parents=True)
    (root / "src").mkdir()
    shutil.copy(ROOT / "src/utils.py", root / "src")
    tools.mkdir()
    python = tools / "python3"
    python.write_text(
        """#!/bin/bash
[[ $1 != -c ]] || exec SYSTEM "$@"
[[ $1 != -V ]] || exit 0
echo "$*" >>"$CALLS"
if [[ $2 == venv ]]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
[[ $1 != */train.py ]] || exit "${TRAINED:-0}"
""".replace("SYSTEM", sys.executable)
    )
    python.chmod(0o755)
    calls = tmp_path / "calls"

    def run(script, *arguments, **environment):
        calls.write_text("")
        environment = {"PATH": f"{tools}:/usr/bin:/bin", "CALLS": str(calls)} | environment
        command = ["bash", root / "scripts" / script, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done, calls.read_text().splitlines()

    done, told = run("run_tests.sh", "-k", "a name")
    assert done.returncode == 0, done.stderr
    assert told[0].startswith("-m venv ")
    assert told[1].endswith(f"-r {root}/requirements-dev.txt")
    (pytest_line,) = told[2:]
    assert re.fullmatch(r"-m pytest --numprocesses=[1-4] \S+ \S+ -k a name", pytest_line)
    assert run("run_tests.sh", "--mutants", "--jobs", "1")[1] == ["-m tests.mutants --jobs 1"]
    (root / "requirements.txt").write_text("one==2\n")
    assert [line.split()[1] for line in run("run_tests.sh")[1]] == ["pip", "pytest"]
    assert run("run_demo.sh", "--fast")[0].returncode == 2

    def trained(*arguments):
        told = [line.split() for line in run("run_demo.sh", *arguments)[1]]
        (words,) = [words for words in told if words[0].endswith("train.py")]
        (demo_data,) = [words for words in told if words[:2] == ["-m", "src.demo_data"]]
        assert flag(words, "--data_url") == flag(demo_data, "--out_dir") == str(tmp_path / "demo/data")
        assert flag(words, "--steps") == "300"
        out = Path(flag(words, "--train_url"))
        assert {Path(words[0]).name for words in told} >= {"train.py", "test.py", "export.py"}
        checkpoints = [flag(words, name) for words in told for name in ("--ckpt_path", "--ckpt_file") if name in words]
        assert checkpoints == [str(out / "washer/washer_last.ckpt")] * 2
        return flag(words, "--pre_ckpt_path"), out, "--resume" in words

    first, second = tmp_path / "demo/random-teacher", tmp_path / "demo/pretrained-teacher"
    assert trained() == ("random", first, False)
    (first / "washer").mkdir(parents=True)
    (first / "washer/washer_resume.ckpt").touch()
    assert trained() == ("random", first, True)
    assert trained("--pre_ckpt_path", calls) == (str(calls), second, False)
    for status, expected in (("3", 1), ("143", 143)):
        done, told = run("run_demo.sh", TRAINED=status)
        assert done.returncode == expected
        assert told[-1].split()[0].endswith("train.py")
        assert (f"{first}: holds a training by other settings; remove this folder" in done.stderr) == (status == "3")


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
        ("run_eval.sh", ("DATA", "BACKBONE", ".."), "CATEGORY: expected the name of a folder, got '..'"),
        ("run_eval.sh", ("DATA", "BACKBONE", "a/b"), "CATEGORY: expected the name of a folder, got 'a/b'"),
        ("run_predict.sh", ("/nowhere", "BACKBONE"), "IMAGE_FILE_OR_FOLDER /nowhere: no such file or folder"),
        ("run_predict.sh", ("DATA", "/nowhere"), "CHECKPOINT_PATH /nowhere: no such file"),
        ("run_predict.sh", ("DATA", "--threshold", "1"), "usage: run_predict.sh IMAGE_FILE_OR_FOLDER CHECKPOINT_PATH"),
        ("run_monitor.sh", ("/nowhere", "BACKBONE"), "SCORES_CSV /nowhere: no such file"),
        ("run_monitor.sh", ("BACKBONE", "/nowhere"), "CHECKPOINT_PATH /nowhere: no such file"),
        ("run_monitor.sh", ("BACKBONE", "--scores", "1"), "usage: run_monitor.sh SCORES_CSV CHECKPOINT_PATH"),
        ("run_all_mvtec.sh", ("DATA", "BACKBONE"), "usage: run_all_mvtec.sh DATASET_PATH BACKBONE_PATH DEVICE_NUM"),
        ("run_all_mvtec.sh", ("DATA", "BACKBONE", "0"), "DEVICE_NUM: expected a whole number of at least 1, got '0'"),
        ("run_all_mvtec.sh", ("DATA", "/nowhere", "1"), "BACKBONE_PATH /nowhere: no such file"),
        ("run_demo.sh", ("--fast",), "usage: run_demo.sh [--pre_ckpt_path FILE]"),
        ("run_demo.sh", ("--steps",), "usage: run_demo.sh [--pre_ckpt_path FILE] [--steps N]"),
        ("run_demo.sh", ("--pre_ckpt_path", "/nowhere"), "--pre_ckpt_path /nowhere: no such file"),
    ],
)
def test_refusals(session_tree, tmp_path, script, arguments, message):
    real = {"DATA": session_tree, "BACKBONE": session_tree / "widget/train/good/000.png"}  # any file
    done = run_script(script, *(real.get(argument, argument) for argument in arguments), cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"
