"""What the standard library lacks of Linux: notices of what happens in a folder, and a rename that replaces nothing."""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
from pathlib import Path

# linux/inotify.h
CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, UNMOUNT, OVERFLOW, IGNORED, IS_FOLDER = 0x400, 0x800, 0x2000, 0x4000, 0x8000, 0x40000000
_ONLY_FOLDERS = 0x01000000
_EVENTS = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF | _ONLY_FOLDERS
_HEAD = struct.Struct("iIII")  # number of the watch, mask, cookie, bytes of the name
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h
_LIBC = ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: Path | str = "inotify") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return result


class Inotify:
    """Tells what happens in a folder; ``fileno`` is readable when there is something to tell. See inotify(7)."""

    def __init__(self) -> None:
        self._fd = _check(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._fd

    def watch(self, folder: Path) -> int:
        """Begin with a folder; return its number. Raises OSError."""
        return _check(_LIBC.inotify_add_watch(self._fd, os.fsencode(folder), _EVENTS), folder)

    def unwatch(self, number: int) -> None:
        """End with a folder; the system may have done so already."""
        _LIBC.inotify_rm_watch(self._fd, number)

    def read(self) -> list[tuple[int, int, str]]:
        """Return what happened since the last call: the folder's number, what as a mask, and the file's name."""
        events = []
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 65536):
                at = 0
                while at < len(data):
                    number, mask, _, length = _HEAD.unpack_from(data, at)
                    at += _HEAD.size + length
                    events.append((number, mask, os.fsdecode(data[at - length : at].rstrip(b"\0"))))
        return events


def is_being_written(path: Path) -> bool:
    """Tell whether a process has a file open for writing, where the system tells: of own files on local disks."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # comes when somebody opens the file meanwhile
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(fd)
    return False


def rename_new(source: Path, target: Path) -> None:
    """Rename a file to a name that is free.

    Raises:
        FileExistsError: it is not.
        OSError: the file cannot be renamed.
    """
    if hasattr(_LIBC, "renameat2"):
        names = os.fsencode(source), os.fsencode(target)
        try:
            _check(_LIBC.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE), target)
            return
        except OSError as error:
            if error.errno != errno.EINVAL:  # a share that does not know how
                raise
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)
