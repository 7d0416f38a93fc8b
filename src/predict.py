"""Score new images with a trained model: scores, verdicts, defect regions, and pictures that show them.

    python -m src.predict --image_path new_images --ckpt_path bottle/bottle_last.ckpt

Writes to --out_dir: scores.csv (a line per image), regions.csv (a line per region), predictions.json (both).

    python -m src.predict --watch /data/camera --ckpt_path bottle.onnx --format jsonl --out results.jsonl --after move

Writes a line for every picture that comes into a folder, or whose path comes on stdin (--stdin), at once.
"""

import argparse
import contextlib
import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import NotRequired, TextIO, TypedDict

from .config import build_parser, require
from .data.samples import list_images
from .detector import Inspection, open_detector, outlined
from .evaluation.decision import DecisionRule
from .files import atomic_path, make_output_folder, short_name
from .line.jobs import take_stdout, tell
from .model.model_file import ModelFile, choose_rule, inspect_model
from .report.pictures import colour_map, save_panels, scale_legend
from .utils import LOGGER, InputError, command, run_entry_point

FLAG_NAMES = (
    "image_path", "watch", "stdin", "ckpt_path", "out_dir", "threshold", "review", "save_sample", "save_sample_path",
    "format", "out", "after", "after_dir", "journal", "poll_seconds", "deadline_ms", "report_every", "image_size",
    "eval_batch_size", "device_target", "device_id",
)  # fmt: skip
_SCORE_FIELDS = ("file", "score", "relative_score", "verdict", "regions", "error")
_REGION_FIELDS = ("file", "x", "y", "width", "height", "area", "score")
_LONGEST_NAME = 200  # bytes, of the 255 that file systems take: more is added to it, and while it is written


class PredictionRecord(TypedDict):
    """What predictions.json says of an image: score, verdict and regions, or why it could not be read."""

    file: str
    score: NotRequired[float]
    relative_score: NotRequired[float | None]  # as a share of the threshold
    verdict: NotRequired[str | None]
    regions: NotRequired[list[dict]]  # each a ``Region``
    error: NotRequired[str]


class About(TypedDict):
    """What predictions.json says of the model and how it decides, before its list ``images``."""

    model: str
    config_hash: str | None
    threshold: float | None
    min_area: NotRequired[int]  # pixels of an anomaly map, where it is not 1
    review: NotRequired[float]  # share of the threshold, where one is set


class PredictionFiles:
    """scores.csv, regions.csv and predictions.json, written as predictions come. A context manager."""

    def __init__(self, folder: Path, *, about: About):
        self.folder, self.about = folder, about
        self._stack = contextlib.ExitStack()
        self._is_first = True

    def __enter__(self) -> "PredictionFiles":
        files = [self._open(name) for name in ("scores.csv", "regions.csv", "predictions.json")]
        self._stack.push(self._finish)  # runs first: what it raises keeps all three files from getting their names
        scores, regions, self._json = self._files = files
        self._scores = csv.DictWriter(scores, _SCORE_FIELDS, lineterminator="\n")
        self._regions = csv.DictWriter(regions, _REGION_FIELDS, lineterminator="\n")
        self._scores.writeheader()
        self._regions.writeheader()
        self._json.write(json.dumps(self.about)[:-1] + ', "images": [')
        return self

    def _open(self, name: str) -> TextIO:
        temporary = self._stack.enter_context(atomic_path(self.folder / name))
        # surrogateescape: file names need not be text
        return self._stack.enter_context(open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline=""))

    def _finish(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._json.write("\n]}\n")
            for file in self._files:
                file.flush()

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)

    def write(self, prediction: Inspection) -> None:
        """Write what is known of one image."""
        name = Path(prediction.name).name
        row = {
            "file": name,
            "score": prediction.score,
            "relative_score": prediction.relative_score,
            "verdict": prediction.verdict,
        }
        error = prediction.error
        self._scores.writerow(row | {"regions": len(prediction.regions), "error": error})
        regions = [asdict(region) for region in prediction.regions]
        self._regions.writerows({"file": name} | region for region in regions)
        record: PredictionRecord = {"file": name, "error": error} if error else {**row, "regions": regions}
        self._json.write(("\n" if self._is_first else ",\n") + json.dumps(record))
        self._is_first = False


def picture_name(name: str) -> str:
    """Return what the picture of a file of this name is called; a long name ends in its SHA-256's beginning."""
    return f"{short_name(name, _LONGEST_NAME)}.png"


def save_picture(folder: Path, prediction: Inspection, rule: DecisionRule, name: str) -> None:
    """Write image, anomaly map and outlined defect of the picture of a name, all pictures on one colour scale."""
    panels = [prediction.image, colour_map(prediction.anomaly_map, rule.threshold), outlined(prediction)]
    caption = f"{name}   {prediction.verdict}, score {prediction.relative_score:.2f} of the threshold"
    legend = scale_legend("the threshold")
    shape = prediction.box.width, prediction.box.height
    save_panels(folder / picture_name(name), panels, caption=caption, legend=legend, shape=shape)


def warn_of_others(folder: Path, paths: list[Path]) -> None:
    """Warn where a folder for pictures holds others than those of these files, such as an earlier run's."""
    others = {path.name for path in folder.iterdir()} - {picture_name(path.name) for path in paths}
    if others:
        LOGGER.warning(
            "warning: %s: holds %d files that are not of these images, such as %s; they stay",
            folder,
            len(others),
            min(others),
        )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = build_parser(__doc__.splitlines()[0], FLAG_NAMES)
    args = parser.parse_args(argv)
    given = [name for name in ("image_path", "watch", "stdin") if getattr(args, name)]
    if len(given) != 1:
        parser.error(f"expected one of --image_path, --watch and --stdin, got {len(given)}")
    require(parser, args, "ckpt_path")
    for of, has_it, names in (
        ("--watch and --stdin", not args.image_path, ("format", "out", "deadline_ms")),
        ("--watch", args.watch, ("after", "journal", "poll_seconds")),
        ("--after move", args.after == "move", ("after_dir",)),
    ):
        for name in names:
            if not has_it and getattr(args, name) != parser.get_default(name):
                parser.error(f"--{name}: is for {of} only")
    args.out_dir = args.out_dir or "predictions"
    return args


def main(args: argparse.Namespace) -> int:
    """Predict; return 0, or 1 where a picture could not be read, or not be shown."""
    # 1. What goes in
    lines = None if args.image_path else take_stdout()
    model_path = Path(args.ckpt_path)
    # pictures that come one by one are not to wait for others, nor for a batch that is filled up with nothing
    at_once = 1 if model_path.suffix == ".ckpt" and not args.image_path else None
    model = inspect_model(model_path, image_size=args.image_size, batch_size=args.eval_batch_size or at_once)
    rule = choose_rule(model, threshold=args.threshold, review=args.review)
    if args.save_sample and rule.threshold is None:
        raise InputError(
            f"--save_sample: {model.path} has no threshold, which is the unit of the colours; "
            f"calibrate it ({command('calibrate')}) or give --threshold"
        )
    if not args.image_path:
        from .line.follow import follow  # on other systems than Linux its import fails before they are refused

        warn_without_threshold(model, rule)
        drawings = None
        if args.save_sample:
            drawings = make_output_folder(Path(args.save_sample_path or Path(args.out_dir) / "pictures"))
        return follow(
            lambda: open_detector(model, rule, device_target=args.device_target, device_id=args.device_id),
            lambda inspection, name: save_picture(drawings, inspection, rule, name),
            rule=rule,
            watch=args.watch and Path(args.watch),
            out=Path(args.out) if args.out else lines,
            kind=args.format,
            drawings=drawings,
            after=args.after,
            after_folder=args.after_dir and Path(args.after_dir),
            journal_path=args.journal and Path(args.journal),
            poll=args.poll_seconds,
            deadline_ms=args.deadline_ms,
            report_every=args.report_every,
        )
    paths = list_images(Path(args.image_path))
    folder = make_output_folder(Path(args.out_dir))
    pictures = make_output_folder(Path(args.save_sample_path or folder / "pictures")) if args.save_sample else None
    if pictures:
        warn_of_others(pictures, paths)

    # 2. Model and predictions
    detector = open_detector(model, rule, device_target=args.device_target, device_id=args.device_id)
    counts = write_all(detector.stream(paths), len(paths), folder, pictures, model=model, rule=rule)

    # 3. Summary
    LOGGER.info("%s: scores.csv, regions.csv, predictions.json", folder)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    warn_without_threshold(model, rule)
    return 1 if counts["unreadable"] or counts.get("not shown") else 0


def warn_without_threshold(model: ModelFile, rule: DecisionRule) -> None:
    """Warn that there are no verdicts where that is so."""
    if rule.threshold is None:
        where = f"{model.path} has no threshold for {model.view.size} pixels"
        LOGGER.warning("no verdicts: %s (%s, or --threshold)", where, command("calibrate"))


def with_progress(predictions: Iterable[Inspection], total: int) -> Iterable[Inspection]:
    """Return the same; on a terminal, with a progress bar where tqdm is installed: small hosts do without."""
    if not sys.stderr.isatty():
        return predictions
    try:
        from tqdm import tqdm
    except ImportError:
        return predictions
    return tqdm(predictions, total=total, unit="img")


def write_all(
    predictions: Iterable[Inspection],
    total: int,
    folder: Path,
    pictures: Path | None,
    *,
    model: ModelFile,
    rule: DecisionRule,
) -> dict[str, int]:
    """Write every prediction; return how many images had which verdict."""
    counts = {"images": 0, "unreadable": 0} | dict.fromkeys(rule.verdicts, 0)
    about: About = {"model": model.path.name, "config_hash": model.config_hash, "threshold": rule.threshold}
    if rule.min_area > 1:
        about["min_area"] = rule.min_area
    if rule.review is not None:
        about["review"] = rule.review
    with PredictionFiles(folder, about=about) as files:
        for prediction in with_progress(predictions, total):
            files.write(prediction)
            counts["images"] += 1
            if prediction.error:
                counts["unreadable"] += 1
                tell(f"error: {prediction.error}")
            elif prediction.verdict:
                counts[prediction.verdict] += 1
            if pictures and prediction.anomaly_map is not None:
                try:
                    save_picture(pictures, prediction, rule, Path(prediction.name).name)
                except InputError as error:
                    counts["not shown"] = counts.get("not shown", 0) + 1
                    tell(f"error: {error}")
    return counts


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
