"""Convolution and max pooling with the oneDNN library inside MindSpore, on numpy arrays, over all cores.

MindSpore's CPU operators hand oneDNN arrays in the order (N, C, H, W) and take what it has for that order. On AVX-512
that is a reference convolution, a hundred times too slow; held to AVX2 it is a third of what the processor can do. Here
oneDNN chooses the order that suits it, and the arrays are reordered on the way in and out. Max pooling's gradient in
MindSpore takes twenty times as long as oneDNN's.

The functions are oneDNN's C interface, version 3 (https://uxlfoundation.github.io/oneDNN). No mindspore import here.
"""

import ctypes
import functools
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from src.parallel import Shape, in_parallel, parts_of, take_array

# dnnl_types.h
_CPU, _F32, _ANY_LAYOUT = 1, 3, 1
_FORWARD_TRAINING, _CONVOLUTION_DIRECT, _POOLING_MAX = 64, 1, 0x1FF
_SRC, _DST, _WEIGHTS, _WORKSPACE, _DIFF_SRC, _DIFF_DST, _DIFF_WEIGHTS = 1, 17, 33, 64, 129, 145, 161
_QUERY = {_SRC: 129, _DIFF_SRC: 130, _WEIGHTS: 131, _DIFF_WEIGHTS: 132, _DST: 133, _DIFF_DST: 134, _WORKSPACE: 135}
_ALIGNMENT = 64  # bytes: a cache line, and an AVX-512 register

_CREATION = threading.RLock()


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_int), ("minor", ctypes.c_int), ("patch", ctypes.c_int))


class _Argument(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("memory", ctypes.c_void_p))


def _created_once(create: Callable[..., object]) -> Callable[..., object]:
    """Decorate a function to create one thing per arguments: several threads ask at once."""
    cached = functools.cache(create)

    @functools.wraps(create)
    def locked(*arguments: object) -> object:
        with _CREATION:
            return cached(*arguments)

    return locked


@_created_once
def _library() -> ctypes.CDLL | None:
    """Return MindSpore's oneDNN, or None where there is none of a version whose interface is known here."""
    mindspore = find_spec("mindspore")
    if mindspore is None or sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(str(Path(mindspore.submodule_search_locations[0]) / "lib/libdnnl.so.3"))
        library.dnnl_version.restype = ctypes.POINTER(_Version)
        library.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
        library.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
        # a stream without a thread pool, which runs in the thread that calls it, is all that is needed
        has_streams = hasattr(library, "dnnl_threadpool_interop_stream_create")
        return library if has_streams and library.dnnl_version().contents.major == 3 else None
    except (OSError, AttributeError):
        return None


def is_available() -> bool:
    """Return whether the functions below can be used."""
    return _library() is not None


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"oneDNN failed with status {status}")


def _new(function: Callable[..., int], *arguments: object) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    _check(function(ctypes.byref(handle), *arguments))
    return handle


@_created_once
def _engine() -> ctypes.c_void_p:
    return _new(_library().dnnl_engine_create, _CPU, ctypes.c_size_t(0))


def _numbers(values: Shape) -> ctypes.Array:
    return (ctypes.c_int64 * 12)(*values)  # dnnl_dims_t


def _any_layout(shape: Shape) -> ctypes.c_void_p:
    create = _library().dnnl_memory_desc_create_with_tag
    return _new(create, len(shape), _numbers(shape), _F32, _ANY_LAYOUT)


def _plain_layout(shape: Shape) -> ctypes.c_void_p:
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    create = _library().dnnl_memory_desc_create_with_strides
    return _new(create, len(shape), _numbers(shape), _F32, _numbers(strides))


class _WorkSpace:
    """Memory for a part's operands in oneDNN's layouts; it grows to what the largest primitive needs, and stays."""

    def __init__(self):
        self._memory = np.empty(0, np.uint8)

    def addresses(self, sizes: list[int]) -> list[int]:
        """Return an aligned address for each of these numbers of bytes; earlier ones are no longer good."""
        steps = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
        if len(self._memory) < sum(steps) + _ALIGNMENT:
            self._memory = np.empty(sum(steps) + _ALIGNMENT, np.uint8)
        start = -(-self._memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        return [start + sum(steps[:i]) for i in range(len(steps))]


@_created_once
def _work_space(part: int) -> _WorkSpace:
    return _WorkSpace()


class _Operand:
    """An array of a primitive: a plain one outside, one of the primitive's own layout inside."""

    def __init__(self, shape: Shape, layout: ctypes.c_void_p, *, is_result: bool):
        library = _library()
        plain = _plain_layout(shape)
        self._is_result = is_result
        self.inner_size = 0  # bytes
        self._outer = _new(library.dnnl_memory_create, plain, _engine(), None)
        self.memory, self._reorder = self._outer, None
        if not library.dnnl_memory_desc_equal(plain, layout):
            self.inner_size = library.dnnl_memory_desc_get_size(layout)
            self.memory = _new(library.dnnl_memory_create, layout, _engine(), None)
            source, target = (layout, plain) if is_result else (plain, layout)
            create = library.dnnl_reorder_primitive_desc_create
            descriptor = _new(create, source, _engine(), target, _engine(), None)
            self._reorder = _new(library.dnnl_primitive_create, descriptor)

    def bind(self, array: np.ndarray, inner_address: int) -> None:
        """Let the outer array be this one, and the inner one, if there is one, begin at this address."""
        set_data = _library().dnnl_memory_set_data_handle
        _check(set_data(self._outer, ctypes.c_void_p(array.ctypes.data)))
        if self._reorder:
            _check(set_data(self.memory, ctypes.c_void_p(inner_address)))

    def reorder(self, stream: ctypes.c_void_p) -> None:
        """Move the content in, or out of a result."""
        if self._reorder:
            source, target = (self.memory, self._outer) if self._is_result else (self._outer, self.memory)
            _execute(self._reorder, stream, {_SRC: source, _DST: target})


def _execute(primitive: ctypes.c_void_p, stream: ctypes.c_void_p, memories: dict[int, ctypes.c_void_p]) -> None:
    arguments = (_Argument * len(memories))(*(_Argument(kind, memory) for kind, memory in memories.items()))
    _check(_library().dnnl_primitive_execute(primitive, stream, len(memories), arguments))


class _Primitive:
    """A computation on arrays of fixed shapes.

    Args:
        descriptor: of the primitive.
        shapes: shape of every operand by its kind, the result's last.
        part: number of the part of a batch that it computes; parts run at the same time.
        opaque: bytes of the workspace that goes from forward to backward, in no layout of ours; 0: there is none.
    """

    def __init__(self, descriptor: ctypes.c_void_p, shapes: dict[int, Shape], part: int, *, opaque: int = 0):
        library = _library()
        self._stream = _new(library.dnnl_threadpool_interop_stream_create, _engine(), None)
        self._primitive = _new(library.dnnl_primitive_create, descriptor)
        *_, result = shapes
        self._operands = {}
        for kind, shape in shapes.items():
            layout = ctypes.c_void_p(library.dnnl_primitive_desc_query_md(descriptor, _QUERY[kind], 0))
            self._operands[kind] = _Operand(shape, layout, is_result=kind == result)
        self._space = _work_space(part)
        if opaque:
            layout = ctypes.c_void_p(library.dnnl_primitive_desc_query_md(descriptor, _QUERY[_WORKSPACE], 0))
            if library.dnnl_memory_desc_get_size(layout) != opaque:
                raise RuntimeError("oneDNN: a workspace of another size than expected")
            self._workspace = _new(library.dnnl_memory_create, layout, _engine(), None)

    def __call__(self, *arrays: np.ndarray, workspace: np.ndarray | None = None) -> None:
        *inputs, result = self._operands.values()
        addresses = self._space.addresses([operand.inner_size for operand in self._operands.values()])
        for operand, array, address in zip(self._operands.values(), arrays, addresses, strict=True):
            operand.bind(array, address)
        for operand in inputs:
            operand.reorder(self._stream)
        memories = {kind: operand.memory for kind, operand in self._operands.items()}
        if workspace is not None:
            handle = ctypes.c_void_p(workspace.ctypes.data)
            _check(_library().dnnl_memory_set_data_handle(self._workspace, handle))
            memories[_WORKSPACE] = self._workspace
        _execute(self._primitive, self._stream, memories)
        result.reorder(self._stream)


def _output_shape(images: Shape, weight: Shape, stride: int, padding: int) -> Shape:
    return images[0], weight[0], *((side + 2 * padding - weight[2]) // stride + 1 for side in images[2:])


@_created_once
def _convolution(result: int, images: Shape, weight: Shape, stride: int, padding: int, part: int) -> _Primitive:
    """Return the convolution's primitive whose result is of kind ``result``: its output or one of its gradients."""
    library = _library()
    output = _output_shape(images, weight, stride, padding)
    x, w, y = _any_layout(images), _any_layout(weight), _any_layout(output)
    geometry = (_numbers((stride,) * 2), _numbers((0, 0)), _numbers((padding,) * 2), _numbers((padding,) * 2))
    create = library.dnnl_convolution_forward_primitive_desc_create
    forward = _new(create, _engine(), _FORWARD_TRAINING, _CONVOLUTION_DIRECT, x, w, None, y, *geometry, None)
    if result == _DST:
        return _Primitive(forward, {_SRC: images, _WEIGHTS: weight, _DST: output}, part)
    if result == _DIFF_SRC:
        create = library.dnnl_convolution_backward_data_primitive_desc_create
        descriptor = _new(create, _engine(), _CONVOLUTION_DIRECT, x, w, y, *geometry, forward, None)
        return _Primitive(descriptor, {_DIFF_DST: output, _WEIGHTS: weight, _DIFF_SRC: images}, part)
    create = library.dnnl_convolution_backward_weights_primitive_desc_create
    descriptor = _new(create, _engine(), _CONVOLUTION_DIRECT, x, w, None, y, *geometry, forward, None)
    return _Primitive(descriptor, {_SRC: images, _DIFF_DST: output, _DIFF_WEIGHTS: weight}, part)


@_created_once
def _max_pool(images: Shape, part: int) -> tuple[_Primitive, _Primitive]:
    """Return 3x3, stride 2, padding 1 max pooling and its gradient."""
    library = _library()
    output = (*images[:2], images[2] // 2, images[3] // 2)
    x, y = _plain_layout(images), _plain_layout(output)
    geometry = [_numbers(pair) for pair in ((2, 2), (3, 3), (0, 0), (1, 1), (1, 1))]
    create = library.dnnl_pooling_forward_primitive_desc_create
    forward = _new(create, _engine(), _FORWARD_TRAINING, _POOLING_MAX, x, y, *geometry, None)
    create = library.dnnl_pooling_backward_primitive_desc_create
    backward = _new(create, _engine(), _POOLING_MAX, x, y, *geometry, forward, None)
    opaque = int(np.prod(output))  # a byte says which of the nine was the maximum
    return (
        _Primitive(forward, {_SRC: images, _DST: output}, part, opaque=opaque),
        _Primitive(backward, {_DIFF_DST: output, _DIFF_SRC: images}, part, opaque=opaque),
    )


def _apply(
    result_kind: int, source: np.ndarray, weight: np.ndarray, result: np.ndarray, *, stride: int, padding: int
) -> np.ndarray:
    """Compute a convolution's output from its images, or the gradient by these from that by the output."""
    images = source if result_kind == _DST else result

    def compute(part: int, rows: slice) -> None:
        primitive = _convolution(result_kind, images[rows].shape, weight.shape, stride, padding, part)
        primitive(source[rows], weight, result[rows])

    in_parallel(compute, len(source))
    return result


def convolution(images: np.ndarray, weight: np.ndarray, *, stride: int, padding: int) -> np.ndarray:
    """Convolve float32 (N, C, H, W), contiguous, with float32 (K, C, k, k): float32 (N, K, H', W')."""
    output = take_array(_output_shape(images.shape, weight.shape, stride, padding))
    return _apply(_DST, images, weight, output, stride=stride, padding=padding)


def convolution_input_gradient(
    gradient: np.ndarray, weight: np.ndarray, image_shape: Shape, *, stride: int, padding: int
) -> np.ndarray:
    """Return the gradient by the images, float32 ``image_shape``, from that by the output, (N, K, H', W')."""
    return _apply(_DIFF_SRC, gradient, weight, take_array(image_shape), stride=stride, padding=padding)


def convolution_weight_gradient(
    images: np.ndarray, gradient: np.ndarray, weight_shape: Shape, *, stride: int, padding: int
) -> np.ndarray:
    """Return the gradient by the weight, float32 ``weight_shape``, from that by the output, (N, K, H', W').

    Every part of the batch gives a sum of its own; they are added in their order, so that the result is the same on
    the same number of cores.
    """
    sums = np.empty((len(parts_of(len(images))), *weight_shape), np.float32)

    def compute(part: int, rows: slice) -> None:
        primitive = _convolution(_DIFF_WEIGHTS, images[rows].shape, weight_shape, stride, padding, part)
        primitive(images[rows], gradient[rows], sums[part])

    in_parallel(compute, len(images))
    return sums.sum(axis=0)


def max_pool(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pool 3x3 with stride 2 and padding 1: float32 (N, C, H, W), H and W even, to (N, C, H/2, W/2).

    Returns:
        The maxima, and for each of them, uint8 of the same shape, what ``max_pool_gradient`` needs to know.
    """
    shape = (*images.shape[:2], images.shape[2] // 2, images.shape[3] // 2)
    output, places = take_array(shape), np.empty(shape, np.uint8)

    def compute(part: int, rows: slice) -> None:
        _max_pool(images[rows].shape, part)[0](images[rows], output[rows], workspace=places[rows])

    in_parallel(compute, len(images))
    return output, places


def max_pool_gradient(gradient: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the gradient by the images, float32 (N, C, H, W), from that by the maxima, (N, C, H/2, W/2)."""
    count, channels, height, width = gradient.shape
    result = take_array((count, channels, 2 * height, 2 * width))

    def compute(part: int, rows: slice) -> None:
        _max_pool(result[rows].shape, part)[1](gradient[rows], result[rows], workspace=places[rows])

    in_parallel(compute, count)
    return result
