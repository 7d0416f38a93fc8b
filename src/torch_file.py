"""PyTorch's files of weights as numpy arrays, without PyTorch; nothing that stands in a file is executed.

``torch.save`` writes a zip archive: ``data.pkl``, a pickle that says which tensors there are, and ``data/KEY``, their
numbers. Before PyTorch 1.6 it wrote a row of pickles, and the numbers behind them. A pickle is a program for a stack
machine and may call any function of any package. The machine here has the operations that make dicts, lists, numbers
and tensors, a subset of those of ``torch.load(weights_only=True)``, and ``_CALLS`` and ``_DTYPES`` list all that a
file may name; the tests compare what both read.
"""

import dataclasses
import io
import math
import os
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from .utils import InputError, first_line

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # torch/serialization.py
# torch's class of storages -> numpy's letters; bfloat16 is the upper half of a float32
_BFLOAT16 = "bfloat16"
_DTYPES = {
    "torch.FloatStorage": "f4",
    "torch.DoubleStorage": "f8",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": _BFLOAT16,
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}


@dataclasses.dataclass(frozen=True)
class _Global:
    """What a file names; of the callables among them, only those of ``_CALLS`` are ever called."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """``count`` numbers of a type, from number ``first`` on in the ``total`` that are kept under a key."""

    key: str
    dtype: str
    total: int
    first: int
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor of a file, not yet read; offset and strides are in numbers, not in bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _sizes(value: object) -> tuple[int, ...]:
    if type(value) is not tuple or any(type(size) is not int or size < 0 for size in value):
        raise ValueError("it has a shape, stride or size that is none")
    return value


def _rebuild_tensor(storage: object, offset: object, shape: object, strides: object, *rest: object) -> _Tensor:
    """``rest``, of version 2: whether gradients are wanted, hooks, and how the numbers are to be read (conjugated)."""
    if not isinstance(storage, _Storage) or len(rest) > 3 or (len(rest) == 3 and rest[2]):
        raise ValueError("it has a tensor of a kind that is not known")
    (start,) = _sizes((offset,))
    tensor = _Tensor(storage, start, _sizes(shape), _sizes(strides))
    if len(tensor.shape) != len(tensor.strides):
        raise ValueError(f"it has a tensor of {len(tensor.shape)} axes and {len(tensor.strides)} strides")
    last = start + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if start > storage.count or (0 not in tensor.shape and last >= storage.count):
        raise ValueError(
            f"its tensor of shape {tensor.shape} reaches beyond the {storage.count} numbers of its storage"
        )
    return tensor


def _rebuild_parameter(tensor: object, _requires_grad: object, _hooks: object) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise ValueError("it has a parameter that is no tensor")
    return tensor


def _ordered_dict() -> dict:
    return {}


_CALLS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}


def _storage(identity: object, storages: dict[str, _Storage]) -> _Storage:
    """Return the storage that a file's persistent ID describes, and note its key."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ValueError("it refers to something that is no storage")
    _, kind, key, _device, count = identity[:5]
    if not isinstance(kind, _Global) or kind.name not in _DTYPES or not isinstance(key, str):
        raise ValueError(f"it has a storage of another type than {', '.join(_DTYPES)}")
    (total,) = _sizes((count,))
    whole = _Storage(key, _DTYPES[kind.name], total, 0, total)
    if storages.setdefault(key, whole) != whole:
        raise ValueError(f"its storage {key} is described twice, differently")
    view = identity[5] if len(identity) == 6 else None
    if view is None:
        return whole
    _view_key, first, count = view
    first, count = _sizes((first, count))
    if first + count > total:
        raise ValueError(f"its view of storage {key} reaches beyond its {total} numbers")
    return dataclasses.replace(whole, first=first, count=count)


def _is_key(value: object) -> bool:
    # a tuple that holds itself many times takes for ever to hash, and a deep one the stack
    return value is None or isinstance(value, str | int | float)


def _unpickle(file: IO[bytes], storages: dict[str, _Storage]) -> Any:
    """Run one pickle and return what it makes; the file then stands behind it."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # what lies under each mark
    memo: dict[int, Any] = {}

    def set_items(pairs: list[Any]) -> None:
        owner = stack[-1]
        if not isinstance(owner, dict) or len(pairs) % 2 or not all(map(_is_key, pairs[::2])):
            raise ValueError("it has entries of what is no dict, or under what is no name")
        owner.update(zip(pairs[::2], pairs[1::2], strict=True))

    def extend(items: list[Any]) -> None:
        if not isinstance(stack[-1], list):
            raise ValueError("it has items of what is no list")
        stack[-1].extend(items)

    argument: Any
    for operation, argument, _ in pickletools.genops(file):
        match operation.name:
            case "PROTO":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[operation.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINSTRING":
                stack.append(argument)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[operation.name])
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE" | "SETITEMS" | "APPENDS":
                items, stack = stack, below.pop()
                if operation.name == "TUPLE":
                    stack.append(tuple(items))
                else:
                    (set_items if operation.name == "SETITEMS" else extend)(items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(operation.name[-1])
                if len(stack) < count:
                    raise IndexError("it has a tuple of more than there is")
                stack[-count:] = [tuple(stack[-count:])]
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_items([key, value])
            case "APPEND":
                extend([stack.pop()])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                name = argument.replace(" ", ".")
                if name not in _CALLS and name not in _DTYPES:
                    raise ValueError(f"it holds {name}, which is no weights; save the model's state_dict() alone")
                stack.append(_Global(name))
            case "REDUCE":
                arguments = stack.pop()
                if not isinstance(stack[-1], _Global) or stack[-1].name not in _CALLS or type(arguments) is not tuple:
                    raise ValueError("it calls what is no function")
                stack[-1] = _CALLS[stack[-1].name](*arguments)
            case "BUILD":  # attributes of an OrderedDict: versions of modules, which nothing here asks for
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise ValueError("it has attributes of what takes none")
            case "BINPERSID":
                stack[-1] = _storage(stack[-1], storages)
            case "STOP":
                return stack.pop()
            case other:
                raise ValueError(f"its pickle has the operation {other}, which no weights need")
    raise EOFError("its pickle has no end")


def _numbers(raw: bytes, storage: _Storage, order: str) -> np.ndarray:
    """Return the numbers of a storage as float32; order: "<" or ">", the first byte is the lowest or the highest."""
    if storage.dtype == _BFLOAT16:
        halves = np.frombuffer(raw, np.dtype(f"{order}u2"))
        return (halves.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, as with PyTorch
        return np.frombuffer(raw, np.dtype(f"{order}{storage.dtype}")).astype(np.float32)


def _bytes_of(storage: _Storage) -> int:
    return storage.total * (2 if storage.dtype == _BFLOAT16 else np.dtype(storage.dtype).itemsize)


def _read_zip(file: IO[bytes], size: int) -> tuple[Any, dict[str, np.ndarray]]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise ValueError("it is compressed, which PyTorch's files are not")
        if sum(entry.file_size for entry in archive.infolist()) > size:
            raise ValueError("its parts are larger than the whole")
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"it is a zip archive with {len(pickles)} data.pkl, expected one")
        folder = pickles[0].removesuffix("data.pkl")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in entries else b"little"
        if order not in (b"little", b"big"):
            raise ValueError(f"its byte order is {order!r:.40}, expected little or big")
        storages: dict[str, _Storage] = {}
        content = _unpickle(io.BytesIO(archive.read(pickles[0])), storages)
        numbers = {}
        for key, storage in storages.items():
            raw = archive.read(f"{folder}data/{key}")  # with its CRC-32
            if len(raw) != _bytes_of(storage):
                raise ValueError(f"its storage {key} has {len(raw)} bytes, expected {_bytes_of(storage)}")
            numbers[key] = _numbers(raw, storage, "<" if order == b"little" else ">")
        return content, numbers


def _read_legacy(file: IO[bytes], size: int) -> tuple[Any, dict[str, np.ndarray]]:
    storages: dict[str, _Storage] = {}
    if _unpickle(file, {}) != _LEGACY_MAGIC or _unpickle(file, {}) != _LEGACY_PROTOCOL:
        raise ValueError("it is neither of the two forms that torch.save writes")
    _unpickle(file, {})  # about the machine; the numbers have the lowest byte first on all of them
    content = _unpickle(file, storages)
    numbers = {}
    for key in _unpickle(file, {}):
        storage = storages[key]
        (total,) = struct.unpack("<q", file.read(8))
        wanted = _bytes_of(storage)
        if total != storage.total or wanted > size - file.tell():
            raise ValueError(f"its storage {key} has {total} numbers, or is cut off; expected {storage.total}")
        numbers[key] = _numbers(file.read(wanted), storage, "<")
    if missing := storages.keys() - numbers.keys():
        raise ValueError(f"its storage {min(missing)} is missing")
    return content, numbers


def _array(tensor: _Tensor, numbers: dict[str, np.ndarray]) -> np.ndarray:
    storage = tensor.storage
    held = numbers[storage.key][storage.first : storage.first + storage.count][tensor.offset :]
    strides = [stride * held.itemsize for stride in tensor.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(held, tensor.shape, strides)).reshape(tensor.shape)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read a state_dict, or the "state_dict" entry of a training checkpoint, as float32 arrays by name.

    Both forms of ``torch.save`` are read, and float16, bfloat16, float64, integers and booleans are converted as
    ``tensor.float()`` does. Not read: sparse, quantised and complex tensors, tensors of subclasses, whole models.

    Raises:
        InputError: the file is damaged or holds something else.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            is_zip = file.read(4) == _ZIP_MAGIC
            file.seek(0)
            content, numbers = (_read_zip if is_zip else _read_legacy)(file, size)
    except Exception as error:  # zipfile, pickletools and numpy raise whatever they come upon
        raise InputError(f"{path}: not a readable file of PyTorch weights: {first_line(error)}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: expected a state_dict, found {_kind(content)}")
    tensors = {}
    for name, value in content.items():
        if not isinstance(value, _Tensor):
            raise InputError(f"{path}: expected a state_dict of tensors, entry {name!r} is {_kind(value)}")
        tensors[str(name)] = value
    # a tensor may repeat a number along an axis, of any length
    if sum(math.prod(tensor.shape) for tensor in tensors.values()) > 4 * size + 2**24:
        raise InputError(f"{path}: its tensors repeat their numbers too often: expected weights")
    return {name: _array(tensor, numbers) for name, tensor in tensors.items()}


def _kind(value: object) -> str:
    return "a tensor" if isinstance(value, _Tensor) else type(value).__name__
