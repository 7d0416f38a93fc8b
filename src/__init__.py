"""STPM on MindSpore: unsupervised visual anomaly detection by student-teacher feature pyramid matching.

Wang et al. 2021, arXiv 2103.04257. The project's folder ``src``, and installed the package ``stpm``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .detector import Detector, Inspection
    from .evaluation.regions import Region
    from .training.from_images import train
    from .utils import InputError

__version__ = "1.0.0"
__all__ = ["Detector", "InputError", "Inspection", "Region", "__version__", "train"]
_PLACES = {
    "Detector": "detector",
    "InputError": "utils",
    "Inspection": "detector",
    "Region": "evaluation.regions",
    "train": "training.from_images",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is, since not all that use the package need all that it needs."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_PLACES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
