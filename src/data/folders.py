"""What stands in a folder: pictures that are read, pictures that are not, and leftovers that are no user's."""

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from ..utils import LOGGER, InputError
from .images import IMAGE_SUFFIXES

Report = Callable[[str], None]
# What operating systems, storage servers and tools leave behind; all names that begin with a dot besides.
LEFTOVERS = frozenset(
    (
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx", "lost+found",
        "$recycle.bin", "recycler", "recycled", "system volume information", "network trash folder", "temporary items",
        "@eadir", "@tmp", "@sharebin", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot",
        "__pycache__", "aquota.user", "aquota.group", "quota.user", "quota.group",
    )
)  # fmt: skip
_OTHER_SUFFIXES = frozenset(
    (
        *(".webp", ".gif", ".apng", ".pgm", ".ppm", ".pbm", ".pnm", ".pam", ".pfm", ".dib", ".rle", ".tga", ".pcx"),
        *(".psd", ".xcf", ".svg", ".ico", ".icns", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jpx", ".jpf", ".jxl"),
        *(".jif", ".jfi", ".jps", ".mpo", ".jls", ".jxr", ".wdp", ".hdp", ".exr", ".hdr", ".sgi", ".ras", ".qoi"),
        *(".raw", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".srw", ".orf", ".rw2", ".raf"),
        *(".pef", ".dcm", ".fits", ".fit", ".npy", ".btf", ".tf8"),
    )
)
# how files of pictures begin, whatever they are called: most cameras' raw formats are TIFFs
_BEGINNING = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|II[*+]\0|MM\0[*+]|RIFF....WEBP|BM.{4}\0{4}|P[1-7][ \t\r\n]|8BPS\0|"
    rb"\0\0\0\x0c(jP  |JXL )|....ftyp(heic|heix|hevc|mif1|avif|crx )",
    re.DOTALL,
)
_MOST = 10_000  # entries that are looked at below a folder: it may be somebody's home
_NAMED = 3


def visible(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted by name, without leftovers and without names that begin with a dot.

    Raises:
        InputError: the folder cannot be listed.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not _is_leftover(entry.name))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from error


def _is_leftover(name: str) -> bool:
    return name.startswith(".") or name.casefold() in LEFTOVERS


def leads_nowhere(path: Path) -> bool:
    """Tell whether a path is a link to what is not there, such as a disk that is not mounted, or to itself."""
    return os.path.islink(path) and not os.path.exists(path)


def folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name."""
    return [entry for entry in visible(folder) if entry.is_dir()]


def pictures(folder: Path) -> list[Path]:
    """Return what by its suffix is a picture that can be read, sorted by name."""
    return [path for path in visible(folder) if _is_read(path)]


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_picture_name(name: str) -> bool:
    """Tell whether ``pictures`` lists a file of this name."""
    return not _is_leftover(name) and _is_read(Path(name))


def _is_picture(path: Path) -> bool:
    """Tell whether a file is a picture, of whatever kind, by its suffix or by its first bytes."""
    if _is_read(path) or path.suffix.lower() in _OTHER_SUFFIXES:
        return True
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return _BEGINNING.match(file.read(16)) is not None
    except OSError:
        return False


def _files_below(folder: Path, entries: list[Path]) -> Iterator[Path]:
    """Yield the files below some of a folder's folders, each once: links may make circles of folders."""
    waiting, seen = entries[::-1], {_identity(folder)}
    while waiting:
        with contextlib.suppress(OSError, InputError):  # a folder that cannot be listed
            current = waiting.pop()
            if _identity(current) in seen:
                continue
            seen.add(_identity(current))
            inside = visible(current)
            yield from (entry for entry in inside if not entry.is_dir())
            waiting += reversed([entry for entry in inside if entry.is_dir()])


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def left_out(folder: Path, *, read: Collection[str] = (), takes_pictures: bool = True) -> str | None:
    """Count and name the pictures in and below a folder that are not read; None where there are none.

    Args:
        read: names of the folders in it that are read for themselves.
        takes_pictures: whether the pictures in it are read, those whose suffix is one of ``IMAGE_SUFFIXES``.
    """
    # what is read is not looked at: there may be millions, on a network
    entries = [entry for entry in visible(folder) if not (takes_pictures and _is_read(entry))]
    unread = [entry for entry in entries if entry.is_dir() and entry.name not in read]
    below = list(itertools.islice(_files_below(folder, unread), _MOST))
    own = [entry for entry in entries if not entry.is_dir()]
    found = list(filter(_is_picture, own + below))
    if not found:
        return None
    names = ", ".join(os.fspath(path.relative_to(folder)) for path in found[:_NAMED])
    number = f"{len(found)}{' or more' if len(below) == _MOST else ''} picture{'s' if len(found) > 1 else ''}"
    if takes_pictures:
        is_read = f"read: {' '.join(IMAGE_SUFFIXES)}, in the folder itself"
    else:
        is_read = f"only these folders are read: {', '.join(read)}"
    return f"{number} left out: {names}{', ...' if len(found) > _NAMED else ''} ({is_read})"


def report_left_out(folder: Path, report: Report, *, read: Collection[str] = (), takes_pictures: bool = True) -> None:
    """Report what ``left_out`` finds, if anything."""
    found = left_out(folder, read=read, takes_pictures=takes_pictures)
    if found:
        report(f"{folder}: {found}")


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, the same one once per process: the usual ``Report``."""
    LOGGER.warning("warning: %s", message)


def holds_none(folder: Path) -> InputError:
    """Return the error that a folder holds no picture that can be read, with what it holds instead."""
    found = left_out(folder)
    return InputError(f"{folder}: holds no image ({' '.join(IMAGE_SUFFIXES)})" + (f"; {found}" if found else ""))
