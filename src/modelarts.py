"""Copying from and to the object storage of the ModelArts platform, whose containers bring the moxing package."""

import functools
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from .files import lock_folder, make_output_folder
from .model.sidecar import sidecar_path
from .utils import LOGGER, InputError

Main = Callable[[Namespace], int]
_REMOTE_PREFIXES = ("obs://", "s3://")
LOCAL_ROOT = Path("/cache/stpm")  # ModelArts mounts its fast local disk at /cache


def _moxing() -> ModuleType:
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
    """Copy a remote folder or file to ``LOCAL_ROOT/name``; return the local path. A local path is returned as it is.

    With a file comes the JSON beside it, which says what a model was made for.

    Raises:
        InputError: there is no such remote folder or file.
    """
    if url is None or not is_remote(url):
        return url
    moxing = _moxing()
    local = _emptied(name)
    if moxing.file.is_directory(url):
        moxing.file.copy_parallel(url, str(local))
    elif moxing.file.exists(url):
        local.mkdir()
        parent, _, file_name = url.rpartition("/")
        sidecar = sidecar_path(Path(file_name)).name
        local = local / file_name
        moxing.file.copy(url, str(local))
        if sidecar != file_name and moxing.file.exists(f"{parent}/{sidecar}"):
            moxing.file.copy(f"{parent}/{sidecar}", str(local.with_name(sidecar)))
    else:
        raise InputError(f"{url}: does not exist in object storage")
    LOGGER.info("modelarts: %s copied to %s", url, local)
    return str(local)


def _emptied(name: str) -> Path:
    """Return ``LOCAL_ROOT/name`` without what an earlier run of this container left there."""
    make_output_folder(LOCAL_ROOT)
    lock_folder(LOCAL_ROOT, ".lock")  # a run beside this one would lose its files
    if (LOCAL_ROOT / name).exists():
        shutil.rmtree(LOCAL_ROOT / name)
    return LOCAL_ROOT / name


def staged(*, inputs: tuple[str, ...], output: str, more_outputs: tuple[str, ...] = ()) -> Callable[[Main], Main]:
    """Decorate a ``main(args)``: with ``--modelarts True`` it works on local copies of remote paths.

    Outputs are copied back at the end, after a failure too, so that a long training's checkpoints are not lost.

    Args:
        inputs: names of the arguments that are read.
        output: name of the argument that is written to; with ``--resume`` what it holds is fetched first.
        more_outputs: names of others.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def main_on_copies(args: Namespace) -> int:
            urls = {name: url for name in (output, *more_outputs) if is_remote(url := getattr(args, name) or "")}
            if not args.modelarts:
                for name, url in urls.items():
                    raise InputError(f"--{name} {url}: object storage is written to with --modelarts True only")
                return main(args)
            local = Namespace(**vars(args) | _fetch_all({name: getattr(args, name) for name in inputs}))
            folders = {name: _emptied(name) for name in urls}
            if output in urls and getattr(args, "resume", False) and _moxing().file.is_directory(urls[output]):
                fetch(urls[output], output)
            vars(local).update({name: str(folder) for name, folder in folders.items()})
            try:
                return main(local)
            finally:
                for name, folder in folders.items():
                    if folder.is_dir():
                        _moxing().file.copy_parallel(str(folder), urls[name])
                        LOGGER.info("modelarts: %s copied to %s", folder, urls[name])

        return main_on_copies

    return decorate


def _fetch_all(urls: dict[str, str | None]) -> dict[str, str | None]:
    """Fetch what arguments name, each path once; return the arguments with local paths."""
    copies: dict[str | None, str | None] = {}
    for name, url in urls.items():
        if url not in copies:
            copies[url] = fetch(url, name)
    return {name: copies[url] for name, url in urls.items()}
