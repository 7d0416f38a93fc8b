"""A model's threshold: the scores of good images, and where it is kept."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.samples import Sample
from ..data.stream import decode
from ..data.view import View
from ..evaluation.decision import DecisionRule
from ..evaluation.threshold import CONFIDENCE, Calibration, calibrate
from ..utils import LOGGER, InputError
from .maps import Network, predict_maps
from .sidecar import record_calibration


def score_good(
    network: Network, samples: list[Sample], *, view: View, batch_size: int, min_area: int = 1
) -> np.ndarray:
    """Return the anomaly scores of good images, float32 (N,), in memory that does not depend on their number.

    Args:
        min_area: as of ``DecisionRule``.

    Raises:
        InputError: an image is unreadable; the message names it.
    """
    decoded = decode((sample.path for sample in samples), view=view, ahead=2 * batch_size)
    rule = DecisionRule(min_area=min_area)
    scores = []
    while batch := list(itertools.islice(decoded, batch_size)):
        for loaded in batch:
            if loaded.error:
                raise InputError(loaded.error)
        images = np.stack([loaded.image for loaded in batch])
        scores.append(rule.scores(predict_maps(network, images, batch_size=batch_size)))
    return np.concatenate(scores)


def store_threshold(
    model_path: Path,
    scores: np.ndarray,
    names: Sequence[str],
    *,
    target_fpr: float,
    sha256: str,
    min_area: int | None = None,
    review: float | None = None,
) -> Calibration | None:
    """Set the threshold by the scores of good images and write it beside the model; None where it cannot be set.

    Args:
        scores: float32 (N,).
        names: of the images' files.
        sha256: of the model's file that computed the scores.
        min_area: by which the scores are, as of ``DecisionRule``; None: by the one that is kept beside the model.
        review: as of ``DecisionRule``; None: it stays what it is.

    Raises:
        InputError: it cannot be written, or the file is another one by now.
    """
    try:
        calibration = calibrate(scores, target_fpr=target_fpr)
    except ValueError as error:
        LOGGER.warning("warning: no threshold for %s: %s", model_path, error)
        return None
    about = calibration.to_json() | {"scores": dict(zip(names, map(float, scores), strict=True))}
    record_calibration(model_path, about, sha256=sha256, min_area=min_area, review=review)
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
