"""Any number of images, decoded while the network works on earlier ones; only a few are in memory at a time."""

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import overload

import numpy as np

from ..utils import InputError, core_count
from .images import Source, load_image_and_box, source_name
from .view import Box, View


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image, or the reason why it could not be decoded.

    Attributes:
        name: the path of its file; of an image that a program holds, its place, such as "images[3]".
        seconds: what reading, decoding and resizing took.
    """

    name: str
    image: np.ndarray | None = None  # uint8 (H, W, 3)
    box: Box = Box(0, 0, 0, 0)  # the part of the picture that it shows  # noqa: RUF009
    error: str = ""
    seconds: float = 0.0


@overload
def decode(sources: Iterable[Source], *, view: View, ahead: int) -> Iterator[LoadedImage]: ...


@overload
def decode(sources: Iterable[Source | None], *, view: View, ahead: int) -> Iterator[LoadedImage | None]: ...


def decode(sources: Iterable[Source | None], *, view: View, ahead: int) -> Iterator[LoadedImage | None]:
    """Yield decoded images in order; all cores decode, at most ``ahead`` images before they are asked for.

    None among the sources says that no other is there for now: what was asked for comes at once, and then None.
    """

    def load(source: Source, name: str) -> LoadedImage:
        started = time.perf_counter()
        try:
            image, box = load_image_and_box(source, view, name=name)
            return LoadedImage(name, image, box, seconds=time.perf_counter() - started)
        except InputError as error:
            return LoadedImage(name, error=str(error), seconds=time.perf_counter() - started)

    with ThreadPoolExecutor(core_count()) as pool:  # more would only get in the network's way
        window: deque[Future[LoadedImage]] = deque()
        place = itertools.count()

        def finish() -> Iterator[LoadedImage]:
            while window:
                yield window.popleft().result()

        for source in sources:
            if source is None:
                yield from finish()
                yield None
                continue
            i = next(place)
            window.append(pool.submit(load, source, source_name(source, i)))
            if len(window) > ahead:
                yield window.popleft().result()
        yield from finish()
