"""Compare settings of trainings: the metrics by epoch, and what good images that were held out say.

    python -m benchmarks.recipes --runs published a/capsule b/capsule --runs recommended c/capsule d/capsule
        [--last 5] [--figure docs/recipes.png] [--held_out DATASET_PATH]

A run is the output folder of a training, one of several seeds: with --eval_interval for the metrics, with --val_split
for --held_out. The tables hold mean and range over the runs. --held_out computes, of the last checkpoint and of the
good images that its training held out, the loss per image in evaluation and the mean of the anomaly maps: a setting can
be chosen by them without a test image.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from src.data.arrays import decode_images
from src.data.samples import hold_out, list_train
from src.device import set_up_device
from src.evaluation.results import Metric
from src.files import atomic_path, read_json
from src.model.model_file import inspect_model
from src.model.record import TrainingFolder
from src.utils import InputError, run_entry_point

METRICS: dict[Metric, str] = {"pixel_auroc": "pixel AUROC", "image_auroc": "image AUROC", "pro": "PRO"}


def read_runs(folders):
    """Return the records of some runs, of the same evaluated epochs."""
    records = [read_json(folder / "train.json") for folder in folders]
    epochs = [[one["epoch"] for one in record["evaluations"]] for record in records]
    for folder, found in zip(folders, epochs, strict=True):
        if not found or found != epochs[0]:
            raise InputError(
                f"{folder}: evaluated after epochs {found}, expected {epochs[0] or 'some'} as in the first"
            )
    return records


def curves(records, metric):
    """Return the epochs that were evaluated, and their metric in each run: (runs, epochs)."""
    values = [[one[metric] for one in record["evaluations"]] for record in records]
    return [one["epoch"] for one in records[0]["evaluations"]], np.array(values, float)


def mean_and_range(values):
    """Return "mean (lowest to highest)"; the number alone where there is one."""
    mean = f"{np.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} to {max(values):.4f})"


def metrics_table(groups, last):
    """Return a table of the last evaluations of every group."""
    lines = [
        "| setting | epoch | minutes | " + " | ".join(METRICS.values()) + " |",
        "| --- " * (3 + len(METRICS)) + "|",
    ]
    for name, records in groups.items():
        epochs, _ = curves(records, "pro")
        for i, epoch in list(enumerate(epochs))[-last:]:
            minutes = np.mean([sum(one["seconds"] for one in record["epochs"][:epoch]) for record in records]) / 60
            cells = [mean_and_range(curves(records, metric)[1][:, i]) for metric in METRICS]
            lines.append(f"| {name} | {epoch} | {minutes:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(groups, path):
    """Draw every metric by epoch: the mean of each group, and its range."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(METRICS), 3.2), layout="constrained")
    for axes, (metric, caption) in zip(figure.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        for name, records in groups.items():
            epochs, values = curves(records, metric)
            (line,) = axes.plot(epochs, values.mean(0), marker=".", label=name)
            axes.fill_between(epochs, values.min(0), values.max(0), color=line.get_color(), alpha=0.2)
        axes.set(xlabel="epoch", title=caption)
        axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def held_out_loss(folder, data):
    """Return the loss per held-out image of a run's last checkpoint, and the mean of their anomaly maps."""
    category = read_json(folder / "train.json")["category"]
    model = inspect_model(TrainingFolder(folder, category).checkpoint)
    config = (model.sidecar and model.sidecar.config) or {}
    if "val_split" not in config:
        raise InputError(f"{folder}: its training held out no images (--val_split)")
    _, samples = hold_out(list_train(data, category), config["val_split"], seed=config["seed"])
    images = decode_images(samples, view=model.view)
    set_up_device()
    from src.backend import StpmNetwork
    from src.checkpoint import load_stpm
    from src.model.maps import predict_maps
    from src.stpm import STPM
    from src.training.held_out import HeldOutLoss
    from src.training.trainer import cached_features

    stpm = load_stpm(STPM(), model.path)
    features = cached_features(stpm, images, budget_bytes=2 * 10**9, spill_folder=folder)
    maps = predict_maps(StpmNetwork(stpm, view=model.view), images, batch_size=model.batch_size)
    return HeldOutLoss(stpm, images, features)(), float(maps.mean())


def held_out_table(groups, data):
    """Return a table of what held-out images say of every group."""
    lines = ["| setting | loss per held-out image | mean of their maps |", "| --- | --- | --- |"]
    for name, folders in groups.items():
        found = np.array([held_out_loss(folder, data) for folder in folders])
        lines.append(f"| {name} | {mean_and_range(found[:, 0])} | {found[:, 1].mean():.2e} |")
    return "\n".join(lines)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", action="append", required=True, metavar=("NAME", "FOLDER"))
    parser.add_argument("--last", type=int, default=5, help="how many evaluations the table holds, from the last back")
    parser.add_argument("--figure", type=Path, help="picture to write: the metrics by epoch")
    parser.add_argument("--held_out", type=Path, metavar="DATASET_PATH", help="data set that the runs were trained on")
    args = parser.parse_args(argv)
    for name, *folders in args.runs:
        if not folders:
            parser.error(f"--runs {name}: expected a name and the output folders of trainings")
    return args


def main(args):
    folders = {name: [Path(folder) for folder in words] for name, *words in args.runs}
    if args.held_out:
        print(held_out_table(folders, args.held_out))
        return 0
    groups = {name: read_runs(words) for name, words in folders.items()}
    print(metrics_table(groups, args.last))
    if args.figure:
        draw(groups, args.figure)
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
