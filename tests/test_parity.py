"""The network against an independent PyTorch and numpy implementation."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor
from scipy import stats
from torch.nn import functional

from src.backend import StpmNetwork
from src.checkpoint import load_checked, named_arrays, named_parameters
from src.data.view import square
from src.device import set_seed
from src.loss import StudentLoss, TeacherStudentLoss, normalise
from src.pth2ckpt import mindspore_name
from src.stpm import STPM, AnomalyMap, LayerMaps, bilinear_matrix
from src.training.teacher import NormalisedTeacher
from tests import torch_reference as reference

SIZE = 64
pytestmark = pytest.mark.usefixtures("device")


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def copy_weights(torch_net, trunk):
    arrays = {mindspore_name(name): value.numpy() for name, value in torch_net.state_dict().items()}
    load_checked(named_parameters(trunk), arrays, source="test")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def pair(device):
    """A teacher and a student with random weights and statistics, in both implementations."""
    teacher, student = reference.random_resnet(1), reference.random_resnet(2)
    stpm = STPM()
    copy_weights(teacher, stpm.model_t)
    copy_weights(student, stpm.model_s)
    stpm.set_train(False)
    return teacher, student, stpm


def torch_features(net, images):
    with torch.no_grad():
        return [level.numpy() for level in net(torch.from_numpy(images))]


def test_features(pair, images):
    teacher, student, stpm = pair
    teacher_features, student_features = stpm(Tensor(images))
    for net, levels in ((teacher, teacher_features), (student, student_features)):
        for level, expected, channels in zip(levels, torch_features(net, images), (64, 128, 256), strict=True):
            assert level.shape == expected.shape
            assert level.shape[1] == channels
            assert relative(level.asnumpy(), expected) < 1e-4


def test_loss_and_gradients(pair, images):
    teacher, student, stpm = pair
    network = TeacherStudentLoss(NormalisedTeacher(stpm.model_t), StudentLoss(stpm.model_s))
    network.set_train(False)  # stored statistics on both sides; those of a batch are tested by the training steps
    value, gradients = ms.value_and_grad(network, None, stpm.model_s.trainable_params())(Tensor(images))
    student.zero_grad()
    expected = reference.loss(teacher(torch.from_numpy(images)), student(torch.from_numpy(images)))
    expected.backward()
    assert relative(value.asnumpy(), expected.item()) < 1e-5
    torch_gradients = {mindspore_name(name): p.grad.numpy() for name, p in student.named_parameters()}
    names = [name for name, p in stpm.model_s.parameters_and_names() if p.requires_grad]
    assert set(names) == set(torch_gradients)
    for name, gradient in zip(names, gradients, strict=True):
        assert relative(gradient.asnumpy(), torch_gradients[name]) < 1e-3, name


@pytest.mark.parametrize("library", [True, False], ids=["oneDNN", "MindSpore's operators"])
def test_anomaly_maps(pair, images, request, library):
    """As they are evaluated: with the weights of when they were made or renewed."""
    if not library:
        request.getfixturevalue("without_onednn")
    teacher, student, _ = pair
    stpm = STPM()
    maps = StpmNetwork(stpm, view=square(SIZE))
    copy_weights(teacher, stpm.model_t)
    copy_weights(student, stpm.model_s)
    expected = reference.anomaly_maps(torch_features(teacher, images), torch_features(student, images), SIZE)
    assert relative(maps(images)[:, 0], expected) > 0.1
    maps.refresh_weights()
    found = maps(images)
    assert found.shape == (2, 1, SIZE, SIZE)
    assert found.dtype == np.float32
    assert relative(found[:, 0], expected) < 1e-4


def test_anomaly_map(pair, images):
    """With batch norm as it is; a student equal to its teacher sees no anomaly."""
    teacher, student, _ = pair
    stpm = STPM()
    copy_weights(teacher, stpm.model_t)
    copy_weights(student, stpm.model_s)
    anomaly_map = AnomalyMap(LayerMaps(stpm), view=square(SIZE))
    anomaly_map.set_train(False)
    expected = reference.anomaly_maps(torch_features(teacher, images), torch_features(student, images), SIZE)
    assert relative(anomaly_map(Tensor(images)).asnumpy()[:, 0], expected) < 1e-4
    copy_weights(teacher, stpm.model_s)
    assert anomaly_map(Tensor(images)).asnumpy().max() < 1e-12


@pytest.mark.parametrize(("size_in", "size_out"), [(4, 64), (16, 256), (8, 8)])
def test_bilinear_matrix(size_in, size_out):
    """It is OpenCV's."""
    import cv2

    picture = np.random.default_rng(0).random((size_in, size_in))
    matrix = bilinear_matrix(size_out, size_in).astype(np.float64)
    expected = cv2.resize(picture, (size_out, size_out), interpolation=cv2.INTER_LINEAR)
    assert np.allclose(matrix @ picture @ matrix.T, expected, atol=1e-6)


def test_initialisation():
    """He-normal by the fan-out, which is not the fan-in where a convolution changes the number of channels."""
    set_seed(1)
    arrays = named_arrays(STPM().model_s)
    widths = {name: array.shape for name, array in arrays.items() if array.ndim == 4}
    assert widths["conv1.weight"] == (64, 3, 7, 7)
    assert widths["layer2.0.conv1.weight"] == (128, 64, 3, 3)
    assert widths["layer3.0.down_sample_layer.0.weight"] == (256, 128, 1, 1)
    for name, (filters, _, height, width) in widths.items():
        scale = np.sqrt(2 / (filters * height * width))
        assert stats.kstest(arrays[name].ravel() / scale, "norm").pvalue > 1e-3, name
    expected = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    for name, array in arrays.items():
        if array.ndim == 1:
            assert (array == expected[name.rpartition(".")[2]]).all(), name


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_normalise(size):
    """To length 1, however short or long a feature vector is; one of zeros stays, and its gradient is finite."""
    features = np.random.default_rng(0).normal(0, size / 8, (2, 64, 3, 3)).astype(np.float32)
    found = normalise(Tensor(features)).asnumpy()
    assert np.allclose(found, functional.normalize(torch.from_numpy(features)).numpy(), atol=1e-6)


def test_normalise_zeros():
    zeros = Tensor(np.zeros((1, 4, 2, 2), np.float32))
    assert (normalise(zeros).asnumpy() == 0).all()

    def total(x):
        return normalise(x).sum()

    assert np.isfinite(ms.grad(total)(zeros).asnumpy()).all()
