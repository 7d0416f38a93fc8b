"""Pictures that are to be inspected, as they come."""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from ..utils import InputError

TICK = 0.2  # seconds until a wait notices that the run is to end
_LONGEST_LINE = 2**16  # bytes; paths have 4096 at most


class FileIdentity(NamedTuple):
    """By what a file is known again that has not been written anew."""

    bytes: int
    modified: int  # nanoseconds
    inode: int  # 0 where it means nothing, as on network shares


@dataclass(frozen=True)
class Job:
    """A picture that is to be inspected.

    Attributes:
        file: what it is called in the results.
        since: when it was taken up, by ``time.monotonic``.
        identity: of a watched file.
    """

    file: str
    path: Path
    identity: FileIdentity = FileIdentity(0, 0, 0)  # noqa: RUF009
    since: float = field(default_factory=time.monotonic)


class Stop:
    """How a run is told to end: what is in hand is finished, nothing new is begun.

    Attributes:
        signal: number of the signal that came, 0 if none did.
    """

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0

    def listen(self) -> None:
        """Have SIGTERM and SIGINT set this; a second one ends the process as if nobody had cared."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._set)

    def _set(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, signal.SIG_DFL)


def tell(error: object) -> None:
    """Write a line on stderr; where that takes none, the lines of the pictures matter more."""
    with contextlib.suppress(OSError):
        print(error, file=sys.stderr, flush=True)


def take_stdout() -> int:
    """Return a descriptor of stdout for lines alone: what else is said, by whatever library, goes to stderr."""
    sys.stdout.flush()
    fd = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return fd


def is_readable(fd: int, seconds: float) -> bool:
    """Wait until there is something to read from a descriptor, or its other end closes; tell whether that is so."""
    return bool(select.select([fd], [], [], seconds)[0])


def jobs_of_lines(fd: int, stop: Stop) -> Iterator[Job | None]:
    """Yield the pictures whose paths come on a descriptor, one a line; None when there is none for now.

    Empty lines are passed over, and a carriage return at an end is taken off.

    Raises:
        InputError: it cannot be read, or a line is too long for a path.
    """
    rest, part = b"", b"something"
    while part:
        try:
            if not is_readable(fd, 0):
                yield None
                while not stop and not is_readable(fd, TICK):
                    pass
            part = b"" if stop else os.read(fd, _LONGEST_LINE)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise InputError(f"stdin: cannot be read: {getattr(error, 'strerror', None) or error}") from error
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise InputError(f"stdin: a line of more than {_LONGEST_LINE} bytes, expected the path of a picture")
        for line in lines if part else (rest,):
            if stop:
                return
            if name := os.fsdecode(line.removesuffix(b"\r")):
                yield Job(name, Path(name))
