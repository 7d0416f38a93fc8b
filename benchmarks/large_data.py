"""Train on many images, with all caches in memory and with all of them memory-mapped.

    python -m benchmarks.large_data [--images 20000] [--image_size 64] [--batch_size 32] [--memory_max 1.5]

The images are links to a few synthetic pictures. Reported are the seconds of the second epoch and the memory of the
process that is its own (RssAnon), mapped files apart. With --memory_max the memory-mapped run is put into a control
group (needs root) that may take so many GB of memory, cached pages of files included, as if the machine had no more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import processes
from benchmarks.processes import ROOT
from src.utils import InputError, run_entry_point

PICTURES = 40


def make_data(folder, count):
    """Link ``count`` training images to the demo's."""
    processes.run([sys.executable, "-m", "src.demo_data", "--out_dir", folder / "demo"])
    pictures = sorted((folder / "demo/washer/train/good").iterdir())[:PICTURES]
    good = folder / "data/many/train/good"
    good.mkdir(parents=True)
    for i in range(count):
        os.link(pictures[i % len(pictures)], good / f"{i:06}.png")
    return folder / "data"


def limited(memory_max):
    """Make a control group of so many GB; return its folder."""
    first_version = Path("/sys/fs/cgroup/memory")
    group = (first_version if first_version.is_dir() else first_version.parent) / f"stpm-{os.getpid()}"
    group.mkdir()
    limit = group / ("memory.limit_in_bytes" if first_version.is_dir() else "memory.max")
    limit.write_text(str(int(memory_max * 1e9)))
    return group


def train(args, data, out, budget, group):
    command = [sys.executable, "train.py", "--data_url", data, "--category", "many", "--pre_ckpt_path", "random"]
    command += ["--train_url", out, "--image_size", args.image_size, "--batch_size", args.batch_size, "--epoch", 2]
    command += ["--cache_budget", budget]
    started, most = time.perf_counter(), 0.0
    process = subprocess.Popen([str(word) for word in command], cwd=ROOT, stdout=subprocess.DEVNULL)
    if group:
        (group / "cgroup.procs").write_text(str(process.pid))
    while process.poll() is None:
        most = max(most, processes.own_megabytes(process.pid))
        time.sleep(0.2)
    if process.returncode:
        raise InputError(f"train.py failed with status {process.returncode}")
    epochs = json.loads((out / "many/train.json").read_text())["epochs"]
    return {"epoch_s": epochs[1]["seconds"], "own_memory_mb": round(most), "all_s": time.perf_counter() - started}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--work_folder", type=Path, help="on a disk; default: the system's, which may be memory")
    parser.add_argument("--memory_max", type=float, help="GB")
    return parser.parse_args(argv)


def main(args):
    with tempfile.TemporaryDirectory(dir=args.work_folder) as name:
        folder = Path(name)
        data = make_data(folder, args.images)
        in_memory = train(args, data, folder / "memory", 1000, None)
        group = limited(args.memory_max) if args.memory_max else None
        try:
            mapped = train(args, data, folder / "mapped", 0, group)
        finally:
            if group:
                group.rmdir()
    for title, row in (("in memory", in_memory), ("memory-mapped", mapped)):
        figures = f"epoch {row['epoch_s']:7.1f} s  own memory {row['own_memory_mb']:6} MB  all {row['all_s']:7.1f} s"
        print(f"{title:<14} {figures}")
    print(f"memory-mapped / in memory: {mapped['epoch_s'] / in_memory['epoch_s']:.2f} of the time")
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
