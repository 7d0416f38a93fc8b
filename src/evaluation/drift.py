"""Whether the good products of a line still have the scores that a threshold was set by. No mindspore here.

Defective products have high scores and must not pass for a drift of the good ones. So two things are tested:

- Among the scores below the threshold, which are nearly all of good products, the recent ones are compared with the
  calibration's (Kolmogorov and Smirnov's test of two samples, two-sided). How many lie above does not matter.
- The share above the threshold must be explained by false alarms and by at most so many defective products as are
  expected (exact binomial test). Else a drift that lifts all good ones above the threshold would leave nothing to see.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from .decision import is_anomalous
from .threshold import proportion_interval, scipy_stats

# A distance of the two distributions below which nobody would act, however certain it is: a tenth of the good products.
SMALLEST_DISTANCE = 0.1
# One that must not be overlooked: half of them, such as by a shift of normal distributions by 1.35 deviations.
LARGEST_MISSED = 0.5


class State(IntEnum):
    """What is found, and the exit status that says so; 1 and 2 are those of errors and of bad usage."""

    AS_CALIBRATED = 0
    DRIFTING = 3
    TOO_FEW = 4

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Comparison:
    """Some recent scores beside those of the calibration.

    Attributes:
        scores: how many there are.
        defective: how many of them reach the threshold.
        interval: where the share of these lies, exactly, with 95 % probability.
        median: of those below the threshold, as a share of the threshold; None where none is.
        median_before: the same of the calibration.
        distance: Kolmogorov and Smirnov's, of those below the threshold; 0 where none is.
        p_value: probability of such a distance, or a larger one, if nothing has changed.
        share_p_value: probability of so many defective verdicts, or more, if there are no more than expected.
    """

    scores: int
    defective: int
    interval: tuple[float, float]
    median: float | None
    median_before: float | None
    distance: float
    p_value: float
    share_p_value: float

    @property
    def below(self) -> int:
        """How many lie below the threshold."""
        return self.scores - self.defective


def expected_share(defect_rate: float, false_positive_rate: float) -> float:
    """Return the share of defective verdicts where this share of products is defective, all of them found."""
    return defect_rate + (1 - defect_rate) * false_positive_rate


def compare(recent: np.ndarray, calibrated: np.ndarray, *, threshold: float, largest_share: float) -> Comparison:
    """Compare recent scores, (N,), with those of the calibration, (M,).

    Args:
        largest_share: of defective verdicts that is expected (``expected_share``).
    """
    stats = scipy_stats()
    verdicts = is_anomalous(recent, threshold)
    defective = int(verdicts.sum())
    below, reference = recent[~verdicts], calibrated[~is_anomalous(calibrated, threshold)]
    share_p_value = 1.0
    if len(recent):
        share_p_value = float(stats.binomtest(defective, len(recent), largest_share, alternative="greater").pvalue)
    distance, p_value = 0.0, 1.0
    if len(below) and len(reference):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that it takes the asymptotic distribution: as well
            found = stats.ks_2samp(below, reference)
        distance, p_value = float(found.statistic), float(found.pvalue)
    median, median_before = (float(np.median(some)) / threshold if len(some) else None for some in (below, reference))
    interval = proportion_interval(defective, len(recent))
    return Comparison(len(recent), defective, interval, median, median_before, distance, p_value, share_p_value)


@dataclass(frozen=True)
class Judgement:
    """What the comparisons say together.

    Attributes:
        reasons: a sentence each.
        drifting: numbers of the periods that differ, from 0.
    """

    state: State
    reasons: tuple[str, ...]
    drifting: tuple[int, ...] = ()


def needed_scores(calibrated: int, level: float) -> int | None:
    """Return of how many recent scores ``LARGEST_MISSED`` would be noticed; None where that takes a larger calibration.

    By the test's asymptotic critical distance, sqrt(-log(level / 2) / 2) sqrt(1/n + 1/m).

    Args:
        calibrated: number of scores behind the threshold.
        level: of the single test.
    """
    left = LARGEST_MISSED**2 / (-math.log(level / 2) / 2) - 1 / max(calibrated, 1)
    return math.ceil(1 / left) if left > 0 else None


def judge(whole: Comparison, periods: Sequence[Comparison], *, calibrated: int, false_alarm_rate: float) -> Judgement:
    """Judge a look at the line: all recent scores, and those of each period.

    Of all tests in it together, one fails with at most ``false_alarm_rate`` where nothing has changed (Bonferroni).

    Args:
        calibrated: number of scores behind the threshold that lie below it.
    """
    level = false_alarm_rate / (2 * (1 + len(periods)))
    reasons = _differences(whole, level)
    drifting = tuple(i for i, period in enumerate(periods) if _differences(period, level))
    if drifting and not reasons:
        reasons = _differences(periods[drifting[-1]], level)
    if reasons:
        return Judgement(State.DRIFTING, reasons, drifting)
    needed = needed_scores(calibrated, level)
    if needed is None:
        least = next(n for n in range(calibrated, 10**6) if needed_scores(n, level))
        reason = f"{calibrated} scores behind the threshold are too few to notice a drift by; at least {least} are not"
        return Judgement(State.TOO_FEW, (f"{reason}: calibrate by more good images",))
    if whole.below < needed:
        return Judgement(State.TOO_FEW, (f"{whole.below} scores below the threshold; {needed} are needed",))
    return Judgement(State.AS_CALIBRATED, ())


def _differences(found: Comparison, level: float) -> tuple[str, ...]:
    reasons = []
    if found.distance >= SMALLEST_DISTANCE and found.p_value < level:
        shift = (found.median or 0) - (found.median_before or 0)
        if shift == 0:
            what = "are spread otherwise"
        elif shift > 0:
            what = "are higher: more good products will be called defective"
        else:
            what = "are lower: defects may be missed"
        reasons.append(f"the scores below the threshold {what}")
    if found.share_p_value < level:
        reasons.append(
            "more products are called defective than --defect_rate and false alarms explain: so many are, or the "
            "scores of good ones have risen above the threshold"
        )
    return tuple(reasons)
