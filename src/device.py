"""MindSpore's device, seed and environment, and the versions of what results depend on."""

import gc
import os
import platform
import re
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from types import ModuleType

from . import __version__
from .utils import LOGGER, InputError, core_count, is_program

DEVICE_TARGETS = ("Ascend", "GPU", "CPU")
OPTIONAL_PACKAGES = Path(__file__).resolve().parent.parent / "requirements-optional.txt"
_REPORTED_PACKAGES = ("mindspore", "numpy", "pillow", "opencv-python-headless", "scikit-learn")


def prepare_environment(*, own_convolutions: bool = False) -> None:
    """Set what MindSpore reads from the environment; must run before its import. What the user has set stays.

    MindSpore's log level is set to errors, since looking for absent devices alone fills a screen with warnings.

    Args:
        own_convolutions: MindSpore's own convolutions will be used, not those of ``src.cpu.onednn``. The oneDNN 3.10.1
            inside MindSpore 2.10 then falls back to its reference convolution on processors with AVX-512
            (``ONEDNN_VERBOSE=1`` shows ``jit_uni_ncsp:conv+ref:any``), which is a hundred times slower than the AVX2
            kernel, to which it is therefore held.

    Raises:
        InputError: the user has set a log level that MindSpore fails to import with, or there is no room for temporary
            files, for want of which its import ends in a dump.
    """
    from .cpu import onednn  # brings numpy, which a sweep's workers have no use for

    if own_convolutions or not onednn.is_available():
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    os.environ.setdefault("OMP_NUM_THREADS", str(core_count()))  # OpenMP itself knows of no container's quota
    level = os.environ.setdefault("GLOG_v", "3")
    if level not in ("", "0", "1", "2", "3", "4"):
        raise InputError(f"GLOG_v {level!r}: expected MindSpore's log level, 0 (all) to 4 (critical errors)")
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise InputError(f"{error.strerror}: make room in one, or name another folder in TMPDIR") from error


def import_mindspore() -> ModuleType:
    """Import MindSpore. In a program of this project the garbage collector rests meanwhile, and ignores what it made.

    The import makes hundreds of thousands of objects that stay. The collector would go through them several times
    during the import, and again before every graph that MindSpore compiles: a tenth of a short training. In somebody
    else's process the collector stays as it is: all objects of that process would be frozen, and never collected.
    """
    if "mindspore" in sys.modules or not is_program():
        import mindspore

        return mindspore
    gc.disable()
    try:
        import mindspore
    finally:
        gc.enable()
    gc.freeze()
    return mindspore


def set_up_device(device_target: str = "auto", device_id: int | None = 0, *, own_convolutions: bool = False) -> str:
    """Select the device and graph mode; return the device target in use.

    Args:
        device_target: "Ascend", "GPU", "CPU", or "auto" for the first of these that is present.
        device_id: number of the card; ignored on CPU. None: the one that msrun assigned to this process.
        own_convolutions: see ``prepare_environment``.

    Raises:
        InputError: the device asked for is not present.
    """
    prepare_environment(own_convolutions=own_convolutions)
    ms = import_mindspore()

    def is_present(target: str) -> bool:
        return getattr(ms.device_context, target.lower()).is_available()

    if device_target == "auto":
        device_target = next(target for target in DEVICE_TARGETS if is_present(target))
        LOGGER.info("device: %s (found automatically)", device_target)
    elif not is_present(device_target):
        raise InputError(f"device {device_target}: MindSpore {ms.__version__} sees no such device here")
    ms.set_context(mode=ms.GRAPH_MODE)
    if core_count() < ms.get_context("runtime_num_threads"):  # it knows of no container's quota
        ms.set_context(runtime_num_threads=core_count())
    if device_target == "CPU" or device_id is None:
        ms.set_device(device_target)
    else:
        ms.set_device(device_target, device_id)
    return device_target


def set_seed(seed: int) -> None:
    """Seed MindSpore's and numpy's generators: parameter initialisation follows from it."""
    import mindspore as ms

    ms.set_seed(seed)


def versions() -> dict[str, str]:
    """Return the versions of this project, of Python and of the packages that results depend on."""
    found = {"stpm": __version__, "python": platform.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def pinned(package: str) -> str:
    """Return what to tell pip for a package that may be missing: its name, and the version that this project asks for.

    The version stands in the checkout's requirements, or in what pip recorded of the installed package ``stpm``.
    """
    try:
        files = OPTIONAL_PACKAGES, OPTIONAL_PACKAGES.with_name("requirements.txt")
        found = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError:
        try:
            found = requires("stpm") or []
        except PackageNotFoundError:
            found = []
    pins = (re.match(rf"{re.escape(package)}==[\w.]+", line) for line in found)
    return next((pin[0] for pin in pins if pin), package)
