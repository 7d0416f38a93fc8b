"""Are anomaly maps of these inputs and of this model? The inference program notes what it had. No mindspore here."""

import os
import zlib
from pathlib import Path

from ..files import check_regular_file, read_json
from ..utils import LOGGER, InputError
from .manifest import MANIFEST_NAME

ORIGIN_NAME = "origin.json"
FORMAT = 1


def file_checksum(path: Path) -> dict:
    """Return what the inference program tells a file by: its size and its CRC-32.

    Raises:
        InputError: it cannot be read.
    """
    try:
        check_regular_file(path)
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return {"bytes": len(content), "crc32": zlib.crc32(content)}


def read_origin(maps: Path) -> dict | None:
    """Return what the inference program noted beside its maps; None where there is no note.

    Raises:
        InputError: the note is damaged, or of another format.
    """
    path = maps / ORIGIN_NAME
    if not os.path.lexists(path):
        return None
    origin = read_json(path)
    if origin.get("format") != FORMAT:
        raise InputError(f"{path}: format {origin.get('format')!r}, this program reads format {FORMAT}")
    return origin


def check_origin(maps: Path, inputs: Path | None, model: Path | None) -> None:
    """Check that maps were computed from the inputs that are there now, and by ``model``, each if that is known.

    Maps without a note, those of another program, are taken with a warning.

    Raises:
        InputError: they were not, or the note is damaged.
    """
    path = maps / ORIGIN_NAME
    if (origin := read_origin(maps)) is None:
        LOGGER.warning("warning: no %s, so it is not checked that the maps are of these inputs and of this model", path)
        return
    if inputs is not None and origin.get("manifest") != file_checksum(inputs / MANIFEST_NAME):
        raise InputError(f"{path}: the maps are not of the inputs that {inputs} holds now; run the inference again")
    if model is not None and origin.get("model") != file_checksum(model):
        raise InputError(f"{path}: the maps are not of the model {model}; run the inference again, with it")
