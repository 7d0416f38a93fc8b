"""Errors of the user, the log, how a program ends, and the number of cores. Imports only the standard library."""

import ctypes
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable


@functools.cache
def core_count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


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


def run_entry_point(main: Callable[..., int], args: object) -> int:
    """Run ``main(args)`` and turn what the input or the system refuses into one line on stderr and an exit status."""
    for name in ("stdout", "stderr"):
        # closed, it is None: the next file to be opened would get its number, and its text
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
        stream.reconfigure(errors="backslashreplace")  # file names need not be text, nor the terminal know all letters
        setattr(sys, name, stream)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.raiseExceptions = False  # a full disk below a log must not fill the terminal with tracebacks
    try:
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


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when the one that started it ends, in whatever way (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
