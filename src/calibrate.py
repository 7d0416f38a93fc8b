"""Set a model's decision threshold by good images that it was not trained on.

python -m src.calibrate --ckpt_path bottle_last.ckpt --category bottle --image_path more_good_images

python -m src.calibrate --mindir_path bottle.mindir --scores bottle/310_infer/maps/scores.csv
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from .config import build_parser, resolve_aliases
from .data.arrays import area_in_map
from .data.samples import list_images
from .detector import open_detector
from .evaluation.decision import DecisionRule
from .evaluation.threshold import check_image_count
from .exchange.scores import read_good_scores
from .files import make_output_folder
from .model.calibration import NoThresholdError, set_threshold, store_threshold
from .model.model_file import EXPORTED_SUFFIXES, inspect_model
from .utils import LOGGER, InputError, run_entry_point

FLAG_NAMES = (
    "ckpt_path", "mindir_path", "category", "image_path", "scores", "label_dir", "target_fpr", "min_area",
    "review", "image_size", "eval_batch_size", "device_target", "device_id",
)  # fmt: skip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = build_parser(__doc__, FLAG_NAMES, optional=("category", "label_dir"))
    args = parser.parse_args(argv)
    resolve_aliases(parser, args, "ckpt_path", "mindir_path")
    if args.image_path is None and args.scores is None:
        parser.error("--image_path is required, good images, or --scores, what the C++ program made of such")
    if args.image_path is not None and args.scores is not None:
        parser.error("give --image_path or --scores, not both")
    if args.label_dir is not None and args.scores is None:
        parser.error("--label_dir belongs to --scores")
    if args.min_area is not None and args.scores is not None:
        parser.error("--min_area: what --scores has was computed with the model's own; give --image_path with it")
    if args.scores is not None:
        if len(args.scores) > 1:
            parser.error("--scores: give one file, of all the good images")
        (args.scores,) = args.scores
    return args


def main(args: argparse.Namespace) -> int:
    """Calibrate; return the exit status."""
    model = inspect_model(
        Path(args.ckpt_path), category=args.category, image_size=args.image_size, batch_size=args.eval_batch_size
    )
    if model.sidecar is None:
        raise InputError(f"{model.path.with_suffix('.json')}: is missing; the threshold is kept in it")
    if model.view.size != model.sidecar.view.size:
        raise InputError(
            f"--image_size {model.view.size}: {model.path} has its threshold at {model.sidecar.view.size} pixels; "
            "leave the flag out, or export it at that size and calibrate the exported model"
        )
    is_exported = model.path.suffix in EXPORTED_SUFFIXES
    if args.scores and not is_exported:
        raise InputError(f"--scores: are of an exported model, and {model.path} is a checkpoint; see --mindir_path")
    make_output_folder(model.path.parent)  # for the threshold
    if args.scores:
        inputs = Path(args.label_dir) if args.label_dir else None
        read = read_good_scores(
            Path(args.scores),
            model=model.path,
            category=model.sidecar.category,
            min_area=model.min_area,
            inputs=inputs,
        )
        check_count(len(read), of=args.scores, target_fpr=args.target_fpr)
        scores = np.array(list(read.values()), np.float32)
        try:
            calibration = set_threshold(scores, target_fpr=args.target_fpr, of=args.ckpt_path)
        except NoThresholdError as error:
            LOGGER.warning("warning: %s", error)
            return 1
        store_threshold(model.path, calibration, scores, list(read), sha256=model.sha256, review=args.review)
    else:
        paths = list_images(Path(args.image_path))
        check_count(len(paths), of=args.image_path, target_fpr=args.target_fpr)
        min_area = model.min_area if args.min_area is None else area_in_map(args.min_area, paths, model.view)
        rule = DecisionRule(min_area=min_area)
        detector = open_detector(model, rule, device_target=args.device_target, device_id=args.device_id)
        try:
            detector.calibrate(paths, args.target_fpr, review=args.review)
        except NoThresholdError as error:
            LOGGER.warning("warning: %s", error)
            return 1
    if not is_exported:
        LOGGER.info(
            "models exported from it before keep their threshold: export again, or calibrate them themselves, such as "
            "--ckpt_path %s.mindir",
            model.sidecar.category,
        )
    return 0


def check_count(count: int, *, of: str, target_fpr: float) -> None:
    """Check that so many good images can set a threshold.

    Raises:
        InputError: they cannot; the message names the path ``of`` which they are.
    """
    try:
        check_image_count(count, target_fpr=target_fpr)
    except ValueError as error:
        raise InputError(f"{of}: cannot set a threshold: {error}") from error


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
