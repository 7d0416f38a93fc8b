"""A trained model of any kind, checkpoint or exported, as a function from images to anomaly maps."""

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import DEFAULT_EVAL_BATCH_SIZE, DEFAULT_IMAGE_SIZE
from ..data.view import ImageSize, View
from ..device import pinned, set_up_device
from ..evaluation.decision import DecisionRule
from ..files import check_checkpoint_file, check_file
from ..utils import LOGGER, InputError, core_count, first_line
from .maps import Network
from .sidecar import Sidecar, check_checkpoint, note_preprocessing, read_export, read_sidecar, sidecar_path

# MindSpore is one for all of a process, and its graphs are not made for several threads: they take turns.
_MINDSPORE = threading.RLock()
EXPORTED_SUFFIXES = (".mindir", ".onnx")


@dataclass(frozen=True)
class ModelFile:
    """A model's file, checked as far as that goes without a runtime.

    Attributes:
        sidecar: what the JSON beside it says; None for a checkpoint without one.
        view: what of an image it sees, and at which size.
        batch_size: images per call.
        sha256: of the file; None for a checkpoint without sidecar.
    """

    path: Path
    sidecar: Sidecar | None
    view: View
    batch_size: int
    sha256: str | None = None

    @property
    def threshold(self) -> float | None:
        """The anomaly score from which an image is defective; None until it is calibrated."""
        return self.sidecar.threshold if self.sidecar else None

    @property
    def min_area(self) -> int:
        """The area, in pixels of its anomaly maps, below which a region makes no image defective."""
        return self.sidecar.min_area_at(self.view.size) if self.sidecar else 1

    @property
    def config_hash(self) -> str | None:
        """Hash of the configuration that it was trained with, where that is known."""
        return self.sidecar.config_hash if self.sidecar else None


def inspect_model(
    path: Path, *, category: str | None = None, image_size: ImageSize | None = None, batch_size: int | None = None
) -> ModelFile:
    """Check a model's file and sidecar and settle image and batch size; no slow import.

    Args:
        category: what it must have been trained on; None: anything.
        image_size, batch_size: asked for by flags; None: the model's own. An exported model has one of each.

    Raises:
        InputError: the file is missing, empty, damaged, of another kind or category, or another size was asked for.
    """
    if path.suffix not in EXPORTED_SUFFIXES:
        if path.suffix == ".air":
            raise InputError(f"{path}: AIR is for Ascend tools only; expected .ckpt, .mindir or .onnx")
        check_checkpoint_file(path)
        sidecar = read_sidecar(path, category=category)
        sha256 = check_checkpoint(path, sidecar) if sidecar else None
        if sidecar:
            note_preprocessing(path, sidecar.preprocessing)
        if not sidecar and not image_size:
            LOGGER.warning("warning: no %s, so %s pixels are assumed", sidecar_path(path), DEFAULT_IMAGE_SIZE)
        trained = sidecar.view if sidecar else None
        if image_size and trained and image_size != trained.size:
            LOGGER.warning("warning: --image_size %s, but the checkpoint was trained at %s", image_size, trained.size)
        size = image_size or (trained.size if trained else DEFAULT_IMAGE_SIZE)
        view = trained.at(size) if trained else View(size)
        return ModelFile(path, sidecar, view, batch_size or DEFAULT_EVAL_BATCH_SIZE, sha256)

    check_file(path, path.suffix[1:].upper())
    sidecar, facts = read_export(path, category=category)
    note_preprocessing(path, sidecar.preprocessing)
    for name, given, fixed in (
        ("image_size", image_size, sidecar.view.size),
        ("batch_size", batch_size, facts["batch_size"]),
    ):
        if given and given != fixed:
            raise InputError(f"{name} {given}: {path} was exported for {fixed}; leave it out or export again")
    return ModelFile(path, sidecar, sidecar.view, facts["batch_size"], facts["sha256"])


def choose_rule(
    model: ModelFile | None, *, threshold: float | None = None, review: float | None = None
) -> DecisionRule:
    """Return how maps become verdicts: as flags say, else as the model's sidecar does.

    The threshold is the nearest float32 number, which is what the C++ program makes of the same text.

    Args:
        model: None: it is not known.
        threshold, review: asked for by flags.
    """
    known = model.sidecar if model else None
    min_area = model.min_area if model else 1
    review = review or (known.review if known else None)
    if threshold is not None:
        return DecisionRule(_nearest_float32(threshold, "--threshold"), min_area, review, source="--threshold")
    if model is None or known is None or known.threshold is None:
        return DecisionRule(None, min_area, review)
    if model.view.size != known.view.size:
        LOGGER.warning(
            "warning: no verdicts: the threshold of %s was set at %s pixels, not %s (--threshold sets another)",
            model.path,
            known.view.size,
            model.view.size,
        )
        return DecisionRule(None, min_area, review)
    threshold = _nearest_float32(known.threshold, f"{sidecar_path(model.path)}: threshold")
    return DecisionRule(threshold, min_area, review, source="the model, set by good images")


def _nearest_float32(threshold: float, name: str) -> float:
    # inference libraries have the processor take what lies below for 0, and would call every image defective
    smallest = float(np.finfo(np.float32).smallest_normal)
    if threshold < smallest:
        raise InputError(f"{name} {threshold!r}: is below {smallest:.8g}, the smallest normal float32 number")
    return float(np.float32(threshold))


def load_network(
    model: ModelFile, *, num_class: int | None = None, device_target: str = "auto", device_id: int = 0
) -> Network:
    """Load a model into its runtime: MindSpore, or ONNX Runtime (CPU) for ``.onnx``.

    Raises:
        InputError: the device or the runtime is missing, or the runtime cannot read the file.
    """
    if model.sidecar and "converted" in model.sidecar.exports.get(model.path.name, {}):
        raise InputError(
            f"{model.path}: is converted for Ascend, which the C++ program alone reads (scripts/run_310_infer.sh); "
            "give the model that it was made of"
        )
    if model.path.suffix == ".onnx":
        return _checked(load_exported(model.path), model.path)
    with _MINDSPORE:
        set_up_device(device_target, device_id, own_convolutions=model.path.suffix == ".mindir")
        if model.path.suffix == ".mindir":
            version = model.sidecar.exports[model.path.name].get("mindir_version") if model.sidecar else None
            return _checked(load_exported(model.path, mindir_version=version), model.path)
        from ..backend import StpmNetwork
        from ..checkpoint import load_stpm
        from ..stpm import STPM

        stpm = load_stpm(STPM(), model.path, num_class=num_class)
        return _checked(StpmNetwork(stpm, view=model.view), model.path)


def _checked(network: Network, path: Path) -> Network:
    """Return a function that refuses maps of another shape."""

    turns = contextlib.nullcontext() if path.suffix == ".onnx" else _MINDSPORE

    def compute(images: np.ndarray) -> np.ndarray:
        try:
            with turns:
                maps = network(images)
        except Exception as error:  # the runtimes' own, where model and JSON differ; they share no base class
            if path.suffix not in EXPORTED_SUFFIXES:
                raise
            raise InputError(
                f"{path}: cannot compute the maps of images {images.shape}: {first_line(error)}"
            ) from error
        if maps.shape != (len(images), 1, *images.shape[2:]):
            raise InputError(f"{path}: computes maps {maps.shape} of images {images.shape}; export it again")
        return maps

    return compute


def load_exported(path: Path, *, mindir_version: int | None = None) -> Network:
    """Load an exported model; MINDIR needs MindSpore's device to be set up.

    Args:
        mindir_version: of a MINDIR, for the message where it is one that MindSpore cannot read; None: not known.

    Raises:
        InputError: the runtime is missing or cannot read the file.
    """
    return _onnx_function(path) if path.suffix == ".onnx" else _mindir_function(path, mindir_version)


def _mindir_function(path: Path, version: int | None) -> Network:
    import mindspore as ms

    try:
        network = ms.nn.GraphCell(ms.load(str(path)))
    except Exception as error:  # MindSpore raises whatever its reader does
        problem = f"{path}: not a MINDIR that MindSpore {ms.__version__} can read"
        if version is not None and version > 1:
            problem += (
                f"; it bears version {version} of the format, and export.py --mindir_version 1 writes one for all"
            )
        raise InputError(problem) from error
    return lambda images: network(ms.Tensor(images)).asnumpy()


def onnxruntime_is_installed() -> bool:
    """Return whether the optional ONNX Runtime can be imported."""
    from importlib.util import find_spec

    return find_spec("onnxruntime") is not None


def _onnx_function(path: Path) -> Network:
    if not onnxruntime_is_installed():
        raise InputError(f"{path}: needs ONNX Runtime, which is not installed: pip install {pinned('onnxruntime')}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # idle threads that spin take the cores from those that decode the next images: 0.7 of the time without
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = core_count()  # by itself it knows of no container's quota
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no public base class
        raise InputError(f"{path}: ONNX Runtime cannot read it: {error}") from error
    name = session.get_inputs()[0].name

    def compute(images: np.ndarray) -> np.ndarray:
        return session.run(None, {name: images})[0]

    return compute
