"""The JSON file beside every checkpoint and exported model: all that is needed to feed it and to trace it.

A model that was exported to several formats under one name has one such file, with a part for each format.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from ..config import build_parser
from ..data.images import MEAN, STD, is_image_size
from ..device import versions
from ..files import file_sha256, fingerprint, lock_folder, read_json, write_json
from ..utils import LARGEST, LOGGER, InputError, run_entry_point

FORMAT = 1
TRAINING_LOCK = ".train.lock"  # of a folder in which a training writes checkpoints
LOCK_PATIENCE = 10.0  # seconds; a training whose sweep was killed is gone within a few, and a JSON is soon written
PREPROCESSING = {
    "colour": "RGB",
    "resize": "LANCZOS",
    "scale": 1 / 255,
    "mean": [round(float(value), 6) for value in MEAN.astype(float)],
    "std": [round(float(value), 6) for value in STD.astype(float)],
    "layout": "NCHW",
    "dtype": "float32",
}


def sidecar_path(model_path: Path) -> Path:
    """Return where the sidecar of a model stands."""
    return model_path.with_suffix(".json")


def sidecar_content(*, category: str, image_size: int, config: dict | None) -> dict:
    """Return a sidecar's content; ``threshold`` is None until it is calibrated, ``config`` where it is not known."""
    return {
        "format": FORMAT,
        "category": category,
        "image_size": image_size,
        "preprocessing": PREPROCESSING,
        "threshold": None,
        "config": config,
        "config_hash": fingerprint(config) if config is not None else None,
        "versions": versions(),
    }


def at_image_size(content: dict, image_size: int) -> dict:
    """Return a sidecar's content for another image size, at which its threshold would mean nothing."""
    if content["threshold"] is None or content["image_size"] == image_size:
        return content | {"image_size": image_size}
    LOGGER.warning(
        "warning: --image_size %d: without a threshold, since the checkpoint's was set at %d pixels; "
        "calibrate the exported model (python -m src.calibrate)",
        image_size,
        content["image_size"],
    )
    return content | {"image_size": image_size, "threshold": None, "calibration": None}


def describe_file(path: Path, *, name: str | None = None) -> dict:
    """Return the name of a file, or the one that it is about to get, and its SHA-256."""
    return {"file": name or path.name, "sha256": file_sha256(path)}


def check_made_for_this_program(path: Path, content: dict, *, expected_format: int) -> None:
    """Check format, image size and preprocessing of a JSON file.

    Raises:
        InputError: they are not those of this program.
    """
    if content.get("format") != expected_format:
        raise InputError(f"{path}: format {content.get('format')!r}, this program reads format {expected_format}")
    if not is_image_size(content.get("image_size")):
        raise InputError(f"{path}: image_size {content.get('image_size')!r}, expected a multiple of 16")
    if content.get("preprocessing") != PREPROCESSING:
        raise InputError(f"{path}: preprocessing {content.get('preprocessing')!r}, this program's is {PREPROCESSING}")


def read_sidecar(model_path: Path, *, category: str | None) -> dict | None:
    """Read the sidecar of a model, trained on ``category`` unless that is None; None where there is no sidecar.

    Raises:
        InputError: it is damaged, of another format, or the model was trained on another category.
    """
    path = sidecar_path(model_path)
    if not os.path.lexists(path):  # a link that leads nowhere is no absence
        return None
    content = read_json(path)
    check_made_for_this_program(path, content, expected_format=FORMAT)
    for name in ("threshold", "config_hash"):
        if name not in content:
            raise InputError(f"{path}: is damaged: {name} is missing")
    _check_threshold(path, content["threshold"])
    if not isinstance(content["config_hash"], str | None):
        raise InputError(f"{path}: config_hash {content['config_hash']!r}, expected null or a string")
    if category is not None and content.get("category") != category:
        raise InputError(
            f"--category {category}: {model_path} was trained on {content.get('category')!r} (by {path.name})"
        )
    return content


def _check_threshold(path: Path, threshold: object) -> None:
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if threshold is not None and not (is_number and 0 < threshold <= LARGEST):
        raise InputError(f"{path}: threshold {threshold!r}, expected null or a number above 0")


def check_checkpoint(path: Path, sidecar: dict) -> str:
    """Check that a checkpoint is the one that its sidecar was written with, where that is known; return its SHA-256.

    Or the one of the epoch before: a training may have been killed just before it was replaced.

    Raises:
        InputError: it is not.
    """
    sha256 = file_sha256(path)
    written = sidecar.get("checkpoint")
    if written is None:
        return sha256
    known = (written.get("sha256"), written.get("replaces")) if isinstance(written, dict) else ()
    if sha256 not in known:
        raise InputError(
            f"{path}: is damaged, or is not the checkpoint that {sidecar_path(path).name} describes; "
            "keep the two together, or train it again (--resume)"
        )
    return sha256


def record_calibration(model_path: Path, calibration: dict, *, sha256: str) -> None:
    """Write a threshold into the sidecar of a model.

    Args:
        calibration: ``Calibration.to_json()`` and the names of the images behind it.
        sha256: of the model's file that computed their scores.

    Raises:
        InputError: there is no readable sidecar, the file is another one by now, or a training is about to replace it.
    """
    path = sidecar_path(model_path)
    _lock(model_path)
    content = read_json(path)
    written = describe_file(model_path)
    if written["sha256"] != sha256:
        raise InputError(f"{model_path}: was replaced while its threshold was measured; calibrate it again")
    if model_path.suffix == ".ckpt":
        content["checkpoint"] = written  # the threshold is this one's alone, whatever was to replace it
    calibration = calibration | {"set_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    write_json(path, content | {"threshold": calibration["threshold"], "calibration": calibration})


def _lock(model_path: Path) -> None:
    """Keep others from a model and its sidecar until this process ends: of a checkpoint, a training is one of them."""
    name = TRAINING_LOCK if model_path.suffix == ".ckpt" else f".{model_path.stem}.lock"
    lock_folder(model_path.parent, name, patience=LOCK_PATIENCE)


def record_export(model_path: Path, written: Path, content: dict, *, checkpoint: dict, facts: dict) -> None:
    """Write the sidecar of an exported model, keeping what it says of the same checkpoint's other formats.

    So is a threshold that was set on one of them later than the checkpoint's: their maps are the same.

    Args:
        written: where the model is until it gets its name.
        content: the checkpoint's sidecar.
        checkpoint: name and SHA-256 of the checkpoint's file.
        facts: what is true of this file alone: format, batch size, inputs, outputs, ...
    """
    path = sidecar_path(model_path)
    exports = {}
    _lock(model_path)
    if path.exists():
        before = read_json(path)
        if before.get("checkpoint") == checkpoint and before.get("image_size") == content["image_size"]:
            exports = _exports(path, before)
            content = content | _later_calibration(path, before, content)
    exports[model_path.name] = {"sha256": file_sha256(written)} | facts
    write_json(path, content | {"checkpoint": checkpoint, "exports": exports})


def _later_calibration(path: Path, before: dict, content: dict) -> dict:
    """Return threshold and calibration of an exported model where they were set after the checkpoint's, else nothing.

    Args:
        before: content of the exported model's sidecar.
        content: the checkpoint's.
    """
    threshold = before.get("threshold")
    _check_threshold(path, threshold)
    if threshold is None or (content["threshold"] is not None and _set_at(before) <= _set_at(content)):
        return {}
    LOGGER.info("threshold %.6g: kept, since it was set on the exported model, after the checkpoint's", threshold)
    return {"threshold": threshold, "calibration": before.get("calibration")}


def _set_at(content: dict) -> str:
    calibration = content.get("calibration")
    return str(calibration.get("set_at", "")) if isinstance(calibration, dict) else ""


def _exports(path: Path, content: dict) -> dict[str, dict]:
    exports = content.get("exports", {})
    if not isinstance(exports, dict) or not all(isinstance(facts, dict) for facts in exports.values()):
        raise InputError(f"{path}: exports {exports!r}, expected an object for each exported file")
    return exports


def read_export(model_path: Path, *, category: str | None) -> tuple[dict, dict]:
    """Read what the sidecar of an exported model says: the whole, and the part on this file.

    Raises:
        InputError: there is no sidecar, it is of another category, or it describes another file.
    """
    path = sidecar_path(model_path)
    content = read_sidecar(model_path, category=category)
    if content is None:
        raise InputError(f"{path}: is missing; export.py writes it beside {model_path.name}, keep the two together")
    facts = _exports(path, content).get(model_path.name)
    if facts is None:
        raise InputError(f"{path}: does not describe {model_path.name}; export it again")
    if facts.get("sha256") != file_sha256(model_path):
        raise InputError(f"{model_path}: is damaged, or is not the file that {path.name} describes; export it again")
    batch_size = facts.get("batch_size")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"{path}: batch_size {batch_size!r}, expected a whole number of at least 1")
    return content, facts


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of ``python -m src.model.sidecar``."""
    parser = build_parser("Check an exported model against the JSON beside it; print its threshold, if it has one.")
    parser.add_argument("--mindir_path", type=Path, required=True, metavar="FILE", help="exported model")
    parser.add_argument("--category", required=True, help="category that it must be for")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    """Check; return the exit status."""
    content, _ = read_export(args.mindir_path, category=args.category)
    if content["threshold"] is not None:
        print(content["threshold"])
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
