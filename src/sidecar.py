"""The JSON file beside every checkpoint and exported model: all that is needed to feed it and to trace it."""

from pathlib import Path

from src.images import MEAN, STD
from src.utils import InputError, fingerprint, read_json, versions

FORMAT = 1


def sidecar_path(model_path: Path) -> Path:
    """Return where the sidecar of a model stands."""
    return model_path.with_suffix(".json")


def sidecar_content(*, category: str, image_size: int, config: dict) -> dict:
    """Return a sidecar's content; ``threshold`` is None until it is calibrated."""
    return {
        "format": FORMAT,
        "category": category,
        "image_size": image_size,
        "preprocessing": {
            "colour": "RGB",
            "resize": "LANCZOS",
            "scale": 1 / 255,
            "mean": [round(float(value), 6) for value in MEAN],
            "std": [round(float(value), 6) for value in STD],
            "layout": "NCHW",
            "dtype": "float32",
        },
        "threshold": None,
        "config": config,
        "config_hash": fingerprint(config),
        "versions": versions(),
    }


def read_sidecar(model_path: Path, *, category: str) -> dict | None:
    """Read the sidecar of a model; None where there is none.

    Raises:
        InputError: it is damaged, of another format, or the model was trained on another category.
    """
    path = sidecar_path(model_path)
    if not path.exists():
        return None
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise InputError(f"{path}: format {content.get('format')!r}, this program reads format {FORMAT}")
    size = content.get("image_size")
    if not isinstance(size, int) or size < 32 or size % 16:
        raise InputError(f"{path}: image_size {size!r}, expected a multiple of 16")
    if content.get("category") != category:
        raise InputError(
            f"--category {category}: {model_path} was trained on {content.get('category')!r} (by {path.name})"
        )
    return content
