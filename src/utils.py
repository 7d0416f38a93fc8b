"""Device set-up, seeding, logging and safe file writing: the one place that knows MindSpore version differences."""

import contextlib
import ctypes
import errno
import fcntl
import functools
import glob
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

RANDOM_TEACHER = "random"  # in place of a checkpoint's path
LOGGER = logging.getLogger("stpm")
LARGEST = 3.4e38  # nearly the largest float32 number
DEVICE_TARGETS = ("Ascend", "GPU", "CPU")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_HALF_WRITTEN: set[Path] = set()  # temporaries of this process
_LOCKS: dict[Path, TextIO] = {}  # open for as long as the process lives
_REPORTED_PACKAGES = ("mindspore", "numpy", "pillow", "opencv-python-headless", "scikit-learn")


class InputError(ValueError):
    """Something that the user gave is wrong: the message names it and says what would be right."""


def run_entry_point(main: Callable[..., int], args: object) -> int:
    """Run ``main(args)`` and turn what the input or the system refuses into one line on stderr and exit status 1."""
    for name in ("stdout", "stderr"):
        # closed, it is None: the next file to be opened would get its number, and its text
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
        stream.reconfigure(errors="backslashreplace")  # file names need not be text, nor the terminal know all letters
        setattr(sys, name, stream)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.raiseExceptions = False  # a full disk below a log must not fill the terminal with tracebacks
    try:
        status = main(args)
        sys.stdout.flush()  # here it is an error like others
        return status
    except InputError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
    except MemoryError as error:
        message = f"not enough memory: {error}"
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"error: {message}", file=sys.stderr)
    return 1


def prepare_environment(*, own_convolutions: bool = False) -> None:
    """Set what MindSpore reads from the environment; must run before its import. What the user has set stays.

    MindSpore's log level is set to errors, since looking for absent devices alone fills a screen with warnings.

    Args:
        own_convolutions: MindSpore's own convolutions will be used, not those of ``src.onednn``. The oneDNN 3.10.1
            inside MindSpore 2.10 then falls back to its reference convolution on processors with AVX-512
            (``ONEDNN_VERBOSE=1`` shows ``jit_uni_ncsp:conv+ref:any``), which is a hundred times slower than the AVX2
            kernel, to which it is therefore held.

    Raises:
        InputError: the user has set a log level that MindSpore fails to import with.
    """
    from src import onednn  # brings numpy, which a sweep's workers have no use for

    if own_convolutions or not onednn.is_available():
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    level = os.environ.setdefault("GLOG_v", "3")
    if level not in ("", "0", "1", "2", "3", "4"):
        raise InputError(f"GLOG_v {level!r}: expected MindSpore's log level, 0 (all) to 4 (critical errors)")


def set_up_device(device_target: str = "auto", device_id: int | None = 0, *, own_convolutions: bool = False) -> str:
    """Select the device and graph mode; return the device target in use.

    Args:
        device_target: "Ascend", "GPU", "CPU", or "auto" for the first of these that is present.
        device_id: number of the card; ignored on CPU. None: the one that msrun assigned to this process.
        own_convolutions: see ``prepare_environment``.

    Raises:
        InputError: the device asked for is not present.
    """
    prepare_environment(own_convolutions=own_convolutions)
    import mindspore as ms

    def is_present(target: str) -> bool:
        return getattr(ms.device_context, target.lower()).is_available()

    if device_target == "auto":
        device_target = next(target for target in DEVICE_TARGETS if is_present(target))
        LOGGER.info("device: %s (found automatically)", device_target)
    elif not is_present(device_target):
        raise InputError(f"--device_target {device_target}: MindSpore {ms.__version__} sees no such device here")
    ms.set_context(mode=ms.GRAPH_MODE)
    if device_target == "CPU" or device_id is None:
        ms.set_device(device_target)
    else:
        ms.set_device(device_target, device_id)
    return device_target


def set_seed(seed: int) -> None:
    """Seed MindSpore's and numpy's generators: parameter initialisation follows from it."""
    import mindspore as ms

    ms.set_seed(seed)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


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


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` on success, remove it on any failure or SIGTERM."""
    _remove_leftovers(path.parent.absolute())
    # with the machine's name, since a number that is free here may be a process on another that shares the folder
    temporary = path.with_name(f".{path.stem}.{platform.node()}-{os.getpid()}.tmp{path.suffix}")
    left = (temporary, temporary.with_suffix(".tmp"))  # MindSpore writes a .ckpt under the second name first
    with removed_on_sigterm(*left):
        try:
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
        finally:
            for one in left:
                with contextlib.suppress(OSError):
                    one.unlink()


def write_json(path: Path, content: dict) -> None:
    """Write ``content`` as strict JSON, atomically."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    with atomic_path(path) as temporary:
        # a byte of a file name that is not UTF-8 becomes a JSON escape, such as \udcff
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def check_not_endless(path: Path) -> None:
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
        check_not_endless(path)
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
            f"python src/pth2ckpt.py --pth_path {path} --ckpt_path {path.with_suffix('.ckpt').name}"
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
    while not _take_lock(file):
        if time.monotonic() >= deadline:
            file.seek(0)
            holder = file.read().strip() or "an unknown process"
            raise InputError(f"{folder}: is in use by {holder}; wait for it, or stop it")
        time.sleep(0.2)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    _LOCKS[path] = file


def _take_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks
        LOGGER.warning("warning: %s: cannot be locked (%s): nothing else may write there", file.name, error.strerror)
    return True


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when the one that started it ends, in whatever way (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        check_not_endless(path)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def fingerprint(content: dict) -> str:
    """Return the SHA-256 of a JSON-serialisable dict, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
