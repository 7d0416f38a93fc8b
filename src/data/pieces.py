"""Pieces of large images to train on: the network is fully convolutional, so that it may see whole images later.

A batch of pieces takes the memory of a batch of small images, whatever the size of the whole ones. No mindspore here.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .arrays import allocate
from .view import MAX_SIZE, MIN_SIZE, SIZE_STEP, ImageSize, View, counted_positions, is_side

DEFAULT_TILE = 256  # pixels: the published image size, to which the published learning rate belongs
WHOLE_PIXELS = 384 * 384  # of an image that is trained on as a whole unless a flag says otherwise


def parse_tile(text: str) -> int:
    """Parse the side of a piece; 0 stands for whole images.

    Raises:
        ValueError: it is neither; the message says what would be right.
    """
    side = int(text) if re.fullmatch("[0-9]{1,9}", text) else -1
    if side != 0 and not is_side(side):
        raise ValueError(
            f"expected 0, or a side from {MIN_SIZE} to {MAX_SIZE} that is a multiple of {SIZE_STEP}, in pixels"
        )
    return side


def choose_tile(size: ImageSize, tile: int | None) -> int:
    """Return the side of the pieces for images of a size: the one asked for or, if that is None, the usual one."""
    if tile is None:
        return DEFAULT_TILE if size.pixels > WHOLE_PIXELS else 0
    return tile


class Pieces:
    """Where the pieces of an image lie: a grid of equal ones that covers it, overlapping where they must.

    Their edges are multiples of the largest stride, so that a piece's features are computed at the positions at which
    the whole image's are. Pieces in which nothing counts are left out.

    Args:
        view: of the whole images.
        tile: side of a piece; a shorter side of the image is not divided. 0: the image is its only piece.
    """

    def __init__(self, view: View, tile: int):
        self.size = ImageSize(*(min(side, tile) if tile else side for side in view.size))
        rows, columns = (_starts(*sides) for sides in zip(view.size, self.size, strict=True))
        windows = [np.s_[y : y + self.size.height, x : x + self.size.width] for y in rows for x in columns]
        counts = view.counted
        self.windows = [window for window in windows if counts is None or counts[window].any()]
        self._counted = None if counts is None else np.stack([counts[window] for window in self.windows])
        self.is_whole_image = self.size == view.size

    def __len__(self) -> int:
        return len(self.windows)

    def cut(
        self, images: np.ndarray, *, budget_bytes: int | None = None, spill_folder: Path | None = None
    ) -> np.ndarray:
        """Return the pieces of all images, one image after the other: uint8 (N, H, W, 3) -> (N * pieces, h, w, 3).

        Args:
            budget_bytes, spill_folder: as of ``allocate``.
        """
        if self.is_whole_image:
            return images
        pieces = allocate((len(images) * len(self), *self.size, 3), np.uint8, budget_bytes, spill_folder)
        for i, image in enumerate(images):
            for j, window in enumerate(self.windows):
                pieces[i * len(self) + j] = image[window]
        return pieces

    def position_weights(self, images: int, strides: Iterable[int]) -> tuple[np.ndarray, ...]:
        """Return 1 where a position of the features counts, else 0, for the pieces of this many images.

        Returns:
            float32 (images * pieces, 1, h, w) at each stride; nothing where all count.
        """
        if self._counted is None:
            return ()
        of_pieces = (counted_positions(self._counted, stride)[:, None].astype(np.float32) for stride in strides)
        return tuple(np.tile(weights, (images, 1, 1, 1)) for weights in of_pieces)


def _starts(side: int, piece: int) -> list[int]:
    """Return where the pieces of one side begin."""
    count = -(-side // piece)
    steps = (side - piece) // SIZE_STEP
    return [round(i * steps / max(count - 1, 1)) * SIZE_STEP for i in range(count)]
