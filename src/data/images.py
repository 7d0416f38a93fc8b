"""A picture file -> RGB array -> network input; a mask file -> grey array -> binary mask. No mindspore here."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from ..utils import LOGGER, InputError
from .decoding import LYING, brightest, decoded, from_memory, opened
from .masks import find_doubts
from .view import Box, ImageSize, View

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff")
_MOST_LABELS = 8  # values of a mask that a message lists
TURNED = "turned"  # the doubt whether a mask is of the upright picture, which is one about all masks of a category
_FORMER: list[Path] = []  # the file that ``note_former_resizing`` was told of, until a picture differs
# what is to be looked at: a file, or an image that a program holds
Source = Path | Image.Image | np.ndarray
# ImageNet statistics of torchvision's pretrained models, RGB.
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
# How a resized grey mask becomes binary: the thresholds are inclusive lower bounds.
MASK_RULES = {
    "half": 128,  # at least half covered: this project's
    "erode": 255,  # fully covered: the model zoo's code, which truncates
    "dilate": 1,  # touched at all: the paper's code
}


def load_image(source: Source, view: View) -> np.ndarray:
    """Read a picture as RGB, cut it to its region of interest and resize that with PIL's LANCZOS: uint8 (H, W, 3).

    Raises:
        InputError: the file is not a readable image, or does not contain the region.
    """
    return load_image_and_box(source, view)[0]


def load_image_and_box(source: Source, view: View, *, name: str = "image") -> tuple[np.ndarray, Box]:
    """Do as ``load_image`` does; also return the part of the picture, turned upright, that the image shows.

    Args:
        source: a file, or an image that a program holds, as of ``from_memory``.
        name: what errors call the latter.
    """
    if isinstance(source, Path):
        with decoded(source, "RGB") as image:
            return _seen(image, view, source)
    return _seen(from_memory(source, name), view, Path(name))


def _seen(image: Image.Image, view: View, path: Path) -> tuple[np.ndarray, Box]:
    region, box = _cut(image, view.roi, path)
    resized = _resized(region, view.size, Image.Resampling.LANCZOS, path)
    return (np.repeat(resized[..., None], 3, axis=2) if resized.ndim == 2 else resized), box


def source_name(source: Source, place: int) -> str:
    """Return what an image is called: by its path or, of one that a program holds, its place among those given."""
    return str(source) if isinstance(source, Path) else f"images[{place}]"


def picture_size(source: Source, *, name: str = "image") -> tuple[int, int]:
    """Return a picture's width and height, turned upright; of a file without decoding its pixels.

    Args:
        source, name: as of ``load_image_and_box``.

    Raises:
        InputError: it is not a readable image.
    """
    if isinstance(source, Path):
        with opened(source) as picture:
            return picture.upright_size
    return from_memory(source, name).size


def check_contains(path: Path, size: tuple[int, int], roi: Box) -> None:
    """Check that a picture of this width and height contains a region of interest.

    Raises:
        InputError: it does not.
    """
    if not roi.is_within(*size):
        raise InputError(
            f"{path}: has {size[0]}x{size[1]} pixels (width x height), which do not contain the region of interest "
            f"{roi} (x, y, width, height)"
        )


def _cut(image: Image.Image, roi: Box | None, path: Path) -> tuple[Image.Image, Box]:
    """Return the region of interest, and where it is."""
    if roi is None:
        return image, Box(0, 0, image.width, image.height)
    check_contains(path, image.size, roi)
    return image.crop((roi.x, roi.y, roi.x + roi.width, roi.y + roi.height)), roi


def _resized(image: Image.Image, size: ImageSize, resampling: Image.Resampling, path: Path) -> np.ndarray:
    """Resize a picture, width first: Pillow's one call has another order for some shapes, by rules of each release."""
    new = (size.width, size.height)
    resized = np.asarray(image.resize((size.width, image.height), resampling).resize(new, resampling))
    if _FORMER and image.height > image.width:
        before = np.asarray(image.resize(new, resampling))
        if not np.array_equal(resized, before):
            _warn_of_former_resizing(path, int(np.max(np.abs(resized.astype(int) - before))))
    return resized


def note_former_resizing(path: Path) -> None:
    """Take note of a file by a release that resized by Pillow's one call: the first picture that differs is told."""
    _FORMER[:] = [path]


def find_former_resizing(paths: Iterable[Path], view: View) -> None:
    """Look for a picture that is resized otherwise than in the release of a file noted, to tell of it; else do nothing.

    For programs that decode no pictures.
    """
    for path in paths:
        if not _FORMER:
            return
        with contextlib.suppress(InputError):
            width, height = picture_size(path)
            if height > width:
                load_image(path, view)


def _warn_of_former_resizing(path: Path, difference: int) -> None:
    with contextlib.suppress(IndexError):  # another thread was first
        LOGGER.warning(
            "warning: %s: was made by a release that resized tall pictures height first; they are now resized width "
            "first, by which %s differs by up to %d of 255; for exact scores make it again; said once",
            _FORMER.pop(),
            path,
            difference,
        )


def load_mask_and_doubts(
    paths: Sequence[Path], view: View, *, picture: Path | None = None, is_good: bool = False
) -> tuple[np.ndarray, dict[str, str]]:
    """Read files that each mark a part of a defect as grey, and resize what they mark together bilinearly.

    A mask of exactly two values, one of them 0, marks the other one, whatever that is; of others the grey level counts,
    of colours that of the brightest channel. What is transparent marks nothing.

    Args:
        picture: what it is the mask of, and must be as large as, turned upright. Who draws masks sees pictures
            upright: a mask without an orientation of its own is taken to be so, which is doubtful where the
            picture is square or upside down, so that its size cannot tell.
        is_good: the picture is good, so that its mask must be black.

    Returns:
        The mask, uint8 (H, W), to be made binary by ``binary_mask``, and what is doubtful in it, by kind of doubt.

    Raises:
        InputError: a file is not a readable image, it marks no pixel, or it is of another size than ``picture``.
    """
    whole: Image.Image | None = None
    doubts: dict[str, str] = {}
    for path in paths:
        with decoded(path, "mask") as part:
            size, highest = part.size, brightest(part)
            if picture is not None:
                doubt = _check_size(path, size, picture)
                if doubt and not is_good:
                    doubts.setdefault(TURNED, doubt)
            if is_good and highest > 0:
                raise InputError(
                    f"{path}: marks pixels of a good image; expected a black mask or none, "
                    "or the image in the folder of its defect type"
                )
            if not is_good and highest < MASK_RULES["half"]:
                raise InputError(
                    f"{path}: marks nothing: its brightest pixel is {highest}{_values_of(path)}, "
                    "expected 255 on the defect, 0 elsewhere"
                )
            if whole is not None and size != whole.size:
                raise InputError(f"{path}: is {_by(size)} pixels, {paths[0]} is {_by(whole.size)}")
            whole = part if whole is None else ImageChops.lighter(whole, part)
    if whole is None:
        raise ValueError("no files of a mask")
    doubts |= find_doubts(np.asarray(whole))
    region, _ = _cut(whole, view.roi, paths[0])
    return _resized(region, view.size, Image.Resampling.BILINEAR, paths[0]), doubts


def ignore_outside(path: Path, view: View, shapes: Sequence[tuple[int, int]]) -> View:
    """Return the view in which what a picture marks black does not count.

    Args:
        path: a picture of two colours, of which black marks what is ignored, as large as the training images.
        shapes: width and height of every training image, turned upright.

    Raises:
        InputError: it is not readable, of another size than an image, or leaves nothing that counts.
    """
    with decoded(path, "mask") as mask:
        for size in shapes:
            if size != mask.size:
                raise InputError(
                    f"--ignore_mask {path}: has {mask.width}x{mask.height} pixels (width x height), and a training "
                    f"image has {size[0]}x{size[1]}; expected one as large as every training image"
                )
        region, _ = _cut(mask, view.roi, path)
        counted = _resized(region, view.size, Image.Resampling.BILINEAR, path) >= MASK_RULES["half"]
    if not counted.any():
        raise InputError(f"--ignore_mask {path}: leaves nothing that counts; expected white where something does")
    return view.with_counted(counted)


def load_labels(path: Path) -> np.ndarray:
    """Read a mask each of whose values but 0 is a label: whole numbers (H, W), of a palette its indices.

    Raises:
        InputError: the file is not a readable image, or of colours with transparency.
    """
    with opened(path) as mask:
        labels = np.asarray(mask.raw())
        if mask.image.mode == "RGB":
            return labels.astype(np.uint32) @ np.array((1 << 16, 1 << 8, 1), np.uint32)
        if labels.ndim != 2:
            raise ValueError(f"a mask of labels cannot have pixels of kind {mask.image.mode}")
    return labels


def _values_of(path: Path) -> str:
    """Return, to be put into an error, which values a mask has in its file, if they tell more than its brightest."""
    with opened(path) as mask:
        mode, is_deep = mask.image.mode, mask.is_deep
    try:
        values = np.unique(load_labels(path)).tolist()
    except InputError:  # with transparency
        return ""
    if mode == "RGB":
        return " (of 16 bits in colour the upper 8 count)" if is_deep else ""
    if len(values) < 2:
        return ""
    if mode == "P":
        return " (the colours of its palette are all dark)"
    if len(values) <= _MOST_LABELS:
        return f" (its values are {', '.join(map(str, values))}; if they are labels, mark all by 255)"
    return f" ({values[-1]} of 65535)" if is_deep else ""


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _check_size(path: Path, size: tuple[int, int], picture: Path) -> str | None:
    """Check that a mask is as large as its picture, turned upright; return the doubt that its size cannot settle."""
    with opened(picture) as other:
        expected, lying, orientation = other.upright_size, other.size, other.orientation
    if size == expected == lying and orientation != 1:
        with opened(path) as mask:
            if mask.orientation == 1:
                return (
                    f"is taken to be drawn on {picture} as its EXIF orientation {orientation} turns it, which its size "
                    "cannot tell: if it was drawn on the image as it lies in the file, turn the mask, too"
                )
    if size == expected:
        return None
    problem = f"{path}: is {_by(size)} pixels, its image {picture} is {_by(expected)}"
    if orientation in LYING and size == lying:
        problem += f" once its EXIF orientation {orientation} turns it upright; expected a mask of the upright picture"
    raise InputError(problem)


def formula_image(size: ImageSize) -> np.ndarray:
    """Return "pattern-1", an image that needs no file: whole numbers alone, the same in every language.

    The C++ program makes it, too, and compares what it computes of it with the values in a model's JSON.

    Returns:
        uint8 (H, W, 3): in row y, column x and channel c ((7 x + 13 y + 53 c) xor (x y >> 4)) and 255.
    """
    y, x, c = np.ogrid[: size.height, : size.width, :3]
    return (((7 * x + 13 * y + 53 * c) ^ ((x * y) >> 4)) & 255).astype(np.uint8)


def binary_mask(mask: np.ndarray, rule: str = "half") -> np.ndarray:
    """Make resized grey masks, uint8 (...), binary: bool (...), by one of ``MASK_RULES``."""
    return mask >= MASK_RULES[rule]


def to_network_input(images: np.ndarray) -> np.ndarray:
    """Scale and normalise RGB images: uint8 (N, H, W, 3) -> float32 (N, 3, H, W)."""
    scaled = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
    for channel in range(3):  # whole planes: four times faster than arithmetic over a last axis of three
        plane = scaled[:, channel]
        np.divide(images[..., channel], np.float32(255), out=plane)
        plane -= MEAN[channel]
        plane /= STD[channel]
    return scaled
