"""A model's threshold: by the scores of good images, and where it is kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.threshold import CONFIDENCE, Calibration, calibrate, doubt
from ..utils import LOGGER, InputError
from .sidecar import record_calibration


class NoThresholdError(InputError):
    """The scores of good images are such that no threshold can be set by them."""


def set_threshold(scores: np.ndarray, *, target_fpr: float, of: str) -> Calibration:
    """Set the threshold by the scores of good images, float32 (N,); warn where it is not to be trusted.

    Args:
        of: what errors call the model.

    Raises:
        NoThresholdError: as ``calibrate`` says.
    """
    try:
        calibration = calibrate(scores, target_fpr=target_fpr)
    except ValueError as error:
        raise NoThresholdError(f"no threshold for {of}: {error}") from error
    doubtful = doubt(calibration, scores)
    if doubtful:
        LOGGER.warning("warning: the threshold %.6g of %s %s", calibration.threshold, of, doubtful)
    return calibration


def store_threshold(
    model_path: Path,
    calibration: Calibration,
    scores: np.ndarray,
    names: Sequence[str],
    *,
    sha256: str,
    min_area: int | None = None,
    review: float | None = None,
) -> None:
    """Write a threshold beside its model.

    Args:
        scores: those that it was set by, float32 (N,).
        names: of the images' files.
        sha256: of the model's file that computed the scores.
        min_area: by which the scores are, as of ``DecisionRule``; None: by the one that is kept beside the model.
        review: as of ``DecisionRule``; None: it stays what it is.

    Raises:
        InputError: it cannot be written, or the file is another one by now.
    """
    about: Any = calibration.to_json() | {"scores": dict(zip(names, map(float, scores), strict=True))}
    record_calibration(model_path, about, sha256=sha256, min_area=min_area, review=review)
    low, high = calibration.fpr_interval
    LOGGER.info(
        "threshold %.6g (%s of %d good images, target false positive rate %g; the true one lies in %.4f to %.4f "
        "with %.0f %% confidence)",
        calibration.threshold,
        calibration.method,
        calibration.images,
        calibration.target_fpr,
        low,
        high,
        100 * CONFIDENCE,
    )
