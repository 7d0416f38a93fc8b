"""Time one image's anomaly map in the C++ program, ONNX Runtime and OpenVINO: the same exported network, interleaved.

    python -m benchmarks.inference --ckpt_file CKPT --category CATEGORY [--rounds 7] [--images 20] [--threads 2]
                                   [--image_path PICTURE]

Every round runs each of them once, by turns, over the same images, after a few uncounted calls; reported are the median
of the rounds' medians, the least of all, and the median of the ratios round by round. Maps are compared with
MindSpore's.
OpenVINO runs twice: held to float32, as the others compute, and as it comes (bfloat16 where the processor has it).
Needs benchmarks/requirements.txt and what ascend_310_infer/build.sh needs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "ascend_310_infer/build/stpm_infer"
CPP = "C++, MindSpore Lite"
WORKERS = ("ONNX Runtime", "OpenVINO float32", "OpenVINO default")
WARMUP = 5
ENVIRONMENT = dict(os.environ)  # before src.utils.prepare_environment limits MindSpore's, and others', instruction set


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


def work(name, folder, threads):
    """Be a worker: for each line on stdin, one round; its milliseconds per image to stdout. The last maps are kept."""
    model = folder / "model.onnx"
    if name == "ONNX Runtime":
        infer = make_onnxruntime(model, threads)
    else:
        infer = make_openvino(model, threads, {"INFERENCE_PRECISION_HINT": "f32"} if "float32" in name else {})
    images = [np.load(path) for path in sorted((folder / "npy").iterdir())]
    print("ready", flush=True)
    for _ in sys.stdin:
        for image in images[:WARMUP]:
            infer(image)
        milliseconds, maps = [], []
        for image in images:
            started = time.perf_counter()
            one = infer(image)
            milliseconds.append((time.perf_counter() - started) * 1000)
            maps.append(np.array(one))
        np.save(folder / f"{name}.npy", np.concatenate(maps))
        print(json.dumps(milliseconds), flush=True)


def prepare(args, folder):
    """Export the checkpoint, write random inputs, compute MindSpore's maps of them; return those."""
    (folder / "npy").mkdir()
    (folder / "in").mkdir()
    for file_format in ("MINDIR", "ONNX"):
        command = [sys.executable, "export.py", "--ckpt_file", args.ckpt_file, "--category", args.category]
        subprocess.run([*command, "--file_format", file_format, "--out_dir", folder], cwd=ROOT, check=True)
    (folder / f"{args.category}.onnx").rename(folder / "model.onnx")
    (folder / f"{args.category}.mindir").rename(folder / "model.mindir")
    size = json.loads((folder / f"{args.category}.json").read_text())["image_size"]
    images = np.random.default_rng(0).standard_normal((args.images, 1, 3, size, size)).astype(np.float32)
    for i, image in enumerate(images):
        np.save(folder / f"npy/{i:05}.npy", image)
        image.tofile(folder / f"in/{i:05}.bin")

    from src.model_file import inspect_model, load_map_function

    anomaly_map = load_map_function(inspect_model(Path(args.ckpt_file), category=args.category, image_size=size))
    return np.concatenate([anomaly_map(image) for image in images])


def run_program(folder, threads):
    """Run the C++ program once; return its milliseconds per image."""
    command = [PROGRAM, "--mindir_path", folder / "model.mindir", "--input_path", folder / "in", "--device_type", "CPU"]
    command += ["--result_path", folder / "out", "--time_path", folder, "--warmup", str(WARMUP)]
    environment = {"GLOG_v": "3"} | ENVIRONMENT
    subprocess.run([*command, "--threads", str(threads)], check=True, stdout=subprocess.DEVNULL, env=environment)
    rows = (folder / "out/scores.csv").read_text().splitlines()[1:]
    return [float(row.split(",")[2]) for row in rows]


def start_workers(folder, threads):
    workers = {}
    for name in WORKERS:
        command = [sys.executable, "-m", "benchmarks.inference", "--worker", name, "--folder", folder]
        workers[name] = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=ENVIRONMENT,
        )
        if workers[name].stdout.readline().strip() != "ready":
            sys.exit(f"error: the worker {name!r} ended")
    return workers


def measure(folder, args):
    """Run all by turns; return milliseconds of every image by runtime and round."""
    workers = start_workers(folder, args.threads)
    milliseconds = {name: [] for name in (CPP, *WORKERS)}
    for _ in range(args.rounds):
        milliseconds[CPP].append(run_program(folder, args.threads))
        for name, worker in workers.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            milliseconds[name].append(json.loads(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return milliseconds


def report(milliseconds, maps, expected):
    print(f"{'':<22} median ms   least ms   C++/this   relative difference of the maps from MindSpore's")
    for name, rounds in milliseconds.items():
        medians = [statistics.median(one) for one in rounds]
        own = [statistics.median(one) for one in milliseconds[CPP]]
        ratio = statistics.median(a / b for a, b in zip(own, medians, strict=True))
        difference = np.abs(maps[name] - expected).max() / np.abs(expected).max()
        least = min(min(one) for one in rounds)
        print(f"{name:<22} {statistics.median(medians):9.1f} {least:10.1f} {ratio:10.2f}   {difference:.1e}")


def time_preprocessing(path, size):
    """Median milliseconds from a picture file to the network's input."""
    from src.images import load_image, to_network_input

    milliseconds = []
    for _ in range(20):
        started = time.perf_counter()
        to_network_input(load_image(path, size)[None])
        milliseconds.append((time.perf_counter() - started) * 1000)
    return statistics.median(milliseconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--ckpt_file", help="checkpoint that train.py wrote")
    parser.add_argument("--category", help="its category")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=20, help="images per round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--image_path", type=Path, help="picture whose decoding is timed, too")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.folder, args.threads)
        return
    if not args.ckpt_file or not args.category:
        parser.error("--ckpt_file and --category are required")
    args.ckpt_file = str(Path(args.ckpt_file).resolve())
    environment = os.environ | {"STPM_PYTHON": sys.executable}
    subprocess.run(["bash", ROOT / "ascend_310_infer/build.sh"], check=True, env=environment)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = prepare(args, folder)
        milliseconds = measure(folder, args)
        maps = {worker: np.load(folder / f"{worker}.npy") for worker in WORKERS}
        side = expected.shape[-1]
        results = sorted((folder / "out").glob("*_0.bin"))
        maps[CPP] = np.stack([np.fromfile(path, np.float32).reshape(1, side, side) for path in results])
        print(
            f"{side}x{side}, batch 1, {args.threads} threads, {args.rounds} interleaved rounds of {args.images} images"
        )
        report(milliseconds, maps, expected)
        if args.image_path:
            print(f"{args.image_path}: {time_preprocessing(args.image_path, side):.1f} ms from file to network input")


if __name__ == "__main__":
    main()
