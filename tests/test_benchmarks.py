"""The benchmarks at tiny size, by their command lines: that they run, and what they report.

What they start in processes of their own runs in this one here, and PyTorch's loaders decode in it, too. That of the
sweep stands in tests/test_sweep.py, where Ray runs.
"""

import importlib
import json
import math
import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from importlib.machinery import ModuleSpec
from io import StringIO
from itertools import repeat
from types import ModuleType

import numpy as np
import pytest
import torch

import export
import train
from benchmarks import (
    compare,
    float16,
    image_size,
    inference,
    large_data,
    line,
    paper_code,
    peer,
    processes,
    recipes,
    small_defects,
    train_step,
)
from src import demo_data, demo_web, predict
from src.backend import StpmNetwork
from src.checkpoint import load_stpm, named_arrays
from src.cpu.onednn import no_bfloat16_reason
from src.data.arrays import decode_images
from src.data.samples import hold_out, list_train
from src.data.view import square
from src.loss import NORM_EPS
from src.model.sidecar import sidecar_path
from src.stpm import STPM
from src.training.trainer import learning_rates
from src.utils import InputError, core_count
from tests.conftest import ROOT, save_picture, train_arguments

TINY = ("--image_size", 32, "--batch_size", 2)


def words(*arguments):
    return [str(argument) for argument in arguments]


def run(module, *arguments):
    """Run a program in this process; return what it prints."""
    with redirect_stdout(StringIO()) as output:
        assert module.main(module.parse_args(words(*arguments))) == 0
    return output.getvalue()


def table(text):
    """The numbers of a page's table, all of them finite, by the first cell of its lines."""
    found = {}
    for row in [row for row in text.splitlines() if row.startswith("| ")][2:]:
        name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        found[name] = [float(cell) for cell in cells if cell]
        assert all(math.isfinite(number) for number in found[name]), row
    return found


@pytest.fixture
def here(monkeypatch):
    """Run what the benchmarks start in this process: Python files and modules, code, workers."""
    in_own_process = processes.run

    def start(command, environment=None, **options):
        program, *arguments = words(*command)
        if program != sys.executable or "--worker" in arguments:
            return in_own_process(command, environment, **options)
        if arguments[0] == "-c":
            monkeypatch.setattr(sys, "argv", ["-c", *arguments[2:]])
            with redirect_stdout(StringIO()) as output:
                exec(arguments[1], {})
            return 1.0, 100.0, output.getvalue()
        name, *rest = arguments[1:] if arguments[0] == "-m" else arguments
        return 1.0, 100.0, run(importlib.import_module(name.removesuffix(".py")), *rest)

    class Worker:
        def __init__(self, module, arguments, environment=None):
            module = importlib.import_module(module)
            self.lines = module.work(module.parse_args(words(*arguments)), repeat("\n"))
            assert next(self.lines) == "ready"

        def ask(self):
            return str(next(self.lines))

        def close(self):
            return 100.0

    monkeypatch.setattr(processes, "run", start)
    monkeypatch.setattr(processes, "Worker", Worker)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(peer, "DECODING_PROCESSES", 0)


# --- processes -------------------------------------------------------------------------------------------------------


def test_run():
    """Seconds, megabytes and output of a program, which runs in the project's folder."""
    code = "import os, time; block = bytes(50_000_000); time.sleep(0.05); print(os.environ.get('A'), os.getcwd())"
    seconds, memory, output = processes.run([sys.executable, "-c", code], {"A": "1"})
    assert 0.05 <= seconds < 60
    assert 50 < memory < 5000
    assert output == f"1 {ROOT}\n"


def test_own_memory(tmp_path):
    """What a program maps of files is not its own; what it writes into its own pages is."""
    (tmp_path / "file").write_bytes(bytes(200_000_000))
    code = "import mmap, sys, time; file = open(sys.argv[1], 'rb'); "
    code += "mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); sum(mapped[::4096]); "
    code += "own = bytearray(60_000_000); own[::4096] = b'x' * len(own[::4096]); time.sleep(0.5)"
    command = [sys.executable, "-c", code, tmp_path / "file"]
    seconds, memory, _ = processes.run(command, own_memory=True)
    assert seconds > 0.5
    assert 55 < memory < 150
    assert processes.run(command)[1] > 240
    with pytest.raises(InputError, match="failed with status 3"):
        processes.run([sys.executable, "-c", "raise SystemExit(3)"], own_memory=True)


def test_failure():
    with pytest.raises(InputError, match=r"^failed with status 3: .* -c raise SystemExit\(3\)$"):
        processes.run([sys.executable, "-c", "raise SystemExit(3)"])


def test_worker(tmp_path):
    """It says when it is ready, whatever is printed before, and answers line by line until it is closed or ends."""
    code = "print('hello\\nready', flush=True)\nfor _ in range(2): print('got', repr(input()), flush=True)\ninput()"
    (tmp_path / "a_worker.py").write_text(code)
    worker = processes.Worker("a_worker", [1, 2], os.environ | {"PYTHONPATH": str(tmp_path)})
    assert [worker.ask(), worker.ask()] == ["got ''", "got ''"]
    with pytest.raises(InputError, match="the worker ended: a_worker 1 2"):
        worker.ask()
    assert 1 < worker.close() < 5000
    with pytest.raises(InputError, match="the worker ended: no_such_module"):
        processes.Worker("no_such_module", [])


# --- training and evaluation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [("--layout", "default"), ("--cached",)])
def test_peer_training(here, session_tree, flags):
    data = ("--data_url", session_tree, "--category", "widget")
    seconds = json.loads(run(peer, "train", *data, *TINY, "--epochs", 2, *flags))
    assert len(seconds) == 2
    assert all(0 < one < 60 for one in seconds)


def test_peer_threads(here, session_tree, monkeypatch):
    """As many as there are cores, although the reference that it shares with the tests keeps to one."""
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    run(peer, "train", "--data_url", session_tree, "--category", "widget", *TINY, "--epochs", 0)
    assert asked == [core_count()]
    train_step.make_torch(np.zeros((2, 3, 32, 32), np.float32), "default")
    assert asked == [core_count()] * 2


def test_compare(here, session_tree, tmp_path, monkeypatch):
    """A row for each program on the page, and everything in the JSON."""
    page, result = tmp_path / "page.md", tmp_path / "compare.json"
    page.write_text("<!-- training and evaluation: begin -->\nold\n<!-- training and evaluation: end -->\n")
    monkeypatch.setattr(compare, "RESULT", result)
    monkeypatch.setattr(compare, "no_bfloat16_reason", lambda: None)
    asked, run_program = [], processes.run

    def at_o0(command, *rest, **options):  # O2 is refused where the processor is not fast at it
        asked.append(words(*command))
        return run_program(["O0" if word == "O2" else word for word in command], *rest, **options)

    monkeypatch.setattr(processes, "run", at_o0)
    data = ("--data_url", session_tree, "--category", "widget", "--epochs", 2, "--rounds", 1)
    printed = run(compare, *data, *TINY, "--readme", page)
    assert "(1 of 1 rounds)" in printed
    assert "old" not in page.read_text()
    found = table(page.read_text())
    trainings = ["train.py", "train.py, bfloat16", *compare.PEER_TRAININGS, "PyTorch channels_last, bfloat16"]
    assert [command[-1] for command in asked if command[1] == "train.py"] == ["O0", "O2"]
    assert [command[3:4] for command in asked if command[-1] == "--bfloat16"] == [["train"]]
    assert list(found) == [*trainings, "test.py", "PyTorch, image by image"]
    for name, numbers in found.items():
        assert len(numbers) == (7 if name in trainings else 3), name
        assert numbers[-1] == 100  # the peak memory
    assert found["train.py"][3:5] == [1, 1]
    assert found["train.py, bfloat16"][5] == 1
    assert found["test.py"][1] == 1
    about = json.loads(result.read_text())
    assert about["settings"] == {"category": "widget", "image_size": 32, "batch_size": 2, "epochs": 2, "rounds": 1}
    assert [row["name"] for row in about["rows"]] == list(found)
    for name in trainings:
        figures = about["all_rounds"][0][name]
        assert figures["epoch"] > 0
        assert figures["whole"] == pytest.approx(figures["start"] + 100 * figures["epoch"])


def test_figures():
    """By hand: of a training of 10 s with epochs of 3, 1 and 2 s; and of two rounds."""
    assert compare.training(10, 7, [3, 1, 2]) == {"start": 5.5, "epoch": 1.5, "whole": 155.5, "memory": 7}
    rounds = [
        {"train.py": compare.training(10, 7, [3, own, own]), "peer": compare.training(10, 8, [3, theirs, theirs])}
        for own, theirs in ((1, 2), (2, 8))
    ]
    own, theirs = compare.summarise(rounds)
    assert (own["epoch_s"], own["epoch_ratio"]) == (1.5, [1, 1, 1])
    assert "bfloat16_ratio" not in theirs
    for figures in rounds:
        figures["train.py, bfloat16"] = compare.training(10, 7, [1, 1, 1])
    first, second = 107 / (10 - 6 + 200), 107 / (10 - 24 + 800)
    found = compare.summarise(rounds)[1]["bfloat16_ratio"]
    assert found == [round(value, 2) for value in ((first + second) / 2, second, first)]
    epoch = [round(value, 2) for value in ((1 / 2 + 2 / 8) / 2, 2 / 8, 1 / 2)]
    assert (theirs["epoch_s"], theirs["epoch_ratio"], theirs["memory_mb"]) == (5, epoch, 8)
    assert [compare.cell(figure) for figure in (8, [1.0, 1.0, 1.0], epoch)] == ["8", "1.0", "0.38 (0.25 to 0.5)"]


def test_too_few_epochs(refused):
    assert "--epochs 1: the first is not counted, expected 2 or more" in refused(compare, "--epochs", 1)


def test_train_step(here):
    printed = run(train_step, "--steps", 2, *TINY).splitlines()
    assert printed[0] == "batch 2, 32x32, 2 interleaved steps of each"
    pattern = r"(.+?) +median +(\S+) s  min +(\S+)  max +(\S+)  ours/this (\S+)"
    found = {name: [float(one) for one in cells] for name, *cells in re.findall(pattern, "\n".join(printed[1:]))}
    assert list(found) == train_step.workers_here()
    assert set(train_step.WORKERS) - set(found) == ({"ours O2"} if no_bfloat16_reason() else set())
    assert all(0 <= least <= median <= most < 60 for median, least, most, _ in found.values())
    assert found["ours"][3] == 1
    assert all(math.isfinite(ratio) and ratio > 0 for *_, ratio in found.values())


def test_large_data(here, tmp_path, monkeypatch):
    """Two trainings of the same images, the second with its caches memory-mapped."""
    few = demo_data.PRODUCTS["washer"]._replace(train_good=1, test_good=1, test_per_defect=1)
    monkeypatch.setitem(demo_data.PRODUCTS, "washer", few)
    trainings = []

    class Training:
        """As if in a process of its own, over at the second look; the second training gets the first one's files."""

        pid, returncode = os.getpid(), 0

        def __init__(self, command, **options):
            args = train.parse_args(command[2:])
            if trainings:
                shutil.copytree(trainings[0].train_url, args.train_url)
            else:
                run(train, *command[2:])
            trainings.append(args)
            self.states = iter([None, 0])

        def poll(self):
            return next(self.states)

    monkeypatch.setattr(large_data.subprocess, "Popen", Training)
    lines = run(large_data, "--images", 4, *TINY, "--work_folder", tmp_path).splitlines()
    pattern = r"(in memory|memory-mapped) +epoch +(\S+) s  own memory +(\d+) MB  all +(\S+) s"
    first, second = (re.fullmatch(pattern, line).groups() for line in lines[:2])
    assert (first[0], second[0]) == ("in memory", "memory-mapped")
    assert all(float(cell) > 0 for cell in (*first[2:], *second[2:]))
    assert float(re.fullmatch(r"memory-mapped / in memory: (\S+) of the time", lines[2])[1]) > 0
    about = [(args.image_size, args.batch_size, args.epoch, args.cache_budget) for args in trainings]
    assert about == [((32, 32), 2, 2, 1000), ((32, 32), 2, 2, 0)]
    assert not list(tmp_path.iterdir())


def test_small_defects(here, tmp_path, monkeypatch, refused):
    """The demo's web at two sizes, the second in pieces; what stands there already is not done again."""
    few = demo_data.PRODUCTS["web"]._replace(train_good=4, test_good=2, test_per_defect=1)
    monkeypatch.setitem(demo_data.PRODUCTS, "web", few)
    monkeypatch.setattr(demo_web, "HEIGHT", 64)
    monkeypatch.setattr(demo_web, "WIDTH", 96)
    page = tmp_path / "page.md"
    page.write_text("<!-- small defects: begin -->\nold\n<!-- small defects: end -->\n")
    flags = ("--pre_ckpt_path", "random", "--work_folder", tmp_path / "work", "--steps", 3, "--readme", page)
    printed = run(small_defects, *flags, "--settings", "32", "64x96/32")
    found = json.loads((tmp_path / "work/small_defects.json").read_text())
    whole, pieces = found["rows"]
    assert (whole["image_size"], whole["pieces"], whole["epochs"], whole["steps"]) == (32, None, 3, 3)
    # 4 images of 6 pieces: 6 batches of 4
    assert (pieces["image_size"], pieces["pieces"], pieces["epochs"], pieces["steps"]) == ([64, 96], [32, 32], 1, 6)
    assert list(whole["recall_by_defect"]) == list(demo_web.DEFECTS)
    assert whole["images"]["defective"] == 5
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:4]] == ["32x32", "64x96"]
    assert [row[1] for row in rows[2:4]] == ["whole images, 3 steps", "pieces of 32x32, 6 steps"]
    # the counts in both tables are of the same images
    for row, by_defect in zip(rows[2:4], rows[6:], strict=True):
        assert int(row[5].split()[0]) == sum(int(cell.split()[0]) for cell in by_defect[1:])
    assert page.read_text().count("| 64x96 |") == 2
    assert "old" not in page.read_text()
    for module in (train, demo_data):
        monkeypatch.setattr(module, "main" if module is train else "write_category", lambda *facts, **named: 0)
    assert run(small_defects, *flags, "--settings", "64x96/32", "32").count("| 32x32 |") == 2
    assert "holds results of" in refused(small_defects, *flags, "--seed", 2)


def test_rates():
    """By hand: verdicts of three defective images and a good one."""
    scores = [("hole", "defective"), ("hole", "good"), ("knot", "good"), ("good", "defective")]
    scores = [{"defect": defect, "verdict": verdict} for defect, verdict in scores]
    found = small_defects.recall_by_defect({"decision": {}, "scores": scores})
    assert found == {"hole": [1, 2], "knot": [0, 1]}
    assert small_defects.recall_by_defect({"decision": None, "scores": []}) is None
    near = small_defects.near_borders(square(96), 64)  # pieces begin at 0 and 32: borders inside at 32 and 64
    expected = np.isin(np.arange(96), [*range(24, 40), *range(56, 72)])
    assert np.array_equal(near, expected[:, None] | expected)
    maps = np.where(near, [[[4.0]], [[9.0]]], [[[1.0]], [[4.0]]]).astype(np.float32)
    assert small_defects.border_effect(maps, near) == pytest.approx(6 / 2)
    row = {"image_size": 32, "pieces": None, "steps": 7, "train_memory_mb": 1234}
    row |= {"image_auroc": 0.9876, "pixel_auroc": 0.5, "pro": 0.25}
    without_verdicts = row | {"decision": None, "recall_by_defect": None}
    assert small_defects.results_table([without_verdicts]).splitlines()[2] == (
        "| 32x32 | whole images, 7 steps | 0.988 | 0.500 | 0.250 |  |  | 1.2 GB |"
    )
    assert small_defects.defects_table([without_verdicts]) == ""
    assert small_defects.rate(((1, 2), (0.013, 0.987))) == "1 of 2 (0.01 to 0.99)"
    assert image_size.row("x", 500, 4, [3.0, 1.0, 2.0], 1234) == "| x | 500x500 | 4 | 2.000 s | 2.00 s | 1.23 GB |"


# --- inference -------------------------------------------------------------------------------------------------------

PROGRAM = """#!{python}
import sys
from pathlib import Path

flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = Path(flags["--result_path"])
out.mkdir(exist_ok=True)
rows = ["input,score,milliseconds"]
for path in sorted(Path(flags["--input_path"]).iterdir()):
    image = path.read_bytes()
    (out / f"{{path.stem}}_0.bin").write_bytes(image[: len(image) // 3])
    rows.append(f"{{path.name}},1.5,{{2 * 4.5}}")
(out / "scores.csv").write_text("\\n".join(rows) + "\\n")
print(sys.argv[1:])
"""


@pytest.fixture
def checkpoint(device, tmp_path, random_backbone):
    """One without a sidecar."""
    import mindspore as ms

    from src.checkpoint import checkpoint_entries, load_teacher, named_parameters
    from src.stpm import STPM

    stpm = STPM()
    load_teacher(stpm.model_t, random_backbone)
    ms.save_checkpoint(checkpoint_entries(named_parameters(stpm)), str(tmp_path / "any.ckpt"))
    return tmp_path / "any.ckpt"


@pytest.fixture
def openvino(monkeypatch):
    """A stand-in that computes with ONNX Runtime, and keeps what it is told."""
    told = []

    class Request:
        def __init__(self, model, device, options):
            told.append((device, options))
            self.compute = inference.make_onnxruntime(model, options["INFERENCE_NUM_THREADS"])

        def create_infer_request(self):
            return self

        def infer(self, inputs):
            return {"map": self.compute(inputs[0])}

    class Core:
        compile_model = Request

    module = ModuleType("openvino")
    module.Core, module.__spec__ = Core, ModuleSpec("openvino", None)
    monkeypatch.setitem(sys.modules, "openvino", module)
    return told


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A stand-in for the C++ program, whose maps are the images' first planes, and for its build."""
    path, built, start = tmp_path / "stpm_infer", [], processes.run
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)

    def run_or_build(command, environment=None, **options):
        if command[0] != "bash":
            return start(command, environment, **options)
        built.append(command[1])
        return 1.0, 100.0, ""

    monkeypatch.setattr(inference, "PROGRAM", path)
    monkeypatch.setattr(processes, "run", run_or_build)
    return built


def test_inference(here, program, openvino, checkpoint, session_tree, tmp_path, monkeypatch):
    """Of a checkpoint without a sidecar: a row for each runtime, whose maps are MindSpore's, on the page, too."""
    monkeypatch.setattr(inference, "PEAK_SIDE", 32)
    monkeypatch.setattr(export, "verify", lambda *facts: None)  # the table compares the maps, too
    page = tmp_path / "page.md"
    page.write_text("<!-- inference, batch 2: begin -->\nold\n<!-- inference, batch 2: end -->\n")
    size = ("--image_size", 32, "--batch_size", 2, "--rounds", 1, "--calls", 2, "--threads", 1)
    picture = session_tree / "widget/train/good/000.png"
    flags = (*size, "--image_path", picture, "--readme", page)
    printed = run(inference, "--ckpt_file", checkpoint, "--category", "widget", *flags)
    assert re.search(r"^32x32, batch 2, 1 threads, 1 interleaved rounds of 2 calls; peak \d+ GFLOP/s$", printed, re.M)
    assert re.search(rf"^{picture}: \d+\.\d ms from file to network input$", printed, re.M)
    found = table(page.read_text())
    assert found == table(printed)
    assert list(found) == [inference.CPP, *inference.WORKERS]
    for name, (median, least, ratio, *_, memory, difference) in found.items():
        assert 0 < least <= median, name
        assert ratio >= 0
        assert memory > 0
        assert difference < 1e-4 or name == inference.CPP, name
    assert found[inference.CPP][:3] == [4.5, 4.5, 1]  # per image
    assert found[inference.CPP][-1] > 1e-2  # not a map of this network, and the table tells
    assert found[inference.CKPT][-1] == 0
    common = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    assert openvino == [("CPU", common | {"INFERENCE_PRECISION_HINT": "f32"}), ("CPU", common)]
    assert program == [ROOT / "ascend_310_infer/build.sh"]


def test_image_size(here, program, checkpoint, tmp_path, monkeypatch):
    """A row for a training step, a map in MindSpore, and one in the program."""
    monkeypatch.setattr(export, "verify", lambda *facts: None)
    page = tmp_path / "page.md"
    page.write_text("<!-- cost of a size: begin -->\n<!-- cost of a size: end -->\n")
    flags = ("--sizes", 32, "--rounds", 1, "--calls", 2, "--batch_size", 2, "--threads", 1, "--readme", page)
    printed = run(image_size, "--ckpt_file", checkpoint, "--category", "widget", *flags)
    assert re.search(r"^\d+ cores; tasks that ran or waited in the last minute, on average: \d", printed, re.M)
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| a ")]
    names = (image_size.TRAINING, image_size.PREDICTION, image_size.PROGRAM)
    assert [row[:3] for row in rows] == [[name, "32x32", "2" if name == image_size.TRAINING else "1"] for name in names]
    for *_, seconds, per_megapixel, memory in rows:
        assert float(seconds.removesuffix(" s")) >= 0
        assert float(per_megapixel.removesuffix(" s")) > 0
        assert float(memory.removesuffix(" GB")) > 0
    assert rows[-1][3] == "0.009 s"  # as the stand-in says
    assert program == [ROOT / "ascend_310_infer/build.sh"]


def test_flags_of_the_program(program, tmp_path):
    """It knows them, and writes the columns that are read."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.bin").write_bytes(bytes(12))
    args = inference.parse_args(["--ckpt_file", "x", "--category", "y", "--batch_size", "2", "--folder", str(tmp_path)])
    told = []
    start = processes.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "run", lambda *words: told.append(start(*words)) or told[-1])
        milliseconds, memory = inference.run_program(args)
    assert milliseconds == [4.5]
    assert memory > 0
    flags = re.findall(r"'--(\w+)'", told[0][2])
    source = (ROOT / "ascend_310_infer/src/options.cc").read_text()
    assert len(flags) == 7
    assert all(f'"{name}"' in source or f'"--{name}"' in source for name in flags)
    assert '"input,score,milliseconds' in (ROOT / "ascend_310_infer/src/pipeline.cc").read_text()


def test_flops():
    """By hand: a convolution takes two operations per weight and output."""
    layers = [(3, 64, 7, 16), *[(64, 64, 3, 8)] * 4, (64, 128, 3, 4), (64, 128, 1, 4), *[(128, 128, 3, 4)] * 3]
    layers += [(128, 256, 3, 2), (128, 256, 1, 2), *[(256, 256, 3, 2)] * 3]
    expected = sum(2 * into * out * kernel**2 * side**2 for into, out, kernel, side in layers)
    assert inference.trunk_flops(32) == expected


def test_refused_inference(refused, program, openvino, checkpoint, tmp_path, monkeypatch):
    """Before anything is built: no checkpoint, one that its sidecar is not of, no OpenVINO."""

    def error(path):
        return refused(inference, "--ckpt_file", path, "--category", "widget")

    assert f"error: {tmp_path / 'no.ckpt'}: " in error(tmp_path / "no.ckpt")
    sidecar_path(checkpoint).write_text("{}")
    assert f"error: {sidecar_path(checkpoint)}: " in error(checkpoint)
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.setattr(inference, "find_spec", lambda name: None)
    assert error(checkpoint) == "error: OpenVINO is not installed: pip install -r benchmarks/requirements.txt"
    assert not program


# --- line ------------------------------------------------------------------------------------------------------------

INSPECT = """#!{python}
import sys

assert "--stdin" in sys.argv
for path in sys.stdin:
    print(path.strip(), flush=True)
"""


@pytest.fixture
def line_programs(here, tmp_path, monkeypatch):
    """Stand-ins: programs that take a second and 0.05 s a picture, 0.06 s of the cores; the library; its clock."""
    start, told, clock = processes.run, [], {"children": 0.0, "own": 0.0}
    monkeypatch.setattr(line, "BUILD", tmp_path)
    (tmp_path / "stpm_inspect").write_text(INSPECT.format(python=sys.executable))
    (tmp_path / "stpm_inspect").chmod(0o755)

    def run_or_tell(command, environment=None):
        if "export.py" in command:
            return start(command, environment)
        told.append(words(*command))
        if command[0] == "bash":
            return 1.0, 100.0, ""
        count = len(list(command[-1].iterdir()))
        clock["children"] += 1 + 0.06 * count
        return 1 + 0.05 * count, 300.0, ""

    class Model:
        def __init__(self, path):
            assert path.suffix == ".mindir"

        def inspect(self, image):
            side = getattr(image, "shape", "a file")[0]
            clock["own"] += {"a": 0.05, 90: 0.03, 64: 0.02}[side]

    class Detector:
        @staticmethod
        def load(path, device, threshold):
            assert (path.suffix, device, threshold) == (".ckpt", "CPU", line.THRESHOLD)
            return Detector()

        def anomaly_maps(self, images):
            assert images.shape == (5, 64, 64, 3)
            clock["own"] += 0.03 * len(images)

    def read(path, view):
        clock["own"] += 0.01
        return load_image(path, view)

    load_image = line.load_image
    monkeypatch.setattr(processes, "run", run_or_tell)
    monkeypatch.setattr(line, "seconds_of_children", lambda: clock["children"])
    monkeypatch.setattr(line, "Model", Model)
    monkeypatch.setattr(line, "Detector", Detector)
    monkeypatch.setattr(line, "load_image", read)
    monkeypatch.setattr(line, "core_count", lambda: 2)
    monkeypatch.setattr(line.time, "process_time", lambda: clock["own"])
    return told


def test_line(line_programs, openvino, trained, tmp_path):
    """By hand: what is told of programs and parts; loops over OpenCV run, and a row stands for each."""
    rng = np.random.default_rng(0)
    for name in ("a/0", "b/0", "b/1"):
        save_picture(tmp_path / f"in/{name}.png", rng, size=(90, 90))
    flags = ("--ckpt_file", trained[0] / "widget/widget_last.ckpt", "--category", "widget", "--format", "jpg")
    flags += ("--image_path", tmp_path / "in", "--pictures", 5, "--rounds", 2)
    printed = run(line, *flags)
    found = table(printed)
    assert list(found) == [line.OURS, line.PREDICT, line.ONNXRUNTIME, line.OPENVINO]
    assert found[line.OURS][:2] == found[line.PREDICT][:2] == [20, 60]
    assert found[line.PREDICT][2:] == [300]
    for name in (line.OURS, line.ONNXRUNTIME, line.OPENVINO):
        speed, _, median, slowest, _ = found[name]
        assert speed > 0, name
        assert 0 <= median <= slowest, name
    expected = "decoding 20.0, resizing 10.0, network 20.0; of the run's: 0.83; of the 40.0 pictures a second"
    assert f"stpm_inspect: alone, core-ms a picture: {expected} for which 2 cores have time: 0.50" in printed
    expected = "decoding and resizing 10.0, network 30.0; of the run's: 0.67; of the 50.0 pictures a second"
    assert f"src.predict: alone, core-ms a picture: {expected} for which 2 cores have time: 0.40" in printed
    assert [one[0] for one in line_programs] == ["bash", *[str(tmp_path / "stpm_inspect")] * 2,
        *[sys.executable] * 2, *[str(tmp_path / "stpm_inspect")] * 2, *[sys.executable] * 2]  # fmt: skip
    assert predict.parse_args(line_programs[3][3:]).image_path.endswith("one")
    source = "".join((ROOT / f"ascend_310_infer/src/{name}.cc").read_text() for name in ("inspect_options", "options"))
    given = {word for word in line_programs[1] if word.startswith("--")}
    assert all(f'"{flag}"' in source for flag in given | {"--stdin", "--format"})


def test_line_structures():
    """Those of the C interface, field by field."""
    header = (ROOT / "ascend_310_infer/inc/stpm.h").read_text()
    for name, structure in (("stpm_options", line.Options), ("stpm_frame", line.Frame)):
        text = re.search(rf"struct {name} {{(.*?)}}", header, re.DOTALL)[1]
        fields = re.findall(
            r"^ *[\w ]+?\*?(\w+(?:, \w+)*);", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL), re.MULTILINE
        )
        assert [field for one in fields for field in one.split(", ")] == [field for field, _ in structure._fields_]


def test_line_without_openvino(line_programs, refused, trained, tmp_path, monkeypatch):
    """Said, and left out; so is what cannot be measured at all."""
    asked = []
    monkeypatch.setattr(line, "find_spec", lambda name: None)
    monkeypatch.setattr(line, "prepare", lambda args: None)
    one = [(0.5, 0.5, 1.0)]
    parts = {name: [{"network": 0.1}] for name in (line.OURS, line.PREDICT)}
    figures = dict.fromkeys((line.OURS, line.PREDICT, line.ONNXRUNTIME), one), {}, parts
    monkeypatch.setattr(line, "measure", lambda args, names: asked.append(names) or figures)
    flags = ("--ckpt_file", trained[0] / "widget/widget_last.ckpt", "--category", "widget", "--image_path", tmp_path)
    assert "not measured: OpenCV, OpenVINO, which is not installed" in run(line, *flags)
    assert asked == [[line.ONNXRUNTIME]]
    monkeypatch.undo()
    monkeypatch.setattr(processes, "run", lambda *words: None)
    monkeypatch.setattr(line, "BUILD", tmp_path / "none")
    assert "stpm_inspect: was not built: apt install" in refused(line, *flags)


def test_recipes(refused, tmp_path):
    """By hand: means and ranges of two runs, and of the last evaluations only."""
    for name, aurocs in (("a", (0.5, 0.7)), ("b", (0.6, 0.9))):
        evaluations = [{"epoch": 2 * i, "pixel_auroc": 0.5, "image_auroc": value, "pro": 0.25}
                       for i, value in enumerate(aurocs, start=1)]  # fmt: skip
        record = {"evaluations": evaluations, "epochs": [{"seconds": 30}] * 4}
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.json").write_text(json.dumps(record))
    runs = ("--runs", "ours", tmp_path / "a", tmp_path / "b", "--runs", "other", tmp_path / "a")
    lines = run(recipes, *runs, "--last", 1, "--figure", tmp_path / "figure.png").splitlines()
    assert lines[2:] == [
        "| ours | 4 | 2.0 | 0.5000 (0.5000 to 0.5000) | 0.8000 (0.7000 to 0.9000) | 0.2500 (0.2500 to 0.2500) |",
        "| other | 4 | 2.0 | 0.5000 | 0.7000 | 0.2500 |",
    ]
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "b/train.json").write_text(json.dumps({"evaluations": [], "epochs": []}))
    assert f"{tmp_path / 'b'}: evaluated after epochs []" in refused(recipes, *runs)
    assert "--runs ours: expected a name and the output folders" in refused(recipes, "--runs", "ours")


def test_recipes_held_out(refused, random_backbone, tmp_path):
    """The loss of the images that were held out, by the cells of the paper's files."""
    from mindspore import Tensor

    from src.checkpoint import load_stpm
    from src.data.images import to_network_input
    from src.loss import StudentLoss
    from src.stpm import STPM
    from src.training.teacher import NormalisedTeacher

    rng, data = np.random.default_rng(0), tmp_path / "data"
    for i in range(4):
        save_picture(data / f"widget/train/good/{i}.png", rng, size=(32, 32))
    flags = ("--val_split", 0.5, "--image_size", 32, "--batch_size", 1)
    run(train, *train_arguments(data, random_backbone, tmp_path, epoch=1), *flags)
    out = run(recipes, "--held_out", data, "--runs", "ours", tmp_path / "widget")
    _, samples = hold_out(list_train(data, "widget"), 0.5, seed=1)
    images = Tensor(to_network_input(decode_images(samples, view=square(32))))
    stpm = load_stpm(STPM(), tmp_path / "widget/widget_last.ckpt")
    stpm.set_train(False)
    loss = StudentLoss(stpm.model_s)(images, *NormalisedTeacher(stpm.model_t)(images)).asnumpy() / 2
    assert out.splitlines()[2].startswith(f"| ours | {loss:.4f} | ")
    sidecar = tmp_path / "widget/widget_last.json"
    sidecar.write_text(sidecar.read_text().replace('"val_split"', '"other"'))
    error = refused(recipes, "--held_out", data, "--runs", "ours", tmp_path / "widget")
    assert "its training held out no images (--val_split)" in error


def test_paper_code(session_tree, tmp_path):
    """Rows of finite numbers for the last epoch, and for the one that the held-out images chose; the loss falls."""
    torch.save(paper_code.new_student(3).state_dict(), tmp_path / "teacher.pth")
    flags = ("--data_url", session_tree, "--category", "widget", "--pth_path", tmp_path / "teacher.pth")
    found = table(run(paper_code, *flags, *TINY, "--epochs", 3, "--hold_out", 0.4))
    assert len(found["3"]) == 6
    (kept,) = (name for name in found if "kept" in name)
    assert found[kept][0] <= found["3"][2]  # the mean map of the images that were held out
    assert 0 < found["3"][1] < 12  # their loss: three scales, at most 4 each
    assert all(0 <= number <= 1 for number in (*found["3"][3:], *found[kept][1:]))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_paper_code_rates(schedule):
    """The schedules are those of train.py, written a second time."""
    ours = learning_rates(schedule, lr=paper_code.LR, steps=47)
    theirs = [paper_code.learning_rate(schedule, step, 47) for step in range(47)]
    assert theirs == pytest.approx(ours if schedule == "cosine" else [ours] * 47)


def test_float16(trained, session_tree):
    """The emulation computes the network's maps in float32, and others, not far from them, in float16."""
    checkpoint = trained[0] / "widget/widget_last.ckpt"
    lines = run(float16, "--ckpt_path", checkpoint, "--data_url", session_tree, "--category", "widget", "--images", 3)
    lines = lines.splitlines()
    assert lines[0] == "images: 3"
    for name in ("float16 in:", "float16 in, flushed:"):
        start = lines.index(name) + 1
        found = {name: float(value) for name, value in (line.split(": ") for line in lines[start : start + 3])}
        assert 1e-6 < found["maps"] < math.inf
        assert 1e-6 < found["scores, median"] <= found["scores, at most"] < math.inf
    stpm = load_stpm(STPM(), checkpoint)
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    network = float16.Network(named_arrays(stpm), image_size=64, norm_eps=NORM_EPS)
    with torch.no_grad():
        maps = network(torch.from_numpy(images), float16.Float32())
    expected = StpmNetwork(stpm, view=square(64))(images)[:, 0]
    assert np.abs(maps - expected).max() < 1e-4 * expected.max()
