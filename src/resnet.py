"""The ResNet-18 trunk shared by teacher and student: an image in, features at strides 4, 8 and 16 out.

Layout and constants are those of torchvision's ResNet-18 (``torchvision.models.resnet18``), cut after layer3;
parameters are named as in MindSpore's model zoo. Strides are counted from the image on:

    layer    channels  stride  output for 256x256
    stem        64        4       64x64
    layer1      64        4       64x64
    layer2     128        8       32x32
    layer3     256       16       16x16
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeNormal, initializer

CHANNELS = (64, 128, 256)
STRIDES = (4, 8, 16)
# torchvision's BatchNorm2d defaults; MindSpore's momentum weighs the old value, torch's (0.1) the new one.
BN_EPS = 1e-5
BN_MOMENTUM = 0.9


def batch_norm(channels: int) -> nn.Cell:
    """Return the trunk's ordinary normalisation: batch norm with torchvision's constants."""
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


def sync_batch_norm(channels: int) -> nn.Cell:
    """Return the same with statistics over the batches of all ranks; Ascend only."""
    return nn.SyncBatchNorm(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class ChannelBias(nn.Cell):
    """Adds one number per channel: what is left of a batch norm that was folded into its convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = Parameter(initializer("zeros", (1, channels, 1, 1)), name="bias")

    def construct(self, x: Tensor) -> Tensor:
        return ops.add(x, self.bias)


class PoolReLU(nn.Cell):
    """3x3 max pooling (stride 2, padding 1), then ReLU.

    torchvision has ReLU first. It is monotonic, so that the result is the same, and after pooling only a quarter of the
    values are left to process.

    Inputs: float32 (N, C, H, W). Outputs: float32 (N, C, H/2, W/2).
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="pad", padding=1)

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu(self.pool(x))


def channels_last(x: Tensor) -> Tensor:
    """Transpose (N, C, H, W) to (N, H, W, C)."""
    return ops.transpose(x, (0, 2, 3, 1))


def channels_first(x: Tensor) -> Tensor:
    """Transpose (N, H, W, C) to (N, C, H, W)."""
    return ops.transpose(x, (0, 3, 1, 2))


# The exported form, for MindSpore Lite. It has no padded pooling, and its Pad is slow: the stem's convolution pads more
# instead. It computes in (N, H, W, C), with a transposition before and after every convolution, and drops adjacent
# pairs that cancel: the cells below transpose so that they do. Measured: 16 % less time than Pad and no transpositions.
_PORTABLE_STEM_PADDING = 5


class PortablePoolReLU(nn.Cell):
    """What ``PoolReLU`` computes, for export: after a stem convolution with a padding of 5 instead of 3.

    That adds a border of one pixel to the convolution's output. Its top row and left column are set to zero, which
    changes no maximum after ReLU. Its bottom row and right column are never read, since half the image's side is even.

    Args:
        size: side of the images, pixels.
    """

    def __init__(self, size: int):
        super().__init__()
        side = size // 2 + 2
        mask = np.ones((1, side, side, 1), np.float32)
        mask[:, 0] = 0
        mask[:, :, 0] = 0
        self.mask = Tensor(mask)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="valid")

    def construct(self, x: Tensor) -> Tensor:
        return self.pool(channels_first(ops.mul(channels_last(ops.relu(x)), self.mask)))


class AddReLU(nn.Cell):
    """Adds a block's shortcut, then ReLU."""

    def construct(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return ops.relu(ops.add(x, shortcut))


class PortableAddReLU(nn.Cell):
    """The same, between transpositions."""

    def construct(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return channels_first(ops.relu(ops.add(channels_last(x), channels_last(shortcut))))


@dataclass(frozen=True)
class Operators:
    """The operators of a trunk that have several forms, equal in value.

    Attributes:
        pool_relu: makes the stem's pooling and ReLU.
        add_relu: makes what joins a block's branches.
        stem_padding: of the first convolution; more than 3 where ``pool_relu`` expects a wider border.
    """

    pool_relu: Callable[[], nn.Cell] = PoolReLU
    add_relu: Callable[[], nn.Cell] = AddReLU
    stem_padding: int = 3


MINDSPORE_OPERATORS = Operators()


def portable_operators(image_size: int) -> Operators:
    """Return the operators for export, for images of this size."""
    pool_relu = partial(PortablePoolReLU, image_size)
    return Operators(pool_relu=pool_relu, add_relu=PortableAddReLU, stem_padding=_PORTABLE_STEM_PADDING)


class _Builder:
    """Makes convolutions and blocks with the operators and the normalisation of a trunk."""

    def __init__(self, operators: Operators, norm: Callable[[int], nn.Cell]):
        self.operators = operators
        self.norm = norm

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int, padding: int) -> nn.Conv2d:
        """Return a convolution without bias, He-normal initialised by its fan-out."""
        return nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            pad_mode="pad",
            padding=padding,
            has_bias=False,
            weight_init=HeNormal(mode="fan_out", nonlinearity="relu"),
        )

    def layer(self, in_channels: int, out_channels: int, stride: int) -> nn.SequentialCell:
        """Return the two blocks of a layer."""
        first = BasicBlock(self, in_channels, out_channels, stride)
        return nn.SequentialCell([first, BasicBlock(self, out_channels, out_channels, 1)])


class BasicBlock(nn.Cell):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, figure 2)."""

    def __init__(self, make: _Builder, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.add_relu = make.operators.add_relu()
        self.conv1 = make.conv(in_channels, out_channels, 3, stride=stride, padding=1)
        self.bn1 = make.norm(out_channels)
        self.conv2 = make.conv(out_channels, out_channels, 3, stride=1, padding=1)
        self.bn2 = make.norm(out_channels)
        self.relu = nn.ReLU()
        self.has_projection = stride != 1 or in_channels != out_channels
        if self.has_projection:
            projection = make.conv(in_channels, out_channels, 1, stride=stride, padding=0)
            self.down_sample_layer = nn.SequentialCell([projection, make.norm(out_channels)])

    def construct(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.has_projection:
            shortcut = self.down_sample_layer(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.add_relu(y, shortcut)


class ResNet18Trunk(nn.Cell):
    """ResNet-18 up to layer3.

    Args:
        norm: makes the cell after each convolution from its channel count, such as ``batch_norm``.
        operators: the form of pooling and addition.

    Inputs: float32 (N, 3, S, S), normalised as in ``src.data.images``; S a multiple of 16.
    Outputs: float32 (N, 64, S/4, S/4), (N, 128, S/8, S/8), (N, 256, S/16, S/16).
    """

    def __init__(self, *, norm: Callable[[int], nn.Cell] = batch_norm, operators: Operators = MINDSPORE_OPERATORS):
        super().__init__()
        make = _Builder(operators, norm)
        self.conv1 = make.conv(3, 64, 7, stride=2, padding=operators.stem_padding)
        self.bn1 = norm(64)
        self.pool_relu = operators.pool_relu()
        self.layer1 = make.layer(64, 64, 1)
        self.layer2 = make.layer(64, 128, 2)
        self.layer3 = make.layer(128, 256, 2)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.bn1(self.conv1(x))  # (N, 64, 128, 128) for images of 256x256
        x = self.pool_relu(x)  # (N, 64, 64, 64)
        f1 = self.layer1(x)  # (N, 64, 64, 64)
        f2 = self.layer2(f1)  # (N, 128, 32, 32)
        f3 = self.layer3(f2)  # (N, 256, 16, 16)
        return f1, f2, f3
