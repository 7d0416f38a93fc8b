"""Which files of a watched folder have been reported: no file twice, none left out, over restarts and kills.

The journal is a file to which a line is appended before the result's line is: file and identity, and where in the
results the line is to stand. Of a process that was killed only the last entry can be of a line that is not there as a
whole; ``settle`` finds that out. Where results go to stdout, nobody can tell: there the entry comes after the line, so
that a kill between the two has the file reported again. The C++ program stpm_inspect reads and writes the same file.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..files import atomic_path, lock_folder
from ..utils import InputError
from .jobs import FileIdentity, Job

_HEADER = b"stpm_inspect journal 1\n"
# where the line begins and ends in the results (-1: not known), whether the file stays where it is or goes, its
# identity, and its name as a JSON string
_ENTRY = re.compile(rb'(-?\d{1,19}) (-?\d{1,19}) (stays|goes) (\d{1,20}) (-?\d{1,19}) (\d{1,20}) (".*")')
_MOST_SPARE = 100_000  # lines of files that are gone, or stand twice, before the journal is rewritten


class LineFile:
    """A file, or a descriptor such as stdout's, to which lines are written, each at once.

    Args:
        is_appended: what the file holds stays; else it is emptied.

    Raises:
        InputError: it cannot be written.
    """

    def __init__(self, to: Path | int, *, is_appended: bool = False):
        self.is_file = isinstance(to, Path)
        self._name = str(to) if self.is_file else "stdout"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if is_appended else os.O_TRUNC)
        try:
            self._fd = os.open(to, flags, 0o666) if isinstance(to, Path) else to
        except OSError as error:
            raise InputError(f"{to}: cannot be written: {error.strerror}") from error

    def size(self) -> int:
        """Return how many bytes the file holds."""
        return os.fstat(self._fd).st_size

    def write(self, line: bytes) -> None:
        """Write a line. Of a file, what was written of it is taken back on an error, such as a full disk.

        Raises:
            InputError: it cannot be written.
        """
        before = self.size() if self.is_file else 0
        try:
            _write_all(self._fd, line)
        except OSError as error:
            if self.is_file:
                self.cut(before)
            raise InputError(f"{self._name}: cannot be written: {error.strerror}") from error

    def cut(self, size: int) -> None:
        """Cut the file to so many bytes."""
        os.ftruncate(self._fd, size)


@dataclass
class _Entry:
    identity: FileIdentity
    is_reported: bool = False
    stays: bool = False


class Journal:
    """Reads the journal, which need not exist, and keeps other processes from it.

    Raises:
        InputError: another process has it, it is no journal, or it cannot be written.
    """

    def __init__(self, path: Path):
        self._path = path
        lock_folder(path.parent, f".{path.name}.lock")
        self._entries: dict[str, _Entry] = {}
        self._count = 0  # lines of the journal
        self._last: tuple[str, int, int] | None = None  # the last entry: its file, where its line begins and ends
        self._fd = -1
        try:
            self._read()
        except OSError as error:
            raise InputError(f"{path}: cannot be read or written: {error.strerror}") from error

    def _read(self) -> None:
        text = self._path.read_bytes() if self._path.exists() else b""
        if not text.startswith(_HEADER):
            if not _HEADER.startswith(text):  # a killed process may have begun with it
                raise InputError(f"{self._path}: is no journal of stpm_inspect")
            text = _HEADER
            self._replace(text)
        whole = text.rfind(b"\n") + 1  # a killed process may have written half of a line
        for number, line in enumerate(text[len(_HEADER) : whole].split(b"\n")[:-1], 2):
            found = _ENTRY.fullmatch(line)
            if not found:
                raise InputError(f"{self._path}: is damaged at line {number}")
            try:
                file = json.loads(found[7])
            except ValueError as error:
                raise InputError(f"{self._path}: is damaged at line {number}: {error}") from error
            identity = FileIdentity(int(found[4]), int(found[5]), int(found[6]))
            self._entries[file] = _Entry(identity, is_reported=True, stays=found[3] == b"stays")
            self._last = (file, int(found[1]), int(found[2]))
            self._count += 1
        self._open()
        os.ftruncate(self._fd, whole)

    def settle(self, lines: LineFile) -> None:
        """Cut off what a killed process has half-written of the results, and take back the entry of that line."""
        if self._last:
            file, start, end = self._last
            # fewer bytes than where the line was to begin: the results were taken away since, as when logs are rotated
            if 0 <= start <= lines.size() < end:
                lines.cut(start)
                self._entries.pop(file)
                self._compact()
        self._last = None

    def claim(self, file: str, identity: FileIdentity) -> bool:
        """Return whether a file is now to be inspected: it was not reported, nor claimed before."""
        if self.is_known(file, identity):
            return False
        self._entries[file] = _Entry(identity)
        return True

    def is_known(self, file: str, identity: FileIdentity) -> bool:
        """Return whether a file was reported or claimed."""
        return self._find(file, identity) is not None

    def is_to_go(self, file: str, identity: FileIdentity) -> bool:
        """Return whether a file was reported, and is to be moved or deleted."""
        entry = self._find(file, identity)
        return entry is not None and entry.is_reported and not entry.stays

    def report(self, job: Job, line: bytes, lines: LineFile, *, stays: bool) -> None:
        """Write a file's line, and the entry that says so.

        Args:
            stays: whether the file is never moved or deleted.

        Raises:
            InputError: one of them cannot be written.
        """
        start = lines.size() if lines.is_file else -1
        end = start + len(line) if lines.is_file else -1
        if not lines.is_file:
            lines.write(line)
        try:
            _write_all(self._fd, _entry_line(job.file, job.identity, start, end, stays=stays))
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._count += 1
        if lines.is_file:
            lines.write(line)
        if entry := self._find(job.file, job.identity):  # else it was written anew by now
            entry.is_reported, entry.stays = True, stays
        if self._count > 2 * len(self._entries) + _MOST_SPARE:  # not before the line is written
            self._compact()

    def forget(self, file: str, identity: FileIdentity | None = None) -> None:
        """Forget a file that is gone, if it is the one of this identity: what gets its name is another one."""
        if identity is None or self.is_known(file, identity):
            self._entries.pop(file, None)

    def _find(self, file: str, identity: FileIdentity) -> _Entry | None:
        entry = self._entries.get(file)
        return entry if entry and entry.identity == identity else None

    def _open(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _replace(self, text: bytes) -> None:
        with atomic_path(self._path) as temporary:
            temporary.write_bytes(text)

    def _compact(self) -> None:
        """Write the journal anew, of what is reported and not gone."""
        reported = {file: entry for file, entry in self._entries.items() if entry.is_reported}
        entries = [_entry_line(file, one.identity, -1, -1, stays=one.stays) for file, one in reported.items()]
        self._replace(b"".join([_HEADER, *entries]))
        self._open()
        self._count = len(entries)


def _entry_line(file: str, identity: FileIdentity, start: int, end: int, *, stays: bool) -> bytes:
    numbers = f"{start} {end} {'stays' if stays else 'goes'} {identity.bytes} {identity.modified} {identity.inode}"
    return f"{numbers} {json.dumps(file)}\n".encode()


def _write_all(fd: int, text: bytes) -> None:
    while text:
        text = text[os.write(fd, text) :]
