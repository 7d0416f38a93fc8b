"""Set a model's decision threshold by good images that it was not trained on.

python -m src.calibrate --ckpt_path bottle_last.ckpt --category bottle --image_path more_good_images
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np

from src.calibration import CONFIDENCE, MIN_IMAGES, Calibration, calibrate
from src.config import build_parser
from src.dataset import GOOD, Sample, list_images
from src.evaluate import MapFunction, predict_maps
from src.metrics import image_scores
from src.model_file import EXPORTED_SUFFIXES, inspect_model, load_map_function
from src.picture_stream import decode
from src.sidecar import record_calibration
from src.utils import LOGGER, InputError, make_output_folder, run_entry_point

FLAG_NAMES = (
    "ckpt_path", "category", "image_path", "target_fpr", "image_size", "eval_batch_size", "device_target", "device_id",
)  # fmt: skip


def score_good(anomaly_map: MapFunction, samples: list[Sample], *, image_size: int, batch_size: int) -> np.ndarray:
    """Return the anomaly scores of good images, float32 (N,), in memory that does not depend on their number.

    Raises:
        InputError: a picture is unreadable; the message names it.
    """
    pictures = decode((sample.path for sample in samples), image_size=image_size, ahead=2 * batch_size)
    scores = []
    while batch := list(itertools.islice(pictures, batch_size)):
        for picture in batch:
            if picture.error:
                raise InputError(picture.error)
        images = np.stack([picture.image for picture in batch])
        scores.append(image_scores(predict_maps(anomaly_map, images, batch_size=batch_size)))
    return np.concatenate(scores)


def store_threshold(
    model_path: Path, scores: np.ndarray, samples: list[Sample], *, target_fpr: float, sha256: str
) -> Calibration | None:
    """Set the threshold by the scores of good images and write it beside the model; None where it cannot be set.

    Args:
        sha256: of the model's file that computed the scores.

    Raises:
        InputError: it cannot be written, or the file is another one by now.
    """
    try:
        calibration = calibrate(scores, target_fpr=target_fpr)
    except ValueError as error:
        LOGGER.warning("warning: no threshold for %s: %s", model_path, error)
        return None
    names = [sample.path.name for sample in samples]
    about = calibration.to_json() | {"scores": dict(zip(names, map(float, scores), strict=True))}
    record_calibration(model_path, about, sha256=sha256)
    low, high = calibration.fpr_interval
    LOGGER.info(
        "threshold %.6g (%s of %d good images, target false positive rate %g; the true one lies in %.4f to %.4f "
        "with %.0f %% confidence)",
        calibration.threshold,
        calibration.method,
        calibration.images,
        target_fpr,
        low,
        high,
        100 * CONFIDENCE,
    )
    return calibration


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
    if model.image_size != model.sidecar["image_size"]:
        raise InputError(
            f"--image_size {model.image_size}: {model.path} has its threshold at {model.sidecar['image_size']} pixels; "
            "leave the flag out, or export it at that size and calibrate the exported model"
        )
    make_output_folder(model.path.parent)  # for the threshold
    samples = [Sample(path, GOOD) for path in list_images(Path(args.image_path))]
    if len(samples) < MIN_IMAGES:
        raise InputError(f"{args.image_path}: holds {len(samples)} image, expected at least {MIN_IMAGES}")
    anomaly_map = load_map_function(model, device_target=args.device_target, device_id=args.device_id)
    scores = score_good(anomaly_map, samples, image_size=model.image_size, batch_size=model.batch_size)
    stored = store_threshold(model.path, scores, samples, target_fpr=args.target_fpr, sha256=model.sha256)
    if not stored:
        return 1
    if model.path.suffix not in EXPORTED_SUFFIXES:
        LOGGER.info(
            "models exported from it before keep their threshold: export again, or calibrate them themselves, such as "
            "--ckpt_path %s.mindir",
            model.sidecar["category"],
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
