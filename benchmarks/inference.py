"""Time anomaly maps in the C++ program, MindSpore, ONNX Runtime, OpenVINO and PyTorch, interleaved.

    python -m benchmarks.inference --ckpt_file CKPT --category CATEGORY [--batch_size 1] [--rounds 7] [--calls 20]
                                   [--threads 2] [--image_size SIDE] [--image_path PICTURE]
                                   [--readme docs/performance.md docs/zh/performance.md]

Every round runs each of them once, by turns, over the same inputs, after a few uncounted calls; reported are the median
of the rounds' medians, the least of all, and the median of the ratios round by round, all per image; floating-point
work per second, beside what a product of two large matrices reaches in PyTorch; the peak memory; and how far the maps
are from the checkpoint's in MindSpore. OpenVINO runs twice: held to float32, as the others compute, and as it comes
(bfloat16 where the processor has it). PyTorch computes eagerly, in channels_last, with the checkpoint's weights.
Needs benchmarks/requirements.txt and what ascend_310_infer/build.sh needs.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks import processes
from benchmarks.processes import ROOT
from src.data.view import ImageSize, square
from src.model.model_file import inspect_model
from src.report.table import replace_marked
from src.utils import InputError, run_entry_point

PROGRAM = ROOT / "ascend_310_infer/build/stpm_infer"
CPP = "C++, MindSpore Lite"
CKPT, MINDIR, TORCH = "MindSpore, .ckpt", "MindSpore, .mindir", "PyTorch, channels_last"
WORKERS = ("ONNX Runtime", "OpenVINO float32", "OpenVINO default", TORCH, CKPT, MINDIR)
WARMUP = 5
ENVIRONMENT = dict(os.environ)  # before src.device.prepare_environment limits MindSpore's, and others', instruction set


def make_onnxruntime(model, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def make_openvino(model, threads, precision):
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(str(model), "CPU", options | precision).create_infer_request()
    return lambda image: next(iter(request.infer([image]).values()))


def make_torch(weights, threads):
    import torch

    from tests.torch_reference import ResNet18

    torch.set_num_threads(threads)
    weights = np.load(weights)
    teacher, student = ResNet18(), ResNet18()
    renamed = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    for network, prefix in ((teacher, "model_t."), (student, "model_s.")):
        state = {}
        for name in weights.files:
            path, kind = name.removeprefix(prefix).replace("down_sample_layer", "downsample").rsplit(".", 1)
            if name.startswith(prefix):
                state[f"{path}.{renamed.get(kind, kind)}"] = torch.from_numpy(weights[name])
        network.load_state_dict(state, strict=False)  # counters of batches are not in a checkpoint
        network.eval().to(memory_format=torch.channels_last)

    def infer(images):
        with torch.inference_mode():
            x = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
            product = 1.0
            for t, s in zip(teacher(x), student(x), strict=True):
                t, s = torch.nn.functional.normalize(t), torch.nn.functional.normalize(s)
                distance = 0.5 * ((t - s) ** 2).sum(1, keepdim=True)
                product = product * torch.nn.functional.interpolate(distance, x.shape[2:], mode="bilinear")
            return product.numpy()

    return infer


def make_mindspore(path, image_size):
    from src.model.model_file import load_network

    return load_network(inspect_model(path, image_size=ImageSize(image_size, image_size)), device_target="CPU")


def make(name, args):
    exported = args.folder / f"{args.category}.onnx"
    if name == "ONNX Runtime":
        return make_onnxruntime(exported, args.threads)
    if name == TORCH:
        return make_torch(args.folder / "weights.npz", args.threads)
    if name in (CKPT, MINDIR):
        return make_mindspore(args.ckpt_file if name == CKPT else exported.with_suffix(".mindir"), args.image_size)
    return make_openvino(exported, args.threads, {"INFERENCE_PRECISION_HINT": "f32"} if "float32" in name else {})


def work(args, requests):
    """What a worker answers: for each request, one round's milliseconds per image. The last maps are kept."""
    folder = args.folder
    infer = make(args.worker, args)
    inputs = [np.load(path) for path in sorted((folder / "npy").iterdir())]
    yield "ready"
    for _ in requests:
        for images in inputs[:WARMUP]:
            infer(images)
        milliseconds, maps = [], []
        for images in inputs:
            started = time.perf_counter()
            one = infer(images)
            milliseconds.append((time.perf_counter() - started) * 1000 / len(images))
            maps.append(np.array(one))
        np.save(folder / f"{args.worker}.npy", np.concatenate(maps))
        yield json.dumps(milliseconds)


WEIGHTS = """
import sys, numpy
from pathlib import Path
from src.checkpoint import read_checkpoint
numpy.savez(sys.argv[2], **read_checkpoint(Path(sys.argv[1])))
"""


def prepare(args, file_formats=("MINDIR", "ONNX")):
    """Export the checkpoint, write random inputs and the weights for PyTorch."""
    folder, size = args.folder, args.image_size
    (folder / "npy").mkdir()
    (folder / "in").mkdir()
    for file_format in file_formats:
        command = [sys.executable, "export.py", "--ckpt_file", args.ckpt_file, "--category", args.category]
        command += ["--file_format", file_format, "--out_dir", folder, "--batch_size", args.batch_size]
        processes.run([*command, "--image_size", size])
    shape = (args.calls, args.batch_size, 3, size, size)
    for i, images in enumerate(np.random.default_rng(0).standard_normal(shape).astype(np.float32)):
        np.save(folder / f"npy/{i:05}.npy", images)
        for j, image in enumerate(images):
            image.tofile(folder / f"in/{i:05}_{j:02}.bin")
    processes.run([sys.executable, "-c", WEIGHTS, args.ckpt_file, folder / "weights.npz"])


def run_program(args):
    """Run the C++ program once; return its milliseconds per image and its peak memory, MB."""
    folder = args.folder
    command = [PROGRAM, "--mindir_path", folder / f"{args.category}.mindir", "--device_type", "CPU"]
    command += ["--input_path", folder / "in", "--result_path", folder / "out", "--time_path", folder]
    command += ["--warmup", WARMUP, "--threads", args.threads]
    _, memory, _ = processes.run(command, {"GLOG_v": "3"} | ENVIRONMENT)
    rows = (folder / "out/scores.csv").read_text().splitlines()[1:]
    return [float(row.split(",")[2]) / args.batch_size for row in rows], memory


def measure(args):
    """Run all by turns; return milliseconds per image by runtime and round, and peak memory by runtime."""
    flags = ["--folder", args.folder, "--ckpt_file", args.ckpt_file, "--category", args.category]
    flags += ["--image_size", args.image_size, "--threads", args.threads]
    workers = {
        name: processes.Worker("benchmarks.inference", ["--worker", name, *flags], ENVIRONMENT) for name in WORKERS
    }
    milliseconds = {name: [] for name in (CPP, *WORKERS)}
    memory = {}
    for _ in range(args.rounds):
        own, memory[CPP] = run_program(args)
        milliseconds[CPP].append(own)
        for name, worker in workers.items():
            milliseconds[name].append(json.loads(worker.ask()))
    for name, worker in workers.items():
        memory[name] = worker.close()
    return milliseconds, memory


def trunk_flops(size):
    """Multiplications and additions of the convolutions of one trunk for one image."""
    sides = {"stem": size // 2, "layer1": size // 4, "layer2": size // 8, "layer3": size // 16}
    work = 3 * 64 * 49 * sides["stem"] ** 2 + 4 * 64 * 64 * 9 * sides["layer1"] ** 2
    for name, channels in (("layer2", 128), ("layer3", 256)):
        into = channels // 2
        work += (into * channels * (9 + 1) + 3 * channels * channels * 9) * sides[name] ** 2
    return 2 * work


PEAK_SIDE = 2048
PEAK = """
import sys, time, statistics, torch
torch.set_num_threads(int(sys.argv[1]))
side = int(sys.argv[2])
matrix, seconds = torch.rand(side, side), []
for _ in range(9):
    started = time.perf_counter()
    matrix @ matrix
    seconds.append(time.perf_counter() - started)
print(2 * side**3 / statistics.median(seconds))
"""


def peak_flops(threads):
    """What a product of two large float32 matrices reaches here, per second.

    In a process of its own: a child's peak memory is never below its parent's, which therefore stays small.
    """
    return float(processes.run([sys.executable, "-c", PEAK, threads, PEAK_SIDE], ENVIRONMENT)[2])


def table(milliseconds, memory, maps, *, flops, peak):
    lines = [
        "| runtime | median ms | least ms | C++ / this | GFLOP/s | of the peak | memory, MB | maps differ by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    expected = maps[CKPT]
    for name, rounds in milliseconds.items():
        medians = [statistics.median(one) for one in rounds]
        own = [statistics.median(one) for one in milliseconds[CPP]]
        ratio = statistics.median(a / b for a, b in zip(own, medians, strict=True))
        difference = np.abs(maps[name] - expected).max() / np.abs(expected).max()
        median, least = statistics.median(medians), min(min(one) for one in rounds)
        speed = flops / median * 1000
        lines.append(
            f"| {name} | {median:.1f} | {least:.1f} | {ratio:.2f} | {speed / 1e9:.0f} | {speed / peak:.2f} "
            f"| {memory[name]:.0f} | {difference:.1e} |"
        )
    return "\n".join(lines)


def time_preprocessing(path, size):
    """Median milliseconds from a picture file to the network's input."""
    from src.data.images import load_image, to_network_input

    milliseconds = []
    for _ in range(20):
        started = time.perf_counter()
        to_network_input(load_image(path, square(size))[None])
        milliseconds.append((time.perf_counter() - started) * 1000)
    return statistics.median(milliseconds)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--ckpt_file", type=Path, required=True, help="checkpoint that train.py wrote")
    parser.add_argument("--category", required=True, help="its category")
    parser.add_argument("--image_size", type=int, help="default: the checkpoint's")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=20, help="of the network, a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--image_path", type=Path, help="picture whose decoding is timed, too")
    parser.add_argument("--readme", type=Path, nargs="+", default=[], help="whose tables are to be renewed")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(args):
    if args.worker:
        processes.answer(work(args, sys.stdin))
        return 0
    if find_spec("openvino") is None:
        raise InputError("OpenVINO is not installed: pip install -r benchmarks/requirements.txt")
    args.ckpt_file = args.ckpt_file.resolve()
    size = ImageSize(args.image_size, args.image_size) if args.image_size else None
    model = inspect_model(args.ckpt_file, category=args.category, image_size=size)
    if model.view != square(model.view.size.height):
        raise InputError(
            f"{args.ckpt_file}: looks at {model.view.to_json()}; this benchmark is of square, whole images"
        )
    args.image_size = side = model.view.size.height
    processes.run(["bash", ROOT / "ascend_310_infer/build.sh", "CPU"], os.environ | {"STPM_PYTHON": sys.executable})
    with tempfile.TemporaryDirectory() as name:
        args.folder = Path(name)
        prepare(args)
        peak = peak_flops(args.threads)
        milliseconds, memory = measure(args)
        maps = {worker: np.load(args.folder / f"{worker}.npy") for worker in WORKERS}
        results = sorted((args.folder / "out").glob("*_0.bin"))
        maps[CPP] = np.stack([np.fromfile(path, np.float32).reshape(1, side, side) for path in results])
    rows = table(milliseconds, memory, maps, flops=2 * trunk_flops(side), peak=peak)
    print(f"{side}x{side}, batch {args.batch_size}, {args.threads} threads, {args.rounds} interleaved rounds of "
          f"{args.calls} calls; peak {peak / 1e9:.0f} GFLOP/s\n\n{rows}")  # fmt: skip
    for readme in args.readme:
        replace_marked(readme, f"inference, batch {args.batch_size}", lambda _: rows)
    if args.image_path:
        print(f"{args.image_path}: {time_preprocessing(args.image_path, side):.1f} ms from file to network input")
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
