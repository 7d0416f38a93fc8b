"""Time a detector on images in memory beside its bare network, by turns: what do resizing, verdicts and regions cost?

    python -m benchmarks.detector --model MODEL [--images 200] [--side 900] [--rounds 5] [--grey]

The bare network gets the same images as inputs that are ready. Every round runs both, by turns, in one process;
reported are the medians of the rounds, and the median, least and largest of the ratios round by round, of the clock and
of core time, which other programs on the machine hardly change.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from src.data.images import load_image, to_network_input
from src.detector import open_detector
from src.model.model_file import choose_rule, inspect_model
from src.utils import core_count, run_entry_point


def make_images(count, side, *, is_grey):
    """Return a few random images, again and again: uint8 (side, side, 3), or (side, side)."""
    shape = (side, side) if is_grey else (side, side, 3)
    some = [np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i in range(min(count, 16))]
    return [some[i % len(some)] for i in range(count)]


def seconds():
    """Return the seconds of the clock, and those that all cores have worked for this process: float64 (2,)."""
    return np.array([time.perf_counter(), time.process_time()])


def time_bare(detector, inputs, count):
    """Return the seconds, as of ``seconds``, that the network alone takes for so many images."""
    started = seconds()
    done = 0
    while done < count:
        detector._network(inputs[done // len(inputs[0]) % len(inputs)])
        done += len(inputs[0])
    return (seconds() - started) * count / done


def time_stream(detector, images):
    """Return the seconds, as of ``seconds``, that inspections of these images take."""
    started = seconds()
    for inspection in detector.stream(images):
        assert inspection.score is not None, inspection.error
    return seconds() - started


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help=".ckpt, .mindir or .onnx")
    parser.add_argument("--images", type=int, default=200, help="a round")
    parser.add_argument("--side", type=int, default=900, help="of an image, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--grey", action="store_true", help="grey images instead of RGB")
    return parser.parse_args(argv)


def main(args):
    model = inspect_model(args.model)
    detector = open_detector(model, choose_rule(model))
    images = make_images(args.images, args.side, is_grey=args.grey)
    ready = np.stack([load_image(image, model.view) for image in images[:16]])
    size = model.batch_size
    inputs = [to_network_input(ready[np.arange(i, i + size) % len(ready)]) for i in range(0, len(ready), size)]
    time_bare(detector, inputs, size)
    time_stream(detector, images[:size])
    rounds = np.array([(time_bare(detector, inputs, len(images)), time_stream(detector, images))
                       for _ in range(args.rounds)])  # fmt: skip # (rounds, 2 programs, 2 kinds of seconds)
    print(f"{args.model.name}, {len(images)} images of {args.side}x{args.side}, {core_count()} cores:")
    for kind, name in enumerate(("clock", "core time")):
        bare, stream = np.median(rounds[..., kind], axis=0) * 1000 / len(images)
        ratios = rounds[:, 0, kind] / rounds[:, 1, kind]
        print(
            f"{name}: bare network {bare:.1f} ms, detector {stream:.1f} ms an image; speed {np.median(ratios):.2f} of "
            f"the bare network's ({ratios.min():.2f} to {ratios.max():.2f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
