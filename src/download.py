"""Fetches a published file whose size and hash are known: through proxies, and on from where it broke off."""

import dataclasses
import http.client
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from tqdm import tqdm

from . import __version__
from .files import file_sha256, take_lock
from .utils import LOGGER, InputError, first_line

TIMEOUT = 30.0  # seconds without a byte
CONNECTIONS = 10  # of one call: each goes on where the one before broke off
_BLOCK = 1 << 16


@dataclasses.dataclass(frozen=True)
class Published:
    """A file as its publisher names it: address, bytes, SHA-256."""

    address: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name: the end of its address."""
        return self.address.rpartition("/")[2]


class _NotFetchedError(Exception):
    """Why a server did not send a file, or not all of it; the message is for the user."""


def fetch(file: Published, path: Path, *, mirror: str | None = None) -> None:
    """Have a published file at ``path``; one that is there already is checked, and not fetched again.

    What has arrived stands in ``path`` with ``.part`` behind its name until all of it is there and has the right hash.
    A later call goes on from it. The proxies are those of the environment: http_proxy, https_proxy, no_proxy.

    Args:
        mirror: address of a folder that holds the file under the same name, in place of the publisher's.

    Raises:
        InputError: the file cannot be fetched or written, is another one, or another process is fetching it. The
            message says how to get it by hand.
    """
    if path.exists():
        if file_sha256(path) != file.sha256:
            raise InputError(
                f"{path}: is not {file.address}, whose SHA-256 is {file.sha256}: move it away, or choose another name"
            )
        LOGGER.info("%s: is there already, with the published SHA-256", path)
        return
    address = f"{mirror.rstrip('/')}/{file.name}" if mirror else file.address
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "ab") as target:
            # who held the lock a moment ago has renamed the file that was opened here
            if not take_lock(target) or not part.exists() or not os.path.samefile(part, target.fileno()):
                raise InputError(f"{part}: another process is fetching it; wait for that one, then run this again")
            try:
                _complete(file, address, target)
            except _NotFetchedError as error:
                raise InputError(
                    f"{address}: {error}. Run this again to go on; or name a mirror with --mirror, or a proxy in "
                    f"https_proxy; or by hand: fetch {file.address} elsewhere, compare its SHA-256 with {file.sha256}, "
                    f"put it at {path}, and run this again"
                ) from error
            finally:
                if not target.tell():
                    part.unlink(missing_ok=True)
            os.fsync(target.fileno())
            os.replace(part, path)
    except OSError as error:
        raise InputError(f"{part}: cannot be written: {error.strerror or error}") from error
    LOGGER.info("%s: fetched, with the published SHA-256", path)


def _complete(file: Published, address: str, target: IO[bytes]) -> None:
    """Append to ``target`` what it lacks; what turns out to be another file is emptied.

    Raises:
        _NotFetchedError: a server did not send it, or something else.
        OSError: it cannot be written.
    """
    is_resumed = target.tell() > 0
    megabytes = f"{file.size / 1e6:.1f} MB"
    if is_resumed:
        LOGGER.info("fetching %s, %s, from %.1f MB on", address, megabytes, target.tell() / 1e6)
    else:
        LOGGER.info("fetching %s, %s", address, megabytes)
    with tqdm(
        total=file.size, unit="B", unit_scale=True, dynamic_ncols=True, disable=not sys.stderr.isatty()
    ) as progress:
        before, why, connections = -1, None, 0
        while before < target.tell() < file.size and connections < CONNECTIONS:
            before, connections = target.tell(), connections + 1
            why = _receive(file, address, target, progress)
    if target.tell() < file.size:
        raise _NotFetchedError(f"{why or 'the connection ended'} after {target.tell()} of {file.size} bytes")
    target.flush()
    found = file_sha256(Path(target.name))
    if found == file.sha256:
        return
    _empty(target)
    if is_resumed:  # what an earlier call left may have been the fault
        LOGGER.warning("warning: %s: its SHA-256 is wrong: fetched anew", target.name)
        _complete(file, address, target)
        return
    raise _NotFetchedError(f"sent a file with the SHA-256 {found}, which was not kept")


def _empty(target: IO[bytes]) -> None:
    target.truncate(0)
    target.seek(0)


def _receive(file: Published, address: str, target: IO[bytes], progress: tqdm) -> str | None:
    """Append what one connection brings; return why it ended early, if it says so.

    Raises:
        _NotFetchedError: the server cannot be reached, refuses, or has another file.
        OSError: it cannot be written.
    """
    start = target.tell()
    # some servers refuse Python's own name; what is packed on the way would have another size
    headers = {"User-Agent": f"STPM/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        # an opener of its own: the common one keeps the proxies of its first use
        response = urllib.request.build_opener().open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            _empty(target)
            return _receive(file, address, target, progress)
        raise _NotFetchedError(f"the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        why = getattr(error.reason, "strerror", None) or str(error.reason)
        raise _NotFetchedError(f"cannot be reached: {why}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _NotFetchedError(f"cannot be reached: {first_line(error)}") from error
    with response:
        sent = re.match(r"bytes (\d+)-\d+/(\d+|\*)$", response.headers.get("Content-Range", ""))
        if response.status != http.HTTPStatus.PARTIAL_CONTENT or not sent or int(sent[1]) != start:
            if response.status == http.HTTPStatus.PARTIAL_CONTENT:
                raise _NotFetchedError("the server sends another part of the file than asked for")
            _empty(target)  # it knows no ranges
            start = 0
        length = response.length  # None if it does not say
        if length is not None and start + length != file.size:
            kind = response.headers.get_content_type()
            raise _NotFetchedError(f"has {start + length} bytes ({kind}), not the published {file.size}")
        progress.n = start
        progress.refresh()
        while True:
            try:
                block = response.read1(_BLOCK)
            except (OSError, http.client.HTTPException, ValueError) as error:
                return f"the connection broke ({first_line(error)})"
            if not block:
                return None
            if target.tell() + len(block) > file.size:
                _empty(target)
                raise _NotFetchedError(f"sends more than the published {file.size} bytes")
            target.write(block)
            progress.update(len(block))
