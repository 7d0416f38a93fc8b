"""scores.csv of the inference program: what it made of each input, and how long that took. No mindspore here."""

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..files import check_regular_file
from ..utils import LOGGER, InputError
from .manifest import MANIFEST_NAME, Manifest, read_manifest
from .origin import ORIGIN_NAME, check_origin, file_checksum, read_origin

SCORES_NAME = "scores.csv"


def _column(path: Path, name: str) -> dict[str, float]:
    """Return the numbers of a column by the names of the inputs; what is wrong with them is raised as it comes."""
    check_regular_file(path)
    numbers: dict[str, float] = {}
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file):
            if row["input"] in numbers:
                raise ValueError(f"{row['input']} stands twice")
            numbers[row["input"]] = float(row[name])
    return numbers


@contextlib.contextmanager
def _told(path: Path, problem: str) -> Iterator[None]:
    """Make an ``InputError`` of what is wrong with the file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; the inference program writes it last") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: {problem} ({error!r})") from error


def read_milliseconds(folder: Path, manifest: Manifest) -> list[float]:
    """Read how long the inference of each image took from the program's scores.csv.

    Raises:
        InputError: the file is missing, or is not of the manifest's images.
    """
    path = folder / SCORES_NAME
    with _told(path, "does not match the manifest"):
        found = _column(path, "milliseconds")
        milliseconds = [found[f"{name}.bin"] for name in manifest.names]
        if not np.isfinite(milliseconds).all():
            raise ValueError("a time is not finite")
    return milliseconds


def read_good_scores(
    path: Path, *, model: Path, category: str, min_area: int = 1, inputs: Path | None = None
) -> dict[str, float]:
    """Read the scores that the program computed of good images with a model, by the names of the pictures.

    Of test images, only those of the good ones, with a warning.

    Args:
        category: what the model was trained on.
        min_area: by which it scores now, as of ``DecisionRule``.
        inputs: the folder that preprocess.py wrote; None: where ``run_310_infer.sh`` has it, or around the results.

    Raises:
        InputError: the scores are not of this model, of this category or of these inputs, or are damaged; or the
            inputs have a manifest that is not there, so that nobody knows which of them are good.
    """
    folder = path.parent
    if (origin := read_origin(folder)) is None:
        raise InputError(
            f"{folder / ORIGIN_NAME}: is missing; the inference program writes it beside {path.name}, "
            "keep the two together"
        )
    if origin.get("min_area", 1) != min_area:
        raise InputError(
            f"{path}: was computed with a minimum area of {origin.get('min_area', 1)} pixels of a map, and "
            f"{model.with_suffix('.json')} has {min_area} now; run the inference again"
        )
    inputs = inputs or _find_inputs(path, origin)
    check_origin(folder, inputs, model)
    with _told(path, "is damaged"):
        scores = _column(path, "score")
        for name, score in scores.items():
            if not (0 < score < np.inf):
                raise ValueError(f"score of {name}: {score}, expected a number above 0")
    if inputs is None:
        LOGGER.warning("warning: %s: its inputs had no manifest, so that all images are taken to be good", path)
        return scores
    manifest = read_manifest(inputs)
    if manifest.category != category:
        raise InputError(f"{path}: of images of {manifest.category!r}, and {model} was trained on {category!r}")
    if scores.keys() != {f"{name}.bin" for name in manifest.names}:
        raise InputError(f"{path}: does not match the manifest in {inputs}; run the inference again")
    if manifest.is_labelled:
        LOGGER.warning(
            "warning: %s: of test images: the %d defective ones of %d are left out; an evaluation on these images "
            "flatters the threshold",
            path,
            len(manifest.defective),
            len(manifest.names),
        )
    return {
        source: scores[f"{name}.bin"]
        for name, source in zip(manifest.names, manifest.sources, strict=True)
        if name not in manifest.defective
    }


def _find_inputs(path: Path, origin: dict) -> Path | None:
    """Return the folder whose manifest the inputs of these scores had; None if they had none."""
    if origin.get("manifest") is None:
        return None
    above = path.absolute().parent.parent
    for folder in (above / "inputs", above):
        if (folder / MANIFEST_NAME).is_file() and file_checksum(folder / MANIFEST_NAME) == origin["manifest"]:
            return folder
    raise InputError(
        f"{path}: the manifest of its inputs, which tells the good ones, is not near it; name the folder that "
        "preprocess.py wrote as --label_dir"
    )
