"""What a sweep runs on a worker: the command lines of one category, one after the other, each with its log.

No package but the standard library's, since Ray imports this in every worker.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..utils import ResumeError, core_count, end_with_parent


@dataclass(frozen=True)
class Command:
    """A command line and the file that receives its output."""

    words: list[str]
    log: str


@dataclass(frozen=True)
class Outcome:
    """How the commands of a category ended.

    Attributes:
        failure: what failed and why, in one line; None where all succeeded.
        is_resumable: False where the training was refused to go on from what an earlier one left.
        seconds: of each command.
    """

    failure: str | None
    seconds: list[float]
    is_resumable: bool = True


@contextlib.contextmanager
def claim_cores(count: int) -> Iterator[set[int]]:
    """Give cores of this machine that no other caller has, for as long as the block lasts.

    Ray counts cores but names none, and neither it nor OMP_NUM_THREADS keeps MindSpore's threads to a number.

    Args:
        count: how many; 0 for all.

    Yields:
        Numbers of cores: a group of its own, or all where no group is free.
    """
    import fcntl  # see src/files.py

    everything = sorted(os.sched_getaffinity(0))
    # whoever may use all that this machine gives is tied to no cores: a container's quota belongs to none
    for start in range(0, len(everything) - count + 1 if 0 < count < core_count() else 0, max(count, 1)):
        group = everything[start : start + count]
        name = f"stpm-cores-{os.getuid()}-{group[0]}-{count}.lock"
        with contextlib.ExitStack() as held:
            try:
                # "a": what somebody may have linked to that name is not emptied
                lock = held.enter_context(open(Path(tempfile.gettempdir()) / name, "a", encoding="utf-8"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # somebody else's, or there is no room or are no locks: sharing cores is slower, no more
                continue
            yield set(group)
            return
    yield set(everything)


def run_commands(commands: list[Command], *, header: str, cores: int) -> Outcome:
    """Run command lines until one fails, in the worker's environment, in which Ray has chosen the card.

    Args:
        header: first line of each log; logs are appended to.
        cores: how many cores of the machine they may use; 0 for all.
    """
    seconds = []
    with claim_cores(cores) as claimed:

        def prepare() -> None:
            end_with_parent(signal.SIGKILL)
            os.sched_setaffinity(0, claimed)

        for command in commands:
            started = time.monotonic()
            status = _run(command, header, prepare)
            seconds.append(round(time.monotonic() - started, 3))
            if status != 0:
                is_resumable = status != ResumeError.exit_status
                return Outcome(_describe_failure(command, status), seconds, is_resumable)
    return Outcome(None, seconds)


def _run(command: Command, header: str, prepare: Callable[[], None]) -> int:
    Path(command.log).parent.mkdir(parents=True, exist_ok=True)
    with open(command.log, "a", encoding="utf-8") as log:
        log.write(header + "\n")
        log.flush()
        return subprocess.run(
            command.words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=prepare,
            check=False,
        ).returncode


def _describe_failure(command: Command, status: int) -> str:
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    lines = [line.strip() for line in tail(command.log).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ") or ": error: " in line]
    said = (errors or lines or ["nothing"])[-1]
    return f"{Path(command.log).name}, {how}: {said}"


def tail(path: str | Path, size: int = 4096) -> str:
    """Return the last bytes of a text file; nothing if there is no such file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
