"""Convolution and pooling by oneDNN against PyTorch, and as operators of MindSpore against MindSpore's own."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from mindspore import Tensor, nn, ops
from torch.nn import functional

from src import onednn
from src.cpu_operators import FusedDistance, OneDnnConv2d, OneDnnStemPool
from src.loss import Distance, normalise
from src.resnet import MINDSPORE_OPERATORS, Operators, ResNet18Trunk, StemPool
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is looked for on Linux only")


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def difference(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


# images, channels in and out, side, kernel, stride: the trunk's kinds; 1 and 5 do not divide into equal parts
@pytest.mark.parametrize(
    ("count", "channels", "filters", "side", "kernel", "stride"),
    [(4, 3, 64, 32, 7, 2), (5, 64, 64, 16, 3, 1), (1, 64, 128, 16, 3, 2), (3, 64, 128, 16, 1, 2), (2, 5, 7, 6, 3, 1)],
)
def test_convolution_and_gradients_are_pytorchs(count, channels, filters, side, kernel, stride):
    images, weight = random(count, channels, side, side), random(filters, channels, kernel, kernel)
    geometry = {"stride": stride, "padding": kernel // 2}
    torch_images = torch.tensor(images, requires_grad=True)
    torch_weight = torch.tensor(weight, requires_grad=True)
    expected = functional.conv2d(torch_images, torch_weight, **geometry)
    gradient = random(*expected.shape)
    expected.backward(torch.tensor(gradient))

    assert difference(onednn.convolution(images, weight, **geometry), expected.detach().numpy()) < 1e-5
    by_images = onednn.convolution_input_gradient(gradient, weight, images.shape, **geometry)
    assert difference(by_images, torch_images.grad.numpy()) < 1e-5
    by_weight = onednn.convolution_weight_gradient(images, gradient, weight.shape, **geometry)
    assert difference(by_weight, torch_weight.grad.numpy()) < 1e-5


def test_max_pool_and_gradient_are_pytorchs():
    images = random(5, 3, 12, 8)
    images[0, 0] = 1.0  # ties
    torch_images = torch.tensor(images, requires_grad=True)
    expected = functional.max_pool2d(torch_images, 3, 2, 1)
    gradient = random(*expected.shape)
    expected.backward(torch.tensor(gradient))
    output, places = onednn.max_pool(images)
    assert np.array_equal(output, expected.detach().numpy())
    assert difference(onednn.max_pool_gradient(gradient, places), torch_images.grad.numpy()) < 1e-6


def test_a_result_is_not_written_over_while_somebody_holds_it():
    images, weight = random(2, 3, 8, 8), random(4, 3, 3, 3)
    first = onednn.convolution(images, weight, stride=1, padding=1)
    kept = first.copy()
    second = onednn.convolution(images + 1, weight, stride=1, padding=1)
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)
    address = second.ctypes.data
    del second
    assert onednn.convolution(images, weight, stride=1, padding=1).ctypes.data == address


def test_calls_from_several_threads_do_not_mix():
    from concurrent.futures import ThreadPoolExecutor

    weight = random(16, 8, 3, 3)
    inputs = [random(3, 8, 16, 16) + i for i in range(16)]
    alone = [onednn.convolution(images, weight, stride=1, padding=1).copy() for images in inputs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda images: onednn.convolution(images, weight, stride=1, padding=1), inputs))
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


def test_first_calls_at_the_same_time_share_what_they_create():
    # an engine each would have oneDNN refuse what belongs to the other's; switching threads at every chance shows it
    program = """if True:
        import sys
        import numpy as np
        from src import onednn
        sys.setswitchinterval(1e-6)
        images, weight = np.ones((4, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
        onednn.convolution(images, weight, stride=1, padding=1)
    """
    for _ in range(10):
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


class SumOf(nn.Cell):
    """A weighted sum of a trunk's features, to have a gradient by."""

    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk

    def construct(self, x: Tensor) -> Tensor:
        total = 0.0
        for level in self.trunk(x):
            total = total + ops.reduce_sum(level * level)
        return total


def test_a_trunk_of_these_operators_is_mindspores_own(device):
    trunks = [
        ResNet18Trunk(operators=operators)
        for operators in (Operators(OneDnnConv2d, OneDnnStemPool), MINDSPORE_OPERATORS)
    ]
    for parameter, twin in zip(trunks[0].get_parameters(), trunks[1].get_parameters(), strict=True):
        twin.set_data(parameter)
    x = Tensor(random(3, 3, 32, 32))
    results = []
    for trunk in trunks:
        trunk.set_train(True)
        gradient = ops.GradOperation(get_by_list=True)(SumOf(trunk), trunk.trainable_params())
        results.append([array.asnumpy() for array in (*trunk(x), *gradient(x))])
    assert all(difference(a, b) < 1e-4 for a, b in zip(*results, strict=True))
    assert [p.name for p in trunks[0].trainable_params()] == [p.name for p in trunks[1].trainable_params()]


def test_distances_and_their_gradients_are_the_same(device):
    # the one that other devices compute, which no other test on CPU runs
    teacher, student = normalise(Tensor(random(3, 8, 4, 4))), Tensor(random(3, 8, 4, 4) + 1)
    results = []
    for distance in (Distance(), FusedDistance(eps=1e-12)):
        gradient = ops.GradOperation(get_all=True)(distance)(teacher, student)[1]
        results.append((distance(teacher, student).asnumpy(), gradient.asnumpy()))
    assert all(difference(a, b) < 1e-5 for a, b in zip(*results, strict=True))


def test_stem_pools_are_the_same(device):
    x = Tensor(random(2, 4, 32, 32))
    assert np.array_equal(OneDnnStemPool()(x).asnumpy(), StemPool()(x).asnumpy())


def test_the_gradient_by_the_images_is_not_computed_in_vain(device, monkeypatch):
    calls = []
    original = onednn.convolution_input_gradient
    monkeypatch.setattr(onednn, "convolution_input_gradient", lambda *a, **b: calls.append(1) or original(*a, **b))
    trunk = ResNet18Trunk(operators=Operators(OneDnnConv2d, OneDnnStemPool))
    gradient = ops.GradOperation(get_by_list=True)(SumOf(trunk), trunk.trainable_params())
    arrays = [array.asnumpy() for array in gradient(Tensor(random(2, 3, 32, 32)))]
    convolutions = sum(array.ndim == 4 for array in arrays)
    assert len(calls) == convolutions - 1
