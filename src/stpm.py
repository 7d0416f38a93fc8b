"""STPM, Student-Teacher Feature Pyramid Matching (Wang et al. 2021, arXiv 2103.04257): the pair and its anomaly map."""

from collections.abc import Callable
from functools import partial

import numpy as np
from mindspore import Tensor, nn, ops

from .loss import normalise
from .resnet import (
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
    portable_operators,
)

# Batch norm that uses its stored statistics even while the student beside it trains.
frozen_batch_norm = partial(nn.BatchNorm2d, eps=BN_EPS, momentum=BN_MOMENTUM, use_batch_statistics=False)


class STPM(nn.Cell):
    """A frozen teacher and a student of the same shape (paper, figure 2).

    Args:
        folded: with one number per channel in place of each batch norm, for inference; ``src.backend.fold_batch_norm``
            gives it its weights.
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


class LayerMaps(nn.Cell):
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
        layer_maps = ()
        for i in range(3):
            teacher, student = teacher_features[i], student_features[i]  # (N, C, h, w)
            if self.for_export:
                teacher, student = channels_last(teacher), channels_last(student)  # (N, h, w, C)
            difference = ops.sub(normalise(teacher, self.sums[i]), normalise(student, self.sums[i]))
            layer_maps += (ops.mul(self.sums[i](ops.mul(difference, difference)), 0.5),)  # one channel, first or last
        return layer_maps


class AnomalyMap(nn.Cell):
    """Images in, anomaly maps out (paper, equation 5): the network of evaluation, export and the C++ program.

    Upsamples each layer map to the image size, and multiplies the three.

    Args:
        layer_maps: ``LayerMaps``, or the faster form of it that ``src.backend`` makes on CPU.
        image_size: side of the square images, a multiple of 16.

    Inputs: images, float32 (N, 3, S, S). Outputs: maps, float32 (N, 1, S, S).
    """

    def __init__(self, layer_maps: nn.Cell, *, image_size: int):
        super().__init__()
        self.layer_maps = layer_maps
        self.upsamplings = nn.CellList([BilinearUpsampling(image_size // stride, image_size) for stride in STRIDES])

    def construct(self, images: Tensor) -> Tensor:
        anomaly_map = 1.0
        for upsample, layer_map in zip(self.upsamplings, self.layer_maps(images)):  # noqa: B905 - graph mode: no strict
            anomaly_map = ops.mul(upsample(layer_map), anomaly_map)  # (N, 1, S, S)
        return anomaly_map
