"""How much memory a training on CPU takes, told before it begins: where it runs out, the system kills without a word.

No mindspore here.
"""

from dataclasses import dataclass, replace

from ..data.pieces import DEFAULT_TILE
from ..data.view import ImageSize
from ..utils import InputError, core_count, free_memory

# Measured, see docs/performance.md: the program with its libraries and both networks; what a step keeps for the
# gradients, by pixel of its batch, in float32 and in bfloat16; what a core needs besides, by pixel of the image that it
# works on. Of every image: its pixels, uint8 RGB, and its features, float32 (64 / 16 + 128 / 64 + 256 / 256 a pixel).
_PROGRAM = 780_000_000
_STEP, _BFLOAT16_STEP = 650, 440
_CORE = 125
_IMAGE = 3
_FEATURES = 28
# Of an evaluation in between, by pixel of the test images: image, mask, map and the sorted maps.
_EVALUATION = 3 + 1 + 4 + 4


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a training's memory depends on.

    Attributes:
        size: of an image, or of a piece of one.
        images: number of images or pieces.
        cache_features: whether the teacher's features are kept.
        budget_bytes: what images and features, each, may take of memory; beyond it they are in files.
        test_pixels: of all test images that are evaluated in between.
        bfloat16: whether it is mixed with float32.
    """

    size: ImageSize
    batch_size: int
    images: int
    cache_features: bool
    budget_bytes: int
    test_pixels: int = 0
    bfloat16: bool = False

    def peak_bytes(self) -> int:
        """Estimate the peak of the training's memory."""
        pixels = self.images * self.size.pixels
        kept = sum(
            total if total <= self.budget_bytes else 0
            for total in (pixels * _IMAGE, pixels * _FEATURES * self.cache_features)
        )
        of_pixel = _BFLOAT16_STEP if self.bfloat16 else _STEP
        step = (of_pixel * min(self.batch_size, self.images) + _CORE * core_count()) * self.size.pixels
        return _PROGRAM + step + kept + _EVALUATION * self.test_pixels


def check_memory(work: Workload) -> None:
    """Refuse a training for which there is not enough memory.

    Raises:
        InputError: it needs more than is free; the message names sizes that need less.
    """
    free, size, batch_size = free_memory(), work.size, work.batch_size

    def needed(of: ImageSize, batch: int) -> int:
        images = work.images * size.pixels // of.pixels
        return replace(work, size=of, batch_size=batch, images=images).peak_bytes()

    if free is None or needed(size, batch_size) <= free:
        return
    ways_out = []
    tile = ImageSize(*(min(side, DEFAULT_TILE) for side in size))
    if tile != size and needed(tile, batch_size) <= free:
        ways_out.append(f"train_tile {DEFAULT_TILE} needs {_gigabytes(needed(tile, batch_size))}")
    batch = batch_size
    while batch > 1 and needed(size, batch) > free:
        batch //= 2
    if needed(size, batch) <= free:
        ways_out.append(f"batch_size {batch} needs {_gigabytes(needed(size, batch))}")
    raise InputError(
        f"training on {size.height}x{size.width} pixels in batches of {batch_size} needs about "
        f"{_gigabytes(needed(size, batch_size))} of memory, and {_gigabytes(free)} are free; "
        + ("; ".join(ways_out) if ways_out else "a smaller image_size needs less")
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
