"""What a larger image costs: time and memory of a training step, and of a map, from 256x256 to 1024x1024 pixels.

    python -m benchmarks.image_size --ckpt_file CKPT --category CATEGORY [--sizes 256 512 1024] [--batch_size 4]
                                    [--rounds 3] [--calls 5] [--threads 2] [--readme docs/small_defects.md ...]

A training step is one of whole images, with the teacher's features cached; of pieces it is that of the first size.
Maps are those of a checkpoint as src/predict.py computes them, and of the exported model in the C++ program, batch 1.
Every size runs once a round, by turns; reported are medians, of all or per megapixel, and the peak memory of a process
of its own. How busy the machine is besides is said at the beginning.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import inference, processes
from benchmarks.processes import ROOT
from src.model.model_file import inspect_model
from src.report.table import replace_marked
from src.utils import InputError, core_count, run_entry_point

TABLE = "cost of a size"
TRAINING, PREDICTION, PROGRAM = "a training step", "a map, src/predict.py", "a map, C++ program"


def time_steps(args):
    """Return the seconds of training steps, and the peak memory in MB, by size."""
    workers = {
        size: processes.Worker(
            "benchmarks.train_step",
            ["--worker", "ours", "--batch_size", args.batch_size, "--image_size", size],
        )
        for size in args.sizes
    }
    seconds = {size: [] for size in args.sizes}
    for _ in range(args.rounds):
        for size, worker in workers.items():
            seconds[size].append(float(worker.ask()))
    return seconds, {size: worker.close() for size, worker in workers.items()}


def time_maps(args, size, folder):
    """Return, of one size, the seconds of maps and the peak memory in MB: of the checkpoint, and of the program."""
    words = ["--ckpt_file", args.ckpt_file, "--category", args.category, "--image_size", size, "--calls", args.calls]
    words += ["--folder", folder, "--threads", args.threads]
    inference_args = inference.parse_args([str(word) for word in words])
    inference.prepare(inference_args, file_formats=("MINDIR",))
    of_program, program_memory = [], 0.0
    worker = processes.Worker("benchmarks.inference", ["--worker", inference.CKPT, *words], inference.ENVIRONMENT)
    of_checkpoint = []
    for _ in range(args.rounds):
        of_checkpoint += json.loads(worker.ask())
        milliseconds, program_memory = inference.run_program(inference_args)
        of_program += milliseconds
    memory = worker.close()
    return ([one / 1000 for one in of_checkpoint], memory), ([one / 1000 for one in of_program], program_memory)


def row(what, size, batch_size, seconds, memory):
    """Return a row of the table: of all, and per megapixel."""
    median = statistics.median(seconds)
    megapixels = batch_size * size**2 / 1e6
    return (
        f"| {what} | {size}x{size} | {batch_size} | {median:.3f} s | {median / megapixels:.2f} s "
        f"| {memory / 1000:.2f} GB |"
    )


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--ckpt_file", type=Path, required=True, help="checkpoint that train.py wrote")
    parser.add_argument("--category", required=True, help="its category")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--batch_size", type=int, default=4, help="of a training step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=5, help="maps of a round")
    parser.add_argument("--threads", type=int, default=core_count())
    parser.add_argument("--readme", type=Path, nargs="*", default=[], help="pages whose table to replace")
    return parser.parse_args(argv)


def main(args):
    args.ckpt_file = args.ckpt_file.resolve()
    model = inspect_model(args.ckpt_file, category=args.category)
    if model.view.roi or model.view.ignored_runs:
        raise InputError(f"{args.ckpt_file}: looks at a part of the image; this benchmark is of whole ones")
    print(f"{core_count()} cores; tasks that ran or waited in the last minute, on average: {os.getloadavg()[0]:.1f}")
    processes.run(["bash", ROOT / "ascend_310_infer/build.sh"], os.environ | {"STPM_PYTHON": sys.executable})
    seconds, memory = time_steps(args)
    lines = [
        "| | size | batch | time | per megapixel | peak memory |",
        "| --- | --- | --- | --- | --- | --- |",
        *(row(TRAINING, size, args.batch_size, seconds[size], memory[size]) for size in args.sizes),
    ]
    of_checkpoint, of_program = [], []
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, program = time_maps(args, size, folder)
        of_checkpoint.append(row(PREDICTION, size, 1, *checkpoint))
        of_program.append(row(PROGRAM, size, 1, *program))
    rows = "\n".join([*lines, *of_checkpoint, *of_program])
    print(rows)
    for page in args.readme:
        replace_marked(page, TABLE, lambda _: rows)
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
