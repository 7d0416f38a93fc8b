"""The oneDNN library inside MindSpore, on numpy arrays, in the thread that calls.

MindSpore's CPU operators hand oneDNN arrays in the order (N, C, H, W) and take what it has for that order. On AVX-512
that is a reference convolution, a hundred times too slow; held to AVX2 it is a third of what the processor can do. Here
images stand in the order (N, H, W, C), for which oneDNN has fast kernels of every kind, and weights in the order
that each primitive asks for.

The functions are oneDNN's C interface, version 3 (https://uxlfoundation.github.io/oneDNN). No mindspore import here.
A shape is always (N, C, H, W), as oneDNN counts, and an array of it (N, H, W, C). Arrays are contiguous and float32,
or, those that have the axes N, H and W, all bfloat16. numpy has no such type: an array of ``BFLOAT16``, uint16, holds
its bits. Weights, vectors and sums are float32 all the same; a convolution rounds its weight for itself.
"""

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .parallel import Shape, aligned_array

# dnnl_types.h
_CPU, _ANY_LAYOUT = 1, 1
_BF16, _F32 = 2, 3
_FORWARD_TRAINING, _FORWARD_INFERENCE, _BACKWARD = 64, 96, 128
_CONVOLUTION_DIRECT, _RELU, _RELU_BY_RESULT, _POOLING_MAX, _ADD, _MULTIPLY = 1, 0x20, 0x100, 0x1FF, 0x1FFF0, 0x1FFF1
_GIVEN_STATISTICS, _SCALE_AND_SHIFT = 1, 2 | 4
_SRC, _SRC_1, _DST, _WEIGHTS, _BIAS, _MEAN, _VARIANCE, _SCALE, _SHIFT, _WORKSPACE = 1, 2, 17, 33, 41, 49, 50, 51, 52, 64
_DIFF_SRC, _DIFF_DST, _DIFF_WEIGHTS, _DIFF_SCALE, _DIFF_SHIFT, _POST_OP = 129, 145, 161, 255, 256, 32768
_QUERY = {_SRC: 129, _DIFF_SRC: 130, _WEIGHTS: 131, _DIFF_WEIGHTS: 132, _DST: 133, _DIFF_DST: 134, _WORKSPACE: 135}
_AVX512_BF16 = 0xE7  # the bits of dnnl_cpu_isa_t that every processor with fast bfloat16 has, those with AMX, too
FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(np.uint16)
_TYPES = {FLOAT32: _F32, BFLOAT16: _BF16}
_CREATION = threading.RLock()
_OF_THREAD = threading.local()


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_int), ("minor", ctypes.c_int), ("patch", ctypes.c_int))


class _Argument(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("memory", ctypes.c_void_p))


@functools.cache
def _load_library() -> ctypes.CDLL | None:
    mindspore = find_spec("mindspore")
    if mindspore is None or not mindspore.submodule_search_locations or sys.platform != "linux":
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
    """Return whether MindSpore has a oneDNN of a version whose interface is known here: what is below needs it."""
    with _CREATION:
        return _load_library() is not None


def no_bfloat16_reason() -> str | None:
    """Return why bfloat16 is not fast here, or None where it is: where oneDNN uses AVX512_BF16 or AMX.

    oneDNN reads what it is held to from the environment once, at the latest now.
    """
    if not is_available():
        return "there is no oneDNN of version 3 in MindSpore"
    if _library().dnnl_get_effective_cpu_isa() & _AVX512_BF16 == _AVX512_BF16:
        return None
    limits = [f"{name}={os.environ[name]}" for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA") if name in os.environ]
    held = f", or {limits[0]} keeps it from them" if limits else ""
    return f"oneDNN uses neither AVX512_BF16 nor AMX: the processor lacks them{held}"


def _library() -> ctypes.CDLL:
    with _CREATION:
        library = _load_library()
    if library is None:
        raise RuntimeError("there is no oneDNN of version 3 in MindSpore")
    return library


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"oneDNN failed with status {status}")


def _new(function: Callable[..., int], *arguments: object) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    _check(function(ctypes.byref(handle), *arguments))
    return handle


@functools.cache
def _create_engine() -> ctypes.c_void_p:
    return _new(_library().dnnl_engine_create, _CPU, ctypes.c_size_t(0))


def _engine() -> ctypes.c_void_p:
    with _CREATION:  # two of them would have oneDNN refuse what belongs to the other's
        return _create_engine()


def _once_a_thread(create: Callable[..., "_Primitive"]) -> Callable[..., "_Primitive"]:
    """Decorate a function to create one thing per thread and arguments: a primitive's operands are its own."""

    @functools.wraps(create)
    def find(*arguments: object) -> "_Primitive":
        found: dict[tuple[object, ...], _Primitive] = _OF_THREAD.__dict__.setdefault("primitives", {})
        key = create.__name__, *arguments
        if key not in found:
            found[key] = create(*arguments)
        return found[key]

    return find


def _numbers(values: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int64 * 12)(*values)  # dnnl_dims_t


def _strided(shape: Shape, order: Shape, dtype: np.dtype) -> ctypes.c_void_p:
    """Describe a contiguous array whose axes stand in this order in memory."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    create = _library().dnnl_memory_desc_create_with_strides
    return _new(create, len(shape), _numbers(shape), _TYPES[dtype], _numbers(strides))


def _channels_last(shape: Shape, dtype: np.dtype = FLOAT32) -> ctypes.c_void_p:
    return _strided(shape, (0, 2, 3, 1), dtype)


def _plain(shape: Shape, dtype: np.dtype = FLOAT32) -> ctypes.c_void_p:
    return _strided(shape, tuple(range(len(shape))), dtype)


def _any_layout(shape: Shape, dtype: np.dtype = FLOAT32) -> ctypes.c_void_p:
    create = _library().dnnl_memory_desc_create_with_tag
    return _new(create, len(shape), _numbers(shape), _TYPES[dtype], _ANY_LAYOUT)


def _per_channel(channels: int) -> ctypes.c_void_p:
    return _plain((1, channels, 1, 1))


class Packed(NamedTuple):
    """An array in the order that a primitive asks for, and its memory."""

    array: np.ndarray


class _Operand:
    """An array of a primitive: one of ours outside and, where it differs, one of its own order and type inside."""

    def __init__(self, outer: ctypes.c_void_p, inner: ctypes.c_void_p | None = None, *, is_result: bool = False):
        library = _library()
        self.is_result = is_result
        self._outer = _new(library.dnnl_memory_create, outer, _engine(), None)
        self.memory, self.inner_size = self._outer, 0  # floats
        if inner is not None and not library.dnnl_memory_desc_equal(outer, inner):
            self.inner_size = -(-library.dnnl_memory_desc_get_size(inner) // 4)
            self.memory = _new(library.dnnl_memory_create, inner, _engine(), None)
            source, target = (inner, outer) if is_result else (outer, inner)
            self._reorder = _reorder(source, target)

    def bind(self, array: np.ndarray | Packed, inner: np.ndarray) -> None:
        """Let the operand be this array; one that is no result is brought into the primitive's order, in ``inner``."""
        if isinstance(array, Packed):
            _point(self.memory, array.array)
            return
        _point(self._outer, array)
        if self.inner_size:
            _point(self.memory, inner)
            if not self.is_result:
                _execute(self._reorder, {_SRC: self._outer, _DST: self.memory})

    def give(self) -> None:
        """Bring a result into the order of the array outside."""
        if self.inner_size and self.is_result:
            _execute(self._reorder, {_SRC: self.memory, _DST: self._outer})

    def pack(self, array: np.ndarray) -> Packed | np.ndarray:
        """Return an array in the primitive's order."""
        if not self.inner_size:
            return array
        packed = aligned_array(self.inner_size)
        self.bind(array, packed)
        return Packed(packed)


def _point(memory: ctypes.c_void_p, array: np.ndarray) -> None:
    _check(_library().dnnl_memory_set_data_handle(memory, ctypes.c_void_p(array.ctypes.data)))


def _reorder(source: ctypes.c_void_p, target: ctypes.c_void_p) -> ctypes.c_void_p:
    library = _library()
    create = library.dnnl_reorder_primitive_desc_create
    return _new(library.dnnl_primitive_create, _new(create, source, _engine(), target, _engine(), None))


def _work_space(size: int) -> np.ndarray:
    """Return this thread's memory of at least so many floats; whatever was in it is no longer needed."""
    found = getattr(_OF_THREAD, "work_space", None)
    if found is None or len(found) < size:
        _OF_THREAD.work_space = found = aligned_array(size)
    return found


def _execute(primitive: ctypes.c_void_p, memories: dict[int, ctypes.c_void_p]) -> None:
    if not hasattr(_OF_THREAD, "stream"):
        _OF_THREAD.stream = _new(_library().dnnl_threadpool_interop_stream_create, _engine(), None)
    arguments = (_Argument * len(memories))(*(_Argument(kind, memory) for kind, memory in memories.items()))
    _check(_library().dnnl_primitive_execute(primitive, _OF_THREAD.stream, len(memories), arguments))


class _Primitive:
    """A computation on arrays of fixed shapes. Args: it, and its operands by kind, in the order of a call."""

    def __init__(self, primitive: ctypes.c_void_p, operands: dict[int, _Operand]):
        self._primitive = primitive
        self.operands = operands
        self._memories = {kind: operand.memory for kind, operand in operands.items()}
        sizes = [-(-operand.inner_size // 16) * 16 for operand in operands.values()]  # whole cache lines
        self._starts, self._inner_size = list(accumulate(sizes, initial=0))[:-1], sum(sizes)

    def __call__(self, *arrays: np.ndarray | Packed) -> None:
        inner = _work_space(self._inner_size)
        for operand, array, start in zip(self.operands.values(), arrays, self._starts, strict=True):
            operand.bind(array, inner[start:])
        _execute(self._primitive, self._memories)
        for operand in self.operands.values():
            operand.give()


def _primitive(descriptor: ctypes.c_void_p) -> ctypes.c_void_p:
    return _new(_library().dnnl_primitive_create, descriptor)


def _attributes(*additions: ctypes.c_void_p, relu: bool) -> tuple[ctypes.c_void_p, dict[int, _Operand]]:
    """Describe what is done to a result: arrays of these layouts are added, then ReLU; return their operands, too."""
    library = _library()
    steps, operands = _new(library.dnnl_post_ops_create), {}
    for i, layout in enumerate(additions):
        _check(library.dnnl_post_ops_append_binary(steps, _ADD, layout))
        operands[_POST_OP * (i + 1) | _SRC_1] = _Operand(layout)
    if relu:
        _check(library.dnnl_post_ops_append_eltwise(steps, _RELU, ctypes.c_float(0), ctypes.c_float(0)))
    attributes = _new(library.dnnl_primitive_attr_create)
    _check(library.dnnl_primitive_attr_set_post_ops(attributes, steps))
    return attributes, operands


class Geometry(NamedTuple):
    """A convolution's weight shape (K, C, k, k), stride and padding."""

    weight: Shape
    stride: int
    padding: int

    def output(self, images: Shape) -> Shape:
        """Return the shape of the output from that of the images."""
        sides = ((side + 2 * self.padding - self.weight[2]) // self.stride + 1 for side in images[2:])
        return images[0], self.weight[0], *sides

    def arguments(self) -> tuple[ctypes.Array, ...]:
        """Return strides, dilations, padding before and after as oneDNN takes them."""
        padding = _numbers((self.padding,) * 2)
        return _numbers((self.stride,) * 2), _numbers((0, 0)), padding, padding


def _images_layout(shape: Shape, dtype: np.dtype) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
    """Return the layout of a convolution's images outside and inside: pictures, of three channels, come as planes."""
    if shape[1] <= 3:
        return _plain(shape, dtype), _any_layout(shape, dtype)
    return _channels_last(shape, dtype), _channels_last(shape, dtype)


def _inner(descriptor: ctypes.c_void_p, kind: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(_library().dnnl_primitive_desc_query_md(descriptor, _QUERY[kind], 0))


def _convolution_descriptor(
    images: Shape,
    geometry: Geometry,
    dtype: np.dtype,
    prop: int,
    bias: ctypes.c_void_p | None,
    attributes: ctypes.c_void_p | None,
) -> ctypes.c_void_p:
    create = _library().dnnl_convolution_forward_primitive_desc_create
    y = _channels_last(geometry.output(images), dtype)
    layouts = _images_layout(images, dtype)[1], _any_layout(geometry.weight, dtype), bias, y
    return _new(create, _engine(), prop, _CONVOLUTION_DIRECT, *layouts, *geometry.arguments(), attributes)


@_once_a_thread
def _convolution(
    images: Shape, geometry: Geometry, dtype: np.dtype, has_bias: bool, has_shortcut: bool, relu: bool
) -> _Primitive:
    output = _channels_last(geometry.output(images), dtype)
    bias = _plain(geometry.weight[:1]) if has_bias else None
    attributes, added = _attributes(*([output] if has_shortcut else []), relu=relu)
    prop = _FORWARD_INFERENCE if has_bias else _FORWARD_TRAINING
    descriptor = _convolution_descriptor(images, geometry, dtype, prop, bias, attributes)
    operands = {
        _SRC: _Operand(_images_layout(images, dtype)[0], _inner(descriptor, _SRC)),
        _WEIGHTS: _Operand(_plain(geometry.weight), _inner(descriptor, _WEIGHTS)),
        **({} if bias is None else {_BIAS: _Operand(bias)}),
        **added,
        _DST: _Operand(output, is_result=True),
    }
    return _Primitive(_primitive(descriptor), operands)


@_once_a_thread
def _convolution_gradient(kind: int, images: Shape, geometry: Geometry, dtype: np.dtype) -> _Primitive:
    library = _library()
    outer, x = _images_layout(images, dtype)
    w = _any_layout(geometry.weight, dtype if kind == _DIFF_SRC else FLOAT32)
    y = _channels_last(geometry.output(images), dtype)
    forward = _convolution_descriptor(images, geometry, dtype, _FORWARD_TRAINING, None, None)
    if kind == _DIFF_SRC:
        create = library.dnnl_convolution_backward_data_primitive_desc_create
        descriptor = _new(create, _engine(), _CONVOLUTION_DIRECT, x, w, y, *geometry.arguments(), forward, None)
        weight = _Operand(_plain(geometry.weight), _inner(descriptor, _WEIGHTS))
        return _Primitive(
            _primitive(descriptor),
            {_DIFF_DST: _Operand(y), _WEIGHTS: weight, _DIFF_SRC: _Operand(outer, is_result=True)},
        )
    create = library.dnnl_convolution_backward_weights_primitive_desc_create
    descriptor = _new(create, _engine(), _CONVOLUTION_DIRECT, x, w, None, y, *geometry.arguments(), forward, None)
    weight = _Operand(_plain(geometry.weight), _inner(descriptor, _DIFF_WEIGHTS), is_result=True)
    source = _Operand(outer, _inner(descriptor, _SRC))
    return _Primitive(_primitive(descriptor), {_SRC: source, _DIFF_DST: _Operand(y), _DIFF_WEIGHTS: weight})


def _binary(
    kind: int,
    layout: ctypes.c_void_p,
    other: ctypes.c_void_p,
    attributes: ctypes.c_void_p | None = None,
    added: dict[int, _Operand] | None = None,
) -> _Primitive:
    create = _library().dnnl_binary_primitive_desc_create
    descriptor = _new(create, _engine(), kind, layout, other, layout, attributes)
    operands = {_SRC: _Operand(layout), _SRC_1: _Operand(other), **(added or {}), _DST: _Operand(layout)}
    return _Primitive(_primitive(descriptor), operands)


@_once_a_thread
def _affine(shape: Shape, dtype: np.dtype, has_addition: bool, relu: bool) -> _Primitive:
    """Return x * scale + shift (+ addition), then ReLU if asked for."""
    layout, vector = _channels_last(shape, dtype), _per_channel(shape[1])
    return _binary(_MULTIPLY, layout, vector, *_attributes(vector, *([layout] if has_addition else []), relu=relu))


@_once_a_thread
def _sum(shape: Shape, dtype: np.dtype) -> _Primitive:
    layout = _channels_last(shape, dtype)
    return _binary(_ADD, layout, layout)


@_once_a_thread
def _relu_gradient(shape: Shape, dtype: np.dtype) -> _Primitive:
    library, layout, zero = _library(), _channels_last(shape, dtype), ctypes.c_float(0)
    create = library.dnnl_eltwise_forward_primitive_desc_create
    forward = _new(create, _engine(), _FORWARD_TRAINING, _RELU_BY_RESULT, layout, layout, zero, zero, None)
    create = library.dnnl_eltwise_backward_primitive_desc_create
    descriptor = _new(create, _engine(), _RELU_BY_RESULT, layout, layout, layout, zero, zero, forward, None)
    return _Primitive(_primitive(descriptor), {kind: _Operand(layout) for kind in (_DST, _DIFF_DST, _DIFF_SRC)})


@_once_a_thread
def _norm_gradient(shape: Shape, dtype: np.dtype, eps: float) -> _Primitive:
    """Return the gradient of batch norm, as if its statistics were constants."""
    library, layout, vector = _library(), _channels_last(shape, dtype), _plain(shape[1:2])
    flags, epsilon = _GIVEN_STATISTICS | _SCALE_AND_SHIFT, ctypes.c_float(eps)
    create = library.dnnl_batch_normalization_forward_primitive_desc_create
    forward = _new(create, _engine(), _FORWARD_TRAINING, layout, layout, epsilon, flags, None)
    create = library.dnnl_batch_normalization_backward_primitive_desc_create
    descriptor = _new(create, _engine(), _BACKWARD, layout, layout, layout, epsilon, flags, forward, None)
    kinds = {_SRC: layout, _DIFF_DST: layout, _MEAN: vector, _VARIANCE: vector, _SCALE: vector}
    kinds |= {_DIFF_SRC: layout, _DIFF_SCALE: vector, _DIFF_SHIFT: vector}
    return _Primitive(_primitive(descriptor), {kind: _Operand(one) for kind, one in kinds.items()})


@_once_a_thread
def _moments(shape: Shape, dtype: np.dtype) -> _Primitive:
    """Return batch norm in training, for the sake of the statistics that it takes: its result is of no use."""
    layout, vector = _channels_last(shape, dtype), _plain(shape[1:2])
    create = _library().dnnl_batch_normalization_forward_primitive_desc_create
    descriptor = _new(create, _engine(), _FORWARD_TRAINING, layout, layout, ctypes.c_float(1), 0, None)
    kinds = {_SRC: layout, _DST: layout, _MEAN: vector, _VARIANCE: vector}
    return _Primitive(_primitive(descriptor), {kind: _Operand(one) for kind, one in kinds.items()})


@_once_a_thread
def _max_pool(images: Shape, dtype: np.dtype, is_gradient: bool) -> _Primitive:
    """Return 3x3, stride 2, padding 1 max pooling or its gradient; its workspace is a byte for each maximum."""
    library = _library()
    output = (*images[:2], images[2] // 2, images[3] // 2)
    x, y = _channels_last(images, dtype), _channels_last(output, dtype)
    geometry = [_numbers(pair) for pair in ((2, 2), (3, 3), (0, 0), (1, 1), (1, 1))]
    create = library.dnnl_pooling_forward_primitive_desc_create
    descriptor = _new(create, _engine(), _FORWARD_TRAINING, _POOLING_MAX, x, y, *geometry, None)
    workspace = _inner(descriptor, _WORKSPACE)
    if library.dnnl_memory_desc_get_size(workspace) != np.prod(output):
        raise RuntimeError("oneDNN: a workspace of another size than expected")
    kinds = {_SRC: x, _DST: y}
    if is_gradient:
        create = library.dnnl_pooling_backward_primitive_desc_create
        descriptor = _new(create, _engine(), _POOLING_MAX, x, y, *geometry, descriptor, None)
        kinds = {_DIFF_DST: y, _DIFF_SRC: x}
    return _Primitive(
        _primitive(descriptor), {kind: _Operand(one) for kind, one in (kinds | {_WORKSPACE: workspace}).items()}
    )


@_once_a_thread
def _reordering(
    source: Callable[[Shape, np.dtype], ctypes.c_void_p],
    target: Callable[[Shape, np.dtype], ctypes.c_void_p],
    shape: Shape,
    from_type: np.dtype,
    to_type: np.dtype,
) -> _Primitive:
    layouts = source(shape, from_type), target(shape, to_type)
    return _Primitive(
        _reorder(*layouts), {kind: _Operand(one) for kind, one in zip((_SRC, _DST), layouts, strict=True)}
    )


def shape_of(array: np.ndarray) -> Shape:
    """Return the shape (N, C, H, W) of an array (N, H, W, C)."""
    count, height, width, channels = array.shape
    return count, channels, height, width


def array_shape(shape: Shape) -> Shape:
    """Return the shape (N, H, W, C) of an array of shape (N, C, H, W)."""
    count, channels, height, width = shape
    return count, height, width, channels


def images_shape(images: np.ndarray, geometry: Geometry) -> Shape:
    """Return the shape (N, C, H, W) of what a convolution takes."""
    return images.shape if geometry.weight[1] <= 3 else shape_of(images)


def pack_weight(
    weight: np.ndarray, images: Shape, geometry: Geometry, *, shortcut: bool, relu: bool
) -> Packed | np.ndarray:
    """Return a weight in the order that ``convolution`` asks for with a bias, for images of a shape."""
    return _convolution(images, geometry, FLOAT32, True, shortcut, relu).operands[_WEIGHTS].pack(weight)


def convolution(
    images: np.ndarray,
    weight: np.ndarray | Packed,
    result: np.ndarray,
    geometry: Geometry,
    *,
    bias: np.ndarray | None = None,
    shortcut: np.ndarray | None = None,
    relu: bool = False,
) -> None:
    """Convolve, add bias and shortcut and take ReLU, as far as they are given.

    Args:
        images: (N, H, W, C), or pictures (N, 3, H, W).
        weight: (K, C, k, k), or packed.
        result: (N, H', W', K), is written.
        bias: (K,).
        shortcut: like ``result``.
    """
    shape, form = images_shape(images, geometry), (bias is not None, shortcut is not None, relu)
    primitive = _convolution(shape, geometry, images.dtype, *form)
    given = [array for array in (bias, shortcut) if array is not None]
    primitive(images, weight, *given, result)


def grad_input(gradient: np.ndarray, weight: np.ndarray, result: np.ndarray, geometry: Geometry) -> None:
    """Write the gradient with respect to a convolution's input, (N, H, W, C), into ``result``.

    Args:
        gradient: with respect to its output.
    """
    _convolution_gradient(_DIFF_SRC, shape_of(result), geometry, gradient.dtype)(gradient, weight, result)


def grad_weight(images: np.ndarray, gradient: np.ndarray, result: np.ndarray, geometry: Geometry) -> None:
    """Write the gradient with respect to a convolution's weight, (K, C, k, k), into ``result``.

    Args:
        gradient: with respect to its output.
    """
    primitive = _convolution_gradient(_DIFF_WEIGHTS, images_shape(images, geometry), geometry, images.dtype)
    primitive(images, gradient, result)


def affine(
    x: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    result: np.ndarray,
    *,
    addition: np.ndarray | None = None,
    relu: bool = False,
) -> None:
    """Write x * scale + shift (+ addition), then ReLU if asked for, into ``result``; scale and shift are (C,)."""
    given = [array for array in (addition,) if array is not None]
    _affine(shape_of(x), x.dtype, bool(given), relu)(x, scale, shift, *given, result)


def add(into: np.ndarray, other: np.ndarray) -> None:
    """Add ``other`` to ``into``, in place."""
    _sum(shape_of(into), into.dtype)(into, other, into)


def relu_gradient(output: np.ndarray, gradient: np.ndarray) -> None:
    """Turn the gradient with respect to ReLU's output into that with respect to its input, in place."""
    _relu_gradient(shape_of(output), output.dtype)(output, gradient, gradient)


def norm_gradient(
    x: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    gamma: np.ndarray,
    result: np.ndarray,
    sums: np.ndarray,
    *,
    eps: float,
) -> None:
    """Write batch norm's gradients, its statistics taken for constants: with respect to x into ``result``.

    Args:
        sums: (2, C), is written: the gradients with respect to gamma and to beta.
    """
    _norm_gradient(shape_of(x), x.dtype, eps)(x, gradient, mean, variance, gamma, result, *sums)


def moments(x: np.ndarray, waste: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> None:
    """Write mean and biased variance of each channel of x, (N, H, W, C), into ``mean`` and ``variance``, (C,).

    Args:
        waste: like x, is written over.
    """
    _moments(shape_of(x), x.dtype)(x, waste, mean, variance)


def max_pool(images: np.ndarray, result: np.ndarray, places: np.ndarray) -> None:
    """Pool 3x3 with stride 2 and padding 1: (N, H, W, C), H and W even, to (N, H/2, W/2, C).

    Args:
        places: uint8, like ``result``; is written: what ``max_pool_gradient`` needs to know of each maximum.
    """
    _max_pool(shape_of(images), images.dtype, False)(images, result, places)


def max_pool_gradient(gradient: np.ndarray, places: np.ndarray, result: np.ndarray) -> None:
    """Write the gradient with respect to the input into ``result`` from that with respect to the maxima."""
    _max_pool(shape_of(result), result.dtype, True)(gradient, result, places)


def nhwc_to_nchw(x: np.ndarray, result: np.ndarray) -> None:
    """Write (N, H, W, C) as (N, C, H, W), each in its own type."""
    _reordering(_channels_last, _plain, shape_of(x), x.dtype, result.dtype)(x, result)


def nchw_to_nhwc(x: np.ndarray, result: np.ndarray) -> None:
    """Write (N, C, H, W) as (N, H, W, C), each in its own type."""
    _reordering(_plain, _channels_last, x.shape, x.dtype, result.dtype)(x, result)


def convert(x: np.ndarray, result: np.ndarray) -> None:
    """Write an array of four axes in the other's type: as bfloat16 rounded to the nearest, the even one of two."""
    _reordering(_plain, _plain, x.shape, x.dtype, result.dtype)(x, result)
