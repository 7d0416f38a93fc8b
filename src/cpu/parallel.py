"""Work on a batch by all cores at once, and memory for its results."""

import functools
import itertools
import math
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..utils import core_count

Shape = tuple[int, ...]
_CACHE_LINE = 64  # bytes
_PADDING = _CACHE_LINE // 4  # floats
_LOCK, _TAKING = threading.Lock(), threading.Lock()
_BUFFERS: list[np.ndarray] = []  # float32, flat


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(core_count(), thread_name_prefix="part")


def split_rows(count: int) -> list[slice]:
    """Divide the rows of a batch into a part for each core, none of them empty."""
    bounds = [count * i // core_count() for i in range(core_count() + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(bounds) if low < high]


def parallel_for(compute: Callable[[slice], None], count: int) -> None:
    """Call ``compute`` with the rows of every part of a batch at the same time; one batch after the other."""
    with _LOCK:
        list(_threads().map(compute, split_rows(count)))


def aligned_array(size: int) -> np.ndarray:
    """Return a flat, uninitialised float32 array that begins at a cache line, which is faster for AVX-512."""
    return _aligned(np.empty(size + _PADDING, np.float32), size)


def _aligned(memory: np.ndarray, size: int) -> np.ndarray:
    start = -memory.ctypes.data % _CACHE_LINE // memory.itemsize
    return memory[start : start + size]


def acquire_buffer(shape: Shape) -> np.ndarray:
    """Return an uninitialised float32 array, in memory of an earlier one that nobody holds any more if there is any.

    Fresh memory costs as much as what is written to it.
    """
    size = math.prod(shape)
    needed = size + _PADDING
    with _TAKING:
        # held by the list and by this very call; the smallest that will do
        free = [i for i in range(len(_BUFFERS)) if sys.getrefcount(_BUFFERS[i]) == 2 and len(_BUFFERS[i]) >= needed]
        if not free:
            _BUFFERS.append(np.empty(needed, np.float32))
            free = [len(_BUFFERS) - 1]
        return _aligned(_BUFFERS[min(free, key=lambda i: len(_BUFFERS[i]))], size).reshape(shape)
