"""The C++ program and its build with a stand-in for the inference library, which tells what any device was told."""

import csv
import os
import re
import resource
import shutil
import stat
import subprocess

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.test_infer import build, need_compiler

MODEL = "in float32 2 3 4 4\nout float32 2 1 4 4\n"
USUAL = {"--mindir_path": "model", "--input_path": "in", "--result_path": "out", "--time_path": "time"}


def copy_program(folder):
    """Copy what builds the program; return the copy."""
    shutil.copytree(ROOT / "ascend_310_infer", folder / "ascend_310_infer", ignore=shutil.ignore_patterns("build"))
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    return folder


def make_package(folder):
    """Write a package that is laid out like the vendor's."""
    (folder / "runtime/lib").mkdir(parents=True)
    (folder / "runtime/include").symlink_to(ROOT / "ascend_310_infer/tests/fake_lite/include")
    (folder / "runtime/lib/libmindspore-lite.so").touch()
    return folder


def script_of(folder):
    return ["bash", folder / "ascend_310_infer/build.sh"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program, built by its script in a copy of the checkout."""
    need_compiler()
    folder = copy_program(tmp_path_factory.mktemp("a checkout"))
    package = make_package(folder / "a package")
    build(["c++", "-shared", "-x", "c++", "/dev/null", "-o", package / "runtime/lib/libmindspore-lite.so"])
    build(script_of(folder), MS_LITE_HOME=str(package), CMAKE_BUILD_TYPE="Debug")
    return folder / "ascend_310_infer/build/stpm_infer"


@pytest.fixture
def infer(program, tmp_path):
    """Run the program on five images; return how it ended and what the library was told, line by line."""
    (tmp_path / "in").mkdir()
    images = np.random.default_rng(0).random((5, 3, 4, 4), np.float32)
    for i, image in enumerate(images):
        image.tofile(tmp_path / f"in/{i}.bin")

    def run(flags=(), *, model=MODEL, largest_file=None):
        (tmp_path / "model").write_text(model)
        words = [word for flag, value in (USUAL | dict(flags)).items() for word in (flag, value)]

        def limit():
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        log = tmp_path / "log"
        log.write_text("")
        done = subprocess.run(
            [program, *words], cwd=tmp_path, env=os.environ | {"FAKE_LITE_LOG": str(log)}, preexec_fn=limit,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done, log.read_text().splitlines()

    run.images = images
    return run


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({}, "device Ascend 0 preferred_fp32"),
        ({"--device_type": "Ascend", "--device_id": "3"}, "device Ascend 3 preferred_fp32"),
        ({"--device_type": "GPU", "--device_id": "2"}, "device GPU 2 enforce_fp32"),
        ({"--device_type": "CPU", "--device_id": "1"}, "device CPU - -"),
    ],
)
def test_device(infer, flags, told):
    """The number of the card, and float32: in float16 the product of three small maps would vanish."""
    done, log = infer(flags)
    assert done.returncode == 0, done.stderr
    assert told in log


def test_threads(infer):
    """Operators run side by side where there is more than one thread."""
    assert infer({"--threads": "1"})[1][:2] == ["threads 1", "device Ascend 0 preferred_fp32"]
    assert infer({"--threads": "2"})[1][:2] == ["threads 2", "side by side 2"]
    assert infer()[1][0] == f"threads {len(os.sched_getaffinity(0))}"


def test_maps(infer, tmp_path):
    done, log = infer({"--warmup": "2", "--threshold": "1.99"})
    assert log.count("predict") == 2 + 3
    maps = [np.fromfile(tmp_path / f"out/{i}_0.bin", np.float32).reshape(4, 4) for i in range(5)]
    np.testing.assert_array_equal(maps, infer.images[:, 0] + 1)
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").open()))
    assert [row["input"] for row in rows] == [f"{i}.bin" for i in range(5)]
    assert [np.float32(row["score"]) for row in rows] == [one.max() for one in maps]
    assert [row["verdict"] for row in rows] == ["defective" if one.max() >= 1.99 else "good" for one in maps]
    assert {row["verdict"] for row in rows} == {"defective", "good"}
    assert done.stdout == (tmp_path / "time/timing.txt").read_text()
    assert done.stdout.startswith("images: 5\nbatch size: 2\n")
    infer()
    assert (tmp_path / "out/scores.csv").read_text().startswith("input,score,milliseconds\n")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("rubbish", "model: cannot be loaded as a MINDIR on the chosen device .see --device_type.; .*: no model"),
        (MODEL + "in float32 2 3 4 4\n", "model: has 2 inputs and 1 outputs, expected one each"),
        (MODEL + "out float32 2 1 4 4\n", "model: has 1 inputs and 2 outputs, expected one each"),
        (MODEL.replace("2 3", "2 1"), r"model: tensor in has shape \(2, 1, 4, 4\), expected float32 \(N, 3, S, S\)"),
        (MODEL.replace("2 1", "2 3"), r"model: tensor out has shape \(2, 3, 4, 4\), expected float32 \(N, 1, S, S\)"),
        (MODEL.replace("in float32", "in float16"), "model: tensor in has shape .*, expected float32"),
        (MODEL.replace("out float32", "out float16"), "model: tensor out has shape .*, expected float32"),
        (MODEL.replace("3 4 4", "3 4 8"), r"model: tensor in has shape \(2, 3, 4, 8\), expected"),
        (MODEL.replace("1 4 4", "1 16"), r"model: tensor out has shape \(2, 1, 16\), expected"),
        (MODEL.replace("in float32 2", "in float32 0"), r"model: tensor in has shape \(0, 3, 4, 4\), expected"),
        (MODEL.replace("1 4 4", "1 2 2"), r"images \(2, 3, 4, 4\) and maps \(2, 1, 2, 2\) differ in size"),
        (MODEL.replace("2 1", "1 1"), r"images \(2, 3, 4, 4\) and maps \(1, 1, 4, 4\) differ in size"),
        (MODEL + "fails\n", "inference failed; the library says: out of order"),
        (MODEL + "short\n", "inference gave another output than the model promised"),
    ],
)
def test_odd_models(infer, tmp_path, model, message):
    """An earlier result does not stay beside the error."""
    (tmp_path / "time").mkdir()
    (tmp_path / "time/timing.txt").write_text("earlier")
    done, _ = infer(model=model)
    assert done.returncode == 1
    assert re.match(f"error: .*{message}.*\n$", done.stderr), done.stderr
    assert not (tmp_path / "time/timing.txt").exists()


def test_full_disk(infer, tmp_path):
    done, _ = infer(largest_file=32)
    assert done.returncode == 1
    assert "out/0_0.bin: cannot be written: File too large" in done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_exit_status(infer, program):
    assert infer({"--warmup": "x"})[0].returncode == 2
    done, log = infer({"--input_path": "none", "--mindir_path": "none"})
    assert done.returncode == 1
    assert "none: cannot be listed" in done.stderr
    assert infer({"--mindir_path": "none"})[0].stderr.startswith("error: none: cannot be read, expected a MINDIR file")
    assert log == []
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: {program} --mindir_path FILE" in done.stdout
    assert "{}" not in done.stdout


# --- the build, with stand-ins for its tools

CMAKE = """#!/bin/bash
echo "cmake $*" >>"$CALLS"
if [[ $1 == --build ]]; then touch "$2/stpm_infer"; chmod +x "$2/stpm_infer"; else mkdir -p "$4"; fi
"""
PIP = """#!/bin/bash
echo "python $*" >>"$CALLS"
if [[ $2 == pip ]]; then touch "${@: -1}/lite.whl"; exit "${PIP_STATUS:-0}"; fi
mkdir -p "$5/mindspore_lite/lib"
touch "$5/mindspore_lite/lib/libmindspore-extendrt_python.so"
"""


@pytest.fixture
def run_build(tmp_path):
    """Call build.sh in a copy of the checkout; return how it ended and the calls of its tools."""
    folder = copy_program(tmp_path / "a checkout")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {"cmake": CMAKE, "python3": PIP, "make": "", "c++": ""}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    def run(*arguments, **environment):
        calls = tmp_path / "calls"
        calls.write_text("")
        environment = {"PATH": f"{tools}:/usr/bin:/bin", "CALLS": str(calls), "STPM_PYTHON": "python3"} | environment
        done = subprocess.run(
            [*script_of(folder), *arguments], env=environment, capture_output=True, text=True, check=False
        )
        return done, calls.read_text().splitlines()

    run.folder, run.tools = folder, tools
    return run


def test_build_when_needed(run_build, tmp_path):
    """Again where a source or the library is another one, and only then."""
    package = make_package(tmp_path / "package")
    done, calls = run_build(MS_LITE_HOME=str(package))
    assert done.returncode == 0, done.stderr
    assert len(calls) == 2
    assert f"-DMS_LITE_INCLUDE={package}/runtime" in calls[0]
    assert f"-DMS_LITE_LIBRARY={package}/runtime/lib/libmindspore-lite.so" in calls[0]
    done, calls = run_build(MS_LITE_HOME=str(package))
    assert "up to date: " in done.stdout
    assert calls == []
    source = run_build.folder / "ascend_310_infer/inc/utils.h"
    later = (run_build.folder / "ascend_310_infer/build/stpm_infer").stat()[stat.ST_MTIME] + 2
    os.utime(source, (later, later))
    assert len(run_build(MS_LITE_HOME=str(package))[1]) == 2
    os.utime(source, (0, 0))
    assert run_build(MS_LITE_HOME=str(package))[1] == []
    other = make_package(tmp_path / "other")
    assert f"-DMS_LITE_INCLUDE={other}/runtime" in run_build(MS_LITE_HOME=str(other))[1][0]


def test_fetched_library(run_build):
    """Checked against its hash; what a failed try leaves is not taken for it."""
    cache = run_build.folder / ".cache"
    done, calls = run_build(PIP_STATUS="3")
    assert done.returncode == 3
    assert len(calls) == 1
    assert not list(cache.iterdir())
    done, calls = run_build()
    assert done.returncode == 0, done.stderr
    assert "--require-hashes" in calls[0].split()
    (library,) = cache.rglob("*.so")
    assert f"-DMS_LITE_LIBRARY={library}" in calls[2]
    assert f"-DMS_LITE_INCLUDE={library.parent.parent}" in calls[2]
    assert [path.parent for path in cache.rglob("*.whl")] == []
    assert run_build()[1] == []


def test_build_refuses(run_build, tmp_path):
    done, calls = run_build("--fast")
    assert done.returncode == 1
    assert "build.sh takes no arguments" in done.stderr
    done, _ = run_build(MS_LITE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "libmindspore-lite.so: no such file; MS_LITE_HOME must be an unpacked MindSpore Lite package" in done.stderr
    (run_build.tools / "uname").write_text("#!/bin/sh\necho Linux aarch64\n")
    (run_build.tools / "uname").chmod(0o755)
    done, _ = run_build()
    assert "Linux aarch64: set MS_LITE_HOME to the vendor's MindSpore Lite package" in done.stderr
    assert calls == []


def test_missing_tool(run_build, tmp_path):
    """A PATH that holds what the script itself needs, and no compiler."""
    few = tmp_path / "few"
    few.mkdir()
    for tool in ("bash", "dirname", "find", "uname", "cat", "mkdir", "realpath", "touch"):
        (few / tool).symlink_to(shutil.which(tool))
    for tool in ("cmake", "make", "python3"):
        (few / tool).symlink_to(run_build.tools / tool)
    done, calls = run_build(PATH=str(few), MS_LITE_HOME=str(make_package(tmp_path / "package")))
    assert done.returncode == 1
    assert "error: c++ is not installed; Debian and Ubuntu: apt install cmake make g++" in done.stderr
    assert calls == []
