"""A picture file -> RGB array -> network input; a mask file -> grey array -> binary mask. No mindspore here."""

import contextlib
import functools
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageFile, ImageOps, TiffImagePlugin

from ..files import check_regular_file
from ..utils import LOGGER, InputError
from .masks import find_doubts, on_black, two_valued

MIN_SIZE, MAX_SIZE = 32, 4096  # sides of the network's input, pixels; a multiple of the largest stride
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")  # whatever a file is called: PIL would hand PostScript to another program
_LYING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_DARK = 16  # what the 12 bits of many a camera reach of 255, where 16 are expected
_FIRST_DARK = threading.Lock()  # whoever takes it warns, for the process
# ImageNet statistics of torchvision's pretrained models, RGB.
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
# How a resized grey mask becomes binary: the thresholds are inclusive lower bounds.
MASK_RULES = {
    "half": 128,  # at least half covered: this project's
    "erode": 255,  # fully covered: the model zoo's code, which truncates
    "dilate": 1,  # touched at all: the paper's code
}


def is_image_size(size: object) -> bool:
    """Tell whether something is a side that the network's input may have."""
    return isinstance(size, int) and MIN_SIZE <= size <= MAX_SIZE and size % 16 == 0


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open a picture; what is wrong with it while the block reads it becomes an ``InputError`` that names it.

    Raises:
        InputError: the file is missing, no picture, damaged, too large to be one, or of colours that do not convert.
    """
    # PIL warns of half of what it refuses; 10,000 x 10,000 pixels of a line-scan camera are no attack
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        check_regular_file(path)
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # PIL's decoders raise whatever damaged numbers lead to, TypeError among others
        raise InputError(f"{path}: not a readable image: {error}") from error


def _decode(path: Path, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Decode a picture, turned upright, and convert it."""
    with _opened(path) as image:
        if image.format == "PNG":
            _check_png(path.read_bytes())
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_samples(image)
            image.filename = ""  # else PIL maps uncompressed rows into memory, of wrong length where they lie
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a phone's picture, with previews
        if pages > 1:
            raise ValueError(f"holds {pages} pages or frames; expected one, or each in a file of its own")
        is_deep = ";16" in str(image.tile)
        decoded = convert(ImageOps.exif_transpose(image))
    if is_deep:
        _warn_of_darkness(decoded, path)
    return decoded


def _check_samples(image: TiffImagePlugin.TiffImageFile) -> None:
    """Check that the pixels of a TIFF are of a kind that PIL reads correctly."""
    bits, kind = max(image.tag_v2.get(258, (1,))), max(image.tag_v2.get(339, (1,)))  # BitsPerSample, SampleFormat
    if kind != 1 or bits not in (1, 2, 4, 8, 16):
        name = {1: "whole", 2: "signed", 3: "floating-point"}.get(kind, "undefined")
        raise ValueError(f"its pixels are {name} numbers of {bits} bits; expected unsigned ones of 8 or 16 bits")


def _warn_of_darkness(decoded: Image.Image, path: Path) -> None:
    """Warn, once, of a 16-bit picture that uses only 12; scaling each by its own values would make them differ."""
    brightest = _brightest(decoded)
    if brightest <= _DARK and _FIRST_DARK.acquire(blocking=False):
        LOGGER.warning(
            "warning: %s: uses the lowest 12 of its 16 bits at most, is read as nearly black (brightest: %d of 255); "
            "if the camera gives no more, scale all pictures alike (12 bits: times 16); said once, of the first such",
            path,
            brightest,
        )


def _brightest(image: Image.Image) -> int:
    return int(np.max(image.getextrema()))  # of one band, or of each


def _check_png(content: bytes) -> None:
    """Check the checksums of a PNG's parts; PIL leaves out those of its pixels."""
    start = 8  # behind the signature
    while start < len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4])
        if zlib.crc32(memoryview(content)[start + 4 : end]) != int.from_bytes(content[end : end + 4]):
            raise ValueError(f"damaged: wrong checksum in the part at byte {start}")
        if content[start + 4 : start + 8] == b"IEND":
            return
        start = end + 4
    raise ValueError("truncated: its end is missing")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale a 16-bit grey picture to 8 bits; PIL's own conversion would clip it."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.float32) / 257).round().astype(np.uint8))
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    return _to_8_bit(image).convert("RGB")


def _to_mask(image: Image.Image) -> Image.Image:
    image = on_black(image)
    marked = two_valued(image)
    return _to_8_bit(image).convert("L") if marked is None else marked


def load_image(path: Path, image_size: int) -> np.ndarray:
    """Read a picture as RGB and resize it with PIL's LANCZOS: uint8 (S, S, 3).

    Raises:
        InputError: the file is not a readable image.
    """
    return load_image_and_size(path, image_size)[0]


def load_image_and_size(path: Path, image_size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Do as ``load_image`` does; also return the picture's own width and height, turned upright."""
    image = _decode(path, _to_rgb)
    return np.asarray(image.resize((image_size, image_size), Image.Resampling.LANCZOS)), image.size


def load_mask(path: Path, image_size: int, *, picture: Path | None = None) -> np.ndarray:
    """Read a defect's mask as grey and resize it bilinearly: uint8 (S, S), to be made binary by ``binary_mask``.

    The other arguments and errors are those of ``load_mask_and_doubts``.
    """
    return load_mask_and_doubts([path], image_size, picture=picture)[0]


def load_mask_and_doubts(
    paths: Sequence[Path], image_size: int, *, picture: Path | None = None, is_good: bool = False
) -> tuple[np.ndarray, dict[str, str]]:
    """Do as ``load_mask`` does with files that each mark a part; also return what is doubtful, by kind of doubt.

    A mask of exactly two values, one of them 0, marks the other one, whatever that is; of others the grey level counts.
    What is transparent marks nothing.

    Args:
        picture: what it is the mask of, and must be as large as, turned upright. Who draws masks sees pictures
            upright: a mask without an orientation of its own is taken to be so, which its size cannot tell where
            the picture is square or upside down.
        is_good: the picture is good, so that its mask must be black.

    Raises:
        InputError: a file is not a readable image, it marks no pixel, or it is of another size than ``picture``.
    """
    parts: list[Image.Image] = []
    for path in paths:
        part = _decode(path, _to_mask)
        if picture is not None:
            _check_size(path, part.size, picture)
        brightest = _brightest(part)
        if is_good and brightest > 0:
            raise InputError(
                f"{path}: marks pixels of a good image; expected a black mask or none, "
                "or the image in the folder of its defect type"
            )
        if not is_good and brightest < MASK_RULES["half"]:
            raise InputError(
                f"{path}: marks nothing: its brightest pixel is {brightest}, expected 255 on the defect, 0 elsewhere"
            )
        if parts and part.size != parts[0].size:
            raise InputError(f"{path}: has {part.size} pixels, and {paths[0]} has {parts[0].size}")
        parts.append(part)
    mask = functools.reduce(ImageChops.lighter, parts)
    doubts = find_doubts(np.asarray(mask))
    return np.asarray(mask.resize((image_size, image_size), Image.Resampling.BILINEAR)), doubts


def load_labels(path: Path) -> np.ndarray:
    """Read a mask each of whose values but 0 is a label: whole numbers (H, W), of a palette its indices.

    Raises:
        InputError: the file is not a readable image, or of colours with transparency.
    """
    with _opened(path) as mask:
        if mask.format == "PNG":
            _check_png(path.read_bytes())
        labels = np.asarray(ImageOps.exif_transpose(mask))
        if mask.mode == "RGB":
            return labels.astype(np.uint32) @ np.array((1 << 16, 1 << 8, 1), np.uint32)
        if labels.ndim != 2:
            raise ValueError(f"a mask of labels cannot have pixels of kind {mask.mode}")
    return labels


def _check_size(path: Path, size: tuple[int, int], picture: Path) -> None:
    """Check that a mask is as large as its picture, turned upright."""
    with _opened(picture) as image:
        expected = image.size
        if size == expected and size[0] == size[1]:
            return  # to ask for the orientation, PIL decodes the whole of most PNGs
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation in _LYING and image.format != "TIFF":  # PIL gives the size of a TIFF upright
        expected = expected[::-1]
    if size == expected:
        return
    problem = f"{path}: has {size} pixels, and its image {picture} has {expected}"
    if orientation in _LYING and size == expected[::-1]:
        problem += f" once its EXIF orientation {orientation} turns it upright; expected a mask of the upright picture"
    raise InputError(problem)


def binary_mask(mask: np.ndarray, rule: str = "half") -> np.ndarray:
    """Make resized grey masks, uint8 (...), binary: bool (...), by one of ``MASK_RULES``."""
    return mask >= MASK_RULES[rule]


def to_network_input(images: np.ndarray) -> np.ndarray:
    """Scale and normalise RGB images: uint8 (N, S, S, 3) -> float32 (N, 3, S, S)."""
    scaled = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
    for channel in range(3):  # whole planes: four times faster than arithmetic over a last axis of three
        plane = scaled[:, channel]
        np.divide(images[..., channel], np.float32(255), out=plane)
        plane -= MEAN[channel]
        plane /= STD[channel]
    return scaled
