"""A synthetic category in MVTec AD's layout, good and defective: steel washers, or a web with defects of a few pixels.

    python -m src.demo_data --out_dir demo/data [--product web]

Deterministic: the same files for the same seed. Masks are exact: a pixel belongs to a defect where it changed it.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from . import demo_web
from .config import FLAGS, build_parser
from .files import make_output_folder
from .utils import LOGGER, InputError, run_entry_point

# The washers: brushed steel on a conveyor belt.
SIZE = 256  # pixels; lengths below are in pixels of this picture
_OUTER_RADIUS = 96.0
_INNER_RADIUS = 44.0
# A defect's opacity from which a pixel counts as changed.
_VISIBLE = 0.1
# (picture float32 (S, S, 3), washer, random generator) -> the new picture and the defect's opacity (S, S)
Defect = Callable[[np.ndarray, "Washer", np.random.Generator], tuple[np.ndarray, np.ndarray]]


class Washer:
    """Where a washer lies and how it is turned; the jig leaves a few pixels and any angle."""

    def __init__(self, rng: np.random.Generator):
        self.centre = SIZE / 2 + rng.uniform(-4, 4, 2)  # x, y
        rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
        self.dx, self.dy = columns - self.centre[0], rows - self.centre[1]
        self.radius = np.hypot(self.dx, self.dy)
        self.angle = np.arctan2(self.dy, self.dx)

    def coverage(self) -> np.ndarray:
        """Return how much of each pixel is steel, 0 to 1, with soft edges."""
        return np.clip(_OUTER_RADIUS - self.radius, 0, 1) * np.clip(self.radius - _INNER_RADIUS, 0, 1)

    def point(self, rng: np.random.Generator, margin: float) -> np.ndarray:
        """Return a random point (x, y) on the face, at least ``margin`` from both edges."""
        radius = rng.uniform(_INNER_RADIUS + margin, _OUTER_RADIUS - margin)
        angle = rng.uniform(-np.pi, np.pi)
        return self.centre + radius * np.array((np.cos(angle), np.sin(angle)))


def _smooth_noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Return noise of mean 0 and deviation 1 with structures of about ``sigma`` pixels."""
    noise = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)).astype(np.float32), (0, 0), sigma)
    return (noise - noise.mean()) / noise.std()


def _belt(rng: np.random.Generator) -> np.ndarray:
    """Return the conveyor belt: dark rubber with a woven texture."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    phase = rng.uniform(0, 2 * np.pi, 2)
    weave = np.sin(columns * 0.9 + phase[0]) * np.sin(rows * 0.9 + phase[1])
    grey = 46 + 5 * weave + 2.5 * _smooth_noise(rng, 0.7) + 3 * _smooth_noise(rng, 20)
    return grey[..., None] * np.array((0.95, 1.0, 1.05))


def _steel(washer: Washer, rng: np.random.Generator) -> np.ndarray:
    """Return the washer's face: turned on a lathe (circular grooves), with bevelled edges that catch the light."""
    profile = cv2.GaussianBlur(rng.standard_normal((1, 4 * SIZE)).astype(np.float32), (0, 0), 1.2)[0]
    grooves = np.interp(washer.radius, np.arange(profile.size) / 4, profile / profile.std())
    light = rng.uniform(-0.5, 0.5)  # direction of the lamp, radians from the upper left
    towards_lamp = np.cos(washer.angle + 3 * np.pi / 4 + light)
    sheen = np.cos(2 * (washer.angle + np.pi / 4 + light))  # anisotropic highlight of turned metal
    outer_bevel = np.exp(-(((washer.radius - _OUTER_RADIUS + 3) / 2.2) ** 2))
    inner_bevel = np.exp(-(((washer.radius - _INNER_RADIUS - 3) / 2.2) ** 2))
    grey = 158 + 7 * grooves + 20 * sheen + 2 * _smooth_noise(rng, 0.8)
    grey = grey + 45 * towards_lamp * (outer_bevel - inner_bevel)
    return grey[..., None] * np.array((0.98, 1.0, 1.02))


def _good_picture(rng: np.random.Generator) -> tuple[np.ndarray, Washer]:
    """Return a good washer, float32 (S, S, 3), before exposure and sensor noise."""
    washer = Washer(rng)
    belt = _belt(rng)
    shadow = cv2.GaussianBlur(np.roll(washer.coverage(), (5, 5), (0, 1)), (0, 0), 4)
    belt = belt * (1 - 0.55 * shadow[..., None])
    coverage = washer.coverage()[..., None]
    return (belt * (1 - coverage) + _steel(washer, rng) * coverage).astype(np.float32), washer


def _expose(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply the station's varying light, and the sensor's noise: uint8 (S, S, 3)."""
    rows, columns = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    slope = rng.uniform(-0.08, 0.08, 2)
    light = rng.uniform(0.92, 1.08) * (1 + slope[0] * rows + slope[1] * columns)
    noisy = picture * light[..., None] + rng.normal(0, 1.5, picture.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def _scratch(picture: np.ndarray, washer: Washer, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A tool mark across the grooves: 2 to 3 pixels wide, 30 to 60 long, bright with a dark flank."""
    start = washer.point(rng, margin=6)
    outward = start - washer.centre
    heading = np.arctan2(outward[1], outward[0]) + rng.uniform(0.5, 1.1) * rng.choice((-1, 1))
    length, bend = rng.uniform(30, 60), rng.uniform(-0.008, 0.008)
    steps = np.arange(-length / 2, length / 2, 0.5)
    points = start + np.stack((steps * np.cos(heading), steps * np.sin(heading) + bend * steps**2), axis=1)
    line = np.zeros((SIZE, SIZE), np.float32)
    cv2.polylines(line, [np.round(points * 16).astype(np.int32)], False, 1.0, int(rng.integers(2, 4)), cv2.LINE_AA, 4)
    line = cv2.GaussianBlur(line, (0, 0), 0.6) * washer.coverage()
    flank = np.roll(line, (1, 2), (0, 1)) * (1 - line) * washer.coverage()
    picture = picture + (70 * line - 60 * flank)[..., None]
    return picture, np.maximum(line, flank)


def _rust(picture: np.ndarray, washer: Washer, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A blotch of rust with a ragged edge, 8 to 14 pixels in radius."""
    x, y = washer.point(rng, margin=10)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    distance = np.hypot(columns - x, rows - y) + 2.5 * _smooth_noise(rng, 3)
    opacity = np.clip((rng.uniform(8, 14) - distance) / 4, 0, 1) * 0.8 * washer.coverage()
    colour = np.array((120.0, 72.0, 40.0)) + 14 * _smooth_noise(rng, 1.5)[..., None]
    return picture * (1 - opacity[..., None]) + colour * opacity[..., None], opacity


def _dent(picture: np.ndarray, washer: Washer, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A blow's round hollow, 7 to 12 pixels in radius: dark towards the lamp, bright away from it."""
    x, y = washer.point(rng, margin=13)
    radius = rng.uniform(7, 12)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    dx, dy = (columns - x) / radius, (rows - y) / radius
    inside = np.clip(1.15 - np.hypot(dx, dy), 0, 0.3) / 0.3 * washer.coverage()
    slope = (dx + dy) / np.sqrt(2)
    return picture + (75 * slope * inside)[..., None], inside


def _chip(picture: np.ndarray, washer: Washer, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Material broken off the outer edge, a bite of 7 to 12 pixels, through which the belt shows."""
    angle = rng.uniform(-np.pi, np.pi)
    x, y = washer.centre + (_OUTER_RADIUS + 1) * np.array((np.cos(angle), np.sin(angle)))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    distance = np.hypot(columns - x, rows - y) + 1.2 * _smooth_noise(rng, 2)
    bite = np.clip(rng.uniform(7, 12) - distance, 0, 1) * washer.coverage()
    belt = _belt(rng) * 0.6
    return picture * (1 - bite[..., None]) + belt * bite[..., None], bite


DEFECTS: dict[str, Defect] = {"chip": _chip, "dent": _dent, "rust": _rust, "scratch": _scratch}


def draw(defect: str | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a washer, good (None) or with a defect.

    Returns:
        The picture, uint8 (S, S, 3), and the mask, uint8 (S, S), 0 or 255.
    """
    picture, washer = _good_picture(rng)
    opacity = np.zeros((SIZE, SIZE))
    while defect and not (opacity > _VISIBLE).any():  # a defect that missed the washer is drawn again
        changed, opacity = DEFECTS[defect](picture, washer, rng)
        picture = changed if (opacity > _VISIBLE).any() else picture
    return _expose(picture, rng), np.where(opacity > _VISIBLE, 255, 0).astype(np.uint8)


class Product(NamedTuple):
    """A product that can be drawn, and how many pictures there are of it."""

    draw: Callable[[str | None, np.random.Generator], tuple[np.ndarray, np.ndarray]]  # defect -> picture and mask
    defects: tuple[str, ...]
    train_good: int
    test_good: int
    test_per_defect: int


# By the name of their category.
PRODUCTS = {
    "washer": Product(draw, tuple(DEFECTS), train_good=48, test_good=16, test_per_defect=8),
    # 100 good images of another seed are enough to set a threshold at a false positive rate of 1 %
    "web": Product(demo_web.draw, tuple(demo_web.DEFECTS), train_good=100, test_good=30, test_per_defect=10),
}


def write_category(root: Path, category: str = "washer", *, seed: int = 0) -> Path:
    """Write a product's category below ``root``, whole or not at all; return its folder. What is there is kept.

    Raises:
        InputError: the folder cannot be written.
    """
    product = PRODUCTS[category]
    target = make_output_folder(root) / category
    if target.exists():
        LOGGER.info("demo data: %s is there already", target)
        return target
    temporary = Path(tempfile.mkdtemp(prefix=f".{category}.", dir=root))
    plan = [("train", "good", product.train_good), ("test", "good", product.test_good)]
    plan += [("test", defect, product.test_per_defect) for defect in product.defects]
    try:
        for part, (split, kind, count) in enumerate(plan):
            for number in range(count):
                rng = np.random.default_rng((seed, part, number))
                picture, mask = product.draw(None if kind == "good" else kind, rng)
                _save(temporary / split / kind / f"{number:03}.png", picture)
                if kind != "good":
                    _save(temporary / "ground_truth" / kind / f"{number:03}_mask.png", mask)
        temporary.chmod(0o755)
        temporary.rename(target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    LOGGER.info("demo data: written to %s", target)
    return target


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = build_parser(__doc__.splitlines()[0])
    parser.add_argument("--out_dir", type=Path, required=True, help="data set folder; gets the category")
    parser.add_argument(
        "--product",
        choices=tuple(PRODUCTS),
        default="washer",
        help="category. washer: 96 pictures of 256x256 pixels; web: 180 pictures of 1280x800, with defects of 4 to 12 "
        "pixels",
    )
    parser.add_argument("--seed", type=FLAGS["seed"]["type"], default=0, help="seed of the pictures")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    """Write the category; return the exit status."""
    write_category(args.out_dir, args.product, seed=args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
