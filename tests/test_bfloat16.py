"""Training on CPU in bfloat16, ``--amp_level O2``: oneDNN's primitives, a step, and the whole program.

The process of the suite holds oneDNN to AVX2 (tests/conftest.py), where bfloat16 is refused. So what needs it is run by
``test_where_it_is_fast`` in a process that is not held, and is skipped elsewhere.
"""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import train as train_entry
from src import backend
from src.cpu import onednn, parallel
from src.cpu.onednn import BFLOAT16, FLOAT32, Geometry
from src.cpu.parallel import Buffers
from src.cpu.trunk import SCALES, statistics, student_step
from src.pth2ckpt import mindspore_name
from src.resnet import BN_EPS
from tests import torch_reference as reference
from tests.conftest import ROOT, call, run_python, train_arguments
from tests.test_cpu_trunk import pictures, relative, weights_of
from tests.test_onednn import numpy, random, tensor
from tests.test_training import assert_same_training, read

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is looked for on Linux only")
REASON = onednn.no_bfloat16_reason()
needs_bfloat16 = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def bits(x):
    """The bits of the nearest number of bfloat16; of two as near, of that whose last bit is 0."""
    wide = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((wide + 0x7FFF + (wide >> 16 & 1)) >> 16).astype(np.uint16)


def value(x):
    """The number, float32, that bits of bfloat16 stand for."""
    return (x.astype(np.uint32) << 16).view(np.float32)


def rounded(x):
    return value(bits(x))


def exact(x):
    """(N, H, W, C) as it is in bfloat16 -> PyTorch's (N, C, H, W) in float64, with a gradient."""
    return tensor(rounded(x).astype(np.float64))


def is_rounded(found, expected):
    """Whether bits are numbers of float64 rounded; the last one may be off, by what float32 has lost in sums."""
    return np.abs(value(found) - expected) <= np.abs(expected) * 2**-8 + 1e-5 * np.abs(expected).max()


def test_where_it_is_fast():
    """The other tests of this file, with oneDNN free to use what the processor has."""
    words = ("-q", "-n", "0", "-p", "no:cacheprovider", "-k", "not fast", "-rs")
    done = run_python("-m", "pytest", *words, ROOT / "tests/test_bfloat16.py", env={"ONEDNN_MAX_CPU_ISA": "ALL"})
    assert done.returncode == 0, done.stdout[-3000:]
    lacks = re.search("oneDNN uses neither AVX512_BF16 nor AMX", done.stdout)
    if lacks:
        pytest.skip(f"bfloat16: {lacks[0]}")


@pytest.mark.parametrize("limit", ["AVX2", None])
def test_refused(limit):
    """Where oneDNN must not, or cannot, use what makes bfloat16 fast, with the reason; nothing is written."""
    environment = {} if limit is None else {"ONEDNN_MAX_CPU_ISA": limit}
    program = "from src.cpu.onednn import no_bfloat16_reason as reason; print(reason())"
    told = run_python("-c", program, env=environment).stdout.strip()
    flags = Path("/proc/cpuinfo").read_text().split()
    if limit is None and ("avx512_bf16" in flags or "amx_bf16" in flags):
        assert told == "None"
    else:
        held = f", or ONEDNN_MAX_CPU_ISA={limit} keeps it from them" if limit else ""
        assert told == f"oneDNN uses neither AVX512_BF16 nor AMX: the processor lacks them{held}"


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("O1", "--amp_level O1: needs an Ascend or GPU device; on CPU use O0 or O2"),
        ("O3", "--amp_level O3: needs an Ascend or GPU device; on CPU use O0 or O2"),
        ("O2", "--amp_level O2: bfloat16 is not fast here: oneDNN uses neither AVX512_BF16 nor AMX: "),
    ],
)
def test_training_refuses(refused, session_tree, tmp_path, monkeypatch, level, message):
    monkeypatch.setattr(onednn, "_AVX512_BF16", 1 << 30)  # of no processor
    arguments = train_arguments(session_tree, "random", tmp_path, epoch=1)
    assert message in refused(train_entry, *arguments, "--amp_level", level)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_library(refused, session_tree, tmp_path, request):
    """MindSpore's own operators on CPU have no bfloat16."""
    request.getfixturevalue("without_onednn")
    arguments = train_arguments(session_tree, "random", tmp_path, epoch=1)
    assert "there is no oneDNN of version 3 in MindSpore; use O0" in refused(
        train_entry, *arguments, "--amp_level", "O2"
    )


def test_memory_of_half_the_size():
    """An array of bfloat16 is as large as it must be, and nobody else's."""
    with Buffers() as buffers:
        half, whole = buffers.acquire((3, 5, 7), BFLOAT16), buffers.acquire((3, 5, 7))
        half[:], whole[:] = 7, 1
        assert (half.dtype, half.shape) == (BFLOAT16, (3, 5, 7))
        assert (half == 7).all()
        assert half.ctypes.data % 64 == 0
        assert len(buffers._held[half.ctypes.data]) < len(buffers._held[whole.ctypes.data])
        buffers.release(half, whole)


@needs_bfloat16
@pytest.mark.parametrize(*reference.CONVOLUTIONS)
def test_convolution_and_gradients(count, channels, filters, side, kernel, stride):
    """Against float64 of what is rounded: sums are float32, results rounded once."""
    images, weight = random(count, side, side, channels), random(filters, channels, kernel, kernel)
    geometry = Geometry(weight.shape, stride, kernel // 2)
    torch_images = exact(images)
    torch_weight = torch.tensor(rounded(weight).astype(np.float64), requires_grad=True)
    expected = functional.conv2d(torch_images, torch_weight, stride=stride, padding=kernel // 2)
    gradient = random(*numpy(expected).shape)
    expected.backward(torch.tensor(np.moveaxis(rounded(gradient).astype(np.float64), 3, 1)))

    given = bits(np.moveaxis(images, 3, 1) if channels == 3 else images)  # pictures come as planes
    output = np.empty(gradient.shape, BFLOAT16)
    onednn.convolution(given, weight, output, geometry)
    assert is_rounded(output, numpy(expected)).all()
    by_weight = np.empty_like(weight)
    onednn.grad_weight(given, bits(gradient), by_weight, geometry)
    assert relative(by_weight, torch_weight.grad.numpy()) < 1e-5
    if channels != 3:
        by_images = np.empty(images.shape, BFLOAT16)
        onednn.grad_input(bits(gradient), weight, by_images, geometry)
        assert is_rounded(by_images, numpy(torch_images.grad)).all()


@needs_bfloat16
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_addition", [False, True])
def test_affine(relu, has_addition):
    """Scale and shift are not rounded."""
    x, scale, shift, addition = random(3, 4, 6, 64), random(64), random(64) + 1, random(3, 4, 6, 64) - 2
    expected = rounded(x).astype(np.float64) * scale + shift + (rounded(addition) if has_addition else 0)
    expected = np.maximum(expected, 0) if relu else expected
    result = bits(addition)
    onednn.affine(bits(x), scale, shift, result, addition=result if has_addition else None, relu=relu)  # in place
    assert is_rounded(result, expected).all()


@needs_bfloat16
def test_sum_and_relu_gradient():
    x, other = random(2, 4, 4, 16), random(2, 4, 4, 16) + 3
    total = bits(x)
    onednn.add(total, bits(other))
    assert np.array_equal(total, bits(rounded(x) + rounded(other)))
    gradient = bits(other)
    onednn.relu_gradient(bits(np.maximum(x, 0)), gradient)
    assert np.array_equal(value(gradient), np.where(rounded(x) > 0, rounded(other), 0))


@needs_bfloat16
def test_norm_gradient():
    x, gradient, mean, variance, gamma = (
        random(3, 4, 4, 16), random(3, 4, 4, 16) + 1, random(16), random(16) ** 2, random(16)
    )  # fmt: skip
    inverse = 1 / np.sqrt(variance.astype(np.float64) + 1e-5)
    x_hat = (rounded(x) - mean.astype(np.float64)) * inverse
    result, sums = np.empty(x.shape, BFLOAT16), np.empty((2, 16), np.float32)
    onednn.norm_gradient(bits(x), bits(gradient), mean, variance, gamma, result, sums, eps=1e-5)
    assert is_rounded(result, rounded(gradient) * gamma * inverse).all()
    assert relative(sums[0], (rounded(gradient) * x_hat).sum(axis=(0, 1, 2))) < 1e-5
    assert relative(sums[1], rounded(gradient).sum(axis=(0, 1, 2), dtype=np.float64)) < 1e-5


@needs_bfloat16
def test_max_pool():
    images = random(5, 12, 8, 16)
    torch_images = exact(images)
    expected = functional.max_pool2d(torch_images, 3, 2, 1)
    gradient = random(*numpy(expected).shape)
    expected.backward(torch.tensor(np.moveaxis(rounded(gradient).astype(np.float64), 3, 1)))
    output, places = np.empty(gradient.shape, BFLOAT16), np.empty(gradient.shape, np.uint8)
    onednn.max_pool(bits(images), output, places)
    assert np.array_equal(value(output), numpy(expected))
    by_images = np.empty(images.shape, BFLOAT16)
    onednn.max_pool_gradient(bits(gradient), places, by_images)
    assert is_rounded(by_images, numpy(torch_images.grad)).all()


@needs_bfloat16
def test_conversion():
    """To and from it, with and without planes; of two numbers as near the even one."""
    x = random(2, 3, 4, 5)
    x[0, 0, 0, :3] = 1 + 2**-8, 1 + 3 * 2**-8, -0.0
    converted, back = np.empty(x.shape, BFLOAT16), np.empty_like(x)
    onednn.convert(x, converted)
    assert np.array_equal(converted, bits(x))
    assert value(converted)[0, 0, 0, :2].tolist() == [1, 1 + 2**-6]
    onednn.convert(converted, back)
    assert np.array_equal(back, rounded(x))
    planes, pixels = np.empty((2, 5, 3, 4), np.float32), np.empty(x.shape, BFLOAT16)
    onednn.nhwc_to_nchw(converted, planes)
    assert np.array_equal(planes, np.moveaxis(rounded(x), 3, 1))
    onednn.nchw_to_nhwc(planes, pixels)
    assert np.array_equal(pixels, converted)


@needs_bfloat16
def test_statistics():
    """In float32: of values far from zero, too."""
    x = np.random.default_rng(0).normal(10, 1, (5, 40, 40, 64)).astype(np.float32)
    mean, variance = statistics(bits(x))
    expected = rounded(x).astype(np.float64)
    assert relative(mean, expected.mean(axis=(0, 1, 2))) < 1e-6
    assert relative(variance, expected.var(axis=(0, 1, 2))) < 1e-5


def gradients_of(net, teacher, images, *, autocast):
    """PyTorch's loss and gradients by the names that they have here."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        levels = net(images)
    total = reference.loss(teacher, [level.to(teacher[0].dtype) for level in levels])
    total.backward()
    return total.item(), {mindspore_name(name): p.grad.numpy() for name, p in net.named_parameters()}


def distance(found, expected):
    """The length of the difference of gradients, in terms of their own."""
    difference = sum(np.square(found[name] - expected[name]).sum() for name in expected)
    return (difference / sum(np.square(one).sum() for one in expected.values())) ** 0.5


@needs_bfloat16
def test_training_step():
    """As near to the gradients of float64 as PyTorch under autocast; results are float32."""
    images = torch.from_numpy(pictures(5))
    with torch.no_grad():
        teacher = [functional.normalize(level) for level in reference.random_resnet(1).double()(images.double())]
    levels = [level.float() for level in teacher]
    student = reference.random_resnet(2)
    weights = weights_of(student)
    loss, expected = gradients_of(student.double().train(), teacher, images.double(), autocast=False)
    _, peer = gradients_of(reference.random_resnet(2).train(), levels, images, autocast=True)
    arrays = images.numpy(), tuple(level.numpy() for level in levels), weights
    losses, found, batch = student_step(*arrays, eps=BN_EPS, norm_eps=1e-12, dtype=BFLOAT16)
    assert losses.sum() == pytest.approx(loss, rel=1e-3)
    assert distance(found, expected) < 1.3 * distance(peer, expected)
    in_float32 = student_step(*arrays, eps=BN_EPS, norm_eps=1e-12)
    assert distance(in_float32[1], expected) < 0.1 * distance(found, expected)  # so it is bfloat16
    assert all(array.dtype == FLOAT32 for array in (losses, *found.values(), *batch.values()))
    assert all(relative(batch[name], value) < 0.02 for name, value in in_float32[2].items())


@needs_bfloat16
def test_repeatable(monkeypatch):
    """Bit by bit; another number of cores adds the parts of gradients otherwise, as in float32."""
    images, weights = pictures(5), weights_of(reference.random_resnet(2))
    teacher = tuple(np.ones((5, c, 64 // stride, 64 // stride), np.float32) for c, stride in SCALES)
    found = []
    for cores in (2, 2, 1):
        monkeypatch.setattr(parallel, "core_count", lambda cores=cores: cores)
        found.append(student_step(images, teacher, weights, eps=BN_EPS, norm_eps=1e-12, dtype=BFLOAT16))
    for losses, _, batch in found[1:]:
        assert np.array_equal(losses, found[0][0])
        assert all(np.array_equal(batch[name], found[0][2][name]) for name in batch)
    assert all(np.array_equal(found[0][1][name], found[1][1][name]) for name in found[0][1])
    assert distance(found[2][1], found[0][1]) < 0.1


@needs_bfloat16
def test_training(refused, session_tree, random_backbone, tmp_path, monkeypatch):
    """Every step in bfloat16; resumed, bit by bit the uninterrupted one, and at that level only."""
    types = []

    def step(*arrays, dtype, **named):
        types.append(dtype)
        return student_step(*arrays, dtype=dtype, **named)

    monkeypatch.setattr(backend, "student_step", step)

    def words(name, level, epoch, *flags):
        arguments = train_arguments(session_tree, random_backbone, tmp_path / name, epoch=epoch)
        return [*arguments, "--amp_level", level, *flags]

    assert call(train_entry, *words("whole", "O2", 2)) == 0
    assert call(train_entry, *words("resumed", "O2", 1)) == 0
    assert "amp_level" in refused(train_entry, *words("resumed", "O0", 2, "--resume"))
    assert call(train_entry, *words("resumed", "O2", 2, "--resume")) == 0
    assert types == [BFLOAT16] * 8  # two steps an epoch
    assert_same_training(tmp_path / "whole/widget", tmp_path / "resumed/widget")
    assert read(tmp_path / "whole/widget/widget_last.json")["config"]["amp_level"] == "O2"
