"""A decision threshold from the scores of good images alone, and what a test set with labels says of it.

The threshold is the score from which an image is called defective. It is set so that a further good image is called
defective with a given probability, the target false positive rate. No mindspore here.
"""

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from typing import Any, NotRequired, TypedDict

import numpy as np

from ..device import pinned
from ..utils import LARGEST, InputError
from .decision import is_anomalous

# Two-sided probability of all intervals.
CONFIDENCE = 0.95
MIN_IMAGES = 2
# A threshold is worth a warning where it rests on fewer images than the first, or lies above the highest of their
# scores by more than the second. Scores of good images spread by 10 to 40 % (standard deviation of their logarithms).
# The log-normal limit of 10 images for a rate of 0.01 is then 1.1 to 1.7 times the highest score (medians), of 5 images
# up to 2.9 times, of 3 up to 11 times, of 2 up to 35,000 times: no defect is found by such.
FEW_IMAGES = 10
FAR_ABOVE = 2.0


def scipy_stats() -> Any:
    """Return ``scipy.stats``, imported where it is needed: a host that only scores need not have it.

    Raises:
        InputError: it is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise InputError(f"this needs scipy, which is not installed: pip install {pinned('scipy')}") from error
    return stats


def as_float32(threshold: float) -> float:
    """Return the smallest float32 number that is not below a threshold: rounded down, it would call more defective."""
    rounded = np.float32(threshold)
    return float(rounded if rounded >= threshold else np.nextafter(rounded, np.float32(np.inf)))


@dataclass(frozen=True)
class Calibration:
    """A threshold and how far it can be trusted.

    Attributes:
        threshold: score from which an image is defective, a float32 number as scores are.
        target_fpr: probability, asked for, that a further good image reaches it.
        method: "order statistic" or "log-normal".
        images: number of good images behind it.
        fpr_interval: where the true false positive rate lies, with probability ``CONFIDENCE``.
    """

    threshold: float
    target_fpr: float
    method: str
    images: int
    fpr_interval: tuple[float, float]

    def to_json(self) -> dict:
        """Return the content of a sidecar's "calibration"."""
        return asdict(self) | {"fpr_interval": list(self.fpr_interval), "confidence": CONFIDENCE}


def check_image_count(count: int, *, target_fpr: float) -> None:
    """Check that so many good images can set a threshold, whatever their scores are.

    Raises:
        ValueError: fewer than ``MIN_IMAGES``, or too low a rate for them.
    """
    if count < MIN_IMAGES:
        raise ValueError(f"{count} {'image' if count == 1 else 'images'}, expected at least {MIN_IMAGES}")
    if not np.isfinite(scipy_stats().t.ppf(1 - target_fpr, count - 1)):
        raise ValueError(f"no score is so high that {count} images tell of a rate of {target_fpr}")


def calibrate(scores: np.ndarray, *, target_fpr: float) -> Calibration:
    """Set the threshold from scores of good images that were not trained on.

    With n + 1 >= 1 / target_fpr images, the score of rank k = ceil((n + 1)(1 - target_fpr)): a further good image lies
    above it with probability of at most target_fpr, whatever the distribution (split conformal prediction, Vovk et al.
    2005), and the true rate is distributed as Beta(n + 1 - k, k). With fewer, no score is rare enough: then the upper
    prediction limit of a log-normal distribution, exp(m + t s sqrt(1 + 1/n)) with Student's t of n - 1 degrees of
    freedom, which holds the rate on average if the distribution is right.

    Args:
        scores: (N,), positive.

    Raises:
        ValueError: as by ``check_image_count``; a score is not positive and finite; or some are so far apart that the
            threshold would be infinite.
    """
    count = len(scores)
    check_image_count(count, target_fpr=target_fpr)
    if not (np.isfinite(scores).all() and (scores > 0).all()):
        raise ValueError("scores must be positive and finite")
    stats = scipy_stats()
    tail = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    rate = Fraction(str(target_fpr))  # as it was written: 10 * (1 - 0.7) is above 3 in binary numbers
    if (count + 1) * rate >= 1:
        rank = math.ceil((count + 1) * (1 - rate))
        # the next number: the score of that rank is itself a good one
        threshold = float(np.nextafter(np.float32(np.sort(scores)[rank - 1]), np.float32(np.inf)))
        low, high = (float(stats.beta.ppf(p, count + 1 - rank, rank)) for p in tail)
        return Calibration(threshold, target_fpr, "order statistic", count, (low, high))
    logarithms = np.log(scores.astype(np.float64))
    factor = float(stats.t.ppf(1 - target_fpr, count - 1)) * np.sqrt(1 + 1 / count)
    logarithm = logarithms.mean() + factor * logarithms.std(ddof=1)
    if logarithm > np.log(LARGEST):
        raise ValueError(f"scores from {scores.min():g} to {scores.max():g} are too far apart for {count} images")
    threshold = as_float32(np.exp(logarithm))
    return Calibration(threshold, target_fpr, "log-normal", count, _normal_rate_interval(count, factor))


def doubt(calibration: Calibration, scores: np.ndarray) -> str | None:
    """Say what makes a threshold doubtful, as the end of a sentence that begins with it; None where nothing does.

    Args:
        scores: by which it was set, (N,).
    """
    ratio = calibration.threshold / float(scores.max())
    if calibration.images >= FEW_IMAGES and ratio <= FAR_ABOVE:
        return None
    far = f" and is {ratio:.3g} times the highest of their scores" if ratio > FAR_ABOVE else ""
    enough = max(FEW_IMAGES, math.ceil(1 / Fraction(str(calibration.target_fpr))) - 1)
    return (
        f"rests on {calibration.images} good images{far}: calibrate with more, at least {FEW_IMAGES}; from {enough} on "
        "it is one of their scores"
    )


def _normal_rate_interval(count: int, factor: float) -> tuple[float, float]:
    """Interval of the probability that a normal variable exceeds mean + factor * s of a sample of ``count``.

    The limit lies above the quantile z if (Z + z sqrt(n)) / S <= factor sqrt(n), with Z standard normal and S^2
    chi-squared over its n - 1 degrees of freedom: the noncentral t distribution, here averaged over quantiles of S,
    since library functions for it fail far from the centre. Solved for z by bisection.
    """
    stats = scipy_stats()
    points = (np.arange(2000) + 0.5) / 2000
    spreads = np.sqrt(stats.chi2.ppf(points, count - 1) / (count - 1))
    root = np.sqrt(count)

    def rate(probability: float) -> float:
        low, high = -8.0, 60.0
        for _ in range(60):
            middle = (low + high) / 2
            if stats.norm.cdf(root * (factor * spreads - middle)).mean() > probability:
                low = middle
            else:
                high = middle
        return float(stats.norm.sf(low))

    tail = (1 - CONFIDENCE) / 2
    return rate(tail), rate(1 - tail)


@cache
def proportion_interval(successes: int, count: int) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a proportion; (0, 1) without observations."""
    if count == 0:
        return 0.0, 1.0
    interval = scipy_stats().binomtest(successes, count).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


class Rate(TypedDict):
    """A proportion, None where there is nothing to count, and its interval."""

    value: float | None
    interval: list[float]


# Images between the share of the threshold ``from`` which they are to be looked at and the threshold, by their label.
Review = TypedDict("Review", {"from": float, "good": int, "defective": int})


class Decision(TypedDict):
    """Verdicts on labelled images; positive is defective."""

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    false_positive_rate: Rate
    recall: Rate
    precision: Rate
    confidence: float  # of the intervals
    review: NotRequired[Review]


def confusion(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Decision:
    """Count verdicts on labelled images, with rates and their intervals; a rate without observations is None.

    Args:
        scores: (N,).
        labels: bool (N,), True for defective.
    """
    verdicts = is_anomalous(scores, threshold)
    found, alarms = int((verdicts & labels).sum()), int((verdicts & ~labels).sum())
    good, defective = int((~labels).sum()), int(labels.sum())

    def rate(part: int, whole: int) -> Rate:
        return {"value": part / whole if whole else None, "interval": list(proportion_interval(part, whole))}

    return {
        "threshold": threshold,
        "true_positives": found,
        "false_positives": alarms,
        "true_negatives": good - alarms,
        "false_negatives": defective - found,
        "false_positive_rate": rate(alarms, good),
        "recall": rate(found, defective),
        "precision": rate(found, found + alarms),
        "confidence": CONFIDENCE,
    }


def best_f1_threshold(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the threshold of the highest F1 on labelled images, halfway to the next lower score, as float32.

    It has seen the answers: a bound on what a threshold could do, not a threshold to use. None where no image is
    defective.
    """
    if not labels.any():
        return None
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(labels[order])
    f1 = 2 * found / (np.arange(1, len(scores) + 1) + labels.sum())
    ordered = scores[order].astype(np.float64)
    is_last_of_ties = np.append(ordered[:-1] > ordered[1:], True)
    best = int(np.argmax(np.where(is_last_of_ties, f1, -1)))
    below = ordered[best + 1] if best + 1 < len(ordered) else 0.0
    return as_float32((ordered[best] + below) / 2)
