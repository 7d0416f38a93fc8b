"""STPM, Student-Teacher Feature Pyramid Matching (Wang et al. 2021, arXiv 2103.04257): the pair and its anomaly map."""

import numpy as np
from mindspore import Tensor, nn, ops

from .loss import channel_sum, normalise
from .resnet import (
    DEFAULT_OPERATORS,
    STRIDES,
    Norm,
    Operators,
    ResNet18Trunk,
    batch_norm,
    frozen_batch_norm,
)


class STPM(nn.Cell):
    """A frozen teacher, pretrained on ImageNet, and a student of the same architecture (paper, figure 2).

    The student learns the teacher's features on good images only; where the two differ, an image is anomalous.

    Args:
        teacher_norm, student_norm, operators: see ``ResNet18Trunk``.

    Inputs: images, float32 (N, 3, S, S).
    Outputs: the teacher's and the student's features at strides 4, 8 and 16, not normalised, as two tuples of three.
    For anomaly maps; training calls the two trunks separately (``src.loss``).
    """

    def __init__(
        self,
        *,
        teacher_norm: Norm = frozen_batch_norm,
        student_norm: Norm = batch_norm,
        operators: Operators = DEFAULT_OPERATORS,
    ):
        super().__init__()
        self.model_t = ResNet18Trunk(norm=teacher_norm, operators=operators)
        self.model_s = ResNet18Trunk(norm=student_norm, operators=operators)
        for parameter in self.model_t.get_parameters():
            parameter.requires_grad = False

    def construct(self, images: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return self.model_t(images), self.model_s(images)


def bilinear_matrix(size_out: int, size_in: int) -> np.ndarray:
    """Return the float32 (size_out, size_in) matrix of bilinear resizing along one axis.

    Half-pixel centres and clamped edges: what ``cv2.resize(..., interpolation=cv2.INTER_LINEAR)`` computes, and, to a
    larger size, PyTorch's ``interpolate(mode="bilinear", align_corners=False)``.
    """
    position = (np.arange(size_out) + 0.5) * size_in / size_out - 0.5
    position = np.clip(position, 0, size_in - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, size_in - 1)
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    matrix[rows, low] += 1 - (position - low)
    matrix[rows, high] += position - low
    return matrix.astype(np.float32)


class BilinearUpsampling(nn.Cell):
    """Bilinear resizing of a square one-channel map as two 1x1 convolutions, one per axis.

    Resizing operators differ between runtimes; a convolution with the interpolation matrix does not.

    Inputs: float32 (N, 1, h, h), or (N, h, h, 1) as in ``src.portable``. Outputs: float32 (N, 1, S, S).
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
        x = self.conv(x, self.matrix)  # (N, S, S, 1): columns, then rows
        return ops.transpose(x, (0, 3, 2, 1))  # (N, 1, S, S)


class LayerMaps(nn.Cell):
    """Per scale 0.5 * sum over channels of (t_hat - s_hat)^2 (paper, equation 4).

    Inputs: images, float32 (N, 3, S, S). Outputs: at strides 4, 8 and 16, (N, 1, h, w).
    """

    def __init__(self, stpm: STPM):
        super().__init__()
        self.stpm = stpm

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        teacher_features, student_features = self.stpm(images)
        layer_maps = ()
        for i in range(3):
            difference = normalise(teacher_features[i]) - normalise(student_features[i])  # (N, C, h, w)
            layer_maps += (0.5 * channel_sum(difference * difference),)  # (N, 1, h, w)
        return layer_maps


class AnomalyMap(nn.Cell):
    """Images in, anomaly maps out (paper, equation 5): the network of evaluation, export and the C++ program.

    Upsamples each layer map to the image size, and multiplies the three.

    Args:
        layer_maps: ``LayerMaps``, or another form of it: ``src.backend`` has a faster one for CPU, ``src.portable`` one
            for export.
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
