"""STPM, Student-Teacher Feature Pyramid Matching (Wang et al. 2021, arXiv 2103.04257): the pair and its anomaly map."""

import numpy as np
from mindspore import Tensor, nn, ops

from .data.view import ImageSize, View
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

    Inputs: images, float32 (N, 3, H, W).
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
    """Bilinear resizing of a one-channel map as two 1x1 convolutions, one per axis.

    Resizing operators differ between runtimes; a convolution with the interpolation matrix does not.

    Args:
        stride: of the map; it has a stride-th of the rows and columns that come out.
        image_size: height H and width W that come out.

    Inputs: float32 (N, 1, h, w), or (N, h, w, 1) as in ``src.portable``. Outputs: float32 (N, 1, H, W).
    """

    def __init__(self, stride: int, image_size: ImageSize):
        super().__init__()
        self.height, self.width = (side // stride for side in image_size)
        self.rows, self.columns = (
            Tensor(bilinear_matrix(side, side // stride).reshape(side, -1, 1, 1)) for side in image_size
        )
        self.conv_rows, self.conv_columns = (
            ops.Conv2D(out_channel=side, kernel_size=(1, 1), stride=(1, 1), dilation=(1, 1)) for side in image_size
        )

    def construct(self, x: Tensor) -> Tensor:
        x = ops.reshape(x, (-1, self.height, self.width, 1))  # (N, h, w, 1): rows as channels
        x = self.conv_rows(x, self.rows)  # (N, H, w, 1)
        x = ops.transpose(x, (0, 2, 1, 3))  # (N, w, H, 1): columns as channels
        x = self.conv_columns(x, self.columns)  # (N, W, H, 1)
        return ops.transpose(x, (0, 3, 2, 1))  # (N, 1, H, W)


class LayerMaps(nn.Cell):
    """Per scale 0.5 * sum over channels of (t_hat - s_hat)^2 (paper, equation 4).

    Inputs: images, float32 (N, 3, H, W). Outputs: at strides 4, 8 and 16, (N, 1, h, w).
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

    Upsamples each layer map to the image size, and multiplies the three. Where nothing counts, the map is 0: so
    whatever runtime computes it, and whatever reads it, leaves that area out.

    Args:
        layer_maps: ``LayerMaps``, or another form of it: ``src.backend`` has a faster one for CPU, ``src.portable`` one
            for export.
        view: its size and what counts of an image.

    Inputs: images, float32 (N, 3, H, W). Outputs: maps, float32 (N, 1, H, W).
    """

    def __init__(self, layer_maps: nn.Cell, *, view: View):
        super().__init__()
        self.layer_maps = layer_maps
        self.upsamplings = nn.CellList([BilinearUpsampling(stride, view.size) for stride in STRIDES])
        self.counted = None if view.counted is None else Tensor(view.counted[None, None].astype(np.float32))

    def construct(self, images: Tensor) -> Tensor:
        anomaly_map = 1.0
        for upsample, layer_map in zip(self.upsamplings, self.layer_maps(images)):  # noqa: B905 - graph mode: no strict
            anomaly_map = ops.mul(upsample(layer_map), anomaly_map)  # (N, 1, H, W)
        if self.counted is not None:
            anomaly_map = ops.mul(anomaly_map, self.counted)
        return anomaly_map
