"""Errors of the user, the log, how a program ends, and the machine. Imports only the standard library."""

import ctypes
import functools
import logging
import os
import platform
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

MACHINES = ("x86_64", "aarch64")  # for which MindSpore has packages, on Linux
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_is_program = False


@functools.cache
def core_count() -> int:
    """Return how many cores this process may use: those of its affinity, and no more than a container's quota."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota is None else min(cores, quota)


def cpu_quota(root: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int | None:
    """Return to how many cores' time control groups hold this process, rounded up; None where they do not.

    A group is held to its ancestors' quotas too: the smallest counts. What is missing or not understood is no quota.

    Args:
        root: where the groups are mounted, of version 1, 2 or both.
        own: the file in which the kernel names the groups of this process.
    """
    quotas = []
    for folder in _groups("cpu", root, own):
        if (folder / "cpu.max").exists():  # version 2
            words = _read_words(folder / "cpu.max")
        else:
            words = _read_words(folder / "cpu.cfs_quota_us") + _read_words(folder / "cpu.cfs_period_us")
        # "max", or -1, is no quota
        if len(words) == 2 and all(re.fullmatch("[1-9][0-9]{0,18}", word) for word in words):
            quota, period = map(int, words)  # microseconds
            quotas.append(-(-quota // period))
    return min(quotas, default=None)


def free_memory(root: Path = _CGROUPS, own: Path = _OWN_CGROUPS, machine: Path = Path("/proc/meminfo")) -> int | None:
    """Return how many bytes this process may still take: what the machine has, and no more than a container allows.

    Pages of files that were read and can be dropped count as free. None where nothing is known.

    Args:
        root, own: as of ``cpu_quota``.
        machine: what the kernel says of the machine's memory.
    """
    free = []
    available = re.search("^MemAvailable: +([0-9]+) kB$", _read(machine), re.MULTILINE)
    if available:
        free.append(int(available[1]) * 1024)
    for folder in _groups("memory", root, own):
        is_new = (folder / "memory.max").exists()  # version 2
        names = ("max", "current") if is_new else ("limit_in_bytes", "usage_in_bytes")
        limit, used = (_read(folder / f"memory.{name}").strip() for name in names)
        if limit.isdigit() and used.isdigit():  # "max" is no limit
            # version 1 counts the groups below in "total_" alone
            droppable = re.findall("^(?:total_)?inactive_file ([0-9]+)$", _read(folder / "memory.stat"), re.MULTILINE)
            free.append(int(limit) - int(used) + max(map(int, droppable), default=0))
    return max(min(free), 0) if free else None


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups that may hold a limit on a resource, and of their ancestors.

    In a container the kernel may name a group by its path on the host, of which only the end is mounted, at the root:
    what is not there is passed over, and the root is always looked at.
    """
    try:
        lines = own.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")  # the hierarchy's number; its controllers; the path
        controllers, _, path = rest.partition(":")
        if not controllers:
            mounts = (root, root / "unified")
        elif controller in controllers.split(","):
            mounts = (root / controllers, root / controller)
        else:
            continue
        parts = Path(path.strip("/")).parts
        for mount in mounts:
            for depth in range(len(parts) + 1):
                yield mount.joinpath(*parts[:depth])


def _read_words(path: Path) -> list[str]:
    return _read(path).split()


def _read(path: Path) -> str:
    """Return the text of a file of the kernel's; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def pixel_limit() -> int:
    """Return how many pixels a picture may have: of more, a damaged file is likelier.

    Raises:
        InputError: the environment variable that says otherwise holds no number.
    """
    text = os.environ.get(PIXEL_LIMIT, "")
    if not text:
        return _PIXELS
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise InputError(f"{PIXEL_LIMIT}={text}: expected a number of pixels, such as {10 * _PIXELS}, in digits")
    return int(text)


RANDOM_TEACHER = "random"  # in place of a checkpoint's path
LOGGER = logging.getLogger("stpm")
LARGEST = 3.4e38  # nearly the largest float32 number
PIXEL_LIMIT = "STPM_MAX_PIXELS"  # the environment variable: it reaches every program, also through the scripts
_PIXELS = 178_956_970  # 0.5 GiB at 3 bytes a pixel
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type's name where it has none: for a line on stderr."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class InputError(ValueError):
    """Something that the user gave is wrong: the message names it and says what would be right."""

    exit_status = 1


class ResumeError(InputError):
    """A training cannot be resumed; from its beginning it can be trained."""

    exit_status = 3  # 2 is argparse's


def check_platform() -> None:
    """Check that this is a machine that MindSpore's packages are made for; pip installs one of them on any other, too.

    Raises:
        InputError: it is not.
    """
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in MACHINES:
        raise InputError(
            f"this is {system} on {machine}: STPM needs Linux on {' or '.join(MACHINES)}, for which MindSpore is made; "
            "on others use a Linux container or virtual machine (on Windows: WSL 2)"
        )


def is_program() -> bool:
    """Return whether this process runs a program of the project; else it is somebody's who imported the package."""
    return _is_program


def run_entry_point(main: Callable[..., int], args: object) -> int:
    """Run ``main(args)`` and turn what the input or the system refuses into one line on stderr and an exit status."""
    global _is_program
    _is_program = True
    for name in ("stdout", "stderr"):
        # closed, it is None: the next file to be opened would get its number, and its text
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
        stream.reconfigure(errors="backslashreplace")  # file names need not be text, nor the terminal know all letters
        setattr(sys, name, stream)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.raiseExceptions = False  # a full disk below a log must not fill the terminal with tracebacks
    try:
        check_platform()
        pixel_limit()  # what is wrong with it is said before any work
        status = main(args)
        sys.stdout.flush()  # here it is an error like others
        return status
    except InputError as error:
        message, status = str(error), error.exit_status
    except OSError as error:
        message, status = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error), 1
    except MemoryError as error:
        message, status = f"not enough memory: {error}", 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"error: {message}", file=sys.stderr)
    return status


def command(name: str) -> str:
    """Return how a program of this package is called, such as "predict": the package is ``src``, installed ``stpm``."""
    return f"python -m {__package__}.{name}"


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when the one that started it ends, in whatever way (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
