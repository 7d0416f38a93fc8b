"""Time a training step, ours beside PyTorch's, interleaved on one machine.

    python -m benchmarks.train_step [--steps 5] [--batch_size 32] [--image_size 256]

Ours: the student's step with the teacher's features cached, as train.py runs it on CPU, with --amp_level O2 where
bfloat16 is fast, too. PyTorch: the whole eager step, the teacher inside, as the paper's code does it, in channels_last,
also under autocast to bfloat16, and in the default layout, and held to AVX2 to tell what AVX-512 gives. Each runs in a
process of its own, warmed up, and does one step at a time by turns; reported are medians and the median of the ratios
step by step.
"""

import argparse
import os
import statistics
import sys
import time

import numpy as np

from benchmarks import processes
from src.cpu.onednn import no_bfloat16_reason
from src.utils import run_entry_point

WORKERS = (
    "ours", "ours O2", "torch channels_last", "torch channels_last bfloat16", "torch default",
    "torch channels_last AVX2",
)  # fmt: skip
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def workers_here():
    """Those that this processor is for."""
    return [name for name in WORKERS if name != "ours O2" or no_bfloat16_reason() is None]


def make_ours(images, *, bfloat16):
    from src.device import set_seed, set_up_device

    set_up_device("CPU")
    from mindspore import Tensor, nn

    from src.backend import student_loss
    from src.config import FLAGS
    from src.stpm import STPM
    from src.training.teacher import NormalisedTeacher
    from src.training.trainer import build_optimiser

    set_seed(1)
    stpm = STPM()
    features = NormalisedTeacher(stpm.model_t)(Tensor(images))
    optimiser = build_optimiser(stpm, **{name: FLAGS[name]["default"] for name in ("lr", "momentum", "weight_decay")})
    network = nn.TrainOneStepCell(student_loss(stpm.model_s, bfloat16=bfloat16), optimiser)
    network.set_train()
    inputs = [Tensor(images), *features]
    return lambda: float(network(*inputs).asnumpy())


def make_torch(images, layout, *, bfloat16=False):
    import torch

    from benchmarks.peer import Training, use_all_cores

    use_all_cores()
    training = Training(layout, bfloat16=bfloat16)
    batch = torch.from_numpy(images).contiguous(memory_format=training.layout)
    return lambda: training.step(batch)


def work(args, requests):
    """What a worker answers: a step's seconds for each request."""
    shape = (args.batch_size, 3, args.image_size, args.image_size)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if args.worker.startswith("ours"):
        step = make_ours(images, bfloat16="O2" in args.worker)
    else:
        layout = "channels_last" if "channels_last" in args.worker else "default"
        step = make_torch(images, layout, bfloat16="bfloat16" in args.worker)
    step()
    step()
    yield "ready"
    for _ in requests:
        started = time.perf_counter()
        step()
        yield time.perf_counter() - started


def measure(args):
    workers = {}
    for name in workers_here():
        words = ["--worker", name, "--batch_size", args.batch_size, "--image_size", args.image_size]
        environment = os.environ | (AVX2 if name.endswith("AVX2") else {})
        workers[name] = processes.Worker("benchmarks.train_step", words, environment)
    seconds = {name: [] for name in workers}
    for _ in range(args.steps):
        for name, worker in workers.items():
            seconds[name].append(float(worker.ask()))
    for worker in workers.values():
        worker.close()
    return seconds


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(args):
    if args.worker:
        processes.answer(work(args, sys.stdin))
        return 0
    seconds = measure(args)
    print(f"batch {args.batch_size}, {args.image_size}x{args.image_size}, {args.steps} interleaved steps of each")
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["ours"], values, strict=True))
        print(f"{name:<29} median {statistics.median(values):6.2f} s  min {min(values):6.2f}  max {max(values):6.2f}"
              f"  ours/this {ratio:.2f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
