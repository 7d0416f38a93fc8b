"""Work on a batch by all cores at once, and the memory for its results."""

import functools
import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType

import numpy as np

from ..utils import core_count

Shape = tuple[int, ...]
_CACHE_LINE = 64  # bytes
_FLOAT32 = np.dtype(np.float32)
_PADDING = _CACHE_LINE // _FLOAT32.itemsize  # floats
_LOCK, _FREE_LOCK = threading.Lock(), threading.Lock()
_OF_THREAD = threading.local()
_FREE: list[np.ndarray] = []  # float32, flat: what no ``Buffers`` holds now, the latest released last


def _mark_thread() -> None:
    _OF_THREAD.is_worker = True


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(core_count(), thread_name_prefix="part", initializer=_mark_thread)


def split_rows(count: int) -> list[slice]:
    """Divide the rows of a batch into a part for each core, none of them empty."""
    bounds = [count * i // core_count() for i in range(core_count() + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(bounds) if low < high]


def parallel_for(compute: Callable[[slice], object], count: int) -> None:
    """Call ``compute`` with the rows of every part of a batch at the same time; what it returns is not used.

    Calls from several threads take turns: one batch has all cores.

    Raises:
        RuntimeError: it is called by another one's ``compute``, whose parts have all cores and would wait for this
            one's for ever.
    """
    if hasattr(_OF_THREAD, "is_worker"):
        raise RuntimeError("parallel_for within a parallel_for")
    with _LOCK:
        parts = [_threads().submit(compute, rows) for rows in split_rows(count)]
        wait(parts)  # all of them, whatever fails: they write to memory that the caller may then release
    for part in parts:
        part.result()


def aligned_array(size: int) -> np.ndarray:
    """Return a flat, uninitialised float32 array that begins at a cache line, which is faster for AVX-512."""
    return _aligned(np.empty(size + _PADDING, np.float32), size)


def _aligned(memory: np.ndarray, size: int) -> np.ndarray:
    start = -memory.ctypes.data % _CACHE_LINE // memory.itemsize
    return memory[start : start + size]


class Buffers:
    """The owner of one computation's arrays, in memory that earlier computations have released.

    Fresh memory costs as much as what is written to it. An array may be used until it is released, or until the end of
    the ``with`` statement, which releases all that are left: the next one may lie in the same memory. What outlives the
    computation, its results, are therefore other arrays. Threads may share an owner.
    """

    def __init__(self) -> None:
        self._held: dict[int, np.ndarray] = {}  # by an array's address: the whole memory

    def __enter__(self) -> "Buffers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _FREE_LOCK:
            _FREE.extend(self._held.values())
            self._held.clear()

    def acquire(self, shape: Shape, dtype: np.dtype = _FLOAT32) -> np.ndarray:
        """Return an array of any content that begins at a cache line; float32, or of a type of fewer bytes."""
        count = math.prod(shape)
        size = -(-count * dtype.itemsize // _FLOAT32.itemsize)
        needed = size + _PADDING
        with _FREE_LOCK:
            # the smallest that will do, lest a large array find its memory taken by a small one, and of these the
            # latest released: it may still be in the cache
            fitting = [(len(memory), -i) for i, memory in enumerate(_FREE) if needed <= len(memory) <= 2 * needed]
            memory = _FREE.pop(-min(fitting)[1]) if fitting else np.empty(needed, np.float32)
            array = _aligned(memory, size).view(dtype)[:count].reshape(shape)
            self._held[array.ctypes.data] = memory
        return array

    def release(self, *arrays: np.ndarray) -> None:
        """Take back arrays that this owner has handed out, each of them once.

        Raises:
            KeyError: one of them is not held.
        """
        with _FREE_LOCK:
            _FREE.extend([self._held.pop(array.ctypes.data) for array in arrays])
