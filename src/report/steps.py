"""The thresholds that the report's slider offers, and what each makes of the test images.

Between two neighbouring scores all thresholds give the same verdicts. So there is one step for each, and the page's
script need neither compare numbers nor compute intervals: all counts and rates are those of ``evaluation.threshold``.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..evaluation.decision import DecisionRule, is_anomalous
from ..evaluation.results import count_verdicts
from ..evaluation.threshold import Decision
from ..utils import LARGEST


@dataclass(frozen=True)
class Step:
    """One position of the slider.

    Attributes:
        threshold: the fewest digits that give these verdicts, at least four of the set threshold.
        ratio: in units of the set threshold.
        first_review, first_defective: ranks of the lowest score that is for review or more, and that is defective.
        decision: verdicts and rates.
    """

    threshold: str
    ratio: float
    first_review: int
    first_defective: int
    decision: Decision


def score_ranks(scores: np.ndarray) -> np.ndarray:
    """Return the rank of each score among the different ones, from 0: int (N,)."""
    return np.unique(np.asarray(scores, np.float32), return_inverse=True)[1].reshape(-1)


def threshold_steps(
    scores: np.ndarray, labels: np.ndarray, threshold: float, *, review: float | None = None
) -> tuple[list[Step], int]:
    """Return the steps in ascending order, and which of them the set threshold is.

    Args:
        scores: (N,), not negative.
        labels: bool (N,), True for defective.
        threshold: the set one, positive.
        review: share of the threshold from which an image is for review; None: none is.
    """
    different = np.unique(np.asarray(scores, np.float32)).astype(np.float64)
    usual = int(np.searchsorted(different, np.float64(np.float32(threshold))))
    # below the lowest score and above the highest one, at least so far that the set threshold is inside
    lowest, highest = min(different[0], threshold) / 2, max(min(2 * different[-1], LARGEST), threshold)
    bounds = np.concatenate([[lowest], different, [highest]])

    def step(text: str, value: float) -> Step:
        rule = DecisionRule(value, review=review)
        first_defective = len(different) - int(is_anomalous(different, value).sum())
        first_review = first_defective - int(rule.is_doubtful(different).sum())
        decision = count_verdicts(scores, labels, rule)
        assert decision is not None
        return Step(text, value / threshold, first_review, first_defective, decision)

    steps = []
    for rank, (low, high) in enumerate(pairwise(bounds.tolist())):
        if rank == usual:
            steps.append(step(_shortest(threshold, 4, low, high), threshold))
        elif low < high:  # not below a score of 0, nor above the largest number
            text = _shortest((low + high) / 2, 1, low, high)
            steps.append(step(text, float(text)))
    return steps, [one.first_defective for one in steps].index(usual)


def _shortest(value: float, digits: int, low: float, high: float) -> str:
    """Write a number with so many digits, or as many more as keep it above ``low`` and not above ``high`` as float32.

    That of the highest score itself, where two scores are neighbouring numbers.
    """
    for count in range(digits, 10):
        text = f"{value:.{count}g}"
        if low < np.float32(text) <= high:
            return text
    return f"{np.float32(high):.9g}"
