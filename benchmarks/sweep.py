"""What a sweep costs besides the trainings: seconds per category, and the driver's memory, from few to many categories.

    python -m benchmarks.sweep [--categories 10 50 200] [--device_num 2]

The programs that a sweep runs are replaced by ones that only write their outputs, so that what is left is scheduling
and bookkeeping: Ray, notes on disk, the results table.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import processes
from src.utils import run_entry_point

STUB = """
import json, pathlib, sys
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
category = flags["--category"]
folder = pathlib.Path(flags.get("--train_url") or flags["--out_dir"]) / category
if "--train_url" in flags:
    (folder / f"{category}_last.ckpt").touch()
else:
    (folder / "results.json").write_text(json.dumps({"pixel_auroc": 0.9, "image_auroc": 0.8, "pro": 0.7}))
"""


def make_data(folder, count):
    picture = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    for i in range(count):
        for part in ("train/good", "test/good"):
            path = folder / f"category{i:05}" / part / "000.png"
            path.parent.mkdir(parents=True)
            picture.save(path)


def resident_megabytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def work(count, device_num, folder):
    """Be a driver: one sweep; prints seconds of start-up, seconds in all, resident memory."""
    from src.sweep import __main__ as sweep

    stub = folder / "stub.py"
    stub.write_text(STUB)
    started = time.perf_counter()
    sweep.start_ray(device_num)
    ready = time.perf_counter()
    programs = sweep.Programs(train=stub, evaluate=stub)
    jobs = sweep.make_jobs(folder / "data", folder / "out", "random", flags=[], programs=programs)
    options = sweep.task_options("CPU", sweep.node_cores(), device_num)
    memory = []
    sweep.run_jobs(
        jobs,
        at_a_time=device_num,
        options=options,
        on_change=lambda job: memory.append(resident_megabytes()),
        on_tick=lambda: None,
    )
    sweep.write_tables(folder / "out", [(job.category, job.metrics()) for job in jobs])
    assert all(job.state == "finished" for job in jobs)
    print(ready - started, time.perf_counter() - ready, statistics.median(memory[-10:]))


def time_stub(folder):
    """Seconds of one stub, a bare Python process: the part that is not the sweep's."""
    (folder / "out/x").mkdir(parents=True)
    started = time.perf_counter()
    for _ in range(5):
        words = [sys.executable, folder / "stub.py", "--category", "x", "--train_url", folder / "out"]
        processes.run(words)
    return (time.perf_counter() - started) / 5


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--categories", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--device_num", type=int, default=2, help="categories at a time")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(args):
    if args.worker:
        work(args.categories[0], args.device_num, args.worker)
        return 0
    print("categories  start-up s  s per category  of it two stubs  driver MB")
    for count in args.categories:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_data(folder / "data", count)
            (folder / "out").mkdir()
            command = [sys.executable, "-m", "benchmarks.sweep", "--worker", folder, "--categories", count]
            _, _, output = processes.run([*command, "--device_num", args.device_num])
            start, seconds, memory = (float(value) for value in output.split()[-3:])
            stubs = 2 * time_stub(folder)
        print(f"{count:10} {start:11.1f} {seconds / count:15.3f} {stubs:16.3f} {memory:10.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
