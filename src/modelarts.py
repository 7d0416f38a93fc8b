"""Copying from and to the object storage of the ModelArts platform, whose images bring the moxing package."""

import contextlib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from src.utils import LOGGER, InputError

_REMOTE_PREFIXES = ("obs://", "s3://")
LOCAL_ROOT = Path("/cache/stpm")  # ModelArts mounts its fast local disk at /cache


def _moxing():
    try:
        import moxing
    except ImportError as error:
        raise InputError(
            "--modelarts True: no module moxing here; it comes with the ModelArts images and nowhere else"
        ) from error
    return moxing


def is_remote(url: str) -> bool:
    """Tell whether a path lies in object storage."""
    return url.startswith(_REMOTE_PREFIXES)


def fetch(url: str | None, name: str) -> str | None:
    """Copy a remote folder or file to ``LOCAL_ROOT/name``; return the local path. A local path is returned as it is."""
    if url is None or not is_remote(url):
        return url
    moxing = _moxing()
    local = LOCAL_ROOT / name
    local.parent.mkdir(parents=True, exist_ok=True)
    if moxing.file.is_directory(url):
        moxing.file.copy_parallel(url, str(local))
    else:
        local = local / url.rstrip("/").rsplit("/", 1)[-1]
        local.parent.mkdir(parents=True, exist_ok=True)
        moxing.file.copy(url, str(local))
    LOGGER.info("modelarts: %s copied to %s", url, local)
    return str(local)


@contextlib.contextmanager
def staged(args: Namespace, *, inputs: tuple[str, ...], output: str) -> Iterator[None]:
    """With ``--modelarts True``, replace remote paths in ``args`` by local copies, and copy the output back at the end.

    The output is copied back after a failure too, so that a long training's checkpoints are not lost.

    Args:
        inputs: names of the arguments that are read.
        output: name of the argument that is written to; with ``--resume`` what it holds is fetched first.
    """
    if not args.modelarts:
        yield
        return
    for name in inputs:
        setattr(args, name, fetch(getattr(args, name), name))
    url = getattr(args, output)
    if not is_remote(url):
        yield
        return
    local = LOCAL_ROOT / output
    if getattr(args, "resume", False):
        fetch(url, output)
    setattr(args, output, str(local))
    try:
        yield
    finally:
        if local.is_dir():
            _moxing().file.copy_parallel(str(local), url)
            LOGGER.info("modelarts: %s copied to %s", local, url)
