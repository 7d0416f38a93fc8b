"""From picture files to verdicts: stpm_inspect, src.predict, and loops over OpenCV, interleaved.

    python -m benchmarks.line --ckpt_file CKPT --category CATEGORY --image_path FOLDER [--format png]
                              [--pictures 100] [--rounds 5] [--threads 2]

The pictures of the folder, and of folders in it, are written anew in one format, and are taken again until there are
enough. Every round runs every program and loop once, by turns. Programs run over all pictures and over one: reported is
the difference, so that no start counts. The loops over OpenCV are what a user would write: read, resize, scale, infer,
compare with the threshold. Reported are:

- pictures a second, and milliseconds of all cores (CPU time, which other programs hardly change) a picture: medians;
- milliseconds of a lone picture, from its path to its verdict: p50 and p99 of all rounds;
- peak memory, MB: the largest.

What decoding, resizing and the network take alone comes from libstpm.so, on one core, by CPU time: the network is a
frame of its size, resizing what a frame of the picture's size takes more, decoding what a file takes more than that.
For src.predict it comes from the functions that it calls. Two ratios tell how near a program is to that: these parts
over its own CPU time, and its pictures a second over those for which the cores have time.

src.predict takes all cores that it may use, the others --threads: hold all of it to as many (taskset) to compare them.

OpenVINO (benchmarks/requirements.txt) is left out where it is not installed. Needs what ascend_310_infer/build.sh
needs, and its libraries for pictures.
"""

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import processes
from benchmarks.inference import ENVIRONMENT, make_onnxruntime, make_openvino
from benchmarks.processes import ROOT
from src.data.images import IMAGE_SUFFIXES, MEAN, STD, load_image
from src.detector import Detector
from src.model.model_file import inspect_model
from src.utils import InputError, core_count, run_entry_point

BUILD = ROOT / "ascend_310_infer/build"
OURS, PREDICT = "stpm_inspect", "src.predict"
ONNXRUNTIME, OPENVINO = "OpenCV, ONNX Runtime", "OpenCV, OpenVINO"
PARTS = {OURS: "parts of stpm_inspect", PREDICT: "parts of src.predict"}
THRESHOLD = 1e-6  # any: what is measured does not depend on it
LONE = 20  # pictures, a round


def seconds_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# --- the loops over OpenCV -------------------------------------------------------------------------------------------


def make_loop(infer, size):
    """Return what a user would write: from a path to whether the picture is defective."""
    import cv2

    mean, std = (np.asarray(numbers, np.float32) for numbers in (MEAN, STD))

    def inspect(path):
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, (size.width, size.height), interpolation=cv2.INTER_AREA)
        image = (image.astype(np.float32) / 255 - mean) / std
        return infer(np.ascontiguousarray(image.transpose(2, 0, 1)[None])).max() >= THRESHOLD

    return inspect


def work_loop(args, paths):
    """Yield one round's seconds and CPU seconds a picture, and milliseconds of lone pictures."""
    model = args.folder / f"{args.category}.onnx"
    is_openvino = args.worker == OPENVINO
    infer = make_openvino(model, args.threads, {}) if is_openvino else make_onnxruntime(model, args.threads)
    inspect = make_loop(infer, inspect_model(model.with_suffix(".mindir")).view.size)
    for path in paths[:3]:
        inspect(path)
    while True:
        started, used = time.perf_counter(), time.process_time()
        for path in paths:
            inspect(path)
        figures = (time.perf_counter() - started) / len(paths), (time.process_time() - used) / len(paths)
        lone = []
        for path in paths[:LONE]:
            started = time.perf_counter()
            inspect(path)
            lone.append((time.perf_counter() - started) * 1000)
        yield [*figures, lone]


# --- the parts -------------------------------------------------------------------------------------------------------


class Options(ctypes.Structure):
    """``stpm_options`` of stpm.h."""

    _fields_ = [("device_type", ctypes.c_char_p), ("device_id", ctypes.c_uint), ("threads", ctypes.c_int),
                ("threshold", ctypes.c_float), ("review", ctypes.c_float)]  # fmt: skip


class Frame(ctypes.Structure):
    """``stpm_frame``."""

    _fields_ = [("pixels", ctypes.c_void_p), ("width", ctypes.c_size_t), ("height", ctypes.c_size_t),
                ("channels", ctypes.c_size_t), ("stride", ctypes.c_size_t)]  # fmt: skip


class Model:
    """A model that libstpm.so has opened, on one thread."""

    def __init__(self, path):
        self._library = ctypes.CDLL(BUILD / "libstpm.so")
        self._library.stpm_open.restype = ctypes.c_void_p
        self._library.stpm_error.restype = ctypes.c_char_p
        options = Options(b"CPU", 0, 1, THRESHOLD, 0)
        self._model = ctypes.c_void_p(self._library.stpm_open(os.fsencode(path), ctypes.byref(options)))
        self._result = ctypes.create_string_buffer(256)  # an stpm_result, which nobody looks at
        if not self._model:
            raise InputError(self._library.stpm_error().decode())

    def inspect(self, image):
        """Inspect an image, uint8 RGB (H, W, 3), or a file."""
        if isinstance(image, Path):
            status = self._library.stpm_inspect_file(self._model, os.fsencode(image), self._result)
        else:
            frame = Frame(image.ctypes.data, image.shape[1], image.shape[0], 3, 0)
            status = self._library.stpm_inspect(self._model, ctypes.byref(frame), self._result)
        if status:
            raise InputError(self._library.stpm_error().decode())


def seconds_each(work, count):
    """Return the CPU seconds a picture of this process in a call that works on so many."""
    used = time.process_time()
    work()
    return (time.process_time() - used) / count


def work_parts(args, paths):
    """Yield CPU seconds a picture of the C++ program's parts by name, by the C interface."""
    path = args.folder / f"{args.category}.mindir"
    size = inspect_model(path).view.size
    model = Model(path)

    def seconds(images):
        return seconds_each(lambda: [model.inspect(image) for image in images], len(images))

    few = paths[:LONE]
    frames = [np.array(Image.open(one).convert("RGB")) for one in few]
    small = [np.array(Image.fromarray(one).resize((size.width, size.height))) for one in frames]
    seconds(small[:3])
    while True:
        whole, resized, network = seconds(few), seconds(frames), seconds(small)
        yield {"decoding": whole - resized, "resizing": resized - network, "network": network}


def work_predict_parts(args, paths):
    """Yield CPU seconds a picture of the parts of src.predict by name, by the functions that it calls."""
    detector = Detector.load(args.ckpt_file, device="CPU", threshold=THRESHOLD)  # "auto" would be told on stdout
    model = inspect_model(args.ckpt_file)
    view, few = model.view, paths[: 2 * model.batch_size]  # whole batches: the last one is filled up
    images = np.stack([load_image(path, view) for path in few])
    detector.anomaly_maps(images)
    while True:
        reading = seconds_each(lambda: [load_image(path, view) for path in few], len(few))
        network = seconds_each(lambda: detector.anomaly_maps(images), len(few))
        yield {"decoding and resizing": reading, "network": network}


def work(args, requests):
    """What a worker answers, for each request."""
    paths = sorted((args.folder / "pictures").iterdir())
    rounds = {PARTS[OURS]: work_parts, PARTS[PREDICT]: work_predict_parts}.get(args.worker, work_loop)(args, paths)
    yield "ready"
    for _ in requests:
        yield json.dumps(next(rounds))


# --- the programs ----------------------------------------------------------------------------------------------------


def commands(args):
    """Return by name what runs over a folder of pictures, without that folder."""
    model = args.folder / f"{args.category}.mindir"
    inspect = [BUILD / "stpm_inspect", "--model", model, "--device_type", "CPU", "--threads", args.threads]
    inspect += ["--threshold", THRESHOLD]
    predict = [sys.executable, "-m", "src.predict", "--ckpt_path", args.ckpt_file, "--threshold", THRESHOLD]
    return {OURS: [*inspect, "--images"], PREDICT: [*predict, "--out_dir", args.folder / "predicted", "--image_path"]}


def run_program(command, args):
    """Return seconds and CPU seconds a picture, without the start, and the peak memory."""
    figures = []
    for folder in ("one", "pictures"):
        used = seconds_of_children()
        seconds, memory, _ = processes.run([*command, args.folder / folder], ENVIRONMENT)
        figures.append((seconds, seconds_of_children() - used))
    more = args.pictures - 1
    return *((whole - start) / more for start, whole in zip(*figures, strict=True)), memory


def lone_pictures(args):
    """Return the milliseconds of pictures that stpm_inspect is given one by one."""
    command = [str(word) for word in commands(args)[OURS][:-1]] + ["--stdin", "--format", "jsonl"]
    milliseconds = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    ) as process:
        for path in sorted((args.folder / "pictures").iterdir())[: LONE + 3]:
            started = time.perf_counter()
            process.stdin.write(os.fsencode(path) + b"\n")
            process.stdin.flush()
            if not process.stdout.readline():
                raise InputError(f"ended before {path}: {' '.join(command)}")
            milliseconds.append((time.perf_counter() - started) * 1000)
        process.stdin.close()
    return milliseconds[3:]


# --- all of it -------------------------------------------------------------------------------------------------------


def write_pictures(args):
    """Write the folders: all pictures, and one."""
    found = sorted(path for path in args.image_path.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"{args.image_path}: holds no image")
    for name, count in (("pictures", args.pictures), ("one", 1)):
        (args.folder / name).mkdir()
        written = {}
        for i, path in enumerate(islice(cycle(found), count)):
            target = args.folder / name / f"{i:05}.{args.format}"
            if path in written:
                target.hardlink_to(written[path])
                continue
            with Image.open(path) as image:
                image.convert("RGB").save(target, quality=95)
            written[path] = target


def prepare(args):
    """Export the checkpoint and write the pictures."""
    for file_format in ("MINDIR", "ONNX"):
        command = [sys.executable, "export.py", "--ckpt_file", args.ckpt_file, "--category", args.category]
        processes.run([*command, "--file_format", file_format, "--out_dir", args.folder, "--batch_size", 1])
    write_pictures(args)


def measure(args, names):
    """Return, by name, each round's seconds, CPU seconds and peak memory, lone pictures' milliseconds, and parts."""
    flags = ["--folder", args.folder, "--ckpt_file", args.ckpt_file, "--category", args.category]
    flags += ["--threads", args.threads, "--image_path", args.image_path]
    workers = {
        name: processes.Worker("benchmarks.line", ["--worker", name, *flags], ENVIRONMENT)
        for name in (*PARTS.values(), *names)
    }
    programs = commands(args)
    rounds, parts = {name: [] for name in (*programs, *names)}, {name: [] for name in PARTS}
    lone = {name: [] for name in (OURS, *names)}
    for _ in range(args.rounds):
        for name, command in programs.items():
            rounds[name].append(run_program(command, args))
        lone[OURS] += lone_pictures(args)
        for name, worker in PARTS.items():
            parts[name].append(json.loads(workers[worker].ask()))
        for name in names:
            seconds, used, milliseconds = json.loads(workers[name].ask())
            rounds[name].append((seconds, used, 0.0))
            lone[name] += milliseconds
    memory = {name: worker.close() for name, worker in workers.items()}
    for name in names:
        rounds[name] = [(seconds, used, memory[name]) for seconds, used, _ in rounds[name]]
    return rounds, lone, parts


def median(numbers):
    return statistics.median(numbers)


def table(rounds, lone):
    lines = [
        "| | pictures a second | core-ms a picture | lone picture, ms: p50 | p99 | memory, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, figures in rounds.items():
        seconds, used, memory = zip(*figures, strict=True)
        alone = ["", ""]
        if name in lone:
            alone = [f"{np.percentile(lone[name], share, method='inverted_cdf'):.1f}" for share in (50, 99)]
        lines.append(
            f"| {name} | {1 / median(seconds):.1f} | {1000 * median(used):.1f} | {alone[0]} | {alone[1]} "
            f"| {max(memory):.0f} |"
        )
    return "\n".join(lines)


def limits(name, rounds, parts, cores):
    """Return the line on a program's parts, and on how near it is to them."""
    found = {part: 1000 * median(one[part] for one in parts) for part in parts[0]}
    alone = sum(found.values())
    seconds, used, _ = zip(*rounds, strict=True)
    possible = 1000 * cores / alone
    return (
        f"{name}: alone, core-ms a picture: {', '.join(f'{part} {value:.1f}' for part, value in found.items())}; "
        f"of the run's: {alone / (1000 * median(used)):.2f}; of the {possible:.1f} pictures a second for which "
        f"{cores} cores have time: {1 / median(seconds) / possible:.2f}"
    )


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--ckpt_file", type=Path, required=True, help="checkpoint that train.py wrote")
    parser.add_argument("--category", required=True, help="its category")
    parser.add_argument("--image_path", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--format", choices=("png", "jpg", "bmp", "tif"), default="png")
    parser.add_argument("--pictures", type=int, default=100, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=(*PARTS.values(), ONNXRUNTIME, OPENVINO), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.pictures < 4:
        parser.error(f"--pictures {args.pictures}: expected 4 or more: the first three lone ones are not counted")
    return args


def main(args):
    if args.worker:
        processes.answer(work(args, sys.stdin))
        return 0
    args.ckpt_file, args.image_path = args.ckpt_file.resolve(), args.image_path.resolve()
    inspect_model(args.ckpt_file, category=args.category)
    names = [ONNXRUNTIME]
    if find_spec("openvino") is None:
        print(f"not measured: {OPENVINO}, which is not installed: pip install -r benchmarks/requirements.txt")
    else:
        names.append(OPENVINO)
    processes.run(["bash", ROOT / "ascend_310_infer/build.sh", "CPU"], os.environ | {"STPM_PYTHON": sys.executable})
    if not (BUILD / "stpm_inspect").exists():
        raise InputError(f"{BUILD / 'stpm_inspect'}: was not built: apt install libpng-dev libjpeg-dev libtiff-dev")
    with tempfile.TemporaryDirectory() as name:
        args.folder = Path(name)
        prepare(args)
        rounds, lone, parts = measure(args, names)
    print(f"{args.pictures} pictures ({args.format}) of {args.image_path}, {args.threads} threads, {args.rounds} "
          f"interleaved rounds\n\n{table(rounds, lone)}\n")  # fmt: skip
    for name, found in parts.items():
        print(limits(name, rounds[name], found, core_count() if name == PREDICT else args.threads))
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
