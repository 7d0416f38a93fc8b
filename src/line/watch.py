"""The pictures of a folder as they come: each once, when whoever writes it has finished."""

import bisect
import itertools
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from ..data.folders import is_picture_name
from ..utils import InputError
from . import linux
from .jobs import TICK, FileIdentity, Job, Stop, is_readable, tell
from .journal import Journal

_LOOK_AGAIN = 1.0  # seconds


class Watch:
    """A watched folder.

    A file is finished when it is closed after writing or gets its name by a rename or a link. One that is found by
    looking, as at the start and when polling, or that is empty, is finished when it has not changed for ``settle``.
    The folder may vanish and come back; it is then looked through.

    Args:
        poll: seconds between two looks at the whole folder, for shares whose servers tell of nothing; 0: the system
            tells (inotify).
        leftover: called with files that were reported, and should have been moved or deleted, by a process before.
        settle: seconds.

    Raises:
        InputError: there is no such folder, or it cannot be watched.
    """

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        stop: Stop,
        *,
        leftover: Callable[[Job], None],
        poll: float = 0.0,
        settle: float = 1.0,
    ):
        self._folder, self._journal, self._stop, self._leftover = folder, journal, stop, leftover
        self._poll, self._settle = poll, settle
        self._inotify: linux.Inotify | None = None
        self._number = -1  # the folder's, there
        self._is_there = False
        self._is_missed = False  # it was there, and somebody was told that it is gone
        self._place = (0, 0)  # device and inode of the folder
        self._next_look = 0.0
        self._looked_at: list[str] = []  # what the last look found, when polling
        self._settling: dict[str, tuple[FileIdentity, float]] = {}  # since when a file has been the same
        self._ready: deque[Job] = deque()
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder to watch")
        try:
            self._inotify = None if poll else linux.Inotify()
            self._begin()
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be watched: {error.strerror}; look at it every second by --poll_seconds 1, or raise "
                "fs.inotify.max_user_instances and max_user_watches"
            ) from error

    def jobs(self) -> Iterator[Job | None]:
        """Yield finished pictures until the run is told to end; None when there is none for now."""
        while not self._stop:
            if not self._ready:
                self._look(0.0)
            if not self._ready:
                yield None
                self._look(min(TICK, self._seconds_to_wait()))
            while self._ready and not self._stop:
                job = self._ready.popleft()
                if self._journal.claim(job.file, job.identity):
                    yield job

    def _look(self, seconds: float) -> None:
        """Wait for so long, or until the system tells something; see what has happened."""
        if self._inotify and self._number >= 0:
            if is_readable(self._inotify.fileno(), seconds):
                for number, mask, name in self._inotify.read():
                    self._on_event(number, mask, name)
        else:
            time.sleep(seconds)
        self._check_folder()
        self._take_settled()

    def _seconds_to_wait(self) -> float:
        ends = [since + self._settle for _, since in self._settling.values()]
        if self._is_there:
            ends.append(self._next_look)
        return max(0.0, min(ends, default=TICK + time.monotonic()) - time.monotonic())

    def _begin(self) -> None:
        """Begin to watch the folder. Raises OSError: it is not there."""
        if self._inotify:
            self._number = self._inotify.watch(self._folder)
        status = os.stat(self._folder)
        self._place = (status.st_dev, status.st_ino)
        self._is_there, self._is_missed = True, False
        self._next_look, self._looked_at = 0.0, []

    def _end(self) -> None:
        if self._inotify and self._number >= 0:
            self._inotify.unwatch(self._number)
        self._number, self._is_there = -1, False

    def _check_folder(self) -> None:
        """Notice that it has gone, come back, or been replaced."""
        try:
            status = os.stat(self._folder)
            place = (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None
        except OSError:
            place = None
        if not self._is_there or place != self._place:
            self._end()
            if not self._is_missed:
                tell(f"warning: {self._folder}: is gone or was replaced; waiting for it")
                self._settling.clear()
                self._is_missed = True
            if place:
                try:
                    self._begin()
                    tell(f"{self._folder}: is there again")
                except OSError:
                    self._end()
        if self._is_there and time.monotonic() >= self._next_look:
            self._look_through()

    def _look_through(self) -> None:
        """Note what is there."""
        try:
            names = sorted(name for name in os.listdir(self._folder) if is_picture_name(name))
        except OSError as error:  # it is there, and may be readable again
            tell(f"warning: {self._folder}: cannot be listed: {error.strerror}")
            self._next_look = time.monotonic() + _LOOK_AGAIN
            return
        for name in names:
            identity = self._identify(name)
            if identity is None:
                continue
            if self._journal.is_to_go(name, identity):
                self._leftover(self._job(name, identity))
            else:
                self._note(name, identity)
        if self._inotify:
            self._next_look = float("inf")  # from now on the system tells
            return
        for name in self._looked_at:  # only what was seen there: an empty folder can be a share that is not mounted
            if names[(i := bisect.bisect_left(names, name)) : i + 1] != [name]:
                self._journal.forget(name)
        self._looked_at = names
        self._next_look = time.monotonic() + self._poll

    def _note(self, name: str, identity: FileIdentity) -> None:
        if self._journal.is_known(name, identity):
            self._settling.pop(name, None)
        elif name not in self._settling or self._settling[name][0] != identity:
            self._settling[name] = identity, time.monotonic()

    def _take_settled(self) -> None:
        """Take what has not changed since it was noted, the oldest first."""
        now = time.monotonic()
        settled = []
        for name, (before, since) in list(self._settling.items()):
            if now - since < self._settle:
                continue
            identity = self._identify(name)
            if identity and (identity != before or linux.is_being_written(self._folder / name)):
                self._settling[name] = identity, now
                continue
            if identity:
                settled.append((name, identity))
            del self._settling[name]
        settled.sort(key=lambda one: one[1].modified)
        self._ready.extend(itertools.starmap(self._job, settled))

    def _on_event(self, number: int, mask: int, name: str) -> None:
        if mask & linux.OVERFLOW:
            self._next_look = 0.0
        if number != self._number:
            return
        if mask & (linux.DELETE_SELF | linux.MOVE_SELF | linux.IGNORED | linux.UNMOUNT):
            if mask & linux.IGNORED:
                self._number = -1  # the system has ended with it
            self._end()
            return
        if mask & linux.IS_FOLDER or not is_picture_name(name):
            return
        if mask & (linux.DELETE | linux.MOVED_FROM):
            self._settling.pop(name, None)
            self._journal.forget(name)
            return
        identity = self._identify(name)
        if identity is None:
            return  # renamed or removed meanwhile, which has an event of its own
        if mask & linux.CREATE and not self._is_link(name):
            return  # of a new file there is nothing yet, a link has all
        if identity.bytes == 0:
            self._note(name, identity)
        else:
            self._settling.pop(name, None)
            self._ready.append(self._job(name, identity))

    def _is_link(self, name: str) -> bool:
        try:
            status = os.lstat(self._folder / name)
        except OSError:
            return False
        return stat.S_ISLNK(status.st_mode) or status.st_nlink > 1

    def _identify(self, name: str) -> FileIdentity | None:
        try:
            status = os.stat(self._folder / name)
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return FileIdentity(status.st_size, status.st_mtime_ns, status.st_ino if self._inotify else 0)

    def _job(self, name: str, identity: FileIdentity) -> Job:
        return Job(name, self._folder / name, identity)
