"""Ours beside PyTorch, end to end: whole trainings and evaluations as a user runs them, by turns on one machine.

    python -m benchmarks.compare [--data_url DIR --category NAME --pre_ckpt_path FILE] [--epochs 3] [--rounds 3]
                                 [--readme docs/performance.md docs/zh/performance.md]

Without data, on the demo's category and a random teacher. Every program runs once a round, each in a process of its
own; reported are medians over the rounds, median and range of the ratios round by round, and the largest peak memory.
A training of 100 epochs is extrapolated: its start, that is whatever is not an epoch or makes the first one longer
than the median of the others, plus 100 times that. Where the processor is fast at bfloat16, --amp_level O2 and PyTorch
under autocast to it are among them.
With --readme the table goes between the markers of these pages, and all figures into benchmarks/compare.json.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import processes
from benchmarks.processes import ROOT
from src.cpu.onednn import no_bfloat16_reason
from src.report.table import replace_marked
from src.utils import core_count, run_entry_point

RESULT = ROOT / "benchmarks/compare.json"
PUBLISHED_EPOCHS = 100
OURS_TRAINING, OURS_BFLOAT16, OURS_EVALUATION = "train.py", "train.py, bfloat16", "test.py"
PEER_TRAININGS = {
    "PyTorch channels_last": ["--layout", "channels_last"],
    "PyTorch default layout": ["--layout", "default"],
    "PyTorch channels_last, with our caches": ["--layout", "channels_last", "--cached"],
}
PEER_BFLOAT16 = {"PyTorch channels_last, bfloat16": ["--layout", "channels_last", "--bfloat16"]}
PEER_EVALUATION = "PyTorch, image by image"


def training(seconds, memory, epochs):
    """Figures of one training from its wall time and its epochs' seconds."""
    epoch = statistics.median(epochs[1:])
    start = seconds - len(epochs) * epoch
    return {"start": start, "epoch": epoch, "whole": start + PUBLISHED_EPOCHS * epoch, "memory": memory}


def one_round(args, teacher, folder):
    """Run everything once; return figures by name."""
    data = ["--data_url", args.data_url, "--category", args.category]
    size = ["--image_size", args.image_size]
    figures = {}
    is_fast = no_bfloat16_reason() is None
    ours = [sys.executable, "train.py", *data, *size, "--pre_ckpt_path", teacher]
    ours += ["--epoch", args.epochs, "--batch_size", args.batch_size]
    for name, level in ((OURS_TRAINING, "O0"), *([(OURS_BFLOAT16, "O2")] if is_fast else [])):
        out = folder / level
        seconds, memory, _ = processes.run([*ours, "--train_url", out, "--amp_level", level])
        record = json.loads((out / args.category / "train.json").read_text())
        figures[name] = training(seconds, memory, [epoch["seconds"] for epoch in record["epochs"]])
    peer = [sys.executable, "-m", "benchmarks.peer"]
    for name, flags in (PEER_TRAININGS | (PEER_BFLOAT16 if is_fast else {})).items():
        command = [*peer, "train", *data, *size, "--epochs", args.epochs, "--batch_size", args.batch_size, *flags]
        seconds, memory, output = processes.run(command)
        figures[name] = training(seconds, memory, json.loads(output))
    checkpoint = folder / "O0" / args.category / f"{args.category}_last.ckpt"
    command = [sys.executable, "test.py", *data, "--ckpt_path", checkpoint, "--out_dir", folder]
    seconds, memory, _ = processes.run(command)
    figures[OURS_EVALUATION] = {"whole": seconds, "memory": memory}
    seconds, memory, _ = processes.run([*peer, "evaluate", *data, *size])
    figures[PEER_EVALUATION] = {"whole": seconds, "memory": memory}
    return figures


def summarise(rounds):
    """Return rows: name, median seconds of start, epoch and whole, ratios of ours to it, peak memory.

    A ratio is its median, least and largest of all rounds.
    """

    def ratio(own, name, key):
        found = [figures[own][key] / figures[name][key] for figures in rounds]
        return [round(value, 2) for value in (statistics.median(found), min(found), max(found))]

    rows = []
    for name in rounds[0]:
        is_training = "epoch" in rounds[0][name]
        row = {"name": name, "memory_mb": round(max(figures[name]["memory"] for figures in rounds))}
        for key in ("start", "epoch", "whole"):
            if key in rounds[0][name]:
                row[f"{key}_s"] = round(statistics.median(figures[name][key] for figures in rounds), 2)
                row[f"{key}_ratio"] = ratio(OURS_TRAINING if is_training else OURS_EVALUATION, name, key)
        if is_training and OURS_BFLOAT16 in rounds[0]:
            row["bfloat16_ratio"] = ratio(OURS_BFLOAT16, name, "whole")
        rows.append(row)
    return rows


def markdown(result):
    lines = [
        "| | start, s | epoch, s | whole, s | train.py / this: epoch | whole | in bfloat16: whole | peak memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = ("start_s", "epoch_s", "whole_s", "epoch_ratio", "whole_ratio", "bfloat16_ratio", "memory_mb")
    for row in result["rows"]:
        lines.append(f"| {row['name']} | " + " | ".join(cell(row.get(key, "")) for key in keys) + " |")
    return "\n".join(lines)


def cell(figure):
    """Return the text of a figure, or of a ratio with its range, unless it is the same in all rounds."""
    if not isinstance(figure, list):
        return str(figure)
    median, least, largest = figure
    return str(median) if least == largest else f"{median} ({least} to {largest})"


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data_url", type=Path, help="data set folder")
    parser.add_argument("--category")
    parser.add_argument("--pre_ckpt_path", type=Path, help="teacher's checkpoint")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3, help="of each training; the first is not counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--readme", type=Path, nargs="+", default=[])
    args = parser.parse_args(argv)
    if args.epochs < 2:
        parser.error(f"--epochs {args.epochs}: the first is not counted, expected 2 or more")
    return args


def main(args):
    teacher = args.pre_ckpt_path.resolve() if args.pre_ckpt_path else "random"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.data_url is None:
            args.data_url, args.category = folder / "data", "washer"
            processes.run([sys.executable, "-m", "src.demo_data", "--out_dir", args.data_url])
        args.data_url = args.data_url.resolve()
        rounds = []
        for i in range(args.rounds):
            rounds.append(one_round(args, teacher, folder / str(i)))
            print(markdown({"rows": summarise(rounds)}), f"\n({i + 1} of {args.rounds} rounds)\n", flush=True)
    names = ("category", "image_size", "batch_size", "epochs", "rounds")
    settings = {name: getattr(args, name) for name in names}
    result = {"settings": settings, "cores": core_count(), "machine": platform.machine()}
    result |= {"rows": summarise(rounds), "all_rounds": rounds}
    if args.readme:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for readme in args.readme:
        replace_marked(readme, "training and evaluation", lambda _: markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
