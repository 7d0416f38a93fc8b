"""The JSON file beside every checkpoint and exported model: all that is needed to feed it and to trace it.

A model that was exported to several formats under one name has one such file, with a part for each format.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NotRequired, TypedDict

from ..config import build_parser
from ..data.images import MEAN, STD, note_former_resizing
from ..data.view import ImageSize, View
from ..device import versions
from ..files import file_sha256, fingerprint, lock_folder, locked_folder, read_json, write_json
from ..utils import LARGEST, LOGGER, InputError, command, run_entry_point

FORMAT = 1
TRAINING_LOCK = ".train.lock"  # of a folder in which a training writes checkpoints
LOCK_PATIENCE = 10.0  # seconds; a training whose sweep was killed is gone within a few, and a JSON is soon written
PREPROCESSING = {
    "colour": "RGB",
    "resize": "LANCZOS",
    "resize_passes": ["width", "height"],
    "scale": 1 / 255,
    "mean": [round(float(value), 6) for value in MEAN.astype(float)],
    "std": [round(float(value), 6) for value in STD.astype(float)],
    "layout": "NCHW",
    "dtype": "float32",
}
# of releases before, which left the order of the two passes to Pillow: the same but for tall images
FORMER_PREPROCESSING = {name: value for name, value in PREPROCESSING.items() if name != "resize_passes"}


def sidecar_path(model_path: Path) -> Path:
    """Return where the sidecar of a model stands."""
    return model_path.with_suffix(".json")


class FileHash(TypedDict):
    """A file: its name and SHA-256; of a checkpoint in training, the one of the epoch before, too."""

    file: str
    sha256: str
    replaces: NotRequired[str | None]


class CalibrationRecord(TypedDict):
    """How a threshold was set, as ``src.evaluation.threshold.Calibration`` says it, and by which images."""

    threshold: float
    target_fpr: float
    method: str
    images: int
    fpr_interval: list[float]
    confidence: float
    scores: dict[str, float]  # by file name
    set_at: NotRequired[str]  # UTC, ISO 8601; comes when it is written


class SelfTest(TypedDict):
    """What an exported model must compute of an image that is made by a formula, as the checkpoint does in float32."""

    input: str  # name of the formula
    image_size: int | list[int]
    score: float  # the map's maximum
    map: list[list[float]]  # row, column and value of some of its pixels


class Port(TypedDict):
    """An input or output of an exported model."""

    name: str | None  # None: by position
    shape: list[int]
    dtype: str


class Conversion(TypedDict):
    """How the vendor's tool converted a MINDIR for Ascend, which fixes its precision."""

    from_sha256: str  # of the MINDIR before
    precision: str  # the mode, by its name in AscendDeviceInfo::SetPrecisionMode
    soc_version: str | None  # chip it is for; None: that of the host that converted it
    mindspore_lite: str  # version of the converter


class ExportFacts(TypedDict):
    """What is true of one exported file alone."""

    sha256: NotRequired[str]  # comes when it is written
    mindir_version: NotRequired[int]  # of a MINDIR: the version of the format that it bears
    inputs: list[Port]
    outputs: list[Port]
    file_format: str
    batch_size: int
    versions: dict[str, str]
    largest_relative_difference: float | None  # of its maps from the checkpoint's; None: not verified
    converted: NotRequired[Conversion]  # of a file that only the device reads


@dataclass(frozen=True)
class Sidecar:
    """What the JSON beside a model says, in the file's order.

    Attributes:
        category: what the model was trained on.
        view: what of an image the network sees, and at which size: in the file, ``image_size`` and what is set besides.
        preprocessing: how the images that it was trained on were prepared.
        threshold: the anomaly score from which an image is defective; None until it is calibrated.
        config: what it was trained with, a ``Configuration``; None where that is not known.
        config_hash: of ``config``.
        versions: of this project, of Python and of the packages that results depend on.
        checkpoint: the file that the weights are, or were, in.
        min_area: pixels of an anomaly map; smaller regions make no image defective.
        review: share of the threshold from which a person is to look at an image; None: nobody is.
        calibration: how the threshold was set.
        exports: of exported models: what is true of each file, by its name.
        selftest: of exported models: what they must compute; None in those of releases before.
        others: fields that this program does not know, and keeps.
    """

    category: str
    view: View
    preprocessing: dict = field(default_factory=PREPROCESSING.copy)
    threshold: float | None = None
    min_area: int = 1
    review: float | None = None
    config: dict | None = None
    config_hash: str | None = None
    versions: dict[str, str] = field(default_factory=versions)
    checkpoint: FileHash | None = None
    calibration: CalibrationRecord | None = None
    exports: dict[str, ExportFacts] = field(default_factory=dict)
    selftest: SelfTest | None = None
    others: dict = field(default_factory=dict)

    @classmethod
    def from_json(cls, path: Path, content: dict) -> "Sidecar":
        """Check what was read from ``path``.

        Raises:
            InputError: it is damaged, or not of this program.
        """
        view = check_made_for_this_program(path, content, expected_format=FORMAT)
        for name in ("threshold", "config_hash"):
            if name not in content:
                raise InputError(f"{path}: is damaged: {name} is missing")
        content = {"category": None, "config": None, "versions": {}, "calibration": None, "exports": {}} | content
        _check_threshold(path, content["threshold"])
        _check_rule(path, content, view.size)
        for name, kind, expected in (
            ("category", str, "a string"),
            ("config", dict | None, "null or an object"),
            ("config_hash", str | None, "null or a string"),
            ("versions", dict, "an object"),
            ("calibration", dict | None, "null or an object"),
            ("exports", dict, "an object for each exported file"),
        ):
            if not isinstance(content[name], kind):
                raise InputError(f"{path}: {name} {content[name]!r}, expected {expected}")
        if not all(isinstance(facts, dict) for facts in content["exports"].values()):
            raise InputError(f"{path}: exports {content['exports']!r}, expected an object for each exported file")
        _check_selftest(path, content.get("selftest"), view.size)
        known = {name: content.pop(name) for name in _FIELDS if name in content}
        others = {name: value for name, value in content.items() if name not in ("format", *_VIEW_FIELDS)}
        return cls(**known, view=view, others=others)

    def to_json(self) -> dict:
        """Return the file's content; what has not been set is absent, apart from threshold and configuration."""
        content: dict = {"format": FORMAT, "category": self.category, **self.view.to_json()}
        content |= {name: getattr(self, name) for name in _FIELDS}
        for name in ("checkpoint", "calibration", "exports", "selftest", "review"):
            if not content[name]:
                del content[name]
        if content["min_area"] == 1:
            del content["min_area"]
        return content | self.others

    def write(self, model_path: Path) -> None:
        """Write the file beside a model.

        Raises:
            InputError: it cannot be written.
        """
        write_json(sidecar_path(model_path), self.to_json())

    def min_area_at(self, size: ImageSize) -> int:
        """Return the minimum area in pixels of the maps of another image size."""
        return max(round(self.min_area * (size.pixels / self.view.size.pixels)), 1)

    def at_image_size(self, size: ImageSize) -> "Sidecar":
        """Return the same for another image size, at which the threshold would mean nothing."""
        min_area = self.min_area_at(size)
        view = self.view.at(size)
        if self.threshold is None or view == self.view:
            return replace(self, view=view, min_area=min_area)
        LOGGER.warning(
            "warning: --image_size %s: without a threshold, since the checkpoint's was set at %s pixels; "
            "calibrate the exported model (%s)",
            size,
            self.view.size,
            command("calibrate"),
        )
        return replace(self, view=view, threshold=None, min_area=min_area, calibration=None)


_FIELDS = tuple(one.name for one in fields(Sidecar) if one.name not in ("view", "others"))
_VIEW_FIELDS = ("image_size", "roi", "ignored_runs")


def new_sidecar(*, category: str, view: View, config: Mapping | None) -> Sidecar:
    """Return the sidecar of a model that was just trained; ``config`` is None where it is not known."""
    config_hash = None if config is None else fingerprint(config)
    return Sidecar(category, view, config=None if config is None else dict(config), config_hash=config_hash)


def describe_file(path: Path, *, name: str | None = None) -> FileHash:
    """Return the name of a file, or the one that it is about to get, and its SHA-256."""
    return {"file": name or path.name, "sha256": file_sha256(path)}


def check_made_for_this_program(path: Path, content: dict, *, expected_format: int) -> View:
    """Check format, view and preprocessing of a JSON file; return the view.

    Raises:
        InputError: they are not those of this program.
    """
    if content.get("format") != expected_format:
        raise InputError(f"{path}: format {content.get('format')!r}, this program reads format {expected_format}")
    try:
        view = View.from_json(content)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if content.get("preprocessing") not in (PREPROCESSING, FORMER_PREPROCESSING):
        raise InputError(f"{path}: preprocessing {content.get('preprocessing')!r}, this program's is {PREPROCESSING}")
    return view


def note_preprocessing(path: Path, preprocessing: dict) -> None:
    """Have it told, once, if an image is now prepared otherwise than where this file was written."""
    if preprocessing == FORMER_PREPROCESSING:
        note_former_resizing(path)


def _check_threshold(path: Path, threshold: object) -> None:
    is_valid = isinstance(threshold, int | float) and not isinstance(threshold, bool) and 0 < threshold <= LARGEST
    if threshold is not None and not is_valid:
        raise InputError(f"{path}: threshold {threshold!r}, expected null or a number above 0")


def _check_rule(path: Path, content: dict, size: ImageSize) -> None:
    """Check what goes with a threshold, where it is set: minimum area and review band."""
    area, review = content.get("min_area", 1), content.get("review")
    if type(area) is not int or not 1 <= area <= size.pixels:
        raise InputError(f"{path}: min_area {area!r}, expected a number of pixels of an anomaly map, at least 1")
    if review is not None and not (type(review) is float and 0 < review < 1):
        raise InputError(f"{path}: review {review!r}, expected a number above 0 and below 1")


def _check_selftest(path: Path, selftest: object, size: ImageSize) -> None:
    """Check that these are values of a map of the model's size, if there are any."""

    def is_number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST

    def is_pixel(entry: object) -> bool:
        if not isinstance(entry, list) or len(entry) != 3:
            return False
        return all(
            type(place) is int and 0 <= place < side for place, side in zip(entry[:2], size, strict=True)
        ) and is_number(entry[2])

    if selftest is None:
        return
    if not isinstance(selftest, dict) or not isinstance(selftest.get("input"), str):
        raise InputError(f"{path}: selftest {selftest!r}, expected an object that names its input; export it again")
    if selftest.get("image_size") != size.to_json():
        raise InputError(
            f"{path}: selftest: image_size {selftest.get('image_size')!r}, and the model's is {size.to_json()}; "
            "export it again"
        )
    if not is_number(selftest.get("score")):
        raise InputError(f"{path}: selftest: score {selftest.get('score')!r}, expected a number; export it again")
    pixels = selftest.get("map")
    if not isinstance(pixels, list) or not pixels or not all(map(is_pixel, pixels)):
        raise InputError(f"{path}: selftest: map, expected a list of [row, column, value]; export it again")


def read_sidecar(model_path: Path, *, category: str | None) -> Sidecar | None:
    """Read the sidecar of a model, trained on ``category`` unless that is None; None where there is no sidecar.

    Raises:
        InputError: it is damaged, of another format, or the model was trained on another category.
    """
    path = sidecar_path(model_path)
    if not os.path.lexists(path):  # a link that leads nowhere is no absence
        return None
    sidecar = Sidecar.from_json(path, read_json(path))
    if category is not None and sidecar.category != category:
        raise InputError(f"--category {category}: {model_path} was trained on {sidecar.category!r} (by {path.name})")
    return sidecar


def check_checkpoint(path: Path, sidecar: Sidecar) -> str:
    """Check that a checkpoint is the one that its sidecar was written with, where that is known; return its SHA-256.

    Or the one of the epoch before: a training may have been killed just before it was replaced.

    Raises:
        InputError: it is not.
    """
    sha256 = file_sha256(path)
    written = sidecar.checkpoint
    if written is None:
        return sha256
    known = (written.get("sha256"), written.get("replaces")) if isinstance(written, dict) else ()
    if sha256 not in known:
        raise InputError(
            f"{path}: is damaged, or is not the checkpoint that {sidecar_path(path).name} describes; "
            "keep the two together, or train it again (train.py --resume)"
        )
    return sha256


def record_calibration(
    model_path: Path,
    calibration: CalibrationRecord,
    *,
    sha256: str,
    min_area: int | None = None,
    review: float | None = None,
) -> None:
    """Write a threshold into the sidecar of a model.

    Args:
        calibration: without the time, which comes here.
        min_area, review: what goes with it; None: they stay what they are.
        sha256: of the model's file that computed the scores.

    Raises:
        InputError: there is no readable sidecar, the file is another one by now, or a training is about to replace it.
    """
    with _locked(model_path):
        sidecar = _require_sidecar(model_path)
        written = describe_file(model_path)
        if written["sha256"] != sha256:
            raise InputError(f"{model_path}: was replaced while its threshold was measured; calibrate it again")
        if model_path.suffix == ".ckpt":  # the threshold is this one's alone, whatever was to replace it
            sidecar = replace(sidecar, checkpoint=written)
        set_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        calibration = {**calibration, "set_at": set_at}
        replace(
            sidecar,
            threshold=calibration["threshold"],
            min_area=min_area or sidecar.min_area,
            review=review or sidecar.review,
            calibration=calibration,
        ).write(model_path)


def _require_sidecar(model_path: Path, *, category: str | None = None) -> Sidecar:
    sidecar = read_sidecar(model_path, category=category)
    if sidecar is None:
        program = "train.py" if model_path.suffix == ".ckpt" else "export.py"
        raise InputError(
            f"{sidecar_path(model_path)}: is missing; {program} writes it beside {model_path.name}, "
            "keep the two together"
        )
    return sidecar


def _lock(model_path: Path) -> None:
    """Keep others from a model and its sidecar until this process ends: of a checkpoint, a training is one of them."""
    lock_folder(model_path.parent, _lock_name(model_path), patience=LOCK_PATIENCE)


def _locked(model_path: Path) -> contextlib.AbstractContextManager[None]:
    """Do so for a block."""
    return locked_folder(model_path.parent, _lock_name(model_path), patience=LOCK_PATIENCE)


def _lock_name(model_path: Path) -> str:
    return TRAINING_LOCK if model_path.suffix == ".ckpt" else f".{model_path.stem}.lock"


def record_export(
    model_path: Path, written: Path, sidecar: Sidecar, *, checkpoint: FileHash, facts: ExportFacts
) -> None:
    """Write the sidecar of an exported model, keeping what it says of the same checkpoint's other formats.

    So is a threshold that was set on one of them later than the checkpoint's, and the self-test's values where
    ``sidecar`` has none: their maps are the same.

    Args:
        written: where the model is until it gets its name.
        sidecar: the checkpoint's, at the image size of the export.
        facts: without the file's hash, which comes here.
    """
    path = sidecar_path(model_path)
    exports: dict[str, ExportFacts] = {}
    _lock(model_path)
    if path.exists():
        content = read_json(path)
        if content.get("checkpoint") == checkpoint and content.get("image_size") == sidecar.view.size.to_json():
            before = Sidecar.from_json(path, content)
            exports |= before.exports
            sidecar = _with_later_threshold(sidecar, before)
            sidecar = replace(sidecar, selftest=sidecar.selftest or before.selftest)
    exports[model_path.name] = {"sha256": file_sha256(written), **facts}
    replace(sidecar, checkpoint=checkpoint, exports=exports).write(model_path)


def record_conversion(model_path: Path, written: Path, sidecar: Sidecar, facts: ExportFacts) -> None:
    """Write the sidecar of a converted model, which is the only one that it describes.

    Args:
        written: where the model is until it gets its name.
        sidecar: the source's, without its threshold.
        facts: those of the source, in place of whose hash the new file's comes here.
    """
    _lock(model_path)
    replace(sidecar, exports={model_path.name: {**facts, "sha256": file_sha256(written)}}).write(model_path)


def _with_later_threshold(sidecar: Sidecar, before: Sidecar) -> Sidecar:
    """Return a checkpoint's sidecar with the threshold of its exported models where that was set later."""
    if before.threshold is None or (sidecar.threshold is not None and _set_at(before) <= _set_at(sidecar)):
        return sidecar
    LOGGER.info(
        "threshold %.6g: kept, since it was set on the exported model, after the checkpoint's", before.threshold
    )
    return replace(
        sidecar,
        threshold=before.threshold,
        min_area=before.min_area,
        review=before.review,
        calibration=before.calibration,
    )


def _set_at(sidecar: Sidecar) -> str:
    return str(sidecar.calibration.get("set_at", "")) if sidecar.calibration else ""


def read_export(model_path: Path, *, category: str | None) -> tuple[Sidecar, ExportFacts]:
    """Read what the sidecar of an exported model says: the whole, and the part on this file.

    Raises:
        InputError: there is no sidecar, it is of another category, or it describes another file.
    """
    path = sidecar_path(model_path)
    sidecar = _require_sidecar(model_path, category=category)
    facts = sidecar.exports.get(model_path.name)
    if facts is None:
        raise InputError(f"{path}: does not describe {model_path.name}; export it again")
    if facts.get("sha256") != file_sha256(model_path):
        raise InputError(f"{model_path}: is damaged, or is not the file that {path.name} describes; export it again")
    batch_size = facts.get("batch_size")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"{path}: batch_size {batch_size!r}, expected a whole number of at least 1")
    return sidecar, facts


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of ``python -m src.model.sidecar``."""
    parser = build_parser("Check an exported model against the JSON beside it; print its threshold, if it has one.")
    parser.add_argument("--mindir_path", type=Path, required=True, metavar="FILE", help="exported model")
    parser.add_argument("--category", required=True, help="category that it must be for")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    """Check; return the exit status."""
    sidecar, _ = read_export(args.mindir_path, category=args.category)
    if sidecar.threshold is not None:
        print(sidecar.threshold)
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
