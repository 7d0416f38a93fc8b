"""The trunk by oneDNN: evaluation and a training's gradients against PyTorch, and as cells of MindSpore."""

import sys

import numpy as np
import pytest
import torch
from mindspore import Tensor
from torch.nn import functional

from src.backend import FrozenFeatures
from src.checkpoint import named_parameters
from src.cpu import trunk as cpu_trunk
from src.cpu.distance import layer_loss
from src.cpu.trunk import FrozenTrunk, frozen_features, frozen_layer_maps, student_step
from src.pth2ckpt import mindspore_name
from src.resnet import BN_EPS, CHANNELS, STRIDES, ResNet18Trunk
from tests import torch_reference as reference

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is looked for on Linux only")


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def weights_of(net):
    """Copies of a PyTorch network's weights by the names that they have here."""
    state = {name: value.detach().numpy().copy() for name, value in net.state_dict().items()}
    return {mindspore_name(name): array for name, array in state.items() if not name.endswith("num_batches_tracked")}


def with_small_variances(net):
    """Make what a batch norm divides by so small, in two layers, that what is added to it shows."""
    with torch.no_grad():
        for block in (net.layer1[1], net.layer2[0]):
            block.conv2.weight *= 1e-2
            block.bn2.running_mean *= 1e-2
            block.bn2.running_var *= 1e-5
    return net


def pictures(count, size=64):
    return np.random.default_rng(count).standard_normal((count, 3, size, size)).astype(np.float32)


def test_names(device):
    """Those of the trunk's weights, with their shapes."""
    names = {f"{unit.conv}.weight": unit.geometry.weight for unit in cpu_trunk.units()}
    for unit in cpu_trunk.units():
        ends = ("gamma", "beta", "moving_mean", "moving_variance")
        names |= {f"{unit.norm}.{end}": unit.geometry.weight[:1] for end in ends}
    assert names == {name: tuple(p.shape) for name, p in named_parameters(ResNet18Trunk()).items()}
    assert tuple(zip(CHANNELS, STRIDES, strict=True)) == cpu_trunk.SCALES


@pytest.mark.parametrize("count", [1, 5])
def test_evaluation(count):
    nets, images = [with_small_variances(reference.random_resnet(seed)) for seed in (1, 2)], pictures(count)
    teacher, student = (FrozenTrunk(weights_of(net), eps=BN_EPS) for net in nets)
    with torch.no_grad():
        levels = [[level.numpy() for level in net(torch.from_numpy(images))] for net in nets]
    for level, expected in zip(frozen_features(student, images), levels[1], strict=True):
        assert level.shape == expected.shape
        assert relative(level, expected) < 1e-5
    distances = frozen_layer_maps(teacher, student, images, norm_eps=1e-12)
    for distance, t, s in zip(distances, *levels, strict=True):
        expected = 1 - functional.cosine_similarity(torch.tensor(t).double(), torch.tensor(s).double())
        assert distance.shape == (count, 1, *t.shape[2:])
        assert relative(distance[:, 0], expected.numpy()) < 1e-5


@pytest.mark.parametrize("count", [1, 5])
def test_training_step(count):
    student, images = with_small_variances(reference.random_resnet(2)).double().train(), pictures(count)
    exact = torch.from_numpy(images).double()
    weights = {name: array.astype(np.float32) for name, array in weights_of(student).items()}
    with torch.no_grad():
        teacher = [functional.normalize(level) for level in reference.random_resnet(1).double()(exact)]
    expected = reference.loss(teacher, student(exact))
    expected.backward()
    levels = tuple(level.float().numpy() for level in teacher)
    losses, gradients, batch = student_step(images, levels, weights, eps=BN_EPS, norm_eps=1e-12)
    assert losses.shape == (count,)
    assert relative(losses.sum(), expected.item()) < 1e-5
    torch_gradients = {mindspore_name(name): p.grad.numpy() for name, p in student.named_parameters()}
    assert gradients.keys() == torch_gradients.keys()
    for name, gradient in gradients.items():
        # a number of either sign next to ReLU's zero moves single values by up to 0.07, PyTorch's in float32, too
        error = np.linalg.norm(gradient - torch_gradients[name]) / np.linalg.norm(torch_gradients[name])
        assert error < 2e-3, name
    moved = weights_of(student)
    assert batch.keys() | gradients.keys() == moved.keys()
    for name, value in batch.items():
        assert relative(weights[name] * 0.9 + value * 0.1, moved[name]) < 1e-5, name


def test_zero_features():
    """Of a net that ReLU has left nothing: distances, losses and gradients stay numbers."""
    net, dead, images = reference.random_resnet(1), reference.random_resnet(2), pictures(2, 32)
    with torch.no_grad():
        dead.layer3[1].bn2.bias -= 1e4
        teacher = [functional.normalize(level) for level in net(torch.from_numpy(images))]
    frozen = [FrozenTrunk(weights_of(each), eps=BN_EPS) for each in (net, dead)]
    assert np.allclose(frozen_layer_maps(*frozen, images, norm_eps=1e-12)[2], 0.5)  # half of the teacher's length
    levels = tuple(level.numpy() for level in teacher)
    losses, gradients, _ = student_step(images, levels, weights_of(dead), eps=BN_EPS, norm_eps=1e-12)
    assert np.isfinite(losses).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_distance():
    """Loss and gradient of features of any shape, some of them zeros, as PyTorch has them."""
    rng = np.random.default_rng(0)
    teacher = functional.normalize(torch.tensor(rng.standard_normal((3, 5, 4, 6), np.float32)))
    student = rng.standard_normal((3, 5, 4, 6), np.float32)
    student[1, :, 2, 3] = 0
    exact = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    unit = exact / (exact.square().sum(1, keepdim=True) + 1e-4).sqrt()
    expected = (0.5 / 24 * (teacher - unit).square()).sum((1, 2, 3))
    expected.sum().backward()
    gradient = np.empty_like(student)
    losses = layer_loss(teacher.numpy(), student, gradient, eps=1e-4)
    assert relative(losses, expected.detach().numpy()) < 1e-6
    assert relative(gradient, exact.grad.numpy()) < 1e-5


def test_statistics():
    """Of values far from zero, too."""
    # the sum of squares less the square of the sum, in float32, would leave nothing of the variance
    x = np.random.default_rng(0).normal(1000, 0.1, (5, 40, 40, 64)).astype(np.float32)
    mean, variance = cpu_trunk.statistics(x)
    exact = x.astype(np.float64)
    assert relative(mean, exact.mean(axis=(0, 1, 2))) < 1e-6
    assert relative(variance, exact.var(axis=(0, 1, 2))) < 1e-3


def test_repeatable():
    """Bit by bit."""
    images, weights = pictures(5), weights_of(reference.random_resnet(2))
    teacher = tuple(np.ones((5, c, 64 // stride, 64 // stride), np.float32) for c, stride in cpu_trunk.SCALES)
    losses, gradients, batch = student_step(images, teacher, weights, eps=BN_EPS, norm_eps=1e-12)
    again = student_step(images, teacher, weights, eps=BN_EPS, norm_eps=1e-12)
    assert np.array_equal(losses, again[0])
    assert all(np.array_equal(gradients[name], again[1][name]) for name in gradients)
    assert all(np.array_equal(batch[name], again[2][name]) for name in batch)


def test_frozen_cell(device):
    """Those that it was made with, until another is made."""
    trunk, images = ResNet18Trunk(), Tensor(pictures(2))
    features = FrozenFeatures(trunk)
    level = features(images)[2].asnumpy().copy()
    gamma = named_parameters(trunk)["layer3.1.bn2.gamma"]
    gamma.set_data(gamma * 2)
    assert np.array_equal(features(images)[2].asnumpy(), level)
    assert relative(FrozenFeatures(trunk)(images)[2].asnumpy(), level) > 1e-3
