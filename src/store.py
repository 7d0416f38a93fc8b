"""Arrays that live in memory up to a budget and in an unlinked, memory-mapped file beyond it."""

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np

from src.utils import LOGGER, InputError


def allocate(shape: tuple[int, ...], dtype: type, budget_bytes: int | None, spill_folder: Path | None) -> np.ndarray:
    """Return an uninitialised array.

    Beyond ``budget_bytes`` (None: no limit) it is backed by a file in ``spill_folder`` that has no name from the
    start, so that the system frees it when the process ends, however it ends.

    Raises:
        InputError: the folder has no room for the file.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if budget_bytes is None or size <= budget_bytes:
        return np.empty(shape, dtype)
    LOGGER.info("cache: %.1f GB is over the budget, memory-mapped in %s", size / 1e9, spill_folder)
    try:
        with tempfile.TemporaryFile(dir=spill_folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, not a SIGBUS on a later write
            memory = mmap.mmap(file.fileno(), size)
            # rows are read in any order: what the system would read ahead of each is a hundred times the row
            memory.madvise(mmap.MADV_RANDOM)
            return np.frombuffer(memory, dtype).reshape(shape)
    except OSError as error:
        raise InputError(
            f"{spill_folder}: cannot hold a cache file of {size / 1e9:.1f} GB: {error.strerror}"
        ) from error
