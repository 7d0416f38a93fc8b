"""AUROC and PRO on numpy arrays. No mindspore here.

An undefined metric is ``nan``; ``why_undefined`` tells the reason.
"""

import math

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
    _check_shapes(scores, labels)
    _check_finite(scores)
    if why_undefined(labels):
        return float("nan")
    return float(roc_auc_score(labels.ravel(), scores.ravel()))


class PixelRanking:
    """Anomaly maps whose pixels are sorted once, for all the metrics over them.

    Args:
        maps: float32 (N, H, W).

    Raises:
        ValueError: a value is not finite.
    """

    def __init__(self, maps: np.ndarray):
        _check_finite(maps)
        self.maps = maps
        self._order = np.argsort(maps, axis=None)[::-1]

    def auroc(self, labels: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Area under the ROC curve, as ``auroc``'s; of the images that ``rows``, bool (N,), selects, if given.

        Args:
            labels: bool (N, H, W).
        """
        _check_shapes(self.maps, labels)
        order = self._order
        if rows is not None:
            order = order[rows[order // math.prod(labels.shape[1:])]]
        sorted_labels = labels.ravel()[order]
        if why_undefined(sorted_labels):
            return float("nan")
        is_last = _is_last_of_equals(self.maps.ravel()[order])
        positives = np.cumsum(sorted_labels)[is_last]
        negatives = np.flatnonzero(is_last) + 1 - positives
        area = np.trapz(np.append(0, positives), np.append(0, negatives))
        return float(area / (positives[-1] * negatives[-1]))

    def pro_curve(self, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return false positive rate and PRO at every distinct score, from (0, 0) on; both classes must be present.

        Args:
            masks: bool (N, H, W).
        """
        is_last = _is_last_of_equals(self.maps.ravel()[self._order])
        fpr = np.cumsum(~masks.ravel()[self._order])[is_last] / np.count_nonzero(~masks)
        pro = np.cumsum(_overlap_gain(masks).ravel()[self._order], dtype=np.float64)[is_last]
        return np.append(0.0, fpr), np.append(0.0, pro)

    def per_region_overlap(self, masks: np.ndarray, max_fpr: float = PRO_MAX_FPR) -> float:
        """Area under the PRO curve up to ``max_fpr``, divided by ``max_fpr`` (Bergmann et al. 2021, section 4.3.1).

        At each threshold, PRO is the mean over ground-truth regions of the share of the region that is above it. The
        curve over the false positive rate is exact: all scores, no sampled thresholds. ``nan`` without both classes.

        Args:
            masks: bool (N, H, W).
        """
        _check_shapes(self.maps, masks)
        if why_undefined(masks):
            return float("nan")
        return _area_up_to(*self.pro_curve(masks), max_fpr) / max_fpr


def _is_last_of_equals(descending: np.ndarray) -> np.ndarray:
    """Return where a curve over sorted scores has a point: at the last of equal ones."""
    return np.append(descending[1:] != descending[:-1], True)


def bootstrap_auroc(scores: np.ndarray, labels: np.ndarray, *, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return a 95 % percentile interval of an AUROC over redrawn test images, good and defective ones apart.

    Pixels of one image are not independent, so whole images are drawn. Scores are told apart by 2048 quantiles. A draw
    without both classes, as when one image alone has good pixels, has no AUROC and does not count; ``nan`` where
    there is but one class.

    Args:
        scores: (N,), or (N, H, W) for pixels.
        labels: bool, of the same shape; an image is defective where any of its labels is True.

    Raises:
        ValueError: a score is not finite, or shapes differ.
    """
    _check_shapes(scores, labels)
    _check_finite(scores)
    if why_undefined(labels):
        return float("nan"), float("nan")
    count, bins = len(scores), 2048
    # scores themselves: between two of them, however far apart, nothing need be computed
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1], method="higher"))
    cells = np.searchsorted(edges, scores, side="right").reshape(count, -1)
    flags = labels.reshape(count, -1)
    width = len(edges) + 1
    negatives = np.stack([np.bincount(row[~flag], minlength=width) for row, flag in zip(cells, flags, strict=True)])
    positives = np.stack([np.bincount(row[flag], minlength=width) for row, flag in zip(cells, flags, strict=True)])
    rng = np.random.default_rng(seed)
    weights = np.zeros((draws, count))
    for group in (np.flatnonzero(flags.any(1)), np.flatnonzero(~flags.any(1))):
        if len(group):
            weights[:, group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)), size=draws)
    good, bad = weights @ negatives, weights @ positives
    below = np.cumsum(good, axis=1) - good / 2
    pairs = good.sum(1) * bad.sum(1)
    defined = pairs > 0
    low, high = np.quantile((bad * below).sum(1)[defined] / pairs[defined], [0.025, 0.975])
    return float(low), float(high)


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


def _check_shapes(scores: np.ndarray, labels: np.ndarray) -> None:
    if scores.shape != labels.shape:
        raise ValueError(f"scores have shape {scores.shape}, labels {labels.shape}")


def _check_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity")


def image_scores(maps: np.ndarray) -> np.ndarray:
    """Return the anomaly score of each image, the maximum of its map: (N, H, W) -> (N,)."""
    return maps.max(axis=(1, 2))
