"""Set a model's decision threshold by good images that it was not trained on.

python -m src.calibrate --ckpt_path bottle_last.ckpt --category bottle --image_path more_good_images
"""

import argparse
import sys
from pathlib import Path

from .config import build_parser
from .data.samples import GOOD, Sample, list_images
from .evaluation.threshold import check_image_count
from .files import make_output_folder
from .model.calibration import score_good, store_threshold
from .model.model_file import EXPORTED_SUFFIXES, inspect_model, load_detector
from .utils import LOGGER, InputError, run_entry_point

FLAG_NAMES = (
    "ckpt_path", "category", "image_path", "target_fpr", "image_size", "eval_batch_size", "device_target", "device_id",
)  # fmt: skip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = build_parser(__doc__, FLAG_NAMES)
    args = parser.parse_args(argv)
    for name in ("ckpt_path", "image_path"):
        if getattr(args, name) is None:
            parser.error(f"--{name} is required")
    return args


def main(args: argparse.Namespace) -> int:
    """Calibrate; return the exit status."""
    model = inspect_model(
        Path(args.ckpt_path), category=args.category, image_size=args.image_size, batch_size=args.eval_batch_size
    )
    if model.sidecar is None:
        raise InputError(f"{model.path.with_suffix('.json')}: is missing; the threshold is kept in it")
    if model.image_size != model.sidecar.image_size:
        raise InputError(
            f"--image_size {model.image_size}: {model.path} has its threshold at {model.sidecar.image_size} pixels; "
            "leave the flag out, or export it at that size and calibrate the exported model"
        )
    make_output_folder(model.path.parent)  # for the threshold
    samples = [Sample(path, GOOD) for path in list_images(Path(args.image_path))]
    try:
        check_image_count(len(samples), target_fpr=args.target_fpr)
    except ValueError as error:
        raise InputError(f"{args.image_path}: cannot set a threshold: {error}") from error
    detector = load_detector(model, device_target=args.device_target, device_id=args.device_id)
    scores = score_good(detector, samples, image_size=model.image_size, batch_size=model.batch_size)
    stored = store_threshold(model.path, scores, samples, target_fpr=args.target_fpr, sha256=model.sha256)
    if not stored:
        return 1
    if model.path.suffix not in EXPORTED_SUFFIXES:
        LOGGER.info(
            "models exported from it before keep their threshold: export again, or calibrate them themselves, such as "
            "--ckpt_path %s.mindir",
            model.sidecar.category,
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
