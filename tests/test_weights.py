"""Teacher weights: the three ways of getting them, and what is refused."""

import logging
import re

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor

from src import pth2ckpt
from src.backend import fold_batch_norm
from src.checkpoint import (
    arrays_sha256,
    load_checked,
    load_stpm,
    load_teacher,
    named_arrays,
    named_parameters,
    read_checkpoint,
)
from src.cpu import parallel
from src.files import file_sha256
from src.pth2ckpt import read_arrays
from src.resnet import ResNet18Trunk
from src.stpm import STPM
from src.training.teacher import estimate_batch_statistics
from src.utils import InputError, run_entry_point
from tests import torch_reference as reference
from tests.conftest import random_statistics, run_python

pytestmark = pytest.mark.usefixtures("device")


def save(path, arrays):
    ms.save_checkpoint([{"name": name, "data": Tensor(array)} for name, array in arrays.items()], str(path))
    return path


@pytest.fixture
def state():
    return reference.random_resnet(5, whole=True).state_dict()


def converted(tmp_path, content):
    torch.save(content, tmp_path / "in.pth")
    arguments = pth2ckpt.parse_args(
        ["--pth_path", str(tmp_path / "in.pth"), "--ckpt_path", str(tmp_path / "out.ckpt")],
    )
    assert run_entry_point(pth2ckpt.main, arguments) == 0
    return tmp_path / "out.ckpt"


@pytest.mark.parametrize("form", ["whole", "partial", "training checkpoint", "data parallel"])
def test_pth2ckpt(tmp_path, state, form):
    content = dict(state)
    if form == "partial":
        content = {name: value for name, value in state.items() if not name.startswith(("layer4", "fc"))}
    elif form == "training checkpoint":
        content = {"epoch": 3, "state_dict": state}
    elif form == "data parallel":
        content = {f"module.{name}": value for name, value in state.items()}
    path = converted(tmp_path, content)
    trunk = ResNet18Trunk()
    load_teacher(trunk, path, num_class=1000)
    for name, array in named_arrays(trunk).items():
        assert np.array_equal(array, state[reference.torch_name(name)].numpy()), name


def test_pth2ckpt_real_teacher(shared, tmp_path):
    """By the command line; the features are PyTorch's."""
    source = shared / "weights/resnet18_imagenet_trunk.pth"
    done = run_python("src/pth2ckpt.py", "--pth_path", source, "--ckpt_path", tmp_path / "t.ckpt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "75 entries of the trunk, 0 beyond it" in done.stdout
    net = reference.ResNet18()
    net.load_state_dict(torch.load(source, weights_only=True), strict=False)
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    trunk = ResNet18Trunk()
    load_teacher(trunk, tmp_path / "t.ckpt")
    trunk.set_train(False)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(images))
    for ours, theirs in zip(trunk(Tensor(images)), expected, strict=True):
        assert np.abs(ours.asnumpy() - theirs.numpy()).max() / theirs.abs().max() < 1e-4


def refused_conversion(refused, tmp_path, content=None):
    if content is not None:
        torch.save(content, tmp_path / "in.pth")
    message = refused(pth2ckpt, "--pth_path", tmp_path / "in.pth", "--ckpt_path", tmp_path / "out.ckpt")
    assert "in.pth" in message
    assert sorted(path.name for path in tmp_path.iterdir()) in ([], ["in.pth"])
    return message


def test_pth2ckpt_missing(refused, tmp_path, state):
    """An entry, which is named."""
    del state["layer2.1.bn1.running_var"]
    assert "layer2.1.bn1.moving_variance is missing" in refused_conversion(refused, tmp_path, state)


def test_pth2ckpt_misshapen(refused, tmp_path, state):
    """An entry, which is named."""
    state["layer1.0.conv2.weight"] = torch.zeros(64, 64, 1, 1)
    message = refused_conversion(refused, tmp_path, state)
    assert "layer1.0.conv2.weight has shape (64, 64, 1, 1), expected (64, 64, 3, 3)" in message


def test_pth2ckpt_deeper_resnet(refused, tmp_path, state):
    """Of the same blocks: it holds every entry of ResNet-18's trunk, in its shape."""
    third = {name.replace("layer1.1", "layer1.2"): value for name, value in state.items() if "layer1.1" in name}
    message = refused_conversion(refused, tmp_path, state | third)
    assert "holds layer1.2.conv1.weight, which no ResNet-18 has: looks like a deeper ResNet" in message


def test_pth2ckpt_no_state_dict(refused, tmp_path):
    assert "expected a state_dict" in refused_conversion(refused, tmp_path, [1, 2])
    assert "entry 'lr' is float" in refused_conversion(refused, tmp_path, {"lr": 0.1})


def test_pth2ckpt_sparse(refused, tmp_path, state):
    state["conv1.weight"] = state["conv1.weight"].to_sparse()
    message = refused_conversion(refused, tmp_path, state)
    assert "not a readable file of PyTorch weights: it holds torch._utils._rebuild_sparse_tensor" in message


def test_pth2ckpt_checksum(refused, tmp_path, state):
    """torchvision's names end in the beginning of their SHA-256."""
    torch.save(state, tmp_path / "resnet18-f37072fd.pth")
    flags = ("--pth_path", tmp_path / "resnet18-f37072fd.pth", "--ckpt_path", tmp_path / "out.ckpt")
    assert "its SHA-256 does not begin with f37072fd; download it again" in refused(pth2ckpt, *flags)
    name = f"resnet18-{file_sha256(tmp_path / 'resnet18-f37072fd.pth')[:8]}.pth"
    (tmp_path / "resnet18-f37072fd.pth").rename(tmp_path / name)
    assert read_arrays(tmp_path / name).keys() == state.keys()


def test_pth2ckpt_suffix(refused, tmp_path):
    message = refused(pth2ckpt, "--pth_path", tmp_path / "in.pth", "--ckpt_path", tmp_path / "out.bin")
    assert "expected a name that ends in .ckpt" in message


def model_zoo_arrays(classes):
    """A ResNet-18 checkpoint as the model zoo's training writes it: other names, a head, an optimiser's state."""
    arrays = named_arrays(ResNet18Trunk())
    arrays |= random_statistics(arrays)
    renamed = {}
    for name, array in arrays.items():
        inside_block = name.startswith("layer") and "down_sample" not in name
        renamed[name.replace("bn1", "bn1d").replace("bn2", "bn2d") if inside_block else name] = array
    renamed["end_point.weight"] = np.zeros((classes, 512), np.float32)
    renamed["end_point.bias"] = np.zeros(classes, np.float32)
    renamed["layer4.0.bn1d.gamma"] = np.zeros(512, np.float32)
    for name in ("conv1.weight", "layer1.0.bn2d.gamma", "layer4.0.conv1.weight", "end_point.bias"):
        for state in ("moments", "accum"):
            renamed[f"{state}.{name}"] = np.zeros(3, np.float32)
    renamed |= {"global_step": np.zeros(1, np.int32), "learning_rate": np.zeros(90, np.float32)}
    return arrays, renamed


def test_model_zoo_checkpoint(tmp_path, caplog):
    """Other names, a head and an optimiser's state."""
    arrays, renamed = model_zoo_arrays(1001)
    trunk = ResNet18Trunk()
    with caplog.at_level(logging.INFO, "stpm"):
        load_teacher(trunk, save(tmp_path / "zoo.ckpt", renamed), num_class=1001)
    assert "75 entries loaded, 13 not needed" in caplog.text
    assert "warning" not in caplog.text
    for name, array in named_arrays(trunk).items():
        assert np.array_equal(array, arrays[name])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("layer2.2.conv1.weight", "a deeper ResNet, such as ResNet-34"),
        ("model_t.layer2.2.bn1.gamma", "a deeper ResNet, such as ResNet-34"),
        ("moments.layer2.2.bn1.gamma", "a deeper ResNet, such as ResNet-34"),
        ("layer1.0.se.fc.0.weight", "another network"),
        ("layer1.0.conv3.weight", "another network"),
        ("neck.conv.weight", "another network"),
    ],
)
def test_teacher_of_another_network(tmp_path, name, words):
    arrays = named_arrays(ResNet18Trunk())
    if name.startswith("model_t."):
        arrays = {f"model_t.{own}": array for own, array in arrays.items()}
    path = save(tmp_path / "bad.ckpt", arrays | {name: np.zeros(64, np.float32)})
    expected = rf"bad\.ckpt: holds {re.escape(name.removeprefix('model_t.'))}, which no ResNet-18 has: .*{words}"
    with pytest.raises(InputError, match=expected):
        load_teacher(ResNet18Trunk(), path)


def test_other_head(tmp_path, caplog):
    """Of another number of classes: a warning."""
    _, renamed = model_zoo_arrays(1001)
    load_teacher(ResNet18Trunk(), save(tmp_path / "zoo.ckpt", renamed), num_class=1000)
    assert "--num_class 1000, but the head" in caplog.text
    assert "1001 classes" in caplog.text


def test_bad_entries(tmp_path):
    """Missing, misshapen or NaN: named, and nothing is half-loaded."""
    arrays = named_arrays(ResNet18Trunk())
    trunk = ResNet18Trunk()
    before = named_arrays(trunk)
    missing = {name: array for name, array in arrays.items() if name != "layer3.0.conv1.weight"}
    with pytest.raises(InputError, match=r"bad\.ckpt: layer3\.0\.conv1\.weight is missing"):
        load_teacher(trunk, save(tmp_path / "bad.ckpt", missing))
    with pytest.raises(InputError, match=r"bn1\.gamma has shape \(32,\), expected \(64,\)"):
        load_teacher(trunk, save(tmp_path / "bad.ckpt", arrays | {"bn1.gamma": np.ones(32, np.float32)}))
    for bad in (np.nan, np.inf, -np.inf):
        array = np.append(np.ones(63), bad).astype(np.float32)
        with pytest.raises(InputError, match=r"bn1\.gamma holds NaN or infinity"):
            load_teacher(trunk, save(tmp_path / "bad.ckpt", arrays | {"bn1.gamma": array}))
    for name, array in named_arrays(trunk).items():
        assert np.array_equal(array, before[name]), "nothing may be half-loaded"


def test_unreadable_checkpoints(tmp_path, random_backbone):
    with pytest.raises(InputError, match="no such checkpoint file"):
        read_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "empty.ckpt").touch()
    with pytest.raises(InputError, match="is empty"):
        read_checkpoint(tmp_path / "empty.ckpt")
    (tmp_path / "text.ckpt").write_bytes(b"\xff\xfehello" * 100)
    with pytest.raises(InputError, match=r"text\.ckpt: not a readable MindSpore checkpoint"):
        read_checkpoint(tmp_path / "text.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(random_backbone.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"cut\.ckpt"):
        load_teacher(ResNet18Trunk(), tmp_path / "cut.ckpt")
    with pytest.raises(InputError, match=r"convert it first: python -m src\.pth2ckpt"):
        read_checkpoint(tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"name ends in \.ckpt"):
        read_checkpoint(tmp_path / "weights.h5")


def test_stpm_checkpoint(trained, random_backbone):
    """It serves as a teacher; a teacher does not serve as one."""
    checkpoint = trained[0] / "widget/widget_last.ckpt"
    trunk = ResNet18Trunk()
    load_teacher(trunk, checkpoint)
    original = read_checkpoint(random_backbone)
    for name, array in named_arrays(trunk).items():
        assert np.array_equal(array, original[name])
    assert fold_batch_norm(load_stpm(STPM(), checkpoint)) is not None
    with pytest.raises(InputError, match="holds no student"):
        load_stpm(STPM(), random_backbone)


def test_random_teacher_by_cores(monkeypatch):
    """A training may be resumed with another number of them."""
    images = np.random.default_rng(0).integers(0, 255, (11, 64, 64, 3), np.uint8)
    found = set()
    for cores in (1, 2, 3):
        monkeypatch.setattr(parallel, "core_count", lambda cores=cores: cores)
        ms.set_seed(1)
        trunk = ResNet18Trunk()
        estimate_batch_statistics(trunk, images)
        found.add(arrays_sha256(named_arrays(trunk)))
    assert len(found) == 1


@pytest.mark.parametrize("library", [True, False], ids=["oneDNN", "MindSpore's operators"])
def test_random_teacher(request, library):
    """Every batch norm has the mean statistics of the batches of eight."""
    if not library:
        request.getfixturevalue("without_onednn")
    ms.set_seed(1)
    trunk = ResNet18Trunk()
    images = np.random.default_rng(0).integers(0, 255, (16, 64, 64, 3), np.uint8)
    images[8:] //= 2  # unlike the first eight
    before = named_arrays(trunk)
    estimate_batch_statistics(trunk, images)
    expected = {}
    for batch in reference.network_input(images).split(8):
        net = reference.resnet_of(before).train()
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # what it keeps is the batch's own
        with torch.no_grad():
            net(batch)
        for name, value in net.state_dict().items():
            expected.setdefault(name, []).append(value.double().numpy())
    for name, array in named_arrays(trunk).items():
        mean = np.mean(expected[reference.torch_name(name)], axis=0)
        assert np.abs(array - mean).max() <= 1e-4 * np.abs(mean).max(), name
        if "moving_" not in name:
            assert np.array_equal(array, before[name])


def test_random_teacher_of_few_images():
    """Fewer than a batch: it is filled with the same ones again."""
    ms.set_seed(1)
    trunks = ResNet18Trunk(), ResNet18Trunk()
    load_checked(named_parameters(trunks[1]), named_arrays(trunks[0]), source="test")
    images = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
    for trunk, given in zip(trunks, (images, np.concatenate([images, images])), strict=True):
        estimate_batch_statistics(trunk, given)
    assert arrays_sha256(named_arrays(trunks[0])) == arrays_sha256(named_arrays(trunks[1]))
