"""Weights by name: read, checked, renamed and loaded."""

import hashlib
import re
from collections.abc import Collection
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from .files import check_checkpoint_file
from .resnet import ResNet18Trunk
from .utils import LOGGER, InputError, first_line


def arrays_sha256(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 over names and values of arrays, independent of their order."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def named_arrays(cell: nn.Cell) -> dict[str, np.ndarray]:
    """Return copies of a cell's parameters by their path inside it."""
    # asnumpy alone is a view on CPU: it would change with the next training step
    return {name: parameter.asnumpy().copy() for name, parameter in cell.parameters_and_names()}


# The model zoo's ResNet-18 names the two batch norms of a block so.
_MODEL_ZOO_NAMES = {"bn1d": "bn1", "bn2d": "bn2"}
_HEAD_NAMES = ("end_point.weight", "fc.weight")
# What a ResNet-18 checkpoint holds beyond the trunk; an optimiser's state repeats names behind one word, as in
# "moments.conv1.weight", and a name without a dot, such as "global_step", is of no layer.
_BEYOND_TRUNK = re.compile(r"(\w+\.)?(layer4|fc|end_point)\.|[^.]*$|.*\.num_batches_tracked$")


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Read a MindSpore checkpoint into arrays by name.

    Raises:
        InputError: the file is missing, is not a ``.ckpt``, or is damaged.
    """
    check_checkpoint_file(path)
    try:
        parameters = ms.load_checkpoint(str(path))
    except Exception as error:  # MindSpore raises whatever its protobuf parser does
        raise InputError(f"{path}: not a readable MindSpore checkpoint: {first_line(error)}") from error
    return {name: parameter.asnumpy() for name, parameter in parameters.items()}


def named_parameters(cell: nn.Cell) -> dict[str, Parameter]:
    """Return a cell's parameters by their path inside it."""
    return dict(cell.parameters_and_names())


def load_checked(parameters: dict[str, Parameter], arrays: dict[str, np.ndarray], *, source: str) -> int:
    """Copy arrays into parameters of the same name, all or none; return how many arrays were not needed.

    Raises:
        InputError: an entry is missing, misshapen, not finite or no variance; the message names the first few.
    """
    problems = []
    for name, parameter in parameters.items():
        array = arrays.get(name)
        if array is None:
            problems.append(f"{name} is missing")
        elif array.shape != tuple(parameter.shape):
            problems.append(f"{name} has shape {array.shape}, expected {tuple(parameter.shape)}")
        elif not np.isfinite(array).all():
            problems.append(f"{name} holds NaN or infinity")
        elif name.endswith("moving_variance") and array.min() < 0:
            problems.append(f"{name} holds a negative variance")  # its root is NaN, of which ReLU makes 0
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise InputError(f"{source}: {'; '.join(problems[:5])}{more}")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(arrays[name], dtype=parameter.dtype))
    return len(arrays.keys() - parameters.keys())


def check_is_resnet18(parameters: Collection[str], names: Collection[str], *, source: str) -> None:
    """Check that a checkpoint is of no network that merely contains ResNet-18's trunk, as ResNet-34 does.

    Args:
        parameters: the names in the trunk.
        names: those in the checkpoint, in the trunk's form.

    Raises:
        InputError: it holds what is neither the trunk's, layer4's or the head's, nor a training's bookkeeping.
    """
    for name in names:
        if name in parameters or name.partition(".")[2] in parameters or _BEYOND_TRUNK.match(name):
            continue
        is_deeper = re.match(r"(\w+\.)?layer\d\.([2-9]|\d\d+)\.", name)  # two blocks a layer
        looks = "a deeper ResNet, such as ResNet-34" if is_deeper else "another network, or one of other names"
        raise InputError(f"{source}: holds {name}, which no ResNet-18 has: looks like {looks}; expected a ResNet-18")


def trunk_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bring a checkpoint's names to the trunk's: a model zoo ResNet-18's, or those of an STPM checkpoint's teacher."""
    if any(name.startswith("model_t.") for name in arrays):
        arrays = {name.removeprefix("model_t."): array for name, array in arrays.items() if name.startswith("model_t.")}
    renamed = {}
    for name, array in arrays.items():
        parts = [_MODEL_ZOO_NAMES.get(part, part) for part in name.split(".")]
        renamed[".".join(parts)] = array
    return renamed


def load_teacher(trunk: ResNet18Trunk, path: Path, *, num_class: int | None = None) -> None:
    """Load a pretrained ResNet-18 checkpoint into the teacher.

    Args:
        num_class: classes of the checkpoint's head (1000 for torchvision, 1001 for the model zoo); a different head
            is only warned about, since it is not used.

    Raises:
        InputError: the file is unreadable, an entry of the trunk is missing or misshapen, or there is one too many.
    """
    arrays = trunk_arrays(read_checkpoint(path))
    check_is_resnet18(named_parameters(trunk), arrays, source=str(path))
    ignored = load_checked(named_parameters(trunk), arrays, source=str(path))
    LOGGER.info(
        "teacher: %s (%d entries loaded, %d not needed: layer4, head, ...)", path, len(arrays) - ignored, ignored
    )
    warn_of_other_head(arrays, num_class, path)


def warn_of_other_head(arrays: dict[str, np.ndarray], num_class: int | None, path: Path) -> None:
    """Warn where a checkpoint has a classification head of another size than ``num_class``; the head is not used."""
    head = next((array for name, array in arrays.items() if name.endswith(_HEAD_NAMES)), None)
    if num_class is not None and head is not None and head.shape[0] != num_class:
        LOGGER.warning(
            "warning: --num_class %d, but the head of %s has %d classes (it is not used)",
            num_class,
            path,
            head.shape[0],
        )


def load_student(stpm: nn.Cell, path: Path) -> None:
    """Load the student of a checkpoint that train.py wrote, to go on from it.

    Args:
        stpm: an ``STPM`` whose teacher is loaded.

    Raises:
        InputError: the file is unreadable, holds no student or a misshapen one, or that of another teacher.
    """
    arrays = _read_stpm(path)
    student, teacher = (
        {name.removeprefix(net): array for name, array in arrays.items() if name.startswith(net)}
        for net in ("model_s.", "model_t.")
    )
    if arrays_sha256(teacher) != arrays_sha256(named_arrays(stpm.model_t)):
        raise InputError(
            f"--init_from {path}: its student has learnt from another teacher than that of --pre_ckpt_path; "
            f"--pre_ckpt_path {path} takes the teacher of this model"
        )
    load_checked(named_parameters(stpm.model_s), student, source=str(path))


def _read_stpm(path: Path) -> dict[str, np.ndarray]:
    arrays = read_checkpoint(path)
    if not any(name.startswith("model_s.") for name in arrays):
        raise InputError(f"{path}: holds no student (no entry starts with model_s.); expected a checkpoint of train.py")
    return arrays


def load_stpm(stpm: nn.Cell, path: Path, *, num_class: int | None = None) -> nn.Cell:
    """Load a checkpoint that train.py wrote into an ``STPM``, for evaluation; return it.

    Args:
        num_class: as in ``load_teacher``.

    Raises:
        InputError: the file is unreadable, or an entry is missing or misshapen.
    """
    arrays = _read_stpm(path)
    load_checked(named_parameters(stpm), arrays, source=str(path))
    warn_of_other_head(arrays, num_class, path)
    stpm.set_train(False)
    return stpm


def checkpoint_entries(parameters: dict[str, Parameter]) -> list[dict[str, str | Tensor]]:
    """Return parameters in the form that ``mindspore.save_checkpoint`` takes."""
    return [{"name": name, "data": Tensor(parameter.asnumpy())} for name, parameter in parameters.items()]
