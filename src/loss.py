"""The multi-scale feature loss (paper, section 3.2, equations 1 to 3)."""

from collections.abc import Callable

import mindspore as ms
from mindspore import Tensor, nn, ops

# Keeps the norm of an all-zero feature vector, and its gradient, finite. Against squared norms of 0.1 and more it
# is below float32's resolution, so results equal torch.nn.functional.normalize's.
NORM_EPS = 1e-12


def channel_sum(x: Tensor) -> Tensor:
    """Sum over channels: (N, C, H, W) -> (N, 1, H, W)."""
    return ops.ReduceSum(keep_dims=True)(x, 1)


def normalise(features: Tensor, sum_channels: Callable[[Tensor], Tensor] = channel_sum) -> Tensor:
    """Divide each position's feature vector by its L2 norm; float32 (N, C, H, W) in and out.

    Spelled out because ``ops.L2Normalize``'s gradient does not finish on CPU; in float32 whatever the network
    computes in, since a squared norm overflows float16.
    """
    features = ops.cast(features, ms.float32)
    return ops.div(features, ops.sqrt(sum_channels(ops.mul(features, features)) + NORM_EPS))


class LayerLoss(nn.Cell):
    """0.5 / (w*h) * sum over batch, channels and positions of (t_hat - s_hat)^2.

    Inputs: normalised teacher and raw student features of one scale, (N, C, h, w). Outputs: float32 scalar.
    """

    def construct(self, teacher: Tensor, student: Tensor) -> Tensor:
        difference = teacher - normalise(student)  # (N, C, h, w)
        height, width = difference.shape[2:]
        return 0.5 / (height * width) * ops.reduce_sum(difference * difference)


class FeaturePyramidLoss(nn.Cell):
    """Sum of ``LayerLoss`` over scales.

    A sum over the batch, as in the model zoo's code, to which the learning rate of 0.4 belongs.

    Inputs: three normalised teacher and three raw student features, (N, C, H, W) each.
    Outputs: float32 scalar.
    """

    def __init__(self):
        super().__init__()
        self.distance = LayerLoss()

    def construct(self, teacher_features: tuple[Tensor, ...], student_features: tuple[Tensor, ...]) -> Tensor:
        loss = 0.0
        for teacher, student in zip(teacher_features, student_features):  # noqa: B905 - graph mode knows no strict
            loss = loss + self.distance(teacher, student)
        return loss


class StudentLoss(nn.Cell):
    """Loss of a student against teacher features that were computed beforehand.

    Inputs: images (N, 3, S, S) and normalised teacher features at strides 4, 8 and 16.
    """

    def __init__(self, student: nn.Cell):
        super().__init__()
        self.student = student
        self.loss = FeaturePyramidLoss()

    def construct(self, images: Tensor, teacher_4: Tensor, teacher_8: Tensor, teacher_16: Tensor) -> Tensor:
        return self.loss((teacher_4, teacher_8, teacher_16), self.student(images))


class WeightedLoss(nn.Cell):
    """A loss times a weight. Inputs: the weight, float32 (), and the loss's own inputs."""

    def __init__(self, loss: nn.Cell):
        super().__init__()
        self.loss = loss

    def construct(self, weight: Tensor, *inputs: Tensor) -> Tensor:
        return weight * self.loss(*inputs)


class TeacherStudentLoss(nn.Cell):
    """Loss of a student against a teacher that sees the same images now. Inputs: images (N, 3, S, S)."""

    def __init__(self, teacher: nn.Cell, loss: nn.Cell):
        super().__init__()
        self.teacher = teacher  # src.training.teacher.NormalisedTeacher
        self.loss = loss  # student_loss(student)

    def construct(self, images: Tensor) -> Tensor:
        teacher_4, teacher_8, teacher_16 = self.teacher(images)
        return self.loss(images, teacher_4, teacher_8, teacher_16)
