"""Any number of images, decoded while the network works on earlier ones; only a few are in memory at a time."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..utils import InputError, core_count
from .images import Source, load_image_and_box
from .view import Box, View


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image, or the reason why it could not be decoded.

    Attributes:
        name: the path of its file; of an image that a program holds, its place, such as "images[3]".
    """

    name: str
    image: np.ndarray | None = None  # uint8 (H, W, 3)
    box: Box = Box(0, 0, 0, 0)  # the part of the picture that it shows  # noqa: RUF009
    error: str = ""


def decode(sources: Iterable[Source], *, view: View, ahead: int) -> Iterator[LoadedImage]:
    """Yield decoded images in order; all cores decode, at most ``ahead`` images before they are asked for."""

    def load(source: Source, name: str) -> LoadedImage:
        try:
            return LoadedImage(name, *load_image_and_box(source, view, name=name))
        except InputError as error:
            return LoadedImage(name, error=str(error))

    with ThreadPoolExecutor(core_count()) as pool:  # more would only get in the network's way
        window: deque[Future[LoadedImage]] = deque()
        for i, source in enumerate(sources):
            window.append(pool.submit(load, source, os.fspath(source) if isinstance(source, Path) else f"images[{i}]"))
            if len(window) > ahead:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
