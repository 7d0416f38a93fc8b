"""Work on a batch by all cores at once, and memory for its results."""

import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

Shape = tuple[int, ...]

_LOCK, _TAKING = threading.Lock(), threading.Lock()
_ARRAYS: dict[Shape, list[np.ndarray]] = {}


@functools.cache
def core_count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(core_count(), thread_name_prefix="part")


def parts_of(count: int) -> list[slice]:
    """Divide the rows of a batch into a part for each core, none of them empty."""
    bounds = [count * i // core_count() for i in range(core_count() + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(bounds) if low < high]


def in_parallel(compute: Callable[[int, slice], None], count: int) -> None:
    """Call ``compute`` with number and rows of every part of a batch at the same time; one batch after the other."""
    with _LOCK:
        list(_threads().map(compute, *zip(*enumerate(parts_of(count)), strict=True)))


def take_array(shape: Shape) -> np.ndarray:
    """Return a float32 array of any content: one that was taken before, once nobody holds it any more.

    Fresh memory costs as much as what is written to it.
    """
    with _TAKING:
        arrays = _ARRAYS.setdefault(shape, [])
        for i in range(len(arrays)):
            if sys.getrefcount(arrays[i]) == 2:  # held by the list and by this very call
                return arrays[i]
        arrays.append(np.empty(shape, np.float32))
        return arrays[-1]
