"""Operators for MindSpore on CPU that are faster than its own there: convolution, stem pooling, the loss of a scale."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src import onednn
from src.feature_distance import normalised_distance
from src.parallel import Shape
from src.resnet import MINDSPORE_OPERATORS, Operators


def is_on_cpu() -> bool:
    """Return whether the device in use is the CPU."""
    return ms.get_context("device_target") == "CPU"


def device_operators() -> Operators:
    """Return the fastest operators for the device in use: those below on CPU, where MindSpore's oneDNN is found."""
    if is_on_cpu() and onednn.is_available():
        return Operators(conv=OneDnnConv2d, pool=OneDnnStemPool)
    return MINDSPORE_OPERATORS


class OneDnnConv2d(nn.Conv2d):
    """``nn.Conv2d`` with padding and without bias, for even sides that the stride divides.

    Inputs: float32 (N, C, H, W). Outputs: float32 (N, K, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int, padding: int, **options):
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, **options)
        self.operator = _convolution_operator(self.weight.shape, stride, padding)

    def construct(self, x: Tensor) -> Tensor:
        return self.operator(x, self.weight)


def _convolution_operator(weight_shape: tuple[int, ...], stride: int, padding: int) -> ops.Custom:
    out_channels, in_channels = weight_shape[:2]
    geometry = {"stride": stride, "padding": padding}

    def forward(images: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return onednn.convolution(images, weight, **geometry)

    def output_shape(images: Shape, weight: Shape) -> Shape:
        return images[0], out_channels, images[2] // stride, images[3] // stride

    def by_input(gradient: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return onednn.convolution_input_gradient(
            gradient, weight, input_shape(gradient.shape, weight.shape), **geometry
        )

    def input_shape(gradient: Shape, weight: Shape) -> Shape:
        return gradient[0], in_channels, gradient[2] * stride, gradient[3] * stride

    def by_weight(images: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        return onednn.convolution_weight_gradient(images, gradient, weight_shape, **geometry)

    def shape_of_weight(images: Shape, gradient: Shape) -> Shape:
        return weight_shape

    def first_dtype(first: ms.Type, second: ms.Type) -> ms.Type:
        return first

    input_gradient = ops.Custom(by_input, input_shape, first_dtype, func_type="pyfunc")
    weight_gradient = ops.Custom(by_weight, shape_of_weight, first_dtype, func_type="pyfunc")

    def gradients(images: Tensor, weight: Tensor, output: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return input_gradient(gradient, weight), weight_gradient(images, gradient)

    return ops.Custom(forward, output_shape, first_dtype, func_type="pyfunc", bprop=gradients)


class OneDnnStemPool(nn.Cell):
    """What ``src.resnet.StemPool`` computes. Inputs: float32 (N, C, H, W), H and W even. Outputs: a quarter of it."""

    def __init__(self):
        super().__init__()
        self.pool = _max_pool_operator()

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu(self.pool(x)[0])


def _max_pool_operator() -> ops.Custom:
    def shapes(images: Shape) -> tuple[Shape, Shape]:
        pooled = images[0], images[1], images[2] // 2, images[3] // 2
        return pooled, pooled

    def dtypes(images: ms.Type) -> tuple[ms.Type, ms.Type]:
        return images, ms.uint8

    def input_shape(gradient: Shape, places: Shape) -> Shape:
        return gradient[0], gradient[1], 2 * gradient[2], 2 * gradient[3]

    def input_dtype(gradient: ms.Type, places: ms.Type) -> ms.Type:
        return gradient

    input_gradient = ops.Custom(onednn.max_pool_gradient, input_shape, input_dtype, func_type="pyfunc")

    def gradients(images: Tensor, output: tuple[Tensor, Tensor], gradient: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        return (input_gradient(gradient[0], output[1]),)

    return ops.Custom(onednn.max_pool, shapes, dtypes, func_type="pyfunc", bprop=gradients)


class FusedDistance(nn.Cell):
    """What ``src.loss.Distance`` computes. Inputs: two float32 (N, C, h, w). Outputs: float32 scalar."""

    def __init__(self, *, eps: float):
        super().__init__()
        self.distances = _distance_operator(eps)

    def construct(self, teacher: Tensor, student: Tensor) -> Tensor:
        return ops.reduce_sum(self.distances(teacher, student)[0])


def _distance_operator(eps: float) -> ops.Custom:
    def forward(teacher: np.ndarray, student: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return normalised_distance(teacher, student, eps=eps)

    def shapes(teacher: Shape, student: Shape) -> tuple[Shape, Shape]:
        return (student[0],), student

    def dtypes(teacher: ms.Type, student: ms.Type) -> tuple[ms.Type, ms.Type]:
        return student, student

    def gradients(
        teacher: Tensor, student: Tensor, output: tuple[Tensor, Tensor], gradient: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        # the teacher is frozen: nobody asks for its gradient
        return ops.zeros_like(teacher), output[1] * ops.reshape(gradient[0], (-1, 1, 1, 1))

    return ops.Custom(forward, shapes, dtypes, func_type="pyfunc", bprop=gradients)
