"""The multi-scale feature loss (Wang et al. 2021, arXiv 2103.04257, section 3.2, equations 1 to 3)."""

from collections.abc import Callable

import mindspore as ms
from mindspore import Tensor, nn, ops

# Keeps the division of an all-zero feature vector, and its gradient, finite. It is added to the squared norm, where
# float32 loses it above 2e-5; there, results equal torch.nn.functional.normalize's.
NORM_EPS = 1e-12


def channel_sum(x: Tensor) -> Tensor:
    """Sum over channels: (N, C, H, W) -> (N, 1, H, W)."""
    return ops.ReduceSum(keep_dims=True)(x, 1)


def normalise(features: Tensor, sum_channels: Callable[[Tensor], Tensor] = channel_sum) -> Tensor:
    """Divide each position's feature vector by its L2 norm: (N, C, H, W) in, float32 (N, C, H, W) out.

    Written out because the gradient of ``ops.L2Normalize`` hangs on CPU. Computed in float32 even under mixed
    precision, because squared norms overflow float16.

    Args:
        sum_channels: sums over channels and keeps their dimension; ``src.portable`` passes one for (N, H, W, C).
    """
    features = ops.cast(features, ms.float32)
    return ops.div(features, ops.sqrt(sum_channels(ops.mul(features, features)) + NORM_EPS))


class LayerLoss(nn.Cell):
    """0.5 / (w*h) * sum over batch, channels and positions of (t_hat - s_hat)^2, with hats for normalised features.

    Like MindSpore's model zoo, this sums over the batch instead of averaging; the default learning rate of 0.4 depends
    on that.

    Inputs: teacher features, normalised already since they may have been cached, and raw student features of one scale,
    (N, C, h, w); where some positions do not count, 1 or 0 for each, (N, 1, h, w), else None. Outputs: float32 scalar.
    """

    def construct(self, teacher: Tensor, student: Tensor, counted: Tensor | None = None) -> Tensor:
        t_hat, s_hat = teacher, normalise(student)
        difference = t_hat - s_hat  # (N, C, h, w)
        if counted is not None:
            difference = difference * counted
        height, width = difference.shape[2:]
        return 0.5 / (height * width) * ops.reduce_sum(difference * difference)


class FeaturePyramidLoss(nn.Cell):
    """Sum of ``LayerLoss`` over scales.

    Inputs: three normalised teacher and three raw student features, (N, C, h, w) each, and which positions count,
    three (N, 1, h, w), or nothing. Outputs: float32 scalar.
    """

    def __init__(self):
        super().__init__()
        self.layer_loss = LayerLoss()

    def construct(
        self, teacher_features: tuple[Tensor, ...], student_features: tuple[Tensor, ...], counted: tuple[Tensor, ...]
    ) -> Tensor:
        loss = 0.0
        for i in range(len(teacher_features)):
            mask = counted[i] if counted else None
            loss = loss + self.layer_loss(teacher_features[i], student_features[i], mask)
        return loss


class StudentLoss(nn.Cell):
    """Loss of a student against teacher features that were computed beforehand.

    Inputs: images (N, 3, H, W), normalised teacher features at strides 4, 8 and 16 and, where some positions do not
    count, which ones do, each a column of the data set.
    """

    def __init__(self, student: nn.Cell):
        super().__init__()
        self.student = student
        self.loss = FeaturePyramidLoss()

    def construct(
        self, images: Tensor, teacher_4: Tensor, teacher_8: Tensor, teacher_16: Tensor, *counted: Tensor
    ) -> Tensor:
        return self.loss((teacher_4, teacher_8, teacher_16), self.student(images), counted)


class TeacherStudentLoss(nn.Cell):
    """The same loss with the teacher run on every batch, where its features are not cached.

    Args:
        teacher: returns normalised features, such as ``src.training.teacher.NormalisedTeacher``.
        student_loss: ``StudentLoss``, or the faster form of it that ``src.backend`` makes on CPU.

    Inputs: images (N, 3, H, W) and, where some positions do not count, which ones do.
    """

    def __init__(self, teacher: nn.Cell, student_loss: nn.Cell):
        super().__init__()
        self.teacher = teacher
        self.student_loss = student_loss

    def construct(self, images: Tensor, *counted: Tensor) -> Tensor:
        teacher_4, teacher_8, teacher_16 = self.teacher(images)
        return self.student_loss(images, teacher_4, teacher_8, teacher_16, *counted)
