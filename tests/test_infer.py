"""The C++ program: its own unit tests, its refusals, and the whole chain through its script."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import postprocess
import test as evaluation
from src import predict
from src.config import build_parser
from src.data.images import to_network_input
from src.exchange.manifest import read_manifest
from src.exchange.origin import file_checksum
from src.model.model_file import choose_rule, load_exported
from src.utils import InputError
from tests.conftest import ROOT, call, locked, make_once, missing, read_csv, run_python
from tests.test_scripts import run_script

SOURCE = ROOT / "ascend_310_infer"
CODE = sorted([*SOURCE.glob("*/*.cc"), *SOURCE.glob("*/*.h"), *SOURCE.glob("tests/fake_lite/**/*.h")])


def test_clang_format():
    command = [Path(sys.executable).parent / "clang-format", "--dry-run", "-Werror", *CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert len(CODE) > 5
    assert done.returncode == 0, done.stderr


def need_compiler():
    """Skip what builds where its tools are missing."""
    if absent := [tool for tool in ("cmake", "make", "c++") if shutil.which(tool) is None]:
        missing(f"not installed: {' '.join(absent)}")


def need_sdk():
    """Skip what builds the program where the inference library for it does not come from the package index."""
    need_compiler()
    if os.uname().machine != "x86_64" and "MS_LITE_HOME" not in os.environ:
        missing("needs MindSpore Lite: x86-64 or MS_LITE_HOME")


def build(command, **environment):
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def sanitized(run_folder):
    """Build targets with sanitizers and a stand-in for the library; a warning is an error. Return their folder.

    All workers and files build in one folder for each kind of sanitizers, so that nothing is compiled twice.
    """

    def configure(folder, sanitizers):
        library = folder / "libempty.so"
        build(["c++", "-shared", "-x", "c++", "/dev/null", "-o", library])
        flags = ["-DCMAKE_CXX_FLAGS=-Werror", f"-DSTPM_SANITIZE={sanitizers}", "-DCMAKE_BUILD_TYPE=Debug"]
        flags += [f"-DMS_LITE_INCLUDE={SOURCE}/tests/fake_lite", f"-DMS_LITE_LIBRARY={library}"]
        build(["cmake", "-S", SOURCE, "-B", folder, *flags])

    def targets_in(sanitizers, *targets):
        need_compiler()
        folder = run_folder / f"built with {sanitizers.replace(',', ' and ')}"
        make_once(folder, lambda folder: configure(folder, sanitizers))
        with locked(folder / "lock"):
            build(["cmake", "--build", folder, "--parallel", "2", "--target", *targets])
        return folder

    return targets_in


@pytest.fixture(scope="module", params=["address,undefined", "thread"])
def unit_tests(request, sanitized):
    """Build and run one of the C++ unit tests with sanitizers."""
    memory = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}  # they write thousands of small files

    def run(name, *arguments):
        folder = sanitized(request.param, f"{name}_test")
        return build([folder / f"{name}_test", *arguments], **memory)

    return run


@pytest.mark.parametrize("name", ["utils", "decision", "sidecar", "selftest", "pipeline", "inspector", "watch"])
def test_units(unit_tests, name):
    """All that needs no library, and the loop with a fake engine."""
    unit_tests(name)


def count_inputs(stdout):
    return sum(int(line.split()[0]) for line in stdout.splitlines())


def test_random_inputs(unit_tests):
    """For all that reads."""
    assert count_inputs(unit_tests("fuzz")) == 20_000


@pytest.mark.slow
def test_million_inputs(unit_tests):
    """New ones each time: what fails names the seed and the input."""
    seed = int.from_bytes(os.urandom(4), "big")
    stdout = unit_tests("fuzz", str(seed), "1000000")
    print(f"seed {seed}\n{stdout}")
    assert count_inputs(stdout) == 1_000_000


@pytest.fixture(scope="session")
def program(run_folder):
    """The program, built with the vendor's library (fetched from the package index the first time)."""
    need_sdk()
    with locked(run_folder / "program.lock"):  # in the checkout: one worker at a time
        assert "MindSpore Lite: " in build(["bash", SOURCE / "build.sh", "CPU"], STPM_PYTHON=sys.executable)
    return SOURCE / "build/stpm_infer"


@pytest.fixture(scope="session")
def inferred(program, exported, session_tree, tmp_path_factory):
    """The folder in which the script ran: 6 images, a model for batches of 4; and its output."""
    here = tmp_path_factory.mktemp("inferred") / "a folder"
    here.mkdir()
    (here / "data").symlink_to(session_tree)
    done = run_script("run_310_infer.sh", exported / "widget.mindir", "data", "y", 0, "widget", "CPU", cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    return here, done.stdout


def test_same_as_evaluation(inferred, trained, session_tree, tmp_path):
    """The script's figures are those of test.py."""
    here, stdout = inferred
    checkpoint = trained[0] / "widget/widget_last.ckpt"
    flags = ("--eval_url", session_tree, "--ckpt_path", checkpoint, "--category", "widget", "--out_dir", tmp_path)
    assert call(evaluation, *flags) == 0
    expected = json.loads((tmp_path / "widget/results.json").read_text())
    results = json.loads((here / "widget/310_infer/results.json").read_text())
    for metric in ("pixel_auroc", "image_auroc", "pro"):
        assert results[metric] == pytest.approx(expected[metric], abs=1e-4)
    found = [entry["score"] for entry in results["scores"]]
    assert found == pytest.approx([entry["score"] for entry in expected["scores"]], rel=1e-4)
    lines = (here / "acc.log").read_text().splitlines()
    assert lines == stdout.splitlines()[-3:]
    assert lines[0] == "category:  widget"
    assert lines[1] == f"Total pixel-level auc-roc score :  {results['pixel_auroc']!r}"


def test_scores_and_times(inferred):
    here, stdout = inferred
    folder = here / "widget/310_infer"
    rows = read_csv(folder / "maps/scores.csv")
    names = read_manifest(folder / "inputs").names
    assert [row["input"] for row in rows] == [f"{name}.bin" for name in names]
    for row, name in zip(rows, names, strict=True):
        values = np.fromfile(folder / f"maps/{name}_0.bin", np.float32)
        assert np.float32(row["score"]) == values.max()
        assert float(row["milliseconds"]) > 0
    timing = (folder / "timing.txt").read_text()
    assert timing in stdout
    figures = {name: float(value) for name, value in (line.split(": ") for line in timing.splitlines())}
    calls = [float(rows[0]["milliseconds"]), float(rows[4]["milliseconds"])]  # of 4 images, and of 2
    assert [float(row["milliseconds"]) for row in rows] == [calls[0]] * 4 + [calls[1]] * 2
    assert figures == {
        "images": 6,
        "batch size": 4,
        "mean ms per call": pytest.approx(sum(calls) / 2, abs=0.002),
        "median ms per call": pytest.approx(sum(calls) / 2, abs=0.002),
        "p99 ms per call": pytest.approx(max(calls), abs=0.002),
        "images per second": figures["images per second"],
        "images per second, inference alone": pytest.approx(6000 / sum(calls), rel=0.001),
    }
    assert 0 < figures["images per second"] <= figures["images per second, inference alone"]


def test_prepared_inputs(inferred, exported, session_tree, tmp_path):
    """Used again, and refused where there are none."""
    model = exported / "widget.mindir"
    arguments = (model, session_tree, "n", 0, "widget", "CPU")
    done = run_script("run_310_infer.sh", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "manifest.json: is missing; preprocess.py writes it" in done.stderr
    assert "error: stage preprocess failed with status 1; its log is" in done.stderr
    assert not (tmp_path / "acc.log").exists()

    shutil.copytree(inferred[0] / "widget", tmp_path / "widget", dirs_exist_ok=True)
    inputs = tmp_path / "widget/310_infer/inputs"
    before = {path.name: path.stat().st_ino for path in inputs.iterdir()}
    assert run_script("run_310_infer.sh", *arguments, cwd=tmp_path).returncode == 0
    assert {path.name: path.stat().st_ino for path in inputs.iterdir()} == before
    assert (tmp_path / "acc.log").read_text() == (inferred[0] / "acc.log").read_text()


def test_verdicts(inferred, exported, session_tree, tmp_path):
    """By the threshold of the model."""
    shutil.copytree(exported, tmp_path / "model")
    results = json.loads((inferred[0] / "widget/310_infer/results.json").read_text())
    scores = sorted(entry["score"] for entry in results["scores"])
    sidecar = tmp_path / "model/widget.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"threshold": (scores[2] + scores[3]) / 2}))
    arguments = (tmp_path / "model/widget.mindir", session_tree, "y", 0, "widget", "CPU")
    done = run_script("run_310_infer.sh", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_csv(tmp_path / "widget/310_infer/maps/scores.csv")
    assert sorted(row["verdict"] for row in rows) == ["defective"] * 3 + ["good"] * 3


def test_unlabelled(program, exported, session_tree, trained, tmp_path):
    """A folder of new pictures, scored as by the checkpoint; no acc.log, since there is nothing to compare with."""
    new = tmp_path / "new images"
    shutil.copytree(session_tree / "widget/test/hole", new)
    arguments = (exported / "widget.mindir", new, "y", 0, "widget", "CPU")
    done = run_script("run_310_infer.sh", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 images, no threshold, no verdicts: " in done.stdout
    assert not (tmp_path / "acc.log").exists()
    rows = read_csv(tmp_path / "widget/310_infer/scores.csv")
    assert [row["source"] for row in rows] == ["000.png", "001.png"]
    assert all(float(row["milliseconds"]) > 0 and row["verdict"] == "" for row in rows)
    checkpoint = trained[0] / "widget/widget_last.ckpt"
    assert call(predict, "--image_path", new, "--out_dir", tmp_path / "p", "--ckpt_path", checkpoint) == 0
    expected = [float(row["score"]) for row in read_csv(tmp_path / "p/scores.csv")]
    assert [float(row["score"]) for row in rows] == pytest.approx(expected, rel=1e-4)

    folder = tmp_path / "widget/310_infer"
    flags = (
        "--data_dir",
        new,
        "--label_dir",
        folder / "inputs",
        "--result_dir",
        folder / "maps",
        "--category",
        "widget",
    )
    done = run_python("postprocess.py", *flags, "--out_dir", tmp_path / "s", "--threshold", sum(expected) / 2)
    assert "2 images, 1 good, 1 defective: " in done.stdout
    (folder / "maps/scores.csv").unlink()
    done = run_python("postprocess.py", *flags, "--out_dir", tmp_path / "t")
    assert done.returncode == 1
    assert "scores.csv: cannot be read" in done.stderr


def test_origin(inferred, exported, session_tree, tmp_path):
    """The program notes what the maps are of."""
    folder = inferred[0] / "widget/310_infer"
    expected = {
        "model": file_checksum(exported / "widget.mindir"),
        "manifest": file_checksum(folder / "inputs/manifest.json"),
        "min_area": 1,
    }
    assert json.loads((folder / "maps/origin.json").read_text()) == {"format": 1} | expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({1: "/nowhere"}, "MINDIR_PATH /nowhere: no such file"),
        ({2: "/nowhere"}, "DATASET_PATH /nowhere: no such folder"),
        ({3: "yes"}, "NEED_PREPROCESS: expected y or n, got 'yes'"),
        ({4: "x"}, "DEVICE_ID: expected a whole number, got 'x'"),
        ({4: "--threads"}, "DEVICE_ID: expected a whole number"),
        ({5: "gizmo"}, "CATEGORY gizmo: no folder gizmo/test in DATASET_PATH"),
        ({6: "TPU"}, "DEVICE_TARGET: expected Ascend, GPU or CPU, got 'TPU'"),
    ],
)
def test_script_refusals(exported, session_tree, tmp_path, changes, message):
    arguments = {1: exported / "widget.mindir", 2: session_tree, 3: "y", 4: "0", 5: "widget", 6: "CPU"} | changes
    done = run_script("run_310_infer.sh", *arguments.values(), cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_usage(tmp_path):
    done = run_script("run_310_infer.sh", "a", "b", "y", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: run_310_infer.sh MINDIR_PATH DATASET_PATH NEED_PREPROCESS DEVICE_ID CATEGORY" in done.stderr


def test_damaged_model(exported, session_tree, tmp_path):
    """One byte of a weight would go unnoticed by every runtime."""
    shutil.copytree(exported, tmp_path / "model")
    model = tmp_path / "model/widget.mindir"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    done = run_script("run_310_infer.sh", model, session_tree, "y", 0, "widget", "CPU", cwd=tmp_path)
    assert done.returncode == 1
    assert "widget.mindir: is damaged, or is not the file that widget.json describes" in done.stderr


@pytest.fixture
def run_program(program, inferred, exported, tmp_path):
    """Run the program on copies of the inputs; flags replace or extend the usual ones."""
    inputs = shutil.copytree(inferred[0] / "widget/310_infer/inputs", tmp_path / "in")

    def run(limit_file_size=None, **flags):
        usual = {"mindir_path": exported / "widget.mindir", "input_path": inputs, "result_path": tmp_path / "out"}
        usual |= {"time_path": tmp_path / "time", "device_type": "CPU", "warmup": 0}
        words = [str(word) for name, value in (usual | flags).items() for word in (f"--{name}", value)]

        def limit():
            if limit_file_size is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit_file_size, limit_file_size))

        environment = {name: value for name, value in os.environ.items() if name != "GLOG_v"}
        environment["STPM_DAVINCI"] = "/nowhere"
        return subprocess.run(
            [program, *words], capture_output=True, text=True, env=environment, preexec_fn=limit, check=False
        )

    return run


def test_program_refusals(run_program, exported, tmp_path):
    def message(**flags):
        done = run_program(**flags)
        assert done.returncode in (1, 2), done.stderr
        assert not list((tmp_path / "out").glob("[!.]*"))
        return done.stderr

    truncated, noise, empty = (tmp_path / f"{name}.mindir" for name in ("truncated", "noise", "empty"))
    truncated.write_bytes((exported / "widget.mindir").read_bytes()[:100_000])
    noise.write_bytes(np.random.default_rng(0).bytes(100_000))
    empty.touch()
    assert f"{truncated}: is damaged, or is no MINDIR; export it again; the library says: " in message(
        mindir_path=truncated
    )
    assert f"{noise}: is damaged, or is no MINDIR" in message(mindir_path=noise)
    newer = tmp_path / "newer.mindir"
    newer.write_bytes((exported / "widget.mindir").read_bytes()[:-1] + b"\3")  # its last field is the version
    assert f"{newer}: is a MINDIR of a newer version than this MindSpore Lite reads" in message(mindir_path=newer)
    ascend = message(device_type="Ascend", device_id=7)
    assert "Ascend 7 (there is no /nowhere): a plugin of MindSpore Lite is missing or cannot be loaded; " in ascend
    assert f"{empty}: is empty" in message(mindir_path=empty)
    assert "/nowhere.mindir: cannot be read" in message(mindir_path="/nowhere.mindir")
    assert "/nowhere: cannot be listed" in message(input_path="/nowhere")
    assert "is not a folder" in message(result_path=empty)
    assert "/proc/x: cannot be created" in message(time_path="/proc/x")
    assert "--threads: expected a whole number from 1" in message(threads="two")
    assert "--threshold: expected a number" in message(threshold="nan")
    assert "expected auto, Ascend, GPU or CPU" in message(device_type="cpu")
    bad = tmp_path / "in/00002_hole_000.bin"
    content = bad.read_bytes()
    for wrong in (b"", content[:-4], content + b"1234"):
        bad.write_bytes(wrong)
        expected = f"{bad}: holds {len(wrong)} bytes, the model expects {len(content)} (float32)"
        assert expected in message()
    bad.unlink()
    bad.mkdir()
    assert f"{bad}: is not a file" in message()
    bad.rmdir()
    (tmp_path / "in/picture.png").touch()
    assert "picture.png: expected only .bin files" in message()


@pytest.fixture(scope="session")
def golden(exported):
    """What the model gives in MindSpore of the image that the self-test is made of."""
    size = 64
    y, x, c = np.ogrid[:size, :size, :3]
    image = (((7 * x + 13 * y + 53 * c) ^ ((x * y) >> 4)) & 255).astype(np.uint8)
    maps = load_exported(exported / "widget.mindir")(to_network_input(image[None].repeat(4, axis=0)))
    values = np.asarray(maps).reshape(4, size, size)[0]
    places = [((2 * i + 1) * size // 16, (2 * j + 1) * size // 16) for i in range(8) for j in range(8)]
    places.append(np.unravel_index(values.argmax(), values.shape))
    map_values = [[int(row), int(column), float(values[row, column])] for row, column in places]
    return {"input": "pattern-1", "image_size": size, "score": float(values.max()), "map": map_values}


def flip_weight(content):
    """Return a model in which one weight, of its middle, is 16 times what it was, or a sixteenth."""
    middle = len(content) // 2
    for start in range(middle, middle + 4):
        if all(0x38 <= byte & 0x7F < 0x40 for byte in content[start : start + 40 : 4]):  # the highest bytes of floats
            return content[:start] + bytes([content[start] ^ 2]) + content[start + 1 :]
    raise AssertionError("no weights in the middle")


def test_selftest(program, exported, golden, tmp_path):
    """Passes on the processor, and fails where a weight is another one, or the whole model is."""
    model, sidecar = (shutil.copy(exported / f"widget.{suffix}", tmp_path) for suffix in ("mindir", "json"))
    content, facts = Path(model).read_bytes(), json.loads(Path(sidecar).read_text())

    def run(content, **changes):
        Path(model).write_bytes(content)
        facts["exports"]["widget.mindir"]["sha256"] = hashlib.sha256(content).hexdigest()
        Path(sidecar).write_text(json.dumps(facts | {"selftest": golden} | changes))
        command = [program, "--mindir_path", model, "--device_type", "CPU", "--selftest"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run(content)
    assert (done.returncode, done.stderr) == (0, "")
    figures = dict(line.split(": ") for line in done.stdout.splitlines())
    assert float(figures["largest relative difference of the map"]) < 1e-5
    assert float(figures["relative difference of the score"]) < 1e-5
    assert figures["tolerance"] == "0.0001"
    done = run(flip_weight(content))
    assert done.returncode == 1
    assert "widget.mindir: selftest failed: on CPU it does not compute what " in done.stderr
    others = [[row, column, 1.5 * value] for row, column, value in golden["map"]]
    assert run(content, selftest=golden | {"map": others}).returncode == 1
    assert "threshold is wrong, expected null or a number" in run(content, threshold="0.5").stderr


def test_full_disk(run_program, inferred, session_tree, refused, tmp_path):
    """A file size limit fails writes as a full disk does; postprocessing must not take what is left for a result."""
    done = run_program(limit_file_size=4096)
    assert done.returncode == 1
    assert "_0.bin: cannot be written" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".infer.lock"]
    flags = ("--data_dir", session_tree, "--label_dir", tmp_path / "in", "--result_dir", tmp_path / "out")
    error = refused(postprocess, *flags, "--category", "widget", "--out_dir", tmp_path)
    assert "00000_good_000_0.bin: is missing (and 5 more)" in error


def check_threshold_text(program, text):
    """Check that the program takes a text for a threshold where the Python programs take it."""
    flags = [f"--{name}={value}" for name, value in (("mindir_path", "/nowhere.mindir"), ("threshold", text))]
    flags += ["--input_path=/nowhere", "--result_path=/nowhere", "--time_path=/nowhere", "--device_type=CPU"]
    done = subprocess.run([program, *flags], capture_output=True, text=True, check=False)
    is_taken = "--threshold" not in done.stderr
    try:
        parsed = build_parser("", ("threshold",)).parse_args([f"--threshold={text}"])
        chosen = choose_rule(None, threshold=parsed.threshold).threshold
    except (SystemExit, InputError):
        chosen = None
    assert is_taken == (chosen is not None), done.stderr


@pytest.mark.parametrize("text", ["1.17549435e-38", "1.17549436e-38", "1e-40", "1e-45", "3.4e38", "3.401e38"])
def test_limits_of_thresholds(program, text):
    """With the library, which has the processor take the smallest numbers for 0; test_program.py tries other texts."""
    check_threshold_text(program, text)
