"""The ResNet-18 trunk on numpy arrays, by oneDNN: features in evaluation, a training's loss and gradients.

What ``src.resnet`` describes in MindSpore's operators, in one piece, so that no array is reordered between two layers,
batch norm, shortcut and ReLU take one pass, and memory is used again from step to step. No mindspore import here.

Weights are dicts of arrays by the trunk's parameter names, float32. Arrays between layers are (N, H, W, C), float32 or,
in training only, bfloat16: all of them, and the gradients with respect to them. Whatever adds up or divides computes in
float32 all the same: convolutions their sums, batch norm, its statistics, the loss, and the gradients of the weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from . import onednn
from .distance import layer_loss
from .onednn import FLOAT32, Geometry, Packed
from .parallel import Buffers, Shape, parallel_for, split_rows

Weights = dict[str, np.ndarray]
_Moments = tuple[int, np.ndarray, np.ndarray]  # count, mean, sum of squared deviations
_CACHED = 65536  # numbers whose statistics are taken at a time: they stay in a core's cache


@dataclass(frozen=True)
class ConvBN:
    """A convolution and its batch norm, by their names."""

    conv: str
    norm: str
    geometry: Geometry


@dataclass(frozen=True)
class Block:
    """Two units and, where the shape changes, a projection of the shortcut."""

    first: ConvBN
    second: ConvBN
    projection: ConvBN | None


STEM = ConvBN("conv1", "bn1", Geometry((64, 3, 7, 7), 2, 3))


def _block(name: str, in_channels: int, out_channels: int, stride: int) -> Block:
    first = ConvBN(f"{name}.conv1", f"{name}.bn1", Geometry((out_channels, in_channels, 3, 3), stride, 1))
    second = ConvBN(f"{name}.conv2", f"{name}.bn2", Geometry((out_channels, out_channels, 3, 3), 1, 1))
    down = f"{name}.down_sample_layer"
    projection = ConvBN(f"{down}.0", f"{down}.1", Geometry((out_channels, in_channels, 1, 1), stride, 0))
    return Block(first, second, None if stride == 1 else projection)


LAYERS = tuple(
    (_block(f"layer{i}.0", channels_in, channels, stride), _block(f"layer{i}.1", channels, channels, 1))
    for i, channels_in, channels, stride in ((1, 64, 64, 1), (2, 64, 128, 2), (3, 128, 256, 2))
)
SCALES = tuple((layer[-1].second.geometry.weight[0], 4 * 2**i) for i, layer in enumerate(LAYERS))  # channels, stride


def units() -> Iterator[ConvBN]:
    """Yield every convolution of the trunk with its batch norm."""
    yield STEM
    for block in (block for layer in LAYERS for block in layer):
        yield block.first
        yield block.second
        if block.projection:
            yield block.projection


class FrozenTrunk:
    """A trunk in evaluation, whose weights do not change any more: batch norm is folded into the convolutions.

    Args:
        weights: all of the trunk's, as they are now.
        eps: batch norm's.
    """

    def __init__(self, weights: Weights, *, eps: float):
        self._folded = {unit: fold(weights, unit.conv, unit.norm, eps=eps) for unit in units()}
        self._packed: dict[tuple[ConvBN, Shape], Packed | np.ndarray] = {}

    def features(self, image: np.ndarray, buffers: Buffers) -> list[np.ndarray]:
        """Compute the features of one image, (1, 3, H, W), in the thread that calls: (1, h, w, C) at each scale.

        Args:
            buffers: own the features, which the caller releases.
        """
        x = self._apply(STEM, image, buffers, relu=True)
        pooled, places = _pool_arrays(x, buffers)
        onednn.max_pool(x, pooled, places)
        buffers.release(x)
        x, levels = pooled, []
        for layer in LAYERS:
            for block in layer:
                y = self._apply(block.first, x, buffers, relu=True)
                shortcut = self._apply(block.projection, x, buffers) if block.projection else x
                x = self._apply(block.second, y, buffers, shortcut=shortcut, relu=True)
                buffers.release(y, shortcut)  # what a projection reads is a level, and kept
            levels.append(x)
        return levels

    def _apply(
        self, unit: ConvBN, x: np.ndarray, buffers: Buffers, *, shortcut: np.ndarray | None = None, relu: bool = False
    ) -> np.ndarray:
        weight, bias = self._folded[unit]
        shape = onednn.images_shape(x, unit.geometry)
        if (unit, shape) not in self._packed:
            form = {"shortcut": shortcut is not None, "relu": relu}
            self._packed[unit, shape] = onednn.pack_weight(weight, shape, unit.geometry, **form)
        y = buffers.acquire(onednn.array_shape(unit.geometry.output(shape)))
        packed = self._packed[unit, shape]
        onednn.convolution(x, packed, y, unit.geometry, bias=bias, shortcut=shortcut, relu=relu)
        return y


def fold(weights: Weights, conv: str, norm: str, *, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return weight, float32 (K, C, k, k), and bias, (K,), of a convolution with the batch norm after it folded in."""
    scale = weights[f"{norm}.gamma"].astype(np.float64) / np.sqrt(
        weights[f"{norm}.moving_variance"].astype(np.float64) + eps
    )
    weight = weights[f"{conv}.weight"] * scale[:, None, None, None]
    bias = weights[f"{norm}.beta"] - weights[f"{norm}.moving_mean"] * scale
    return weight.astype(np.float32), bias.astype(np.float32)


def _frozen_levels(trunks: Sequence[FrozenTrunk], images: np.ndarray, buffers: Buffers) -> list[list[list[np.ndarray]]]:
    """Compute the features of images, (N, 3, H, W), over all cores: by image, trunk and scale, (1, h, w, C)."""
    found: list[list[list[np.ndarray]]] = [[[] for _ in trunks] for _ in images]

    def compute(part: slice) -> None:
        for i in range(part.start, part.stop):
            row, trunk = i // len(trunks), i % len(trunks)  # so that a single image keeps two cores busy, too
            found[row][trunk] = trunks[trunk].features(images[row : row + 1], buffers)

    parallel_for(compute, len(images) * len(trunks))
    return found


def frozen_features(trunk: FrozenTrunk, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compute a trunk's features of images, (N, 3, H, W): (N, C, h, w) at each scale."""
    count, _, *sides = images.shape
    results = tuple(
        np.empty((count, channels, *(side // stride for side in sides)), np.float32) for channels, stride in SCALES
    )
    with Buffers() as buffers:
        found = _frozen_levels([trunk], images, buffers)

        def compute(part: slice) -> None:
            for row in range(part.start, part.stop):
                for level, result in zip(found[row][0], results, strict=True):
                    onednn.nhwc_to_nchw(level, result[row : row + 1])

        parallel_for(compute, count)
    return results


def frozen_layer_maps(
    teacher: FrozenTrunk, student: FrozenTrunk, images: np.ndarray, *, norm_eps: float
) -> tuple[np.ndarray, ...]:
    """Compute 0.5 * sum over channels of (t_hat - s_hat)^2 (paper, equation 4) of images, (N, 3, H, W), at each scale.

    Args:
        norm_eps: is added to the squared norm of a feature vector.

    Returns:
        (N, 1, h, w) at each scale.
    """
    count, _, *sides = images.shape
    results = tuple(np.empty((count, 1, *(side // stride for side in sides)), np.float32) for _, stride in SCALES)
    with Buffers() as buffers:
        found = _frozen_levels([teacher, student], images, buffers)

        def compute(part: slice) -> None:
            for row in range(part.start, part.stop):
                for t, s, result in zip(*found[row], results, strict=True):
                    difference = _unit_vectors(t, norm_eps)
                    difference -= _unit_vectors(s, norm_eps)
                    np.einsum("nhwc,nhwc->nhw", difference, difference, out=result[row])
                    result[row] *= 0.5

        parallel_for(compute, count)
    return results


def _unit_vectors(x: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.einsum("nhwc,nhwc->nhw", x, x) + np.float32(eps))[..., None]


@dataclass
class _Normalised:
    """What a unit's gradient needs: its input, the convolution's output, and the statistics of that."""

    unit: ConvBN
    x: np.ndarray
    y: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class _SavedBlock(NamedTuple):
    """What a block's gradient needs."""

    first: _Normalised
    second: _Normalised
    projection: _Normalised | None
    output: np.ndarray


class TrainingPass:
    """A trunk in training, forward and backward over one batch; batch norm takes the batch's statistics.

    Args:
        weights: all of the trunk's.
        buffers: own its arrays. ``forward`` acquires those that ``backward`` releases.
        eps: batch norm's.
        dtype: of arrays between layers, float32 or ``onednn.BFLOAT16``.

    Attributes:
        statistics: the batch's, by the names of the moving ones, float32 (C,), once ``forward`` ran.
        gradients: by the names of the weights, once ``backward`` ran.
    """

    def __init__(self, weights: Weights, buffers: Buffers, *, eps: float, dtype: np.dtype = FLOAT32):
        self.weights, self.eps, self.dtype = weights, eps, dtype
        self.statistics: Weights = {}
        self.gradients: Weights = {}
        self._buffers = buffers
        self._blocks: list[_SavedBlock] = []

    def forward(self, images: np.ndarray) -> list[np.ndarray]:
        """Compute the features of images, (N, 3, H, W): (N, h, w, C) at each scale, there until ``backward``."""
        stem, stem_output = self._unit(STEM, self._converted(images))
        pooled, places = _pool_arrays(stem_output, self._buffers)
        parallel_for(lambda rows: onednn.max_pool(stem_output[rows], pooled[rows], places[rows]), len(images))
        self._buffers.release(stem_output)
        self._stem = stem, pooled, places
        x, levels = pooled, []
        for layer in LAYERS:
            for block in layer:
                x = self._block(block, x)
            levels.append(x)
        return levels

    def backward(self, grad_levels: list[np.ndarray]) -> None:
        """Compute the gradients of the weights.

        Args:
            grad_levels: with respect to the features, of the same owner; written over and released.
        """
        earlier = list(grad_levels)
        gradient = earlier.pop()
        for layer in reversed(LAYERS):
            for _ in layer:
                gradient = self._block_gradient(self._blocks.pop(), gradient)
            if earlier:
                self._add(gradient, earlier.pop())
        self._stem_gradient(gradient)

    def _converted(self, images: np.ndarray) -> np.ndarray:
        if images.dtype == self.dtype:
            return images
        converted = self._buffers.acquire(images.shape, self.dtype)
        parallel_for(lambda rows: onednn.convert(images[rows], converted[rows]), len(images))
        return converted

    def _stem_gradient(self, gradient: np.ndarray) -> None:
        stem, pooled, places = self._stem
        _relu_gradient(pooled, gradient)
        self._buffers.release(pooled)
        grad_stem = self._buffers.acquire(stem.y.shape, self.dtype)
        parallel_for(
            lambda rows: onednn.max_pool_gradient(gradient[rows], places[rows], grad_stem[rows]), len(grad_stem)
        )
        self._buffers.release(gradient)
        self._unit_gradients(stem, grad_stem, None)
        self._buffers.release(grad_stem)

    def _block(self, block: Block, x: np.ndarray) -> np.ndarray:
        first, y = self._unit(block.first, x)
        projection, shortcut = None, x
        if block.projection:
            projection, shortcut = self._unit(block.projection, x, relu=False)
        second, output = self._unit(block.second, y, shortcut=shortcut)
        if block.projection:
            self._buffers.release(shortcut)
        self._blocks.append(_SavedBlock(first, second, projection, output))
        return output

    def _block_gradient(self, saved: _SavedBlock, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient with respect to a block's input; that with respect to its output is released."""
        _relu_gradient(saved.output, gradient)
        self._buffers.release(saved.output)
        grad_hidden = self._unit_gradient(saved.second, gradient)
        _relu_gradient(saved.second.x, grad_hidden)
        self._buffers.release(saved.second.x)
        grad_input = self._unit_gradient(saved.first, grad_hidden)
        self._buffers.release(grad_hidden)
        if saved.projection:
            self._add(grad_input, self._unit_gradient(saved.projection, gradient))
            self._buffers.release(gradient)
        else:
            self._add(grad_input, gradient)
        return grad_input

    def _add(self, into: np.ndarray, other: np.ndarray) -> None:
        """Add an array, which is released, to one that stays."""
        parallel_for(lambda rows: onednn.add(into[rows], other[rows]), len(into))
        self._buffers.release(other)

    def _unit(
        self, unit: ConvBN, x: np.ndarray, *, shortcut: np.ndarray | None = None, relu: bool = True
    ) -> tuple[_Normalised, np.ndarray]:
        """Convolve, normalise, add the shortcut and take ReLU."""
        shape = onednn.images_shape(x, unit.geometry)
        y = self._buffers.acquire(onednn.array_shape(unit.geometry.output(shape)), self.dtype)
        weight = self.weights[f"{unit.conv}.weight"]

        def convolve(rows: slice) -> None:
            onednn.convolution(x[rows], weight, y[rows], unit.geometry)

        parallel_for(convolve, len(x))
        mean, variance = statistics(y)
        positions = y[..., 0].size
        self.statistics[f"{unit.norm}.moving_mean"] = mean
        self.statistics[f"{unit.norm}.moving_variance"] = variance * np.float32(positions / (positions - 1))
        scale = self.weights[f"{unit.norm}.gamma"] / np.sqrt(variance + np.float32(self.eps))
        shift = self.weights[f"{unit.norm}.beta"] - mean * scale
        output = self._buffers.acquire(y.shape, self.dtype)

        def normalise(rows: slice) -> None:
            addition = None if shortcut is None else shortcut[rows]
            onednn.affine(y[rows], scale, shift, output[rows], addition=addition, relu=relu)

        parallel_for(normalise, len(y))
        return _Normalised(unit, x, y, mean, variance), output

    def _unit_gradient(self, saved: _Normalised, gradient: np.ndarray) -> np.ndarray:
        """Compute the gradients with respect to a unit's weights and its input, and return the latter."""
        grad_input = self._buffers.acquire(saved.x.shape, self.dtype)
        self._unit_gradients(saved, gradient, grad_input)
        return grad_input

    def _unit_gradients(self, saved: _Normalised, gradient: np.ndarray, grad_input: np.ndarray | None) -> None:
        """Compute the gradients with respect to a unit's weights and, if it is given, write that of its input.

        Args:
            gradient: with respect to the unit's output before ReLU.
        """
        unit, x, y = saved.unit, saved.x, saved.y
        gamma, weight = self.weights[f"{unit.norm}.gamma"], self.weights[f"{unit.conv}.weight"]
        parts = split_rows(len(y))
        grad_norm = np.empty((len(parts), 2, len(gamma)), np.float32)
        grad_conv = self._buffers.acquire(y.shape, self.dtype)

        def normalisation(rows: slice) -> None:
            sums = grad_norm[parts.index(rows)]
            onednn.norm_gradient(
                y[rows], gradient[rows], saved.mean, saved.variance, gamma, grad_conv[rows], sums, eps=self.eps
            )

        parallel_for(normalisation, len(y))
        grad_gamma, grad_beta = grad_norm.sum(axis=0)
        # the statistics are no constants: what that adds is affine in y (Ioffe & Szegedy 2015, section 3)
        inverse = 1 / np.sqrt(saved.variance + np.float32(self.eps))
        slope = -gamma * inverse * inverse * grad_gamma / np.float32(y[..., 0].size)
        offset = -gamma * inverse * grad_beta / np.float32(y[..., 0].size) - slope * saved.mean
        grad_weight = np.empty((len(parts), *weight.shape), np.float32)

        def convolution(rows: slice) -> None:
            onednn.affine(y[rows], slope, offset, grad_conv[rows], addition=grad_conv[rows])
            onednn.grad_weight(x[rows], grad_conv[rows], grad_weight[parts.index(rows)], unit.geometry)
            if grad_input is not None:
                onednn.grad_input(grad_conv[rows], weight, grad_input[rows], unit.geometry)

        parallel_for(convolution, len(y))
        self._buffers.release(grad_conv, y)
        self.gradients |= {f"{unit.norm}.gamma": grad_gamma, f"{unit.norm}.beta": grad_beta}
        # every part of the batch has a sum of its own; added in their order, the result is the same every time
        self.gradients[f"{unit.conv}.weight"] = grad_weight.sum(axis=0)


def _pool_arrays(x: np.ndarray, buffers: Buffers) -> tuple[np.ndarray, np.ndarray]:
    """Return memory for the maxima and their places."""
    count, height, width, channels = x.shape
    shape = count, height // 2, width // 2, channels
    return buffers.acquire(shape, x.dtype), np.empty(shape, np.uint8)


def statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance of each channel of (N, H, W, C), float32 (C,), whatever the number of cores."""
    moments: list[list[_Moments]] = [[] for _ in x]

    def compute(rows: slice) -> None:
        if x.dtype == FLOAT32:
            for i in range(rows.start, rows.stop):
                moments[i] = _moments(x[i].reshape(-1, x.shape[-1]))
            return
        waste = np.empty_like(x[:1])
        for i in range(rows.start, rows.stop):
            moments[i] = _moments_of_bfloat16(x[i : i + 1], waste)

    parallel_for(compute, len(x))
    counts, means, squares = (
        np.array(values, np.float64) for values in zip(*chain.from_iterable(moments), strict=True)
    )
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(axis=0)
    variance = squares.sum(axis=0) / counts.sum() + (share * (means - mean) ** 2).sum(axis=0)
    return mean.astype(np.float32), variance.astype(np.float32)


def _moments(x: np.ndarray) -> list[_Moments]:
    """Return count, mean and sum of squared deviations of each piece of (P, C) that stays in the cache."""
    rows = _CACHED // x.shape[1]
    centred, moments = np.empty((rows, x.shape[1]), np.float32), []
    for start in range(0, len(x), rows):
        piece = x[start : start + rows]
        mean = piece.mean(axis=0)
        deviation = np.subtract(piece, mean, out=centred[: len(piece)])
        moments.append((len(piece), mean, np.einsum("pc,pc->c", deviation, deviation)))
    return moments


def _moments_of_bfloat16(image: np.ndarray, waste: np.ndarray) -> list[_Moments]:
    """Return count, mean and sum of squared deviations of one image, which in this type stays in the cache."""
    mean, variance = np.empty((2, image.shape[-1]), np.float32)
    onednn.moments(image, waste, mean, variance)
    count = image[..., 0].size
    return [(count, mean, variance * np.float32(count))]


def _relu_gradient(output: np.ndarray, gradient: np.ndarray) -> None:
    parallel_for(lambda rows: onednn.relu_gradient(output[rows], gradient[rows]), len(output))


def student_step(
    images: np.ndarray,
    teacher: tuple[np.ndarray, ...],
    weights: Weights,
    *,
    eps: float,
    norm_eps: float,
    counted: tuple[np.ndarray, ...] = (),
    dtype: np.dtype = FLOAT32,
) -> tuple[np.ndarray, Weights, Weights]:
    """Compute the loss of every image (paper, equations 1 to 3), the gradients of their sum, and the statistics.

    Args:
        images: float32 (N, 3, H, W).
        teacher: normalised features, float32 (N, C, h, w) at each scale.
        weights: the student's.
        eps: batch norm's.
        norm_eps: is added to the squared norm of a feature vector.
        counted: 1 where a position counts, else 0, float32 (N, 1, h, w) at each scale; nothing: all do.
        dtype: of arrays between layers, float32 or ``onednn.BFLOAT16``.

    Returns:
        float32 (N,); gradients, by the weights' names; the batch's statistics by the names of the moving ones.
    """
    total, grad_levels = np.zeros(len(images), np.float32), []
    with Buffers() as buffers:
        student = TrainingPass(weights, buffers, eps=eps, dtype=dtype)
        masks = counted or (None,) * len(teacher)
        for t, level, mask in zip(teacher, student.forward(images), masks, strict=True):
            losses, grad_features = _level_loss(t, level, buffers, norm_eps=norm_eps, counted=mask)
            total += losses
            grad_levels.append(grad_features)
        student.backward(grad_levels)
    return total, student.gradients, student.statistics


def _level_loss(
    teacher: np.ndarray, level: np.ndarray, buffers: Buffers, *, norm_eps: float, counted: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute what ``layer_loss`` does of features and with a gradient of shape (N, h, w, C)."""
    student, gradient = buffers.acquire(teacher.shape), buffers.acquire(teacher.shape)
    parallel_for(lambda rows: onednn.nhwc_to_nchw(level[rows], student[rows]), len(level))
    losses = layer_loss(teacher, student, gradient, eps=norm_eps, counted=counted)
    grad_features = buffers.acquire(level.shape, level.dtype)
    parallel_for(lambda rows: onednn.nchw_to_nhwc(gradient[rows], grad_features[rows]), len(level))
    buffers.release(student, gradient)
    return losses, grad_features
