"""Operators of the exported network: equal in value to those of ``src.resnet`` and ``src.stpm``, faster elsewhere.

MindSpore Lite has no padded pooling, and its Pad is slow: the stem's convolution pads more instead. Lite computes in
(N, H, W, C), with a transposition before and after every convolution, and drops adjacent pairs that cancel: the cells
below transpose so that they do. Measured: 16 % less time than with Pad and without transpositions.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from mindspore import Tensor, nn, ops

from .data.view import ImageSize
from .loss import normalise
from .resnet import CHANNELS, Operators

if TYPE_CHECKING:
    from .stpm import STPM


def channels_last(x: Tensor) -> Tensor:
    """Transpose (N, C, H, W) to (N, H, W, C)."""
    return ops.transpose(x, (0, 2, 3, 1))


def channels_first(x: Tensor) -> Tensor:
    """Transpose (N, H, W, C) to (N, C, H, W)."""
    return ops.transpose(x, (0, 3, 1, 2))


_STEM_PADDING = 5


class PortablePoolReLU(nn.Cell):
    """What ``PoolReLU`` computes, for export: after a stem convolution with a padding of 5 instead of 3.

    That adds a border of one pixel to the convolution's output. Its top row and left column are set to zero, which
    changes no maximum after ReLU. Its bottom row and right column are never read, since half of each side is even.

    Args:
        size: of the images.
    """

    def __init__(self, size: ImageSize):
        super().__init__()
        mask = np.ones((1, size.height // 2 + 2, size.width // 2 + 2, 1), np.float32)
        mask[:, 0] = 0
        mask[:, :, 0] = 0
        self.mask = Tensor(mask)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="valid")

    def construct(self, x: Tensor) -> Tensor:
        return self.pool(channels_first(ops.mul(channels_last(ops.relu(x)), self.mask)))


class PortableAddReLU(nn.Cell):
    """What ``AddReLU`` computes, between transpositions."""

    def construct(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return channels_first(ops.relu(ops.add(channels_last(x), channels_last(shortcut))))


def portable_operators(image_size: ImageSize) -> Operators:
    """Return the operators for export, for images of this size."""
    pool_relu = partial(PortablePoolReLU, image_size)
    return Operators(pool_relu=pool_relu, add_relu=PortableAddReLU, stem_padding=_STEM_PADDING)


class PortableChannelSum(nn.Cell):
    """Sum over channels as a 1x1 convolution with ones: the form that every runtime knows.

    Inputs: float32 (N, H, W, C). Outputs: float32 (N, H, W, 1).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.ones = Tensor(np.ones((1, channels, 1, 1), np.float32))
        self.conv = ops.Conv2D(out_channel=1, kernel_size=(1, 1), stride=(1, 1), dilation=(1, 1))

    def construct(self, x: Tensor) -> Tensor:
        return channels_last(self.conv(channels_first(x), self.ones))


class PortableLayerMaps(nn.Cell):
    """What ``src.stpm.LayerMaps`` computes, with the features compared in (N, H, W, C).

    Args:
        stpm: teacher and student with ``portable_operators``.

    Inputs: images, float32 (N, 3, H, W). Outputs: at strides 4, 8 and 16, (N, h, w, 1).
    """

    def __init__(self, stpm: "STPM"):
        super().__init__()
        self.stpm = stpm
        self.sums = nn.CellList([PortableChannelSum(channels) for channels in CHANNELS])

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        teacher_features, student_features = self.stpm(images)
        layer_maps = ()
        for i in range(3):
            teacher, student = channels_last(teacher_features[i]), channels_last(student_features[i])  # (N, h, w, C)
            difference = ops.sub(normalise(teacher, self.sums[i]), normalise(student, self.sums[i]))
            layer_maps += (ops.mul(self.sums[i](ops.mul(difference, difference)), 0.5),)  # (N, h, w, 1)
        return layer_maps
