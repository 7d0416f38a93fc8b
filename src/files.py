"""Files: atomic writing, JSON, locks, hashes and checks."""

import contextlib
import errno
import functools
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TextIO

from .utils import LOGGER, InputError, command

LONGEST_NAME = 255  # bytes, on nearly all file systems
MARK_BYTES = 17  # of what ``short_name`` adds
_HALF_WRITTEN: set[Path] = set()  # temporaries of this process
_LOCKS: dict[Path, TextIO] = {}  # open for as long as the process lives


@contextlib.contextmanager
def removed_on_sigterm(*paths: Path) -> Iterator[None]:
    """Have SIGTERM remove files and folders before it ends the process, as long as the block runs.

    It raises nothing that would unwind the stack: MindSpore, while it compiles, answers that with pages of errors and
    a dump. Where somebody else handles SIGTERM, nothing changes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    is_first = is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    owner = os.getpid()

    def remove_and_end(number: int, _frame: object) -> None:
        for path in list(_HALF_WRITTEN) if os.getpid() == owner else ():  # not a fork's to remove
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    _HALF_WRITTEN.update(paths)
    if is_first:
        signal.signal(signal.SIGTERM, remove_and_end)
    try:
        yield
    finally:
        if is_first:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _HALF_WRITTEN.difference_update(paths)


@functools.cache
def _remove_leftovers(folder: Path) -> None:
    """Remove, once per process, what processes of this machine that were killed have left in a folder half-written."""
    with contextlib.suppress(OSError):
        for left in folder.glob(f".*.{glob.escape(platform.node())}-*.tmp*"):
            pid = re.search(r"-(\d{1,9})\.tmp(\.|$)", left.name)
            if pid and not _is_running(int(pid[1])):
                left.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def short_name(name: str, longest: int) -> str:
    """Return a file's name or, if it has more than ``longest`` bytes, so many and the beginning of its SHA-256.

    That is up to ``MARK_BYTES`` more.
    """
    encoded = os.fsencode(name)
    if len(encoded) <= longest:
        return name
    return f"{encoded[:longest].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:16]}"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` on success, remove it on any failure or SIGTERM."""
    _remove_leftovers(path.parent.absolute())
    # with the machine's name, since a number that is free here may be a process on another that shares the folder
    end = f".{platform.node()}-{os.getpid()}.tmp{path.suffix}"
    stem = short_name(f".{path.stem}", LONGEST_NAME - MARK_BYTES - len(os.fsencode(end)))
    temporary = path.with_name(stem + end)
    left = (temporary, temporary.with_suffix(".tmp"))  # MindSpore writes a .ckpt under the second name first
    with removed_on_sigterm(*left):
        try:
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            if not temporary.stat().st_mode & 0o077:  # MindSpore leaves a checkpoint readable to its owner alone
                with contextlib.suppress(OSError):  # a file system without modes
                    temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
        finally:
            for one in left:
                with contextlib.suppress(OSError):
                    one.unlink()


def _umask() -> int:
    """Return this process's file mode creation mask, without changing it, which other threads would notice."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search("^Umask:\t([0-7]+)$", status, re.MULTILINE)
    return int(found[1], 8) if found else 0o077


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write ``content`` as strict JSON, atomically."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    with atomic_path(path) as temporary:
        # a byte of a file name that is not UTF-8 becomes a JSON escape, such as \udcff
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def check_regular_file(path: Path) -> None:
    """Check that a path is no pipe, socket or device: to open or read one can block for ever.

    Raises:
        OSError: it is, or it cannot be looked at.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "Is a pipe, a socket or a device, not a file")


def read_json(path: Path) -> dict:
    """Read a JSON object: strict JSON, without NaN, and with every key once.

    Raises:
        InputError: the file is missing, unreadable, or does not hold a JSON object.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    def unique(pairs: list[tuple[str, object]]) -> dict:
        content = {}
        for key, value in pairs:
            if key in content:
                raise ValueError(f"{key!r} stands twice")
            content[key] = value
        return content

    try:
        check_regular_file(path)
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse, object_pairs_hook=unique)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def check_file(path: Path, noun: str) -> None:
    """Check that a file is there, can be read and is not empty.

    Raises:
        InputError: it is not.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such {noun} file")
    try:
        with open(path, "rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if is_empty:
        raise InputError(f"{path}: is empty, not a {noun}")


def check_checkpoint_file(path: Path) -> None:
    """Check by name and size, before anything slow, that a file can be a MindSpore checkpoint.

    Raises:
        InputError: it cannot.
    """
    if path.suffix in (".pth", ".pt"):
        raise InputError(
            f"{path}: is a PyTorch file; convert it first: "
            f"{command('pth2ckpt')} --pth_path {path} --ckpt_path {path.with_suffix('.ckpt').name}"
        )
    if path.suffix != ".ckpt":
        raise InputError(f"{path}: expected a MindSpore checkpoint, a file whose name ends in .ckpt")
    check_file(path, "checkpoint")


def make_output_folder(path: Path) -> Path:
    """Create ``path`` with its parents and return it.

    Raises:
        InputError: it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be created as output folder: {error.strerror}") from error
    if not os.access(path, os.W_OK, effective_ids=True):
        raise InputError(f"{path}: output folder is not writable")
    return path


def lock_folder(folder: Path, name: str, *, patience: float = 0.0) -> None:
    """Keep other processes from the same work in a folder, until this process ends in whatever way.

    Args:
        folder: an existing folder.
        name: name of the lock's file in it.
        patience: seconds to wait for another process that may be ending.

    Raises:
        InputError: another process, which the message names, holds the lock.
    """
    path = folder.resolve() / name
    if path in _LOCKS:
        return
    try:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - stays open: the lock ends with the file
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    deadline = time.monotonic() + patience
    while not take_lock(file):
        if time.monotonic() >= deadline:
            file.seek(0)
            holder = file.read().strip() or "an unknown process"
            raise InputError(f"{folder}: is in use by {holder}; wait for it, or stop it")
        time.sleep(0.2)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    _LOCKS[path] = file


@contextlib.contextmanager
def locked_folder(folder: Path, name: str, *, patience: float = 0.0) -> Iterator[None]:
    """Do as ``lock_folder`` does while the block runs, in a process that may go on to other work.

    A lock that this process has already stays its own.
    """
    before = set(_LOCKS)
    lock_folder(folder, name, patience=patience)
    taken = _LOCKS.keys() - before
    try:
        yield
    finally:
        for path in taken:
            _LOCKS.pop(path).close()


def take_lock(file: IO) -> bool:
    """Lock an open file until it is closed; return whether no other process holds the lock."""
    import fcntl  # not above: where there is none, a program has yet to say that this is no machine for it

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks
        LOGGER.warning("warning: %s: cannot be locked (%s): nothing else may write there", file.name, error.strerror)
    return True


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        check_regular_file(path)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def fingerprint(content: Mapping[str, object]) -> str:
    """Return the SHA-256 of a JSON-serialisable dict, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
