"""The JSON file beside every checkpoint and exported model: all that is needed to feed it and to trace it.

A model that was exported to several formats under one name has one such file, with a part for each format.
"""

import argparse
import math
import sys
from pathlib import Path

from src.images import MEAN, STD
from src.utils import InputError, file_sha256, fingerprint, read_json, run_entry_point, versions, write_json

FORMAT = 1
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


def check_image_size(path: Path, size: object) -> None:
    """Check the image size that a JSON file gives.

    Raises:
        InputError: it is none.
    """
    if not isinstance(size, int) or size < 32 or size % 16:
        raise InputError(f"{path}: image_size {size!r}, expected a multiple of 16")


def read_sidecar(model_path: Path, *, category: str | None) -> dict | None:
    """Read the sidecar of a model, trained on ``category`` unless that is None; None where there is no sidecar.

    Raises:
        InputError: it is damaged, of another format, or the model was trained on another category.
    """
    path = sidecar_path(model_path)
    if not path.exists():
        return None
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise InputError(f"{path}: format {content.get('format')!r}, this program reads format {FORMAT}")
    check_image_size(path, content.get("image_size"))
    for name in ("threshold", "config_hash"):
        if name not in content:
            raise InputError(f"{path}: is damaged: {name} is missing")
    threshold = content["threshold"]
    if threshold is not None and not (isinstance(threshold, int | float) and 0 < threshold < math.inf):
        raise InputError(f"{path}: threshold {threshold!r}, expected a number above 0, or null")
    if category is not None and content.get("category") != category:
        raise InputError(
            f"--category {category}: {model_path} was trained on {content.get('category')!r} (by {path.name})"
        )
    return content


def record_calibration(model_path: Path, calibration: dict) -> None:
    """Write a threshold into the sidecar of a model.

    Args:
        calibration: ``Calibration.to_json()`` and the names of the images behind it.

    Raises:
        InputError: there is no readable sidecar.
    """
    path = sidecar_path(model_path)
    content = read_json(path)
    write_json(path, content | {"threshold": calibration["threshold"], "calibration": calibration})


def record_export(model_path: Path, content: dict, *, checkpoint: dict, facts: dict) -> None:
    """Write the sidecar of an exported model, keeping what it says of the same checkpoint's other formats.

    Args:
        content: the checkpoint's sidecar.
        checkpoint: name and SHA-256 of the checkpoint's file.
        facts: what is true of this file alone: format, batch size, inputs, outputs, ...
    """
    path = sidecar_path(model_path)
    exports = {}
    if path.exists():
        before = read_json(path)
        if before.get("checkpoint") == checkpoint and before.get("image_size") == content["image_size"]:
            exports = _exports(before)
    exports[model_path.name] = {"sha256": file_sha256(model_path)} | facts
    write_json(path, content | {"checkpoint": checkpoint, "exports": exports})


def _exports(content: dict) -> dict:
    exports = content.get("exports")
    return exports if isinstance(exports, dict) else {}


def read_export(model_path: Path, *, category: str | None) -> tuple[dict, dict]:
    """Read what the sidecar of an exported model says: the whole, and the part on this file.

    Raises:
        InputError: there is no sidecar, it is of another category, or it describes another file.
    """
    path = sidecar_path(model_path)
    content = read_sidecar(model_path, category=category)
    if content is None:
        raise InputError(f"{path}: is missing; export.py writes it beside {model_path.name}, keep the two together")
    facts = _exports(content).get(model_path.name)
    if not isinstance(facts, dict):
        raise InputError(f"{path}: does not describe {model_path.name}; export it again")
    if facts.get("sha256") != file_sha256(model_path):
        raise InputError(f"{model_path}: is damaged, or is not the file that {path.name} describes; export it again")
    batch_size = facts.get("batch_size")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"{path}: batch_size {batch_size!r}, expected a whole number of at least 1")
    return content, facts


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of ``python -m src.sidecar``."""
    parser = argparse.ArgumentParser(
        description="Check an exported model against the JSON beside it; print its threshold, if it has one.",
        allow_abbrev=False,
    )
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
