"""AUROC and PRO on numpy arrays. No mindspore here.

An undefined metric is ``nan``; ``why_undefined`` tells the reason.
"""

import numpy as np
from scipy import ndimage
from sklearn.metrics import auc, roc_auc_score

# MVTec's evaluation code integrates PRO up to this false positive rate and counts 8-connected regions.
PRO_MAX_FPR = 0.3
_EIGHT_CONNECTED = np.ones((3, 3), int)


def why_undefined(labels: np.ndarray) -> str | None:
    """Return why a metric that compares two classes is undefined for these bool labels, or None where it is defined."""
    if labels.size == 0:
        return "nothing to score"
    if labels.all():
        return "every label is defective: no good one to compare with"
    if not labels.any():
        return "no label is defective"
    return None


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve; ``nan`` where only one class is present.

    Args:
        scores: float32 (...), higher is more anomalous.
        labels: bool, of the same shape.

    Raises:
        ValueError: a score is not finite, or shapes differ.
    """
    _check(scores, labels)
    if why_undefined(labels):
        return float("nan")
    return float(roc_auc_score(labels.ravel(), scores.ravel()))


def per_region_overlap(maps: np.ndarray, masks: np.ndarray, max_fpr: float = PRO_MAX_FPR) -> float:
    """Area under the PRO curve up to ``max_fpr``, divided by ``max_fpr`` (Bergmann et al. 2021, section 4.3.1).

    At each threshold, PRO is the mean over ground-truth regions of the share of the region that is above it. The curve
    over the false positive rate is exact: one sort of all pixels, no sampled thresholds.

    Args:
        maps: float32 (N, H, W).
        masks: bool (N, H, W).

    Raises:
        ValueError: a map value is not finite, or shapes differ.
    """
    _check(maps, masks)
    if why_undefined(masks):
        return float("nan")
    overlap_gain = _overlap_gain(masks)
    order = np.argsort(maps, axis=None, kind="stable")[::-1]
    thresholds = maps.ravel()[order]
    # the curve has one point per distinct score: the last of equal ones
    is_last = np.append(thresholds[1:] != thresholds[:-1], True)
    del thresholds
    fpr = np.cumsum(~masks.ravel()[order])[is_last] / np.count_nonzero(~masks)
    pro = np.cumsum(overlap_gain.ravel()[order], dtype=np.float64)[is_last]
    del order, is_last
    return _area_up_to(np.append(0.0, fpr), np.append(0.0, pro), max_fpr) / max_fpr


def _overlap_gain(masks: np.ndarray) -> np.ndarray:
    """Return what each pixel adds to the mean overlap once it is above the threshold: float64 (N, H, W)."""
    gain = np.zeros(masks.shape)
    regions = 0
    for image_gain, mask in zip(gain, masks, strict=True):
        labelled, count = ndimage.label(mask, structure=_EIGHT_CONNECTED)
        sizes = np.bincount(labelled.ravel(), minlength=count + 1).astype(float)
        sizes[0] = np.inf  # the background gains nothing
        image_gain[:] = 1 / sizes[labelled]
        regions += count
    return gain / regions


def _area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Integrate a curve with non-decreasing x by trapezoids from 0 to ``limit``, interpolating its last piece."""
    inside = int(np.searchsorted(x, limit, side="right"))
    if inside < len(x):
        y_limit = np.interp(limit, x[inside - 1 : inside + 1], y[inside - 1 : inside + 1])
        x, y = np.append(x[:inside], limit), np.append(y[:inside], y_limit)
    return float(auc(x, y))


def _check(scores: np.ndarray, labels: np.ndarray) -> None:
    if scores.shape != labels.shape:
        raise ValueError(f"scores have shape {scores.shape}, labels {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity")


def image_scores(maps: np.ndarray) -> np.ndarray:
    """Return the anomaly score of each image, the maximum of its map: (N, H, W) -> (N,)."""
    return maps.max(axis=(1, 2))
