"""AUROC and PRO on numpy arrays. No mindspore here.

An undefined metric is ``nan``; ``undefined_reason`` tells the reason.
"""

from typing import Literal

import numpy as np
from scipy import ndimage
from sklearn.metrics import auc, roc_auc_score

# MVTec's evaluation code integrates PRO up to this false positive rate and counts 8-connected regions.
PRO_MAX_FPR = 0.3
_EIGHT_CONNECTED = np.ones((3, 3), int)


def undefined_reason(labels: np.ndarray) -> str | None:
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
    if undefined_reason(labels):
        return float("nan")
    return float(roc_auc_score(labels.ravel(), scores.ravel()))


class PixelRanking:
    """Anomaly maps whose pixels are sorted once, for all the metrics over them.

    Args:
        maps: float32 (N, H, W).
        counted: which pixels of each map count, bool (H, W); None: all.

    Raises:
        ValueError: a value is not finite.
    """

    def __init__(self, maps: np.ndarray, counted: np.ndarray | None = None):
        _check_finite(maps)
        self.maps, self._counted = maps, counted
        self._sorted = self._sort(maps)

    def _sort(self, maps: np.ndarray) -> np.ndarray:
        return np.sort(maps if self._counted is None else maps[:, self._counted], axis=None)

    def _counted_of(self, labels: np.ndarray) -> np.ndarray:
        return labels if self._counted is None else labels & self._counted

    def auroc(self, labels: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Area under the ROC curve, as ``auroc``'s; of the images that ``rows``, bool (N,), selects, if given.

        It is the share of the pairs of a good and a defective pixel in which the defective one's score is the higher,
        equal ones counted by half (Hanley & McNeil 1982).

        Args:
            labels: bool (N, H, W).
        """
        _check_shapes(self.maps, labels)
        maps, ranked, labels = self.maps, self._sorted, self._counted_of(labels)
        if rows is not None:
            maps, labels = maps[rows], labels[rows]
            ranked = self._sort(maps)
        if not 0 < np.count_nonzero(labels) < len(ranked):
            return float("nan")
        positives = np.sort(maps[labels])
        below, upto = (_count_negatives(positives, ranked, positives, side) for side in ("left", "right"))
        pairs = len(positives) * (len(ranked) - len(positives))
        return float((below.sum() + upto.sum()) / 2 / pairs)

    def pro_curve(self, masks: np.ndarray, max_fpr: float = PRO_MAX_FPR) -> tuple[np.ndarray, np.ndarray]:
        """Return false positive rate and PRO up to ``max_fpr``, where PRO changes; both classes must be present.

        At each threshold, PRO is the mean over ground-truth regions of the share of the region that is above it. The
        curve is exact: all scores, no sampled thresholds.

        Args:
            masks: bool (N, H, W).
        """
        masks = self._counted_of(masks)
        positives, gains = self.maps[masks], _overlap_gains(masks)
        order = np.argsort(positives)[::-1]
        is_last = np.append(np.diff(positives[order]) != 0, True)  # a point stands at the last of equal scores
        thresholds, pro = positives[order][is_last], np.cumsum(gains[order])[is_last]
        positives = positives[order][::-1]
        negatives = len(self._sorted) - len(positives)
        above, from_it = (
            1 - _count_negatives(thresholds, self._sorted, positives, side) / negatives for side in ("right", "left")
        )
        # up to a threshold the curve is flat; at it, good and defective pixels of the same score are a slope
        fpr = np.concatenate([[0.0], np.stack([above, from_it], axis=1).ravel(), [1.0]])
        before = np.append(0.0, pro[:-1])
        pro = np.concatenate([[0.0], np.stack([before, pro], axis=1).ravel(), pro[-1:]])
        inside = int(np.searchsorted(fpr, max_fpr, side="right"))
        if inside == len(fpr):
            return fpr, pro
        end = np.interp(max_fpr, fpr[inside - 1 : inside + 1], pro[inside - 1 : inside + 1])
        return np.append(fpr[:inside], max_fpr), np.append(pro[:inside], end)

    def per_region_overlap(self, masks: np.ndarray, max_fpr: float = PRO_MAX_FPR) -> float:
        """Area under the PRO curve up to ``max_fpr``, divided by ``max_fpr`` (Bergmann et al. 2021, section 4.3.1).

        ``nan`` without both classes.

        Args:
            masks: bool (N, H, W).
        """
        _check_shapes(self.maps, masks)
        if not 0 < np.count_nonzero(self._counted_of(masks)) < len(self._sorted):
            return float("nan")
        return float(auc(*self.pro_curve(masks, max_fpr))) / max_fpr


def _count_negatives(
    scores: np.ndarray, ranked: np.ndarray, positives: np.ndarray, side: Literal["left", "right"]
) -> np.ndarray:
    """Count the negatives below each score, or up to it with ``side`` "right", among all scores and the positives."""
    return np.searchsorted(ranked, scores, side) - np.searchsorted(positives, scores, side)


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
    if undefined_reason(labels):
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


def _overlap_gains(masks: np.ndarray) -> np.ndarray:
    """Return what each defective pixel adds to the mean overlap once it is above the threshold, in their order."""
    gains, regions = [], 0
    for mask in masks:
        labelled, count = ndimage.label(mask, structure=_EIGHT_CONNECTED)
        gains.append(1 / np.bincount(labelled.ravel())[labelled[mask]])
        regions += count
    return np.concatenate(gains) / regions


def _check_shapes(scores: np.ndarray, labels: np.ndarray) -> None:
    if scores.shape != labels.shape:
        raise ValueError(f"scores have shape {scores.shape}, labels {labels.shape}")


def _check_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity")
