"""Compare recent scores of a line with those that the model's threshold was set by: as calibrated, or drifting?

    python -m src.monitor --scores predictions/scores.csv --ckpt_path bottle/bottle_last.ckpt

Takes the scores.csv of src.predict, of postprocess.py and of the C++ program. The exit status is 0 if they are as
calibrated, 3 if they are drifting, 4 if they are too few to tell; 1 and 2 are errors. What is tested:
src/evaluation/drift.py.
"""

import argparse
import csv
import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from .config import build_parser, require
from .evaluation.decision import is_anomalous
from .evaluation.drift import Comparison, Judgement, State, compare, expected_share, judge
from .evaluation.threshold import CONFIDENCE
from .files import check_regular_file
from .model.model_file import ModelFile, choose_rule, inspect_model
from .model.sidecar import sidecar_path
from .utils import LOGGER, InputError, command, run_entry_point

FLAG_NAMES = ("scores", "ckpt_path", "defect_rate", "false_alarm_rate")
MOST_PERIODS = 10
PERIOD_SCORES = 50  # of fewer a period would say little


@dataclass(frozen=True)
class Score:
    """A line of a scores.csv.

    Attributes:
        time: as it stands there; "" where the file has no such column.
        seconds: the same, since 1970, for the order.
        is_defective: by the verdict that stands there, if one does.
    """

    value: float
    time: str = ""
    seconds: float = 0.0
    is_defective: bool | None = None


@dataclass(frozen=True)
class ScoresFile:
    """What a scores.csv holds.

    Attributes:
        unreadable: number of pictures that could not be read, which have no score.
    """

    path: Path
    scores: list[Score]
    unreadable: int
    has_times: bool


def read_scores(path: Path) -> ScoresFile:
    """Read a scores.csv: a column ``score``; if they are there, ``time``, ``verdict`` and ``error``; any others.

    Raises:
        InputError: it cannot be read, or is no such file; the message names the line.
    """
    try:
        check_regular_file(path)
        # file names need not be text; other programs may have put a mark before the first column
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            if columns.count("score") != 1:
                raise InputError(
                    f"{path}: expected a scores.csv, with a column score; found {', '.join(columns) or 'none'}"
                )
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file: {error}") from error
    has_times = "time" in columns
    scores, unreadable = [], 0
    for line, row in rows:
        if not row["score"] and row.get("error"):
            unreadable += 1
            continue
        scores.append(_score(row, f"{path}, line {line}", has_times=has_times))
    return ScoresFile(path, scores, unreadable, has_times)


def _score(row: dict[str, str | None], place: str, *, has_times: bool) -> Score:
    text, time = row["score"] or "", row.get("time") or ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{place}: score {text!r}, expected a number of at least 0")
    seconds = _seconds(time) if has_times else 0.0
    if seconds is None:
        raise InputError(f"{place}: time {time!r}, expected such as 2026-05-01T06:30:00, or seconds since 1970")
    verdict = row.get("verdict") or None
    return Score(value, time, seconds, None if verdict is None else verdict == "defective")


def _seconds(time: str) -> float | None:
    """Return a time as seconds since 1970; one without an offset counts as UTC. None where it is no time."""
    try:
        number = float(time)
        return number if math.isfinite(number) else None
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(time.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def calibration_scores(model: ModelFile) -> np.ndarray:
    """Return the scores that a model's threshold was set by, (N,).

    Raises:
        InputError: it has no threshold, or its sidecar does not say by which scores.
    """
    if model.sidecar is None:
        raise InputError(f"{sidecar_path(model.path)}: is missing; the threshold and its scores stand in it")
    if model.threshold is None:
        raise InputError(f"{model.path}: has no threshold to compare with; calibrate it ({command('calibrate')})")
    calibration = model.sidecar.calibration
    scores = calibration.get("scores") if calibration else None
    values = list(scores.values()) if isinstance(scores, dict) else []
    if not values or not all(type(one) in (int, float) and math.isfinite(one) for one in values):
        raise InputError(
            f"{sidecar_path(model.path)}: does not hold the scores that the threshold was set by; calibrate it again "
            f"({command('calibrate')})"
        )
    return np.array(values, float)


def false_positive_limit(model: ModelFile) -> float:
    """Return the upper end of the interval in which the true false positive rate lies.

    Raises:
        InputError: the sidecar does not say it.
    """
    calibration = (model.sidecar and model.sidecar.calibration) or {}
    try:
        limit = float(calibration["fpr_interval"][1])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise InputError(f"{sidecar_path(model.path)}: calibration has no fpr_interval; calibrate it again") from error
    return min(max(limit, 0.0), 1.0)


def periods_of(files: list[ScoresFile]) -> Iterator[tuple[str, list[Score]]]:
    """Yield the periods of which the scores are: equal parts in order of time or, without times, several files.

    Raises:
        InputError: some files have times, others do not.
    """
    dated = [file.has_times for file in files]
    if any(dated) and not all(dated):
        raise InputError(
            f"{files[dated.index(False)].path}: has no column time, others have: give all or none of them one"
        )
    if not any(dated):
        if len(files) > 1:
            for file in files:
                yield str(file.path), file.scores
        return
    ordered = sorted((score for file in files for score in file.scores), key=lambda score: score.seconds)
    count = min(MOST_PERIODS, len(ordered) // PERIOD_SCORES)
    if count < 2:
        return
    bounds = [len(ordered) * i // count for i in range(count + 1)]
    for start, end in itertools.pairwise(bounds):
        part = ordered[start:end]
        yield f"{part[0].time} to {part[-1].time}", part


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = build_parser(__doc__.splitlines()[0], FLAG_NAMES)
    args = parser.parse_args(argv)
    require(parser, args, "scores", "ckpt_path")
    return args


def main(args: argparse.Namespace) -> int:
    """Compare; return the exit status, a ``State``."""
    # 1. What is compared
    model = inspect_model(Path(args.ckpt_path))
    calibrated, limit = calibration_scores(model), false_positive_limit(model)
    threshold = choose_rule(model).threshold
    files = [read_scores(Path(path)) for path in args.scores]
    scores = [score for file in files for score in file.scores]
    warn_of_other_verdicts(scores, model, threshold)

    # 2. The comparisons
    def compared(some: list[Score]) -> Comparison:
        values = np.array([score.value for score in some], float)
        share = expected_share(args.defect_rate, limit)
        return compare(values, calibrated, threshold=threshold, largest_share=share)

    whole = compared(scores)
    periods = [(name, compared(some)) for name, some in periods_of(files)]
    below = int((~is_anomalous(calibrated, threshold)).sum())
    judgement = judge(
        whole, [period for _, period in periods], calibrated=below, false_alarm_rate=args.false_alarm_rate
    )

    # 3. What they say
    unreadable = sum(file.unreadable for file in files)
    report(whole, periods, judgement, calibrated=len(calibrated), limit=limit, unreadable=unreadable)
    return int(judgement.state)


def warn_of_other_verdicts(scores: list[Score], model: ModelFile, threshold: float) -> None:
    """Warn where verdicts stand beside the scores that the model's threshold would not give."""
    judged = [score for score in scores if score.is_defective is not None]
    others = sum(bool(is_anomalous(score.value, threshold)) != score.is_defective for score in judged)
    if others:
        LOGGER.warning(
            "warning: %d of %d verdicts are not those of the threshold %.6g of %s: scores of another model, or of "
            "another --threshold?",
            others,
            len(judged),
            threshold,
            model.path,
        )


def report(
    whole: Comparison,
    periods: list[tuple[str, Comparison]],
    judgement: Judgement,
    *,
    calibrated: int,
    limit: float,
    unreadable: int,
) -> None:
    """Print what was compared, and the judgement in the last line.

    Args:
        calibrated: number of scores behind the threshold.
        limit: upper end of the interval of the false positive rate.
    """
    left_out = f"; {unreadable} unreadable pictures left out" if unreadable else ""
    print(f"{whole.scores} scores beside {calibrated} of good images that set the threshold{left_out}")
    low, high = whole.interval
    share = whole.defective / whole.scores if whole.scores else 0.0
    print(
        f"called defective: {whole.defective}, {share:.2%} ({100 * CONFIDENCE:.0f} % interval {low:.2%} to {high:.2%});"
        f" false alarms alone: up to {limit:.2%}"
    )
    if low > limit:
        print("  more than false alarms: defective products, or a drift of the good ones; look at these pictures")
    print(_row("", whole))
    for i, (name, period) in enumerate(periods):
        mark = "  differs" if i in judgement.drifting else ""
        print(_row(f"{name}: {period.scores} scores, {period.defective} called defective; ", period) + mark)
    print(
        "taken for granted: of the products called good nearly all are good, and the scores are of this model, one "
        "product each"
    )
    for reason in judgement.reasons:
        print(reason)
    if judgement.state is State.DRIFTING:
        print(
            "look at camera, light, lens and product; if the good ones are as they should be, calibrate by recent good "
            f"images ({command('calibrate')})"
        )
    print(judgement.state)


def _row(name: str, found: Comparison) -> str:
    if found.median is None or found.median_before is None:
        return f"{name}below the threshold: none"
    return (
        f"{name}below the threshold: {found.below}, median {found.median:.3f} of it (was {found.median_before:.3f}), "
        f"Kolmogorov-Smirnov distance {found.distance:.3f}, p {found.p_value:.2g}"
    )


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
