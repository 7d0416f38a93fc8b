"""Samples -> arrays: decoded pictures and masks in memory or, beyond a budget, in a file mapped into it."""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..utils import LOGGER, InputError, command, core_count
from .images import (
    Source,
    check_contains,
    ignore_outside,
    load_image,
    load_mask_and_doubts,
    picture_size,
    source_name,
)
from .samples import UNLABELLED, Sample
from .view import Area, AutoSize, Box, ImageSize, View, keep_aspect

Loaded = TypeVar("Loaded")


def full_batches(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Divide rows into batches of one size, so that one compilation of the network serves them all.

    Yields:
        Row numbers, int64 (``batch_size``,), and how many of them, from the first on, are new: the last batch is
        filled up with rows from the beginning.
    """
    for start in range(0, count, batch_size):
        yield np.arange(start, start + batch_size) % count, min(batch_size, count - start)


def told_of_check(load: Callable[[Sample], Loaded]) -> Callable[[Sample], Loaded]:
    """Return the same function, whose errors say how to find all files of the data set that are wrong, at once."""

    def load_or_tell(sample: Sample) -> Loaded:
        try:
            return load(sample)
        except InputError as error:
            if sample.defect == UNLABELLED:
                raise
            # <root>/<category>/<train or test>/<defect>/<image>
            root = sample.path.parents[3] if len(sample.path.parents) > 3 else Path("DATASET_PATH")
            raise InputError(f"{error}; {command('dataset')} --check {root} lists all such files at once") from error

    return load_or_tell


def decode_images(
    samples: list[Sample], *, view: View, budget_bytes: int | None = None, spill_folder: Path | None = None
) -> np.ndarray:
    """Decode, cut and resize all pictures once, over all cores: uint8 (N, H, W, 3).

    Args:
        budget_bytes: what may stay in memory; a larger array is memory-mapped in ``spill_folder``. None: no limit.

    Raises:
        InputError: a picture is unreadable or does not contain the region of interest; the message names it.
    """
    images = allocate((len(samples), *view.size, 3), np.uint8, budget_bytes, spill_folder)
    load = told_of_check(lambda sample: load_image(sample.path, view))
    with ThreadPoolExecutor(core_count()) as pool:
        for i, image in enumerate(pool.map(load, samples)):
            images[i] = image
    return images


def decode_masks(samples: list[Sample], *, view: View) -> np.ndarray:
    """Decode, cut and resize the masks, grey: uint8 (N, H, W); zeros where an image has none.

    Of each kind of doubt there is one warning, which names the first mask.
    """
    masks = np.zeros((len(samples), *view.size), np.uint8)
    doubtful: dict[str, list[str]] = {}

    def load(sample: Sample) -> tuple[np.ndarray, dict[str, str]]:
        return load_mask_and_doubts(sample.mask_files, view, picture=sample.path, is_good=not sample.is_defective)

    with ThreadPoolExecutor(core_count()) as pool:
        with_mask = {i: sample for i, sample in enumerate(samples) if sample.mask_path}
        loaded = pool.map(told_of_check(load), with_mask.values())
        for i, (mask, doubts) in zip(with_mask, loaded, strict=True):
            masks[i] = mask
            for kind, sentence in doubts.items():
                doubtful.setdefault(kind, []).append(f"{with_mask[i].mask_path} {sentence}")
    for found in doubtful.values():
        LOGGER.warning("warning: mask %s (%d of %d masks)", found[0], len(found), len(with_mask))
    return masks


def settle_view(
    samples: list[Sample], size: ImageSize | AutoSize, *, roi: Box | None = None, ignore_mask: Path | None = None
) -> View:
    """Return the view of training images that flags ask for.

    Args:
        size: or that of the longer side, with the images' median aspect ratio.
        ignore_mask: as of ``ignore_outside``.

    Raises:
        InputError: an image is unreadable, or does not contain ``roi``; the mask does not fit.
    """
    if isinstance(size, ImageSize) and roi is None and ignore_mask is None:
        return View(size)
    shapes = list(map(told_of_check(lambda sample: picture_size(sample.path)), samples))
    view = fit_view(size, [str(sample.path) for sample in samples], shapes, roi=roi)
    return ignore_outside(ignore_mask, view, shapes) if ignore_mask else view


def fit_view(
    size: ImageSize | AutoSize, names: Sequence[str], shapes: Sequence[tuple[int, int]], *, roi: Box | None
) -> View:
    """Return the view of a size, or of that of the longer side, for images of these names, widths and heights.

    Raises:
        InputError: an image does not contain ``roi``.
    """
    if roi:
        for name, shape in zip(names, shapes, strict=True):
            check_contains(Path(name), shape, roi)
    if isinstance(size, AutoSize):
        size = keep_aspect(size.longest, [(roi.width, roi.height)] if roi else shapes)
    return View(size, roi)


def area_in_map(area: Area, sources: Iterable[Source], view: View, *, name: str = "--min_area") -> int:
    """Return how many pixels of an anomaly map an area of these pictures is.

    Args:
        name: what the area is called in messages.

    Raises:
        InputError: an image is unreadable, or the area is more than what counts of a map.
    """
    shapes = [picture_size(source, name=source_name(source, i)) for i, source in enumerate(sources)]
    try:
        return area.in_map(view, shapes)
    except ValueError as error:
        raise InputError(f"{name} {area}: {error}") from error


def left_of(memory: dict[str, Any], *arrays: np.ndarray) -> dict[str, Any]:
    """Return the same limits, as of ``allocate``, with what these arrays leave of the budget; on disk, nothing."""
    return memory | {"budget_bytes": max(0, memory["budget_bytes"] - sum(array.nbytes for array in arrays))}


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
