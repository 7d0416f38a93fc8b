"""What becomes of a picture that has been inspected: its line, and what the watched folder's file comes to."""

import csv
import errno
import io
import itertools
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..evaluation.decision import DecisionRule
from ..utils import InputError
from . import linux
from .jobs import Job, tell
from .journal import Journal, LineFile

if TYPE_CHECKING:
    from ..detector import Inspection

ERROR = "error"  # in place of a verdict
_FIELDS = ("file", "score", "relative_score", "verdict", "regions", "error", "decode_ms", "inference_ms")
_DECIMALS = 2  # of milliseconds
_LATEST = 10_000  # pictures of which percentiles are told


def header_line(kind: str, *, has_deadline: bool) -> bytes:
    """Return the line that stands first, with its end; nothing where there is none.

    Args:
        kind: "csv" or "jsonl".
        has_deadline: whether lines say which pictures were late.
    """
    return (",".join((*_FIELDS, *["late"] * has_deadline)) + "\n").encode() if kind == "csv" else b""


def picture_line(inspection: "Inspection", file: str, kind: str, *, is_late: bool | None) -> bytes:
    """Return a picture's line, with its end: of CSV the number of regions, of JSON all, and of an error no more.

    Args:
        file: what the picture is called.
        kind: as of ``header_line``.
        is_late: None: there is no deadline.
    """
    record: dict[str, object] = {"file": file}
    if not inspection.error:
        record |= {"score": _finite(inspection.score), "relative_score": _finite(inspection.relative_score)}
    record["verdict"] = ERROR if inspection.error else inspection.verdict
    if inspection.error:
        record["error"] = inspection.error
    else:
        regions = map(asdict, inspection.regions)
        record["regions"] = [region | {"score": _finite(region["score"])} for region in regions]
    record["decode_ms"] = round(inspection.decode_ms, _DECIMALS)
    record["inference_ms"] = round(inspection.inference_ms, _DECIMALS)
    if is_late is not None:
        record["late"] = is_late
    if kind == "jsonl":
        return (json.dumps(record) + "\n").encode()
    text = io.StringIO()
    record |= {"score": inspection.score, "relative_score": inspection.relative_score}
    record["regions"] = len(inspection.regions)
    late = [] if is_late is None else [int(is_late)]
    csv.writer(text, lineterminator="\n").writerow([*(record.get(name, "") for name in _FIELDS), *late])
    return text.getvalue().encode(errors="surrogateescape")  # file names need not be text


def _finite(value: float | None) -> float | None:
    """Return a number as JSON has it: it has no infinity, which a tiny threshold can lead to."""
    return None if value is None or not math.isfinite(value) else value


class Statistics:
    """How a run goes: how many pictures had which verdict, how long they took."""

    def __init__(self, rule: DecisionRule):
        self._counts = dict.fromkeys(rule.verdicts, 0)
        self.pictures = self.unreadable = self._late = self._reported = 0
        self._start = time.monotonic()
        self._latest: deque[float] = deque(maxlen=_LATEST)

    def add(self, verdict: str | None, milliseconds: float, *, is_late: bool) -> None:
        """Count a picture, which took so long from being taken up to its line."""
        self.pictures += 1
        self.unreadable += verdict == ERROR
        self._late += is_late
        if verdict in self._counts:
            self._counts[verdict] += 1
        self._latest.append(milliseconds)

    def interval(self) -> str:
        """Return percentiles and speed of the pictures since the last call."""
        pictures, seconds = self.pictures - self._reported, time.monotonic() - self._start
        median, highest = np.percentile(self._latest, (50, 99)) if self._latest else (0.0, 0.0)
        self._reported, self._start = self.pictures, time.monotonic()
        self._latest.clear()
        return f"{pictures} pictures: p50 {median:.1f} ms, p99 {highest:.1f} ms, {pictures / seconds:.1f} a second"

    def summary(self) -> str:
        """Return such as "12 images, 0 unreadable, 10 good, 2 defective", with what else is worth saying."""
        counts = {"images": self.pictures, "unreadable": self.unreadable, **self._counts}
        if self._late:
            counts["late"] = self._late
        return ", ".join(f"{count} {name}" for name, count in counts.items())


class Results:
    """Writes the lines. Of a watched folder it goes on where an earlier process, or one that was killed, ended.

    Args:
        lines: where to.
        kind: "csv" or "jsonl".
        show: draws a picture's inspection under a file's name; None: none is drawn.
        deadline_ms: milliseconds from which a picture is late; None: none is.
        report_every: pictures between two lines on stderr about their speed; 0: there are none.
        journal: of a watched folder.
        after: what becomes of its files: "keep", "move" (to ``after_folder``) or "delete".
    """

    def __init__(
        self,
        lines: LineFile,
        rule: DecisionRule,
        *,
        kind: str,
        show: "Callable[[Inspection, str], None] | None" = None,
        deadline_ms: float | None = None,
        report_every: int = 0,
        journal: Journal | None = None,
        after: str = "keep",
        after_folder: Path | None = None,
    ):
        self._lines, self._kind, self._show, self._journal = lines, kind, show, journal
        self._deadline_ms, self._report_every = deadline_ms, report_every
        self._after, self._after_folder = after, after_folder
        self.statistics = Statistics(rule)
        self.failures = 0  # pictures that were not drawn, files that were not put away
        if journal:
            journal.settle(lines)
        if not (lines.is_file and lines.size()):
            lines.write(header_line(kind, has_deadline=deadline_ms is not None))

    def take(self, job: Job, inspection: "Inspection") -> None:
        """Deal with one picture: what fails of drawing it and of putting it away is told on stderr and counted.

        Raises:
            InputError: its line cannot be written.
        """
        if inspection.error:
            tell(f"error: {inspection.error}")
        elif self._show:
            try:
                self._show(inspection, job.file.replace("/", "_"))
            except InputError as error:
                self._fail(error)
        milliseconds = 1000 * (time.monotonic() - job.since)
        is_late = None if self._deadline_ms is None else milliseconds > self._deadline_ms
        line = picture_line(inspection, job.file, self._kind, is_late=is_late)
        if self._journal is None:
            self._lines.write(line)
        else:
            stays = bool(inspection.error) and self._after == "delete"  # it may tell why
            self._journal.report(job, line, self._lines, stays=stays)
            if not stays:
                self.put_away(job)
        statistics = self.statistics
        statistics.add(ERROR if inspection.error else inspection.verdict, milliseconds, is_late=bool(is_late))
        if self._report_every and statistics.pictures % self._report_every == 0:
            tell(statistics.interval())

    def put_away(self, job: Job) -> None:
        """Move or delete a file that has been reported."""
        if self._after == "keep":
            return
        try:
            status = os.stat(job.path)
            if (status.st_size, status.st_mtime_ns) != job.identity[:2]:
                return  # written anew
            if self._after == "delete":
                job.path.unlink()
            else:
                self._move(job)
        except OSError as error:
            if error.errno != errno.ENOENT or job.path.exists():  # else somebody else has
                done = "deleted" if self._after == "delete" else f"moved to {self._after_folder}"
                reason = f"cannot be {done}: {error.strerror}"
                self._fail(f"{job.path}: {reason}; it stays, and is not reported again")
                return
        assert self._journal
        self._journal.forget(job.file, job.identity)

    def _move(self, job: Job) -> None:
        """Move a file; nothing that was moved there before is replaced."""
        assert self._after_folder
        for number in itertools.count(1):
            name = job.file if number == 1 else f"{Path(job.file).stem}-{number}{Path(job.file).suffix}"
            try:
                linux.rename_new(job.path, self._after_folder / name)
                return
            except FileExistsError:
                continue

    def _fail(self, problem: object) -> None:
        self.failures += 1
        tell(f"error: {problem}")
