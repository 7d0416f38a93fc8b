"""What of a picture the network sees: which part of it, at which size, and where nothing counts. No mindspore here."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

MIN_SIZE, MAX_SIZE = 32, 4096  # sides of the network's input, pixels
SIZE_STEP = 16  # the network's largest stride: sides are multiples of it


class ImageSize(NamedTuple):
    """Height and width of the network's input, pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}" if self.height == self.width else f"{self.height}x{self.width}"

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.height * self.width

    def to_json(self) -> int | list[int]:
        """Return the side of a square, else height and width."""
        return self.height if self.height == self.width else [self.height, self.width]


class Box(NamedTuple):
    """A part of a picture, in its pixels as it is shown upright: left and upper edge, width and height."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return ",".join(map(str, self))

    def is_within(self, width: int, height: int) -> bool:
        """Tell whether a picture of this size contains it."""
        return self.x + self.width <= width and self.y + self.height <= height


@dataclass(frozen=True)
class AutoSize:
    """A size that keeps the aspect ratio of the training images: this is its longer side, pixels."""

    longest: int

    def __str__(self) -> str:
        return f"auto:{self.longest}"


def is_side(side: object) -> bool:
    """Tell whether something is a side that the network's input may have."""
    return isinstance(side, int) and MIN_SIZE <= side <= MAX_SIZE and side % SIZE_STEP == 0


def keep_aspect(longest: int, shapes: Sequence[tuple[int, int]]) -> ImageSize:
    """Return the size with this longer side whose aspect ratio is nearest to the pictures' median one.

    Args:
        shapes: width and height of every picture, or of the part of it that is seen.
    """
    ratio = float(np.median([height / width for width, height in shapes]))
    shorter = round(longest * min(ratio, 1 / ratio) / SIZE_STEP) * SIZE_STEP
    shorter = max(shorter, MIN_SIZE)
    return ImageSize(longest, shorter) if ratio > 1 else ImageSize(shorter, longest)


@dataclass(frozen=True)
class Area:
    """An area of a picture: a number of its pixels, or a percentage of the part of it that is seen."""

    amount: float
    is_percentage: bool = False

    def __str__(self) -> str:
        return f"{self.amount:g}%" if self.is_percentage else f"{self.amount:.0f}"

    def in_map(self, view: "View", shapes: Sequence[tuple[int, int]]) -> int:
        """Return how many pixels of an anomaly map are at least this area.

        Args:
            shapes: width and height of pictures; where they differ, the median area of what is seen of them counts.

        Raises:
            ValueError: it is more than all that counts.
        """
        if self.is_percentage:
            area = math.ceil(self.amount / 100 * view.size.pixels)
        else:
            seen = [view.roi.width * view.roi.height] if view.roi else [width * height for width, height in shapes]
            area = math.ceil(self.amount * view.size.pixels / float(np.median(seen)))
        counted = view.size.pixels if view.counted is None else int(view.counted.sum())
        if area > counted:
            raise ValueError(f"is {area} pixels of an anomaly map, of which {counted} count")
        return max(area, 1)


@dataclass(frozen=True)
class View:
    """How a picture is turned into the network's input.

    Attributes:
        size: what the picture, or its region, is resized to.
        roi: the region of interest, which is cut out before; None: the whole picture.
        ignored_runs: where nothing counts, at ``size``: lengths of runs of pixels, row by row, the first one of pixels
            that count, the next one of pixels that do not, and so on; empty: every pixel counts.
    """

    size: ImageSize
    roi: Box | None = None
    ignored_runs: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, content: dict) -> "View":
        """Read what ``to_json`` returned.

        Raises:
            ValueError: it is none; the message names the field and the value.
        """
        given = content.get("image_size")
        sides = given if isinstance(given, list) and len(given) == 2 else [given, given]
        if not all(is_side(side) for side in sides):
            raise ValueError(f"image_size {given!r}, expected a multiple of {SIZE_STEP}, or height and width")
        size = ImageSize(*sides)
        roi = content.get("roi")
        if roi is not None and not (
            isinstance(roi, list) and len(roi) == 4 and all(map(_is_count, roi)) and roi[2] and roi[3]
        ):
            raise ValueError(f"roi {roi!r}, expected x, y, width and height")
        runs = content.get("ignored_runs", [])
        if not isinstance(runs, list) or not all(map(_is_count, runs)) or sum(runs) not in (0, size.pixels):
            raise ValueError(f"ignored_runs: expected numbers of pixels, {size.pixels} in all")
        return cls(size, None if roi is None else Box(*roi), tuple(runs))

    def to_json(self) -> dict:
        """Return the fields that say so in a JSON file; what is not set is absent."""
        content: dict = {"image_size": self.size.to_json()}
        if self.roi:
            content["roi"] = list(self.roi)
        if self.ignored_runs:
            content["ignored_runs"] = list(self.ignored_runs)
        return content

    @cached_property
    def counted(self) -> np.ndarray | None:
        """Which pixels of an anomaly map count: bool (H, W); None: all of them."""
        if not self.ignored_runs:
            return None
        flat = np.ones(self.size.pixels, bool)
        ends = list(accumulate(self.ignored_runs))
        for start, end in zip(ends[::2], ends[1::2], strict=False):
            flat[start:end] = False
        return flat.reshape(self.size)

    def with_counted(self, counted: np.ndarray) -> "View":
        """Return the same view in which only these pixels count: bool (H, W)."""
        if counted.all():
            return replace(self, ignored_runs=())
        flat = np.concatenate([[True], counted.ravel()])
        changes = np.flatnonzero(np.diff(flat))
        runs = np.diff(np.concatenate([[0], changes, [counted.size]]))
        return replace(self, ignored_runs=tuple(int(run) for run in runs))

    def at(self, size: ImageSize) -> "View":
        """Return the same view at another size; what counts is taken from the nearest pixel."""
        if self.counted is None or size == self.size:
            return replace(self, size=size)
        rows, columns = ((np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(size, self.size, strict=True))
        return replace(self, size=size, ignored_runs=()).with_counted(self.counted[np.ix_(rows, columns)])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def square(side: int) -> View:
    """Return the view of a whole picture, resized to a square."""
    return View(ImageSize(side, side))


def counted_positions(counted: np.ndarray, stride: int) -> np.ndarray:
    """Return which positions of features at a stride count: those of whose pixels at least half do.

    Args:
        counted: bool (..., H, W).

    Returns:
        bool (..., H / stride, W / stride).
    """
    *front, height, width = counted.shape
    blocks = counted.reshape(*front, height // stride, stride, width // stride, stride)
    return blocks.mean(axis=(-3, -1)) >= 0.5


def parse_size(text: str) -> ImageSize:
    """Parse "256" or "320x1024" (height x width).

    Raises:
        ValueError: it is neither; the message says what would be right.
    """
    match = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", text)
    if match is None:
        raise ValueError("expected a side or HEIGHTxWIDTH, in pixels")
    return ImageSize(*(_parse_side(side) for side in (match[1], match[2] or match[1])))


def parse_training_size(text: str) -> ImageSize | AutoSize:
    """Do as ``parse_size`` does; also parse "auto:1024"."""
    if text.startswith("auto:"):
        longest = text.removeprefix("auto:")
        if not re.fullmatch("[0-9]{1,9}", longest):
            raise ValueError("expected auto:LONGEST, in pixels")
        return AutoSize(_parse_side(longest))
    return parse_size(text)


def _parse_side(text: str) -> int:
    side = int(text)
    if not is_side(side):
        raise ValueError(f"expected sides from {MIN_SIZE} to {MAX_SIZE} pixels that are multiples of {SIZE_STEP}")
    return side


def parse_box(text: str) -> Box:
    """Parse "X,Y,WIDTH,HEIGHT".

    Raises:
        ValueError: it is not that; the message says what would be right.
    """
    if not re.fullmatch(r"[0-9]{1,9}(?:,[0-9]{1,9}){3}", text):
        raise ValueError("expected X,Y,WIDTH,HEIGHT, in pixels of the upright image")
    box = Box(*map(int, text.split(",")))
    if not (box.width and box.height):
        raise ValueError("expected a width and a height of at least 1")
    return box


def parse_area(text: str) -> Area:
    """Parse "25", pixels of a picture, or "0.5%", of the part of it that is seen.

    Raises:
        ValueError: it is neither; the message says what would be right.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(%?)", text)
    amount = float(match[1]) if match else 0.0
    if match is None or not amount or (match[2] and amount > 100) or (not match[2] and not amount.is_integer()):
        raise ValueError("expected a number of pixels, at least 1, or a percentage such as 0.5%")
    return Area(amount, bool(match[2]))
