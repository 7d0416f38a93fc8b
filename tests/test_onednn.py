"""oneDNN's primitives on numpy arrays against PyTorch."""

import ctypes
import os
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec, module_from_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.cpu import onednn, parallel
from src.cpu.onednn import Geometry
from src.cpu.parallel import Buffers, parallel_for
from src.device import prepare_environment
from src.utils import core_count
from tests.conftest import ROOT
from tests.torch_reference import CONVOLUTIONS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is looked for on Linux only")


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def difference(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def last(array):
    """(N, C, H, W) -> (N, H, W, C)"""
    return np.ascontiguousarray(np.moveaxis(array, 1, 3))


def tensor(array):
    """(N, H, W, C) -> PyTorch's (N, C, H, W), with a gradient."""
    return torch.tensor(np.moveaxis(array, 3, 1), requires_grad=True)


def numpy(tensor):
    """PyTorch's (N, C, H, W) -> (N, H, W, C)"""
    return last(tensor.detach().numpy())


@pytest.mark.parametrize(*CONVOLUTIONS)
def test_convolution_and_gradients(count, channels, filters, side, kernel, stride):
    images, weight = random(count, side, side, channels), random(filters, channels, kernel, kernel)
    geometry = Geometry(weight.shape, stride, kernel // 2)
    torch_images, torch_weight = tensor(images), torch.tensor(weight, requires_grad=True)
    expected = functional.conv2d(torch_images, torch_weight, stride=stride, padding=kernel // 2)
    gradient = random(*numpy(expected).shape)
    expected.backward(torch.tensor(np.moveaxis(gradient, 3, 1)))

    given = np.ascontiguousarray(np.moveaxis(images, 3, 1)) if channels == 3 else images  # pictures come as planes
    output = np.empty_like(gradient)
    onednn.convolution(given, weight, output, geometry)
    assert difference(output, numpy(expected)) < 1e-5
    by_weight = np.empty_like(weight)
    onednn.grad_weight(given, gradient, by_weight, geometry)
    assert difference(by_weight, torch_weight.grad.numpy()) < 1e-5
    if channels != 3:
        by_images = np.empty_like(images)
        onednn.grad_input(gradient, weight, by_images, geometry)
        assert difference(by_images, numpy(torch_images.grad)) < 1e-5


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_shortcut", [False, True])
@pytest.mark.parametrize("is_packed", [False, True])
def test_fused_convolution(relu, has_shortcut, is_packed):
    """With a bias, and what may follow it."""
    images, weight, bias = random(2, 8, 8, 64), random(32, 64, 3, 3), random(32)
    shortcut = random(2, 8, 8, 32) if has_shortcut else None
    geometry = Geometry(weight.shape, 1, 1)
    expected = numpy(functional.conv2d(tensor(images), torch.tensor(weight), torch.tensor(bias), padding=1))
    expected = expected + shortcut if has_shortcut else expected
    expected = np.maximum(expected, 0) if relu else expected
    if is_packed:
        weight = onednn.pack_weight(weight, onednn.shape_of(images), geometry, shortcut=has_shortcut, relu=relu)
    output = np.empty_like(expected)
    onednn.convolution(images, weight, output, geometry, bias=bias, shortcut=shortcut, relu=relu)
    assert difference(output, expected) < 1e-5


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_addition", [False, True])
def test_affine(relu, has_addition):
    x, scale, shift, addition = random(3, 4, 6, 5), random(5), random(5) + 1, random(3, 4, 6, 5) - 2
    expected = x * scale + shift + (addition if has_addition else 0)
    expected = np.maximum(expected, 0) if relu else expected
    onednn.affine(x, scale, shift, addition, addition=addition if has_addition else None, relu=relu)  # in place
    assert difference(addition, expected) < 1e-6


def test_relu_gradient():
    """Of zero it is zero."""
    output, gradient = np.maximum(random(2, 4, 4, 3), 0), random(2, 4, 4, 3) + 3
    expected = np.where(output > 0, gradient, 0)
    onednn.relu_gradient(output, gradient)
    assert np.array_equal(gradient, expected)
    assert (gradient == 0).any()


def test_norm_gradient():
    x, gradient, mean, variance, gamma = (
        random(3, 4, 4, 16),
        random(3, 4, 4, 16) + 1,
        random(16),
        random(16) ** 2,
        random(16),
    )
    torch_x = tensor(x)
    torch_gamma, torch_beta = torch.tensor(gamma, requires_grad=True), torch.zeros(16, requires_grad=True)
    statistics = torch.tensor(mean), torch.tensor(variance)
    output = functional.batch_norm(torch_x, *statistics, torch_gamma, torch_beta, training=False, eps=1e-5)
    output.backward(torch.tensor(np.moveaxis(gradient, 3, 1)))
    result, sums = np.empty_like(x), np.empty((2, 16), np.float32)
    onednn.norm_gradient(x, gradient, mean, variance, gamma, result, sums, eps=1e-5)
    assert difference(result, numpy(torch_x.grad)) < 1e-5
    assert difference(sums[0], torch_gamma.grad.numpy()) < 1e-5
    assert difference(sums[1], torch_beta.grad.numpy()) < 1e-5


def test_max_pool():
    images = random(5, 12, 8, 3)
    images[0, :, :, 0] = 1.0  # ties
    torch_images = tensor(images)
    expected = functional.max_pool2d(torch_images, 3, 2, 1)
    gradient = random(*numpy(expected).shape)
    expected.backward(torch.tensor(np.moveaxis(gradient, 3, 1)))
    output, places = np.empty_like(gradient), np.empty(gradient.shape, np.uint8)
    onednn.max_pool(images, output, places)
    assert np.array_equal(output, numpy(expected))
    by_images = np.empty_like(images)
    onednn.max_pool_gradient(gradient, places, by_images)
    assert difference(by_images, numpy(torch_images.grad)) < 1e-6


def test_first_call_of_a_thread():
    """May be any."""
    x, result = random(2, 3, 4, 5), np.empty((2, 3, 4, 5), np.float32)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(onednn.affine, x, np.ones(5, np.float32), np.zeros(5, np.float32), result).result()
    assert np.array_equal(result, x)


def test_planes():
    """And back."""
    x = random(2, 3, 4, 5)
    planes, back = np.empty((2, 5, 3, 4), np.float32), np.empty_like(x)
    onednn.nhwc_to_nchw(x, planes)
    assert np.array_equal(planes, np.moveaxis(x, 3, 1))
    onednn.nchw_to_nhwc(planes, back)
    assert np.array_equal(back, x)


def test_held_memory():
    """Nobody else gets it."""
    with Buffers() as first, Buffers() as second:
        first.release(first.acquire((100,)), first.acquire((100,)))
        held = []
        for i in range(20):
            array = (first if i % 2 else second).acquire((3, 4 + i % 3, 5))
            array[:] = i
            held.append(array)
        for i, array in enumerate(held):
            assert (array == i).all()
            assert array.ctypes.data % 64 == 0
            assert not any(np.shares_memory(array, other) for other in held[:i])


@pytest.mark.parametrize("is_released", [True, False], ids=["released", "left to the owner"])
def test_reused_memory(is_released):
    size, arrays = 1_000_000, []
    tracemalloc.start()
    try:
        for i in range(20):
            with Buffers() as buffers:
                array = buffers.acquire((size + i % 2 * 100,))
                array[:] = i
                arrays.append(array)  # so that nothing but the owner gives its memory back
                if is_released:
                    buffers.release(array)
        assert tracemalloc.get_traced_memory()[1] < 3 * 4 * size
    finally:
        tracemalloc.stop()


def test_memory_of_fitting_size(monkeypatch):
    """A small array leaves that of a large one to the next large one."""
    monkeypatch.setattr(parallel, "_FREE", [])
    size = 3_000_000
    with Buffers() as buffers:
        large = buffers.acquire((size,))
        buffers.release(large)
        small, again = buffers.acquire((size // 100,)), buffers.acquire((size,))
        assert np.shares_memory(large, again)
        assert not np.shares_memory(large, small)


def test_released_twice():
    """It would belong to two."""
    with Buffers() as buffers:
        array = buffers.acquire((7,))
        buffers.release(array)
        with pytest.raises(KeyError):
            buffers.release(array)


def test_nested_parallel_for():
    with pytest.raises(RuntimeError, match="within"):
        parallel_for(lambda rows: parallel_for(print, 1), 1)


def test_failed_part():
    """The others are waited for."""
    done = []

    def compute(rows):
        if rows.start == 0:
            raise ValueError
        time.sleep(0.05)
        done.append(rows)

    with pytest.raises(ValueError):  # noqa: PT011 - ours
        parallel_for(compute, core_count())
    assert len(done) == core_count() - 1


def convolve(images):
    weight = np.ones((16, 8, 3, 3), np.float32)
    output = np.empty((*images.shape[:3], 16), np.float32)
    onednn.convolution(images, weight, output, Geometry(weight.shape, 1, 1))
    return output


def test_threads():
    """Their calls do not mix."""
    inputs = [random(3, 16, 16, 8) + i for i in range(16)]
    alone = [convolve(images) for images in inputs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(convolve, inputs))
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


def test_simultaneous_first_calls():
    """An engine each would have oneDNN refuse what belongs to the other's; threads switch at every chance."""
    program = """if True:
        import sys
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        from src.cpu import onednn
        images, weight = np.ones((4, 8, 8, 8), np.float32), np.ones((16, 8, 3, 3), np.float32)
        def convolve(result):
            onednn.convolution(images, weight, result, onednn.Geometry(weight.shape, 1, 1))
        results = [np.zeros((4, 8, 8, 16), np.float32) for _ in range(4)]
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(convolve, results))
        assert all(result[0, 4, 4, 0] == 72 for result in results)
    """
    for _ in range(3):
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


class Library:
    """A library that a search for oneDNN may come upon: its version, and whether it takes threads from outside."""

    def __init__(self, major, has_streams=True):
        version = SimpleNamespace(contents=SimpleNamespace(major=major))
        self.dnnl_version = Function(version)
        self.dnnl_primitive_desc_query_md = self.dnnl_memory_desc_get_size = Function(None)
        if has_streams:
            self.dnnl_threadpool_interop_stream_create = Function(None)


class Function:
    def __init__(self, result):
        self.result = result

    def __call__(self):
        return self.result


def refuse_to_load(path):
    raise OSError(f"{path}: cannot open shared object file")


@pytest.mark.parametrize(
    ("load", "is_available"),
    [
        (refuse_to_load, False),
        (lambda path: Library(2), False),
        (lambda path: Library(4), False),
        (lambda path: Library(3, has_streams=False), False),
        (lambda path: SimpleNamespace(), False),
        (lambda path: Library(3), True),
    ],
    ids=["none", "version 2", "version 4", "without streams", "another library", "version 3"],
)
def test_library(monkeypatch, load, is_available):
    """One that is not there, or that the functions are not written for, is not used."""
    spec = find_spec("src.cpu.onednn")
    fresh = module_from_spec(spec)
    spec.loader.exec_module(fresh)
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert fresh.is_available() == is_available


def test_environment(request, monkeypatch):
    """MindSpore's convolutions are held to what is fast for them where they are used, and not where others are."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    prepare_environment()
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ
    request.getfixturevalue("without_onednn")
    prepare_environment()
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
