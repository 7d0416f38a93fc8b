"""The C++ program and its build with a stand-in for the inference library, which tells what any device was told."""

import hashlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import stat
import subprocess
import time

import numpy as np
import pytest

from src.data import folders
from src.data.images import to_network_input
from src.files import read_json
from src.utils import InputError, core_count
from tests.conftest import ROOT, read_csv
from tests.test_infer import build, check_threshold_text, need_compiler
from tests.vendor_package import make_package

MODEL = "in float32 2 3 4 4\nout float32 2 1 4 4\n"
CONVERTER = "libmindspore_converter.so"
USUAL = {"--mindir_path": "model", "--input_path": "in", "--result_path": "out", "--time_path": "time"}
USUAL |= {"--device_type": "Ascend"}


def copy_program(folder):
    """Copy what builds the program; return the copy."""
    shutil.copytree(ROOT / "ascend_310_infer", folder / "ascend_310_infer", ignore=shutil.ignore_patterns("build"))
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    return folder


def script_of(folder):
    return ["bash", folder / "ascend_310_infer/build.sh"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program, built by its script in a copy of the checkout."""
    need_compiler()
    folder = copy_program(tmp_path_factory.mktemp("a checkout"))
    package = make_package(folder / "a package")
    empty = ["c++", "-shared", "-x", "c++", "/dev/null", "-x", "none"]
    converter = package / "tools/converter/lib" / CONVERTER
    build([*empty, f"-Wl,-soname,{CONVERTER}", "-o", converter])
    needed = "-Wl,--no-as-needed"  # the stand-ins are empty
    name = "-Wl,-soname,libmindspore-lite.so"
    # it needs the converter, as a plugin of the vendor's does
    build([*empty, needed, converter, name, "-o", package / "runtime/lib/libmindspore-lite.so"])
    build(script_of(folder), MS_LITE_HOME=str(package), CMAKE_BUILD_TYPE="None", LDFLAGS=needed)
    return folder / "ascend_310_infer/build/stpm_infer"


@pytest.fixture
def infer(program, tmp_path):
    """Run the program on five images; return how it ended and what the library was told, line by line."""
    (tmp_path / "in").mkdir()
    images = np.random.default_rng(0).random((5, 3, 4, 4), np.float32)
    for i, image in enumerate(images):
        image.tofile(tmp_path / f"in/{i}.bin")

    def run(flags=(), *, model=MODEL, largest_file=None, closed=(), more=(), **environment):
        (tmp_path / "model").write_text(model)
        facts = {"sha256": hashlib.sha256(model.encode()).hexdigest()}
        if not (tmp_path / "model.json").exists():
            (tmp_path / "model.json").write_text(json.dumps({"format": 1, "exports": {"model": facts}} | dict(more)))
        flags = {flag: value for flag, value in (USUAL | dict(flags)).items() if value is not None}
        words = [word for flag, value in flags.items() for word in (flag, value) if word]

        def limit():
            for number in closed:
                os.close(number)
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        log = tmp_path / "log"
        log.write_text("")
        environment = {"STPM_DAVINCI": str(log)} | environment
        done = subprocess.run(
            [program, *words], cwd=tmp_path, env=os.environ | {"FAKE_LITE_LOG": str(log)} | environment,
            preexec_fn=limit, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done, log.read_text().splitlines()

    run.images = images
    return run


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({}, "device Ascend 0 enforce_fp32 high_precision"),
        ({"--device_id": "3", "--precision": "preferred_fp32"}, "device Ascend 3 preferred_fp32 high_precision"),
        ({"--device_type": "GPU", "--device_id": "2"}, "device GPU 2 enforce_fp32"),
        ({"--device_type": "GPU", "--precision": "preferred_fp16"}, "device GPU 0 preferred_fp16"),
        ({"--device_type": "CPU", "--device_id": "1"}, "device CPU - -"),
    ],
)
def test_device(infer, flags, told):
    """The number of the card, and float32: in float16 the product of three small maps would vanish."""
    done, log = infer(flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert told in log


def test_installed_program(program, tmp_path):
    """It and its libraries are one folder, which works wherever it is copied to."""
    build(["cmake", "--install", program.parent, "--prefix", tmp_path / "here"])
    there = shutil.move(tmp_path / "here", tmp_path / "another host")
    stdout = build([there / "stpm_infer", "--help"], LD_TRACE_LOADED_OBJECTS="1")
    found = [line.split(" => ")[1].split(" (0x")[0] for line in stdout.splitlines() if "libmindspore" in line]
    assert sorted(found) == [f"{there}/runtime/lib/libmindspore-lite.so", f"{there}/tools/converter/lib/{CONVERTER}"]
    assert "usage: " in build([there / "stpm_infer", "--help"])


def test_automatic_device(infer, tmp_path):
    """Ascend where its driver is; which one it is is told."""
    for file, device in ((tmp_path / "none", "CPU"), (tmp_path / "in", "Ascend")):
        done, log = infer({"--device_type": None}, STPM_DAVINCI=str(file))
        assert (done.returncode, done.stderr) == (0, f"device: {device} (--device_type chooses another)\n")
        assert any(line.startswith(f"device {device} ") for line in log)


def test_threads(infer):
    """Operators run side by side on the processor, where there is more than one thread."""
    cpu = {"--device_type": "CPU"}
    assert infer(cpu | {"--threads": "1"})[1][:2] == ["threads 1", "device CPU - -"]
    assert infer(cpu | {"--threads": "2"})[1][:2] == ["threads 2", "side by side 2"]
    assert infer({"--threads": "2"})[1][:2] == ["threads 2", "device Ascend 0 enforce_fp32 high_precision"]
    assert infer()[1][0] == f"threads {min(1024, core_count())}"


def test_library_without_gpu(tmp_path):
    """Later packages declare the class for GPUs and do not define it: the program compiles without."""
    need_compiler()
    source = ROOT / "ascend_310_infer"
    context = (source / "tests/fake_lite/include/api/context.h").read_text().replace("GPUDeviceInfo", "Other")
    (tmp_path / "include/api").mkdir(parents=True)
    (tmp_path / "include/api/context.h").write_text(context)
    shutil.copy(source / "tests/fake_lite/include/api/model.h", tmp_path / "include/api")
    build(["c++", "-std=c++17", "-fsyntax-only", "-I", source, "-I", tmp_path, source / "src/lite_engine.cc"])


def test_maps(infer, tmp_path):
    done, log = infer({"--warmup": "2", "--threshold": "1.99"})
    assert log.count("predict") == 2 + 3
    maps = [np.fromfile(tmp_path / f"out/{i}_0.bin", np.float32).reshape(4, 4) for i in range(5)]
    np.testing.assert_array_equal(maps, infer.images[:, 0] + 1)
    rows = read_csv(tmp_path / "out/scores.csv")
    assert [row["input"] for row in rows] == [f"{i}.bin" for i in range(5)]
    assert [np.float32(row["score"]) for row in rows] == [one.max() for one in maps]
    assert [row["verdict"] for row in rows] == ["defective" if one.max() >= 1.99 else "good" for one in maps]
    assert {row["verdict"] for row in rows} == {"defective", "good"}
    assert done.stdout == (tmp_path / "time/timing.txt").read_text()
    assert done.stdout.startswith("images: 5\nbatch size: 2\n")
    mean = re.search(r"mean ms per call: (\S+)\n", done.stdout)[1]
    line = f"NN inference cost average time: {mean} ms of infer_count 3\n"
    assert (tmp_path / "time/test_perform_static.txt").read_text() == line
    infer()
    assert (tmp_path / "out/scores.csv").read_text().startswith("input,score,milliseconds\n")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("rubbish", r"model: cannot be loaded as a MINDIR on Ascend 0 \(see --device_type\); .*: no model"),
        (MODEL + "in float32 2 3 4 4\n", "model: has 2 inputs and 1 outputs, expected one each"),
        (MODEL + "out float32 2 1 4 4\n", "model: has 1 inputs and 2 outputs, expected one each; export "),
        (MODEL.replace("2 3", "2 1"), r"model: tensor in has shape \(2, 1, 4, 4\), expected float32 \(N, 3, H, W\)"),
        (MODEL.replace("2 1", "2 3"), r"model: tensor out has shape \(2, 3, 4, 4\), expected float32 \(N, 1, H, W\)"),
        (MODEL.replace("in float32", "in float16"), "model: tensor in has shape .*, expected float32"),
        (MODEL.replace("out float32", "out float16"), "model: tensor out has shape .*, expected float32"),
        (MODEL.replace("3 4 4", "3 4 8"), r"images \(2, 3, 4, 8\) and maps \(2, 1, 4, 4\) differ in size"),
        (MODEL.replace("1 4 4", "1 16"), r"model: tensor out has shape \(2, 1, 16\), expected"),
        (MODEL.replace("in float32 2", "in float32 0"), r"model: tensor in has shape \(0, 3, 4, 4\), expected"),
        (MODEL.replace("1 4 4", "1 2 2"), r"images \(2, 3, 4, 4\) and maps \(2, 1, 2, 2\) differ in size"),
        (MODEL.replace("2 1", "1 1"), r"images \(2, 3, 4, 4\) and maps \(1, 1, 4, 4\) differ in size"),
        (MODEL + "fails\n", "inference failed; the library says: out of order"),
        (MODEL + "half\n", "inference gave another output than the model promised"),
        (MODEL + "short\n", "inference gave another output than the model promised"),
        (MODEL + "throws\n", "the inference library failed with an exception of type char const[*]"),
        (MODEL + "breaks\n", "the inference library failed with an exception of type int"),
    ],
)
def test_odd_models(infer, tmp_path, model, message):
    """An earlier result does not stay beside the error."""
    (tmp_path / "time").mkdir()
    for name in ("timing.txt", "test_perform_static.txt"):
        (tmp_path / "time" / name).write_text("earlier")
    done, _ = infer(model=model)
    assert done.returncode == 1
    assert re.match(f"error: .*{message}.*\n$", done.stderr), done.stderr
    assert not list((tmp_path / "time").iterdir())


PLUGIN = "[WARNING] ME(1,7f,stpm_infer):2026-11-26-03:50:47.3 [a/dlutils.h:101] DLSoOpen] dlopen a.so failed, error: b"


def test_library_log(infer, tmp_path, monkeypatch):
    """Its reasons are in the message; its warnings only there, unless the user has chosen what it logs."""
    monkeypatch.delenv("GLOG_v", raising=False)

    def stderr(model, **environment):
        (tmp_path / "model.json").unlink(missing_ok=True)
        return infer({"--warmup": "0"}, model=model, **environment)[0].stderr

    first, *rest = stderr(f"says {PLUGIN}\nsays plain\nrubbish").splitlines()
    assert first.startswith("error: Ascend 0: a plugin of MindSpore Lite is missing or cannot be loaded; build ")
    assert first.endswith("; the library says: no model")
    assert rest == ["  dlopen a.so failed, error: b", "  plain"]
    missing = stderr("rubbish", STPM_DAVINCI="/nowhere")
    assert "cannot be loaded as a MINDIR on Ascend 0 (there is no /nowhere) (see --device_type)" in missing
    assert stderr(f"says {PLUGIN}\nbreaks\n").startswith(f"{PLUGIN}\nerror: the inference library failed with an ")
    model = f"{MODEL}says {PLUGIN}\nsays plain\nnoisy\n"
    assert stderr(model) == "plain\n" + 3 * "noise\n"
    assert stderr(model, GLOG_v="2").startswith(f"{PLUGIN}\nplain\n")


def test_library_that_dies(infer):
    """What it said last is not lost with it."""
    done, _ = infer(model="says last words\ndies\n")
    assert done.returncode == -signal.SIGABRT
    assert done.stderr.startswith("last words\nerror: the inference library has crashed; a damaged model can be")


def test_full_disk(infer, tmp_path):
    done, _ = infer(largest_file=63)
    assert done.returncode == 1
    assert "out/0_0.bin: cannot be written: File too large" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".infer.lock"]


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


@pytest.mark.parametrize(
    "flags",
    [["--help"], ["--mindir_path=model", "--input_path=in", "--result_path=out", "--time_path=t", "--device_type=CPU"]],
)
def test_stdout(infer, program, tmp_path, flags):
    """Full, closed, or a pipe whose reader has gone: an error, and no other file gets what should be printed."""
    infer()

    def run(stdout, before=None):
        done = subprocess.run(
            [program, *flags], cwd=tmp_path, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
            preexec_fn=before,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        return done.stderr

    with open("/dev/full", "w") as full:
        assert "error: stdout: cannot be written: No space left on device" in run(full)
    reader, writer = os.pipe()
    os.close(reader)
    assert "error: stdout: cannot be written: Broken pipe" in run(writer)
    os.close(writer)
    if len(flags) > 1:
        assert (tmp_path / "t/timing.txt").read_text().startswith("images: 5\n")  # what is done stays
        (tmp_path / "t/timing.txt").write_text("earlier")
    assert "error: stdout: is closed, expected something that can be written to" in run(None, lambda: os.close(1))
    with open("/dev/null") as read_only:
        assert "error: stdout: is closed" in run(read_only)
    if len(flags) > 1:
        assert (tmp_path / "t/timing.txt").read_text() == "earlier"


def test_closed_streams(infer, tmp_path):
    """Without stdin and stderr: the files that are written get other numbers than theirs."""
    assert infer({"--mindir_path": "none"}, closed=(0, 2))[0].returncode == 1
    (tmp_path / "model.json").unlink()
    for closed in ((2,), (0,), (0, 2)):
        assert infer(model=MODEL + "noisy\n", closed=closed)[0].returncode == 0
        assert re.fullmatch(r"process \d+ on .*\n", (tmp_path / "out/.infer.lock").read_text())
        (tmp_path / "model.json").unlink()
    assert len(read_csv(tmp_path / "out/scores.csv")) == 5


def test_damaged_model(infer, tmp_path):
    """Found before the library sees it, which a bit in the graph can kill."""
    infer()
    done, log = infer(model=MODEL + "\n")
    assert done.returncode == 1
    assert done.stderr == "error: model: is damaged, or is not the file that model.json describes; export it again\n"
    assert log == []
    assert len(list((tmp_path / "out").glob("*.bin"))) == 5  # nothing of the earlier run goes
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, "exports": {"model.onnx": {}}}))
    assert infer()[0].stderr == "error: model.json: does not describe model; export it again\n"
    (tmp_path / "model").rename(tmp_path / "alone")
    done, log = infer({"--mindir_path": "alone"})
    assert done.returncode == 0
    assert done.stderr.startswith(
        "warning: alone.json: is missing, so that alone is used unchecked; export.py writes it"
    )
    assert "predict" in log


def pattern(size):
    """The image that the self-test is made of: uint8 (1, S, S, 3)."""
    y, x, c = np.ogrid[:size, :size, :3]
    return (((7 * x + 13 * y + 53 * c) ^ ((x * y) >> 4)) & 255).astype(np.uint8)[None]


def golden(size, **changes):
    """What the JSON of this stand-in's model must say."""
    expected = to_network_input(pattern(size))[0, 0] + np.float32(1)
    places = [(y, x) for y in range(1, size, 7) for x in range(0, size, 5)]
    test = {"input": "pattern-1", "image_size": size, "score": float(expected.max())}
    return {"selftest": test | {"map": [[y, x, float(expected[y, x])] for y, x in places]} | changes}


@pytest.mark.parametrize(
    ("device", "score_error", "map_error", "status"),
    [("CPU", 0, 0, 0), ("CPU", 3e-3, 0, 1), ("CPU", 0, 3e-3, 1), ("Ascend", 3e-3, 3e-3, 0), ("Ascend", 0.1, 0, 1)],
)
def test_selftest(infer, tmp_path, device, score_error, map_error, status):
    """The input is Python's to the last bit, and all that is needed is the model and its JSON."""
    more = golden(64)
    test = more["selftest"]
    test["score"] *= 1 + score_error
    test["map"] = [[y, x, value * (1 + map_error)] for y, x, value in test["map"]]
    flags = {"--selftest": "", "--device_type": device, "--input_path": None, "--result_path": None}
    model = MODEL.replace("4 4", "64 64")
    done, log = infer(flags | {"--time_path": None}, model=model, more=more, FAKE_LITE_INPUT=str(tmp_path / "batch"))
    assert done.returncode == status, done.stderr
    found = np.fromfile(tmp_path / "batch", np.float32).reshape(2, 3, 64, 64)
    np.testing.assert_array_equal(found, to_network_input(pattern(64)).repeat(2, axis=0))
    assert log.count("predict") == 1
    figures = dict(line.split(": ") for line in done.stdout.splitlines())
    assert list(figures) == [
        "device", "largest relative difference of the map", "relative difference of the score", "tolerance"
    ]  # fmt: skip
    assert (figures["device"], figures["tolerance"]) == (device, "0.0001" if device == "CPU" else "0.01")
    found = [float(figures["relative difference of the score"])]
    found.append(float(figures["largest relative difference of the map"]))
    assert found == pytest.approx([error / (1 + error) for error in (score_error, map_error)], rel=0.06)
    expected = f"error: model: selftest failed: on {device} it does not compute what model.json says; "
    expected += "export it again" if device == "CPU" else 'see docs/ascend.md, "If the self-test fails"'
    assert "\n### If the self-test fails\n" in (ROOT / "docs/ascend.md").read_text()
    assert done.stderr == (f"{expected}\n" if status else "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batch", "in", "log", "model", "model.json"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "model.json: holds no selftest, which export.py writes; export the model again"),
        (golden(4, input="pattern-2"), "model.json: selftest has the input 'pattern-2', this program makes pattern-1"),
        (golden(64), "model.json: its selftest is of images of 64 pixels, the model takes others"),
        (golden(4) | {"threshold": "0.5"}, "model.json: threshold is wrong, expected null or a number from"),
        (golden(64) | {"image_size": 64}, "model.json: image_size is 64, but model takes images of 4 pixels"),
    ],
)
def test_selftest_refusals(infer, more, message):
    done, log = infer({"--selftest": ""}, more=more)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {message}")
    assert "predict" not in log


def test_selftest_alone(infer, tmp_path):
    """Without the JSON there is nothing to compare with."""
    infer()
    (tmp_path / "model").rename(tmp_path / "alone")
    done, _ = infer({"--selftest": "", "--mindir_path": "alone"})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: alone.json: holds no selftest")


def test_threshold_of_the_model(infer, tmp_path):
    """Counts, unless a flag says otherwise."""
    infer(more={"threshold": 1.99})
    rows = read_csv(tmp_path / "out/scores.csv")
    assert [row["verdict"] for row in rows] == ["defective" if float(row["score"]) >= 1.99 else "good" for row in rows]
    assert {row["verdict"] for row in rows} == {"defective", "good"}
    infer({"--threshold": "1e-3"})
    assert {row["verdict"] for row in read_csv(tmp_path / "out/scores.csv")} == {"defective"}


def test_leftovers_of_systems():
    """The program passes over what the Python programs pass over."""
    source = (ROOT / "ascend_310_infer/src/utils.cc").read_text()
    names = re.search(r"kLeftovers\[\] = \{(.*?)\};", source, re.DOTALL)[1]
    found = [name.replace("\\r", "\r") for name in re.findall(r'"([^"]+)"', names)]
    assert sorted(found) == sorted(folders.LEFTOVERS)


JSONS = (
    *("{", "[]", "null", "{}", '{"a":1,"a":2}', '{"a":NaN}', '{"a":-Infinity}', '{"a":01}', '{"a":1.}', '{"a":.5}'),
    *('{"a":1e5}', '{"a":-0}', '{"a":1E+}', "{'a':1}", '{"a":1,}', '{"a":[1,]}', '{"a":"\t"}', '{"a":"\\t\\u00e9"}'),
    *('{"a":"\\x"}', '{"a":"\\ud83d"}', '{"a":"\\ud83d\\ude00"}', '{"a":"\\u12"}', '{"a":"\xe9"}', '{"a":"\udcff"}'),
    *(
        "\ufeff{}",
        '{"a":true}',
        '{"a":True}',
        '{"a":nul}',
        "{} {}",
        "{}\x0b",
        "\r\n{ }\t",
        '{"a":"\0"}',
        '{"a":"\x7f"}',
    ),
    *(
        '{"a":' + "[" * 400 + "]" * 400 + "}",
        "[" * 100_000,
        '{"a":"\\/\\b"}',
        '{"\\u0061":1,"a":1}',
        '{"\udced\udca0\udc80":1}',
    ),
)


@pytest.mark.parametrize("text", JSONS)
def test_json_texts(infer, tmp_path, text):
    """The program takes those that the Python programs take."""
    path = tmp_path / "model.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    try:
        read_json(path)
        is_taken = True
    except InputError as error:
        is_taken = "expected a JSON object" in str(error)
    stderr = infer()[0].stderr
    assert ("not of format 1" in stderr) if is_taken else ("model.json: not valid JSON: " in stderr), stderr


def test_outputs_beside_the_inputs(infer, program, tmp_path):
    """What it writes into the folder of its inputs is in the way neither of this run nor of the next."""
    infer()
    for name in ("model", "model.json"):
        shutil.copy(tmp_path / name, tmp_path / "in")
    for _ in range(2):
        command = [program, "--mindir_path", "model", "--device_type", "CPU"]
        done = subprocess.run(command, cwd=tmp_path / "in", capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("images: 5\n")
        found = [np.fromfile(tmp_path / f"in/{i}_0.bin", np.float32).reshape(4, 4) for i in range(5)]
        np.testing.assert_array_equal(found, infer.images[:, 0] + 1)
    (tmp_path / "in/model").unlink()
    (tmp_path / "in/model.json").unlink()
    for _ in range(2):
        done, _ = infer({"--result_path": "in/maps", "--time_path": "in"})
        assert (done.returncode, done.stderr) == (0, "")
        done, _ = infer({"--result_path": "in/deep/er/maps.bin", "--time_path": "in/times"})
        assert (done.returncode, done.stderr) == (0, "")


def test_long_name(infer, tmp_path):
    """Of the map: told before the library is, and before the earlier results go."""
    infer()
    (tmp_path / "in/0.bin").rename(tmp_path / f"in/{'n' * 250}.bin")
    done, log = infer()
    assert done.returncode == 1
    assert done.stderr.startswith("error: out/nnn")
    assert "n_0.bin: its name has 256 bytes, the file system takes 255; shorten the input's name" in done.stderr
    assert log == []
    assert (tmp_path / "out/scores.csv").exists()
    (tmp_path / f"in/{'n' * 250}.bin").rename(tmp_path / f"in/{'n' * 249}.bin")
    assert infer()[0].returncode == 0
    assert (tmp_path / f"out/{'n' * 249}_0.bin").exists()


def test_second_run(infer, program, tmp_path):
    """Is kept from the folder of the first one's results as long as that lives; what it left when killed goes."""
    infer()
    os.mkfifo(tmp_path / "pipe")
    words = [word for flag, value in USUAL.items() for word in (flag, value)]
    environment = os.environ | {"FAKE_LITE_LOG": str(tmp_path / "pipe")}  # which nobody reads: there it waits
    first = subprocess.Popen([program, *words], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    holder = f"process {first.pid} on {platform.node()}"
    deadline = time.monotonic() + 60
    while (tmp_path / "out/.infer.lock").read_text() != f"{holder}\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    left = tmp_path / f"out/.stpm_infer.{platform.node()}-{first.pid}-3.tmp"
    left.touch()
    for name in ("mine.tmp", ".stpm_infer.tmp"):
        (tmp_path / "out" / name).touch()
    done, log = infer()
    assert done.returncode == 1
    assert done.stderr == f"error: out: is in use by {holder}; wait for it, or stop it (its lock is out/.infer.lock)\n"
    assert log == []
    assert left.exists()
    assert (tmp_path / "out/scores.csv").exists()
    assert infer({"--result_path": "elsewhere"})[0].returncode == 0
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert infer()[0].returncode == 0
    assert not left.exists()
    assert (tmp_path / "out/mine.tmp").exists()
    assert (tmp_path / "out/.stpm_infer.tmp").exists()


THRESHOLDS = (
    *("1", "1e-3", ".5", "5.", "+1", "1E2", "1e-37", "3.4e38", "0", "-1", "nan", "inf", "0x1p3", "1.5e3.5", "1" * 400),
    *(
        " 1",
        "1 ",
        "1_0",
        "1e",
        "",
        "1e-46",
        "3.401e38",
        "1e39",
        "1.2.3",
        "1,5",
        "\uff11",
        "1e-400",
        "1e400",
        "0e0",
        "-0",
    ),
    *(
        "3.40000001e38",
        "1.18e-38",
        "1.17549435e-38",
        "1.17549436e-38",
        "1e-40",
        "1e-45",
        "." + "0" * 50 + "1",
        "infinity",
    ),
    *("1e+5", "1e-", "e5", ".", "+", "-", "--1", "+-1", "1f", "1d0", "1L", "1\t", "\t1", "1\n", "0b1"),
)


@pytest.mark.parametrize("text", THRESHOLDS)
def test_threshold_texts(program, text):
    """The program takes those that the Python programs take."""
    check_threshold_text(program, text)


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
    assert "build.sh: expected Ascend, GPU, CPU, 'install FOLDER' or nothing, got '--fast'" in done.stderr
    assert run_build("CPU", "CPU")[0].returncode == 1
    for device in ("Ascend", "GPU"):
        done, calls = run_build(device)
        assert done.returncode == 1
        assert f"DEVICE_TARGET {device}: MS_LITE_HOME is not set" in done.stderr
        assert calls == []
    done, calls = run_build(STPM_DAVINCI=__file__)  # there is an Ascend, which is what the program will take
    assert (done.returncode, calls) == (1, [])
    assert "DEVICE_TARGET Ascend: MS_LITE_HOME is not set" in done.stderr
    done, _ = run_build(MS_LITE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "libmindspore-lite.so: no such file; MS_LITE_HOME must be an unpacked MindSpore Lite package" in done.stderr
    (run_build.tools / "uname").write_text("#!/bin/sh\necho Linux aarch64\n")
    (run_build.tools / "uname").chmod(0o755)
    done, _ = run_build()
    assert "Linux aarch64: set MS_LITE_HOME to the vendor's MindSpore Lite package" in done.stderr
    assert calls == []


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("runtime/lib/libruntime_convert_plugin.so", " is not the cloud-side package, which alone reads MINDIR"),
        ("tools/converter/lib/libmindspore_converter.so", "libruntime_convert_plugin.so needs it"),
    ],
)
def test_other_package(run_build, tmp_path, file, message):
    """One for phones, which has the same name and the main library, or one that was unpacked in part."""
    package = make_package(tmp_path / "package")
    (package / file).unlink()
    done, calls = run_build(MS_LITE_HOME=str(package))
    assert done.returncode == 1
    assert f"error: {package}/{file}: no such file" in done.stderr
    assert message in done.stderr
    assert calls == []


def test_package_version(run_build, tmp_path):
    """It stands in the folder's name; where that was changed, the commit tells."""
    package = make_package(tmp_path / "mindspore-lite-2.2.14.rc1-linux-aarch64")
    (tmp_path / "lite").symlink_to(package)
    for device in ((), ("Ascend",), ("GPU",)):
        done, _ = run_build(*device, MS_LITE_HOME=str(tmp_path / "lite"))
        assert done.returncode == 0, done.stderr
        assert f"MindSpore Lite 2.2.14.rc1 in {package}\n" in done.stdout
    (package / ".commit_id").write_text("commit 0123456789abcdef\nAuthor: somebody\n")
    assert "MindSpore Lite 2.2.14.rc1 (commit 0123456789ab) in " in run_build(MS_LITE_HOME=str(package))[0].stdout
    renamed = package.rename(tmp_path / "lite-2")
    assert "MindSpore Lite unknown (commit 0123456789ab) in " in run_build(MS_LITE_HOME=str(renamed))[0].stdout


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
