"""The network against an independent PyTorch and numpy implementation."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn

from src.loss import StudentLoss, TeacherStudentLoss, student_loss
from src.pth2ckpt import mindspore_name
from src.resnet import ResNet18Trunk
from src.stpm import (
    STPM,
    AnomalyMap,
    Distances,
    bilinear_matrix,
    fold_batch_norm,
    frozen_distances,
    load_checked,
    named_arrays,
    named_parameters,
)
from src.teacher import NormalisedTeacher
from tests import torch_reference as reference

SIZE = 96
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


@pytest.mark.parametrize("make_loss", [student_loss, StudentLoss], ids=["fast on CPU", "MindSpore's operators"])
def test_training_steps_follow_torch(images, make_loss):
    """Batch statistics, their running averages, SGD with Nesterov momentum and weight decay."""
    teacher, student = reference.random_resnet(1), reference.random_resnet(2).train()
    stpm = STPM()
    copy_weights(teacher, stpm.model_t)
    copy_weights(student, stpm.model_s)
    start = named_arrays(stpm.model_s)
    ours = nn.TrainOneStepCell(
        TeacherStudentLoss(NormalisedTeacher(stpm.model_t), make_loss(stpm.model_s)),
        nn.SGD(stpm.trainable_params(), 0.005, 0.9, weight_decay=1e-4, nesterov=True),
    )
    ours.set_train()
    norms = [p for p in student.parameters() if p.ndim == 1]  # MindSpore decays no gamma and no beta
    convolutions = [p for p in student.parameters() if p.ndim == 4]
    groups = [{"params": convolutions, "weight_decay": 1e-4}, {"params": norms, "weight_decay": 0.0}]
    theirs = torch.optim.SGD(groups, 0.005, momentum=0.9, nesterov=True)
    for _ in range(3):
        value = ours(Tensor(images)).asnumpy()
        theirs.zero_grad()
        expected = reference.loss(
            [f.detach() for f in teacher(torch.from_numpy(images))], student(torch.from_numpy(images))
        )
        expected.backward()
        theirs.step()
        assert relative(value, expected.item()) < 1e-4
    state = {mindspore_name(name): value.numpy() for name, value in student.state_dict().items()}
    for name, parameter in stpm.model_s.parameters_and_names():
        # compared is the update: it would be off by half without Nesterov's look-ahead, and weights hide that
        # its single values differ by more where a number next to ReLU's zero has the other sign
        found, expected = parameter.asnumpy() - start[name], state[name] - start[name]
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-2, name
    for name, parameter in stpm.model_t.parameters_and_names():
        expected = {mindspore_name(n): v.numpy() for n, v in teacher.state_dict().items()}[name]
        assert np.array_equal(parameter.asnumpy(), expected), f"the frozen teacher's {name} moved"


def test_cached_features_give_the_same_loss(images):
    stpm = STPM()
    teacher = NormalisedTeacher(stpm.model_t)
    student_only = student_loss(stpm.model_s)
    whole = TeacherStudentLoss(teacher, student_only)
    for cell in (teacher, whole, student_only):
        cell.set_train(False)
    cached = student_only(Tensor(images), *teacher(Tensor(images)))
    assert relative(cached.asnumpy(), whole(Tensor(images)).asnumpy()) < 1e-6


@pytest.mark.parametrize(
    "form",
    [Distances, lambda stpm: Distances(fold_batch_norm(stpm)), frozen_distances],
    ids=["as it is", "folded", "frozen"],
)
def test_anomaly_map(pair, images, form):
    teacher, student, stpm = pair
    anomaly_map = AnomalyMap(form(stpm), image_size=SIZE)
    anomaly_map.set_train(False)
    maps = anomaly_map(Tensor(images)).asnumpy()
    expected = reference.anomaly_maps(torch_features(teacher, images), torch_features(student, images), SIZE)
    assert maps.shape == (2, 1, SIZE, SIZE)
    assert relative(maps[:, 0], expected) < 1e-4


def test_student_equal_to_its_teacher_sees_no_anomaly(pair, images):
    teacher, _, _ = pair
    stpm = STPM()
    copy_weights(teacher, stpm.model_t)
    copy_weights(teacher, stpm.model_s)
    anomaly_map = AnomalyMap(Distances(stpm), image_size=SIZE)
    anomaly_map.set_train(False)
    assert anomaly_map(Tensor(images)).asnumpy().max() < 1e-12


@pytest.mark.parametrize(("size_in", "size_out"), [(4, 64), (16, 256), (8, 8)])
def test_bilinear_matrix_is_opencvs(size_in, size_out):
    import cv2

    picture = np.random.default_rng(0).random((size_in, size_in))
    matrix = bilinear_matrix(size_out, size_in).astype(np.float64)
    expected = cv2.resize(picture, (size_out, size_out), interpolation=cv2.INTER_LINEAR)
    assert np.allclose(matrix @ picture @ matrix.T, expected, atol=1e-6)


def test_other_batch_and_image_sizes(device):
    trunk = ResNet18Trunk()
    trunk.set_train(False)
    shapes = [level.shape for level in trunk(Tensor(np.zeros((3, 3, 64, 64), np.float32)))]
    assert shapes == [(3, 64, 16, 16), (3, 128, 8, 8), (3, 256, 4, 4)]


def test_student_initialisation_is_he_normal_fan_out():
    ms.set_seed(1)
    weight = ResNet18Trunk().layer3[1].conv1.weight.asnumpy()  # (256, 256, 3, 3)
    assert weight.std() == pytest.approx(np.sqrt(2 / (256 * 9)), rel=0.01)
    assert abs(weight.mean()) < 1e-3
