"""The run of a program that inspects pictures as they come, until their end or until it is told to."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from ..detector import Detector, Inspection
from ..evaluation.decision import DecisionRule
from ..files import make_output_folder
from ..utils import InputError
from .jobs import Job, Stop, jobs_of_lines, tell
from .journal import Journal, LineFile
from .results import Results
from .watch import Watch


def follow(
    load: Callable[[], Detector],
    draw: Callable[[Inspection, str], None],
    *,
    rule: DecisionRule,
    watch: Path | None,
    out: Path | int,
    kind: str,
    drawings: Path | None,
    after: str,
    after_folder: Path | None,
    journal_path: Path | None,
    poll: float,
    deadline_ms: float | None,
    report_every: int,
) -> int:
    """Inspect what comes into a folder or, without one, the paths on stdin; return 0, or 1 where not all went well.

    Args:
        load: returns the detector; called once everything else is found to be right.
        draw: draws an inspection under a file's name into the folder ``drawings``.
        rule: the detector's.
        out: where lines go to: a file, or a descriptor.
        drawings: None: nothing is drawn.
        journal_path: None: beside ``out`` or, where that is a descriptor, beside the watched folder.
        kind, after, after_folder, deadline_ms, report_every: as of ``Results``.
        poll: as of ``Watch``.

    Raises:
        InputError: a folder or file is none that can be used so, or a line cannot be written.
    """
    journal = None
    if watch:
        after_folder = _check_folders(watch, drawings, after_folder, moves=after == "move")
        beside = out if isinstance(out, Path) else watch.resolve()
        journal = Journal(journal_path or beside.with_name(f"{beside.name}.journal"))
    detector = load()
    results = Results(
        LineFile(out, is_appended=watch is not None),
        rule,
        kind=kind,
        show=draw if drawings else None,
        deadline_ms=deadline_ms,
        report_every=report_every,
        journal=journal,
        after=after,
        after_folder=after_folder,
    )
    stop = Stop()
    stop.listen()
    if watch and journal:
        jobs = Watch(watch, journal, stop, leftover=results.put_away, poll=poll).jobs()
        tell(f"watching {watch}")
    else:
        jobs = jobs_of_lines(sys.stdin.fileno() if sys.stdin else 0, stop)
    taken: deque[Job] = deque()

    def paths() -> Iterator[Path | None]:
        for job in jobs:
            if job:
                taken.append(job)
            yield job.path if job else None

    for inspection in detector.stream(paths()):
        results.take(taken.popleft(), inspection)

    tell(results.statistics.summary())
    if stop and not watch:
        tell(f"error: stopped by signal {stop.signal} before the last picture")
        return 1
    # a watch has no other end than to be told to, and its folder may hold what it will
    return 1 if results.failures or (results.statistics.unreadable and not watch) else 0


def _check_folders(watch: Path, drawings: Path | None, after_folder: Path | None, *, moves: bool) -> Path | None:
    """Return the folder that files are moved to, if they are, once it is there.

    Raises:
        InputError: what is written would be inspected, or files cannot be moved there.
    """
    if not watch.is_dir():
        raise InputError(f"{watch}: no such folder to watch")
    if moves:
        after_folder = make_output_folder(after_folder or watch / "inspected")
        if after_folder.stat().st_dev != watch.stat().st_dev:
            raise InputError(
                f"--after_dir {after_folder}: is on another file system than {watch}, where files cannot be moved to; "
                "choose a folder on the same one"
            )
    for flag, folder in (("--save_sample_path", drawings), ("--after_dir", after_folder)):
        if folder and folder.samefile(watch):
            raise InputError(f"{flag} {folder}: is where the pictures come from; choose another folder")
    return after_folder
