"""The ResNet-18 trunk, of which teacher and student are one each: an image in, features at strides 4, 8 and 16 out.

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

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeNormal, initializer

CHANNELS = (64, 128, 256)
STRIDES = (4, 8, 16)
# torchvision's BatchNorm2d defaults; MindSpore's momentum weighs the old value, torch's (0.1) the new one.
BN_EPS = 1e-5
BN_MOMENTUM = 0.9


Norm = Callable[[int], nn.Cell]  # makes what follows a convolution, from its number of channels


def batch_norm(channels: int) -> nn.Cell:
    """Return the trunk's ordinary normalisation: batch norm with torchvision's constants."""
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


def frozen_batch_norm(channels: int) -> nn.Cell:
    """Return the teacher's: batch norm that uses its stored statistics even while the student beside it trains."""
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM, use_batch_statistics=False)


def sync_batch_norm(channels: int) -> nn.Cell:
    """Return ``batch_norm`` with statistics over the batches of all ranks; Ascend only."""
    return nn.SyncBatchNorm(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class ChannelBias(nn.Cell):
    """Adds one number per channel: all that is left of a batch norm that ``src.backend`` folded into a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = Parameter(initializer("zeros", (1, channels, 1, 1)), name="bias")

    def construct(self, x: Tensor) -> Tensor:
        return ops.add(x, self.bias)


class PoolReLU(nn.Cell):
    """3x3 max pooling (stride 2, padding 1), then ReLU.

    torchvision applies ReLU first. ReLU is monotonic, so that the result is the same, and here it runs on a quarter of
    the values.

    Inputs: float32 (N, C, H, W). Outputs: float32 (N, C, H/2, W/2).
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="pad", padding=1)

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu(self.pool(x))


class AddReLU(nn.Cell):
    """Adds a block's shortcut, then ReLU."""

    def construct(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return ops.relu(ops.add(x, shortcut))


@dataclass(frozen=True)
class Operators:
    """The parts of a trunk that the exported network computes in another way, with equal results (``src.portable``).

    Attributes:
        pool_relu: makes the stem's pooling and ReLU.
        add_relu: makes what joins a block's branches.
        stem_padding: of the first convolution; more than 3 where ``pool_relu`` expects a wider border.
    """

    pool_relu: Callable[[], nn.Cell] = PoolReLU
    add_relu: Callable[[], nn.Cell] = AddReLU
    stem_padding: int = 3


DEFAULT_OPERATORS = Operators()


def convolution(in_channels: int, out_channels: int, kernel_size: int, *, stride: int, padding: int) -> nn.Conv2d:
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


class BasicBlock(nn.Cell):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, figure 2).

    Args:
        norm, operators: as of ``ResNet18Trunk``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, norm: Norm, operators: Operators):
        super().__init__()
        self.add_relu = operators.add_relu()
        self.conv1 = convolution(in_channels, out_channels, 3, stride=stride, padding=1)
        self.bn1 = norm(out_channels)
        self.conv2 = convolution(out_channels, out_channels, 3, stride=1, padding=1)
        self.bn2 = norm(out_channels)
        self.relu = nn.ReLU()
        self.has_projection = stride != 1 or in_channels != out_channels
        if self.has_projection:
            projection = convolution(in_channels, out_channels, 1, stride=stride, padding=0)
            self.down_sample_layer = nn.SequentialCell([projection, norm(out_channels)])

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
        norm: makes what follows each convolution, such as ``batch_norm``.
        operators: the form of pooling and addition.

    Inputs: float32 (N, 3, H, W), normalised as in ``src.data.images``; H and W multiples of 16.
    Outputs: float32 (N, 64, H/4, W/4), (N, 128, H/8, W/8), (N, 256, H/16, W/16).
    """

    def __init__(self, *, norm: Norm = batch_norm, operators: Operators = DEFAULT_OPERATORS):
        super().__init__()
        block = partial(BasicBlock, norm=norm, operators=operators)
        self.conv1 = convolution(3, 64, 7, stride=2, padding=operators.stem_padding)
        self.bn1 = norm(64)
        self.pool_relu = operators.pool_relu()
        self.layer1 = nn.SequentialCell([block(64, 64, 1), block(64, 64, 1)])
        self.layer2 = nn.SequentialCell([block(64, 128, 2), block(128, 128, 1)])
        self.layer3 = nn.SequentialCell([block(128, 256, 2), block(256, 256, 1)])

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.bn1(self.conv1(x))  # (N, 64, 128, 128) for images of 256x256
        x = self.pool_relu(x)  # (N, 64, 64, 64)
        f1 = self.layer1(x)  # (N, 64, 64, 64)
        f2 = self.layer2(f1)  # (N, 128, 32, 32)
        f3 = self.layer3(f2)  # (N, 256, 16, 16)
        return f1, f2, f3
