"""STPM: teacher and student, the anomaly map that they give, and checked loading of their weights."""

import re
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.cpu_operators import FrozenDistances, is_fast_on_cpu
from src.cpu_trunk import fold
from src.loss import NORM_EPS, normalise
from src.resnet import (
    BN_EPS,
    BN_MOMENTUM,
    CHANNELS,
    MINDSPORE_OPERATORS,
    STRIDES,
    ChannelBias,
    ResNet18Trunk,
    batch_norm,
    channels_first,
    channels_last,
    named_arrays,
    portable_operators,
)
from src.utils import LOGGER, InputError, check_checkpoint_file

# The model zoo's ResNet-18 names the two batch norms of a block so.
_MODEL_ZOO_NAMES = {"bn1d": "bn1", "bn2d": "bn2"}
_HEAD_NAMES = ("end_point.weight", "fc.weight")
# What a ResNet-18 checkpoint holds beyond the trunk; an optimiser's state repeats names behind one word, as in
# "moments.conv1.weight", and a name without a dot, such as "global_step", is of no layer.
_BEYOND_TRUNK = re.compile(r"(\w+\.)?(layer4|fc|end_point)\.|[^.]*$|.*\.num_batches_tracked$")

# Batch norm that uses its stored statistics even while the student beside it trains.
frozen_batch_norm = partial(nn.BatchNorm2d, eps=BN_EPS, momentum=BN_MOMENTUM, use_batch_statistics=False)


class STPM(nn.Cell):
    """A frozen teacher and a student of the same shape (paper, figure 2).

    Args:
        folded: build the form without batch norm that ``fold_batch_norm`` fills; for inference only.
        export_size: with ``folded``, the form for export, for images of this size.
        student_norm: without ``folded``, what normalises the student, such as ``batch_norm``.

    Inputs: images, float32 (N, 3, S, S).
    Outputs: the teacher's and the student's features at strides 4, 8 and 16, as two tuples of three.
    """

    def __init__(
        self,
        *,
        folded: bool = False,
        export_size: int | None = None,
        student_norm: Callable[[int], nn.Cell] = batch_norm,
    ):
        super().__init__()
        operators = portable_operators(export_size) if export_size else MINDSPORE_OPERATORS
        self.model_t = ResNet18Trunk(norm=ChannelBias if folded else frozen_batch_norm, operators=operators)
        self.model_s = ResNet18Trunk(norm=ChannelBias if folded else student_norm, operators=operators)
        for parameter in self.model_t.get_parameters():
            parameter.requires_grad = False

    def construct(self, images: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return self.model_t(images), self.model_s(images)


class ChannelSum(nn.Cell):
    """Sum over channels as a 1x1 convolution with ones: the form that every runtime of the exported graph knows.

    Inputs: float32 (N, C, H, W), or (N, H, W, C) with ``last``. Outputs: the same with one channel.
    """

    def __init__(self, channels: int, *, last: bool = False):
        super().__init__()
        self.last = last
        self.ones = Tensor(np.ones((1, channels, 1, 1), np.float32))
        self.conv = ops.Conv2D(out_channel=1, kernel_size=(1, 1), stride=(1, 1), dilation=(1, 1))

    def construct(self, x: Tensor) -> Tensor:
        if self.last:
            return channels_last(self.conv(channels_first(x), self.ones))  # (N, H, W, 1)
        return self.conv(x, self.ones)  # (N, 1, H, W)


def bilinear_matrix(size_out: int, size_in: int) -> np.ndarray:
    """Return the float32 (size_out, size_in) matrix of bilinear resizing along one axis.

    Half-pixel centres and clamped edges: what ``cv2.resize(..., interpolation=cv2.INTER_LINEAR)`` computes.
    """
    position = (np.arange(size_out) + 0.5) * size_in / size_out - 0.5
    position = np.clip(position, 0, size_in - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, size_in - 1)
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    np.add.at(matrix, (rows, low), 1 - (position - low))
    np.add.at(matrix, (rows, high), position - low)
    return matrix.astype(np.float32)


class BilinearUpsampling(nn.Cell):
    """Bilinear resizing of a square one-channel map as two 1x1 convolutions, one per axis.

    Resizing operators differ between runtimes; a convolution with the interpolation matrix does not.

    Inputs: float32 (N, 1, h, h) or (N, h, h, 1). Outputs: float32 (N, 1, S, S).
    """

    def __init__(self, size_in: int, size_out: int):
        super().__init__()
        self.size_in, self.size_out = size_in, size_out
        self.matrix = Tensor(bilinear_matrix(size_out, size_in).reshape(size_out, size_in, 1, 1))
        self.conv = ops.Conv2D(out_channel=size_out, kernel_size=(1, 1), stride=(1, 1), dilation=(1, 1))

    def construct(self, x: Tensor) -> Tensor:
        x = ops.reshape(x, (-1, self.size_in, self.size_in, 1))  # (N, h, w, 1): rows as channels
        x = self.conv(x, self.matrix)  # (N, S, w, 1)
        x = ops.transpose(x, (0, 2, 1, 3))  # (N, w, S, 1): columns as channels
        x = self.conv(x, self.matrix)  # (N, S, S, 1), columns first
        return ops.transpose(x, (0, 3, 2, 1))  # (N, 1, S, S)


class Distances(nn.Cell):
    """Per scale 0.5 * sum over channels of (t_hat - s_hat)^2 (paper, equation 4).

    Args:
        stpm: teacher and student, folded or not.
        for_export: compare the features in (N, H, W, C), which saves MindSpore Lite transpositions.

    Inputs: images, float32 (N, 3, S, S). Outputs: at strides 4, 8 and 16, (N, 1, h, w); (N, h, w, 1) for export.
    """

    def __init__(self, stpm: STPM, *, for_export: bool = False):
        super().__init__()
        self.stpm = stpm
        self.for_export = for_export
        self.sums = nn.CellList([ChannelSum(channels, last=for_export) for channels in CHANNELS])

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        teacher_features, student_features = self.stpm(images)
        distances = ()
        for i in range(3):
            teacher, student = teacher_features[i], student_features[i]  # (N, C, h, w)
            if self.for_export:
                teacher, student = channels_last(teacher), channels_last(student)  # (N, h, w, C)
            difference = ops.sub(normalise(teacher, self.sums[i]), normalise(student, self.sums[i]))
            distances += (ops.mul(self.sums[i](ops.mul(difference, difference)), 0.5),)  # one channel, first or last
        return distances


class AnomalyMap(nn.Cell):
    """Images in, anomaly maps out (paper, equation 5): what is evaluated, exported and run on the line.

    The distances of teacher and student, upsampled to the image size; the product over scales.

    Args:
        distances: ``Distances`` or ``FrozenDistances``.
        image_size: side of the square images, a multiple of 16.

    Inputs: images, float32 (N, 3, S, S). Outputs: maps, float32 (N, 1, S, S).
    """

    def __init__(self, distances: nn.Cell, *, image_size: int):
        super().__init__()
        self.distances = distances
        self.upsamplings = nn.CellList([BilinearUpsampling(image_size // stride, image_size) for stride in STRIDES])

    def construct(self, images: Tensor) -> Tensor:
        anomaly_map = 1.0
        for upsample, distance in zip(self.upsamplings, self.distances(images)):  # noqa: B905 - graph mode: no strict
            anomaly_map = ops.mul(upsample(distance), anomaly_map)  # (N, 1, S, S)
        return anomaly_map


def frozen_distances(stpm: STPM) -> FrozenDistances:
    """Return an STPM's ``Distances`` in the form that is fast on CPU."""
    return FrozenDistances(stpm.model_t, stpm.model_s, norm_eps=NORM_EPS)


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Read a MindSpore checkpoint into arrays by name.

    Raises:
        InputError: the file is missing, is not a ``.ckpt``, or is damaged.
    """
    check_checkpoint_file(path)
    try:
        parameters = ms.load_checkpoint(str(path))
    except Exception as error:  # MindSpore raises whatever its protobuf parser does
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: not a readable MindSpore checkpoint: {reason}") from error
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


def load_stpm(path: Path, *, num_class: int | None = None) -> STPM:
    """Build an STPM from a checkpoint that train.py wrote; for ``num_class`` see ``load_teacher``.

    Raises:
        InputError: the file is unreadable, or an entry is missing or misshapen.
    """
    arrays = read_checkpoint(path)
    if not any(name.startswith("model_s.") for name in arrays):
        raise InputError(f"{path}: holds no student (no entry starts with model_s.); expected a checkpoint of train.py")
    stpm = STPM()
    load_checked(named_parameters(stpm), arrays, source=str(path))
    warn_of_other_head(arrays, num_class, path)
    stpm.set_train(False)
    return stpm


def fold_batch_norm(stpm: STPM, *, export_size: int | None = None) -> STPM:
    """Return a copy of an STPM in evaluation form: every batch norm folded into the convolution before it.

    Args:
        export_size: give the copy the form for export, for images of this size.
    """
    folded = STPM(folded=True, export_size=export_size)
    _load_folded(folded, stpm)
    folded.set_train(False)
    return folded


def _load_folded(folded: STPM, stpm: STPM) -> None:
    """Fill the form without batch norm."""
    arrays, folded_arrays = named_arrays(stpm), {}
    for name, _ in folded.parameters_and_names():
        if not name.endswith(".bias"):
            continue
        norm = name.removesuffix(".bias")
        # "...bn1" follows "...conv1"; in a projection, ".1" follows ".0"
        conv = norm.removesuffix("1") + "0" if "down_sample_layer" in norm else norm.replace("bn", "conv")
        folded_arrays[f"{conv}.weight"], bias = fold(arrays, conv, norm, eps=BN_EPS)
        folded_arrays[name] = bias.reshape(1, -1, 1, 1)
    load_checked(named_parameters(folded), folded_arrays, source="folded network")


def checkpoint_entries(parameters: dict[str, Parameter]) -> list[dict[str, str | Tensor]]:
    """Return parameters in the form that ``mindspore.save_checkpoint`` takes."""
    return [{"name": name, "data": Tensor(parameter.asnumpy())} for name, parameter in parameters.items()]


class AnomalyMaps:
    """An STPM as a function on numpy arrays: images, float32 (N, 3, S, S), to maps, float32 (N, 1, S, S).

    It computes in the form that suits the device, with the weights that the STPM had when this was made or renewed.
    """

    def __init__(self, stpm: STPM, *, image_size: int):
        self._stpm = stpm
        self._folded = None if is_fast_on_cpu() else fold_batch_norm(stpm)
        self._distances = Distances(self._folded) if self._folded is not None else frozen_distances(stpm)
        self._network = AnomalyMap(self._distances, image_size=image_size)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self._network.set_train(False)
        return self._network(Tensor(images)).asnumpy()

    def renew(self) -> None:
        """Take over the weights that the STPM has now."""
        if self._folded is not None:
            _load_folded(self._folded, self._stpm)
        else:
            self._distances.freeze(self._stpm.model_t, self._stpm.model_s)
