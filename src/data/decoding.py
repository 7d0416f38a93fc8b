"""A picture file -> its pixels: upright, of 8 bits, RGB or grey; or the reason why they cannot be had.

Pillow decodes. What it would not notice is checked before; of what surrounds the pixels, it sees nothing.
"""

import contextlib
import ctypes
import errno
import functools
import io
import itertools
import logging
import os
import re
import threading
import warnings
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import BmpImagePlugin, ExifTags, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from ..files import check_regular_file
from ..utils import LOGGER, PIXEL_LIMIT, InputError, pixel_limit
from .masks import brightest_channel, two_valued

# Bytes that all threads together hold while they decode; a picture that needs more is decoded alone.
BUDGET = 1_500_000_000
LYING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DARK = 16  # what the 12 bits of many a camera reach of 255, where 16 are expected
_SATURATED = {2**bits - 1: bits for bits in (13, 14, 15)}  # the brightest value of cameras of more bits than 12
_BLOCK = 2**20  # bytes, or pixels, that are worked on at a time
_LONGEST_TEXT = 2**22  # bytes of metadata that are looked at
_MASKS_WITH_ALPHA = ("L", "LA", "P", "PA", "RGB", "RGBA")
_MODES_IN_MEMORY = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_LOADING = threading.Lock()
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # all that pixels depend on
_PNG_AROUND = (
    b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"bKGD", b"hIST", b"pHYs", b"sPLT",
    b"eXIf", b"tIME", b"tEXt", b"zTXt", b"iTXt", b"oFFs", b"pCAL", b"sCAL",
)  # fmt: skip
_PHOTOMETRIC = {
    0: "grey", 1: "grey", 2: "RGB", 3: "a palette", 4: "a transparency mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab",
    9: "ICCLab", 10: "ITULab", 32803: "a sensor's raw colours", 34892: "a sensor's raw colours",
}  # fmt: skip


class _Room:
    """A number of bytes, of which threads take what they need and wait, in turn, until it is there."""

    def __init__(self) -> None:
        self._taken = 0
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextlib.contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold ``size`` bytes while the block runs; more than there are means all. A block must not take again."""
        size = min(size, BUDGET)
        with self._turn, self._changed:  # in turn, else small ones could keep a large one waiting for ever
            self._changed.wait_for(lambda: self._taken + size <= BUDGET)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


_ROOM = _Room()


class _Remarks:
    """What is worth saying of pictures that are read: a warning of each kind, for the first one in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._collected: list[tuple[str, Path, str]] | None = None

    def add(self, kind: str, path: Path, sentence: str) -> None:
        with self._lock:
            if self._collected is not None:
                self._collected.append((kind, path, sentence))
                return
            is_first = kind not in self._said
            self._said.add(kind)
        if is_first:
            LOGGER.warning("warning: %s: %s; said once, of the first such", path, sentence)

    @contextlib.contextmanager
    def collected(self) -> Iterator[list[tuple[str, Path, str]]]:
        """Collect while the block runs, of every picture, instead of warning: by kind, file, and what there is."""
        found: list[tuple[str, Path, str]] = []
        self._collected = found
        try:
            yield found
        finally:
            self._collected = None

    def forget(self) -> None:
        """Begin again, as a process does."""
        self._said.clear()


REMARKS = _Remarks()


class _Parts(io.RawIOBase):
    """Some parts of a file, each its place and length, as if they were a file."""

    def __init__(self, file: BinaryIO, parts: list[tuple[int, int]]):
        self._file, self._places = file, [place for place, _ in parts]
        self._ends = list(itertools.accumulate(length for _, length in parts))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, offset + (0, self._position, self._ends[-1])[whence])
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        i = bisect_right(self._ends, self._position)
        if i == len(self._ends):
            return 0
        start = self._ends[i - 1] if i else 0
        self._file.seek(self._places[i] + self._position - start)
        count = self._file.readinto(memoryview(buffer)[: self._ends[i] - self._position])  # type: ignore[attr-defined]
        self._position += count
        return count


@dataclass
class Picture:
    """A picture file whose pixels have not been decoded yet.

    Attributes:
        path: the file.
        image: as Pillow opened it; neither turned nor decoded.
        size: width and height as they lie in the file.
        orientation: EXIF's, 1 to 8.
        is_inverted: whether 0 is white, which Pillow leaves to others where pixels have 16 bits.
        transparent: of a 16-bit grey picture, the value that is transparent.
    """

    path: Path
    image: Image.Image
    size: tuple[int, int]
    orientation: int = 1
    is_inverted: bool = False
    transparent: int | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height once the picture is turned upright."""
        return self.size[::-1] if self.orientation in LYING else self.size

    def memory(self, mode: str) -> int:
        """Return how many bytes ``decode`` needs, at most."""
        image = self.image
        own = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}.get(image.mode, 4)
        needed = own
        if image.mode != mode:
            needed += {"RGB": 4, "mask": 9}.get(mode, 1)  # of a mask: RGB, and numpy's copies
        if image.mode.startswith("I;16"):
            needed += 6  # numpy's copies
        if self.orientation in _TURNS:
            needed += own
        if _has_alpha(image):
            needed += 12  # RGBA, alpha, and what is pasted on
        if image.info.get("progressive"):
            needed += 6  # libjpeg's coefficients
        if image.format == "TIFF":
            needed += own  # libtiff's strips, of which there may be one
        return self.size[0] * self.size[1] * needed

    @property
    def is_deep(self) -> bool:
        """Whether the pixels have 16 bits: of a file, even where Pillow decodes to 8."""
        return ";16" in str(getattr(self.image, "tile", self.image.mode))

    def decode(self, mode: str) -> Image.Image:
        """Return the pixels as "RGB", "L" or "mask", upright, on black where they are transparent.

        A mask is "L", and 255 where one of two values is that is not 0, whatever it is (``two_valued``). Of others,
        the level is that of the brightest colour channel.
        """
        is_deep = mode != "mask" and self.is_deep
        turned = self.raw()
        deepest = None
        if mode == "mask":
            if _has_alpha(turned):  # what is transparent marks nothing, whatever its colour is
                if turned.mode not in _MASKS_WITH_ALPHA:
                    raise ValueError(
                        f"transparent pixels in a mask of kind {turned.mode}; save it without transparency"
                    )
                turned = self._replace(turned, _on_black(turned))
            marked = two_valued(self._levels(turned))
            if marked is not None:
                return self._replace(turned, marked)
            if turned.mode not in ("1", "L", "I;16", "I;16B"):
                turned = self._replace(turned, brightest_channel(turned))
            mode = "L"
        if turned.mode.startswith("I;16"):
            deepest = int(np.max(np.asarray(turned)))
            turned = self._replace(turned, self._to_8_bit(turned))
        if _has_alpha(turned):
            turned = self._replace(turned, _on_black(turned, may_be_empty=False))
        if turned.mode != mode:
            turned = self._replace(turned, turned.convert(mode))
        if is_deep:
            _remark_on_bits(turned, self.path, None if self.is_inverted else deepest)
        return turned

    def raw(self) -> Image.Image:
        """Return the pixels as they are in the file, but upright."""
        turned: Image.Image = self.image
        turned.load()
        if self.orientation in _TURNS:
            turned = self._replace(turned, turned.transpose(_TURNS[self.orientation]))
        return turned

    def _levels(self, image: Image.Image) -> Image.Image:
        """Return 16 bits as they are meant, 0 where they are black or transparent; other pictures as they are."""
        if not image.mode.startswith("I;16"):
            return image
        deep = np.asarray(image).astype(np.uint16)
        levels = ~deep if self.is_inverted else deep.copy()
        if self.transparent is not None:
            levels[deep == self.transparent] = 0
        return Image.fromarray(levels)

    def _replace(self, before: Image.Image, after: Image.Image) -> Image.Image:
        if after is not before:
            before.close()  # its pixels are not needed any more
        return after

    def _to_8_bit(self, image: Image.Image) -> Image.Image:
        """Scale 16 bits to 8, to the nearest; Pillow's own conversion would clip them."""
        table = ((2 * np.arange(65536) + 257) // 514).astype(np.uint8)  # round(x / 257)
        if self.is_inverted:
            table = table[::-1].copy()
        if self.transparent is not None:
            table[self.transparent] = 0
        deep = np.asarray(image)
        shallow = np.empty(deep.shape, np.uint8)
        rows = max(1, _BLOCK // max(1, deep.shape[1]))
        for start in range(0, len(deep), rows):
            shallow[start : start + rows] = table[deep[start : start + rows]]
        return Image.fromarray(shallow)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _on_black(image: Image.Image, *, may_be_empty: bool = True) -> Image.Image:
    """Lay a picture on black where it is transparent, so that nothing hidden comes through.

    Black, as most programs leave it there: such pictures keep the values that they have in the file.
    """
    if image.mode == "La":  # which Pillow converts to this only
        image = image.convert("LA")
    with_alpha = image.convert("RGBA")
    alpha = with_alpha.getchannel("A")
    low, high = alpha.getextrema()
    if low == 255:
        image.info.pop("transparency", None)
        return image
    if high == 0 and not may_be_empty:
        raise ValueError("all of its pixels are transparent; save it without alpha if they are not meant to be")
    opaque = Image.new("RGB", image.size)
    opaque.paste(with_alpha.convert("RGB"), mask=alpha)
    return opaque


@contextlib.contextmanager
def decoded(path: Path, mode: str) -> Iterator[Image.Image]:
    """Decode a picture as "RGB", "L" or "mask" for the block. Blocks must not be nested: they share ``BUDGET``.

    Raises:
        InputError: as by ``opened``.
    """
    with opened(path) as picture, _ROOM.take(picture.memory(mode)):
        yield picture.decode(mode)


def from_memory(image: object, name: str) -> Image.Image:
    """Return an image that a program holds as RGB of 8 bits, upright, as its file would be read; it stays as it is.

    A grey array is returned as grey: each of its three equal channels would be resized to the same.

    Args:
        image: Pillow's, which is turned as its EXIF says; or uint8 (H, W, 3), RGB, or (H, W), grey.
        name: what errors call it.

    Raises:
        InputError: it is of another kind, or too large.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or image.ndim < 2 or not image.size:
            raise InputError(
                f"{name}: is an array {image.dtype} {image.shape}; expected uint8, (height, width, 3) in the order "
                "red, green, blue, or (height, width)"
            )
        _check_pixels(name, *image.shape[1::-1])
        return Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise InputError(f"{name}: is of type {type(image).__name__}; expected a path, a PIL image or a numpy array")
    _check_pixels(name, *image.size)
    if image.mode not in _MODES_IN_MEMORY:
        raise InputError(
            f"{name}: is a PIL image of mode {image.mode}; expected one of {', '.join(_MODES_IN_MEMORY)}: convert it"
        )
    try:
        with _LOADING:  # Pillow decodes on first use, and threads may share an image
            held = image.copy()
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        picture = Picture(Path(name), held, held.size, _checked_orientation(Path(name), orientation, []))
        return picture.decode("RGB")
    except MemoryError as error:
        raise InputError(f"{name}: not enough memory to decode it") from error
    except InputError:
        raise
    except Exception as error:  # as of ``opened``
        raise InputError(f"{name}: not a readable image: {error}") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Picture]:
    """Open a picture; what is wrong with it while the block reads it becomes an ``InputError`` that names it.

    Raises:
        InputError: the file is missing, no picture, damaged, too large to be one, or of a kind that is not read.
    """
    # Pillow warns, without a name, of half of what it refuses, and of damaged metadata
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    try:
        check_regular_file(path)
        with open(path, "rb") as file:
            yield _open(path, file)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: not enough memory to decode it") from error
    except OSError as error:
        if error.errno is None:  # Pillow's own
            raise InputError(f"{path}: not a readable image: {error}") from error
        if error.errno == errno.ENOENT and os.path.islink(path):
            raise InputError(f"{path}: is a link that leads nowhere") from error
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # Pillow's decoders raise whatever damaged numbers lead to, TypeError among others
        raise InputError(f"{path}: not a readable image: {error}") from error


def _open(path: Path, file: BinaryIO) -> Picture:
    start = file.read(8)
    file.seek(0)
    if start == _PNG_SIGNATURE:
        picture = _open_png(path, file)
    elif start.startswith(b"\xff\xd8\xff"):
        picture = _open_jpeg(path, file)
    elif start.startswith(b"BM"):
        image = BmpImagePlugin.BmpImageFile(file)
        _check_bmp(image, file)
        picture = Picture(path, image, image.size)
    elif start[:4] in TiffImagePlugin.PREFIXES:
        picture = _open_tiff(path, file)
    else:
        raise ValueError("it is neither PNG nor JPEG, BMP or TIFF")
    _check_pixels(path, *picture.size)
    return picture


def _check_pixels(path: Path | str, width: int, height: int) -> None:
    limit = pixel_limit()
    if width * height > limit:
        most = f"{limit / 1e6:.4g} million" if limit >= 1e6 else str(limit)
        raise InputError(
            f"{path}: has {width} x {height} pixels, more than {most}; "
            f"if it is not damaged, set {PIXEL_LIMIT}={width * height} in the environment"
        )


def _open_png(path: Path, file: BinaryIO) -> Picture:
    start = file.read(24)
    _check_pixels(path, int.from_bytes(start[16:20]), int.from_bytes(start[20:]))  # before the whole file is read
    parts, about, problems = _png_parts(file)
    image = PngImagePlugin.PngImageFile(io.BufferedReader(_Parts(file, parts)))
    exif = about.get(b"eXIf") or _profile_exif(about.get(b"Raw profile type exif"))
    orientation = _orientation(path, exif, about.get(b"XML:com.adobe.xmp"), problems)
    picture = Picture(path, image, image.size, orientation)
    bits, colours = about[b"IHDR"][8:10]
    if "transparency" in image.info and colours == 0:
        value = int.from_bytes(about[b"tRNS"][:2])
        if bits == 16:
            picture.transparent = image.info.pop("transparency")
        else:  # Pillow has scaled the pixels, but not this
            largest = 2**bits - 1
            image.info["transparency"] = (value & largest) * 255 // largest
    elif "transparency" in image.info and bits == 16:
        raise ValueError("has a transparent colour of 16 bits; save it with an alpha channel, or without")
    return picture


def _png_parts(file: BinaryIO) -> tuple[list[tuple[int, int]], dict[bytes, bytes], list[str]]:
    """Check the checksums of a PNG's parts, of which Pillow leaves out the pixels', and find what pixels depend on.

    Returns:
        Places and lengths of these parts; the content of some parts and texts, by their names; what was wrong with
        others.
    """
    file.seek(len(_PNG_SIGNATURE))
    parts, about, problems = [(0, len(_PNG_SIGNATURE))], dict[bytes, bytes](), list[str]()
    frames, is_frame = 0, False
    while True:
        start = file.tell()
        header = file.read(8)
        length, kind = int.from_bytes(header[:4]), header[4:]
        checksum, content = zlib.crc32(kind), b""
        for left in range(length, 0, -_BLOCK):
            block = file.read(min(left, _BLOCK))
            checksum = zlib.crc32(block, checksum)
            if kind not in (b"IDAT", b"fdAT") and len(content) < _LONGEST_TEXT:
                content += block
        found = file.read(4)
        if len(found) < 4:
            raise ValueError("truncated: its end is missing")
        if start == len(_PNG_SIGNATURE) and (kind != b"IHDR" or length != 13):
            raise ValueError("damaged: its header is missing")
        if checksum != int.from_bytes(found):
            if kind not in _PNG_AROUND:
                raise ValueError(f"damaged: wrong checksum in the part at byte {start}")
            problems.append(f"a wrong checksum in its part {kind.decode()}")
            continue
        if kind in _PNG_PIXELS:
            if parts[-1][0] + parts[-1][1] == start:
                parts[-1] = (parts[-1][0], file.tell() - parts[-1][0])
            else:
                parts.append((start, length + 12))
        elif not kind[0] & 0x20:  # a capital letter: not to be passed over
            raise ValueError(f"has a part {kind.decode(errors='replace')!r}, which no PNG needs")
        if kind == b"acTL":
            frames += int.from_bytes(content[:4])
        elif kind == b"fcTL" and b"IDAT" not in about:
            is_frame = True
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            about |= _png_text(kind, content)
        about[kind] = content
        if kind == b"IEND":
            break
    pages = frames + 1 - is_frame if frames else 1
    if pages > 1:
        raise ValueError(f"holds {pages} pages or frames; expected one, or each in a file of its own")
    return parts, about, problems


def _png_text(kind: bytes, content: bytes) -> dict[bytes, bytes]:
    """Return one of the two texts that may hold an orientation, by its name; nothing of others or damaged ones."""
    name, _, text = content.partition(b"\0")
    if name not in (b"Raw profile type exif", b"XML:com.adobe.xmp"):
        return {}
    is_packed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
    text = {b"tEXt": text, b"zTXt": text[1:], b"iTXt": text[2:].split(b"\0", 2)[-1]}[kind]
    try:
        return {name: zlib.decompressobj().decompress(text, _LONGEST_TEXT) if is_packed else text}
    except zlib.error:
        return {}


def _profile_exif(text: bytes | None) -> bytes | None:
    """Return the EXIF of a text as ImageMagick writes it: a name, a length, hexadecimal digits."""
    try:
        return bytes.fromhex("".join((text or b"").decode("latin-1").split("\n")[3:])) or None
    except ValueError:
        return None


def _open_jpeg(path: Path, file: BinaryIO) -> Picture:
    parts, exif, xmp = _jpeg_parts(file)
    image = JpegImagePlugin.JpegImageFile(io.BufferedReader(_Parts(file, parts)))
    if image.mode == "CMYK" and "adobe_transform" not in image.info:
        raise ValueError("its pixels are CMYK without a word (Adobe's) on which value is no ink; save it as RGB")
    return Picture(path, image, image.size, _orientation(path, exif, xmp, []))


def _jpeg_parts(file: BinaryIO) -> tuple[list[tuple[int, int]], bytes | None, bytes | None]:
    """Find what the pixels of a JPEG depend on: places and lengths; also EXIF and XMP, where there are any.

    Left out are previews, further pictures, profiles and remarks.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(2)
    parts, exif, xmp = [(0, 2)], b"", None
    while True:
        byte = file.read(1)
        while byte not in (b"\xff", b""):
            byte = file.read(1)
        while byte == b"\xff":
            byte = file.read(1)
        if byte in (b"", b"\xd9"):
            raise ValueError("truncated: its pixels are missing")
        marker, start = byte[0], file.tell() - 2
        if marker in (0, 1) or 0xD0 <= marker <= 0xD8:
            continue
        length = int.from_bytes(file.read(2))
        if marker == 0xDA:
            return [*parts, (start, end - start)], exif or None, xmp
        content = file.read(max(0, length - 2))
        if marker == 0xE1 and content.startswith(b"Exif\0\0"):
            exif += content[6:] if exif else content
        elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = content
        is_around = 0xE0 <= marker <= 0xEF or marker == 0xFE
        tells_colours = (marker == 0xE0 and content.startswith(b"JFIF\0") and length >= 16) or (
            marker == 0xEE and content.startswith(b"Adobe") and length >= 14
        )
        if tells_colours or not is_around:
            parts.append((start, length + 2))


def _orientation(path: Path, exif: bytes | None, xmp: bytes | None, problems: list[str]) -> int:
    """Return the orientation that metadata give, 1 where they give none; whatever is wrong with them is said once."""
    value: object = None
    if exif:
        try:
            tags = Image.Exif()
            tags.load(exif if exif.startswith(b"Exif\0\0") else b"Exif\0\0" + exif)
            value = tags.get(ExifTags.Base.Orientation)
        except Exception:  # as with damaged pixels
            problems = [*problems, "EXIF that cannot be read"]
    if value is None and xmp and (found := re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp)):
        value = int(found[1])
    return _checked_orientation(path, value, problems)


def _checked_orientation(path: Path, value: object, problems: list[str]) -> int:
    if isinstance(value, int) and 1 <= value <= 8:
        return value
    if value is not None:
        problems = [*problems, f"an orientation {value!r}, which is none of 1 to 8"]
    if problems:
        REMARKS.add("orientation", path, f"has {problems[0]}; it is read as it lies in the file")
    return 1


@functools.cache
def _silence_libtiff() -> None:
    """Keep libtiff from writing to stderr, without a file's name, what Pillow raises; it knows no other way."""
    with contextlib.suppress(OSError, AttributeError):
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        for name in sorted(set(re.findall(r"/.*libtiff.*\.so.*", maps))):
            ctypes.CDLL(name).TIFFSetErrorHandler(None)


class _TiffImage(TiffImagePlugin.TiffImageFile):
    """Without a look at metadata once the pixels are decoded, and as they lie in the file."""

    def load_prepare(self) -> None:
        if self._im is None:  # else Pillow would, once it has looked at its own limit
            self.im = Image.new(self.mode, self._tile_size).im
        super().load_prepare()

    def load_end(self) -> None:
        self._size = self.im.size


def _open_tiff(path: Path, file: BinaryIO) -> Picture:
    _silence_libtiff()
    # what Pillow has for little-endian files only
    TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))
    page, tags = _tiff_page(file)
    _check_tiff(tags)
    file.seek(0)
    try:
        image = _TiffImage(file)
        image.seek(page)
    except SyntaxError as error:
        raise ValueError(f"its pixels are {_tiff_kind(tags)}, which is not read ({error})") from error
    if image.mode == "PA":
        raise ValueError("its pixels are a palette with alpha; save it as RGBA")
    xmp, orientation = tags.get(700), tags.get(274)
    if orientation is None:
        orientation = _orientation(path, None, xmp if isinstance(xmp, bytes) else None, [])
    else:
        orientation = _checked_orientation(path, orientation, [])
    return Picture(path, image, image._tile_size, orientation, is_inverted=tags.get(262, 0) == 0)


def _tiff_page(file: BinaryIO) -> tuple[int, Mapping[int, object]]:
    """Return number and tags of the one page of a TIFF that is neither a preview nor a reduced copy of another."""
    header = file.read(8)
    header += file.read(8) if header[2] == 43 else b""
    place = TiffImagePlugin.ImageFileDirectory_v2(header).next
    end = file.seek(0, io.SEEK_END)
    pages: list[tuple[int, Mapping[int, object]]] = []
    reduced: list[tuple[int, Mapping[int, object]]] = []
    places: list[int] = []
    while place and place not in places and place < end:
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(place)
        try:
            tags.load(file)
            content = dict(tags)
        except Exception:
            if places:  # behind the picture there may be anything
                break
            raise
        places.append(place)
        kind = content.get(254, 0)
        if isinstance(kind, int) and kind & 4:
            raise ValueError("holds a transparency mask as a page of its own; save it with an alpha channel")
        is_reduced = (isinstance(kind, int) and kind & 1) or content.get(255) == 2
        if {256, 257} <= content.keys():  # else it is no picture
            (reduced if is_reduced else pages).append((len(places) - 1, content))
        place = tags.next
    pages = pages or reduced
    if len(pages) != 1:
        raise ValueError(f"holds {len(pages)} pages or frames; expected one, or each in a file of its own")
    return pages[0]


def _check_tiff(tags: Mapping[int, object]) -> None:
    """Check that the pixels of a TIFF are of a kind that Pillow reads correctly.

    The defaults are those of TIFF 6.0.
    """
    bits, kind = max(_numbers(tags, 258, 1)), max(_numbers(tags, 339, 1))  # BitsPerSample, SampleFormat
    if kind != 1 or bits not in (1, 2, 4, 8, 16):
        name = {1: "whole", 2: "signed", 3: "floating-point"}.get(int(kind), "undefined")
        raise ValueError(f"its pixels are {name} numbers of {bits} bits; expected unsigned ones of 8 or 16 bits")
    photometric, compression = tags.get(262, 0), tags.get(259, 1)
    is_usual = bits == 8 and tags.get(266, 1) == 1 and photometric != 0  # else Pillow would show a negative, or fail
    if tags.get(284, 1) == 2 and compression == 1 and not is_usual:
        raise ValueError(
            "its colours are stored one after the other, in a way that is not read; save them side by side"
        )
    if photometric == 3 and max(_numbers(tags, 320, 65535)) < 256:
        raise ValueError("its palette is of 8 bits, where 16 are expected; save it as RGB")
    if photometric == 5 and tags.get(332, 1) != 1:
        raise ValueError("its inks are not CMYK")
    if photometric == 6 and compression not in (6, 7):
        if compression == 1 and tuple(_numbers(tags, 530, 2, 2)) != (1, 1):
            raise ValueError("its colours (YCbCr) are of less resolution than its brightness; save it as RGB")
        if not _are_near(_numbers(tags, 529, 0.299, 0.587, 0.114), (0.299, 0.587, 0.114), 1e-3):
            raise ValueError("its colours (YCbCr) are not those of JPEG; save it as RGB")
        if not _are_near(_numbers(tags, 532, 0, 255, 128, 255, 128, 255), (0, 255, 128, 255, 128, 255), 1):
            raise ValueError("its colours (YCbCr) have a reference black and white of their own; save it as RGB")


def _numbers(tags: Mapping[int, object], tag: int, *default: float) -> tuple[float, ...]:
    value = tags.get(tag, default)
    return value if isinstance(value, tuple) else (value,)


def _are_near(found: tuple[float, ...], expected: tuple[float, ...], tolerance: float) -> bool:
    pairs = itertools.zip_longest(found, expected, fillvalue=float("inf"))
    return all(abs(float(one) - other) <= tolerance for one, other in pairs)


def _tiff_kind(tags: Mapping[int, object]) -> str:
    photometric = tags.get(262, 0)
    name = _PHOTOMETRIC.get(photometric, f"of photometric interpretation {photometric}")  # type: ignore[call-overload]
    return f"{name} of {tags.get(258, 1)} bits, {tags.get(277, 1)} a pixel, extra {tags.get(338, ())}"


def _check_bmp(image: BmpImagePlugin.BmpImageFile, file: BinaryIO) -> None:
    """Check that Pillow has not taken the numbers of colours for grey values: it looks at the palette alone."""
    file.seek(14)
    header = file.read(16)
    bits = int.from_bytes(header[10:12] if header[0] == 12 else header[14:16], "little")
    expected = {"1": 1, "L": 8}.get(image.mode, bits)
    if bits != expected:
        raise ValueError(f"its pixels are of {bits} bits, with a palette for {expected}; save it as PNG")


def brightest(image: Image.Image) -> int:
    """Return the largest value of any band."""
    return int(np.max(image.getextrema()))  # of one band, or of each


def _remark_on_bits(image: Image.Image, path: Path, deepest: int | None) -> None:
    """Remark on a 16-bit picture that uses fewer; scaling each by its own values would make them differ.

    Args:
        image: as it is read, of 8 bits.
        deepest: of a grey picture, its brightest value of 16 bits. Of 13 bits and more it tells only where it is the
            largest that they have, as in highlights: what is just not so bright may be of 16 bits and dark.
    """
    found = brightest(image)
    if found <= _DARK:
        REMARKS.add(
            "bits",
            path,
            f"uses the lowest 12 of its 16 bits at most, is read as nearly black (brightest: {found} of 255); "
            "if the camera gives no more, scale all pictures alike (12 bits: times 16)",
        )
    elif deepest in _SATURATED:
        bits = _SATURATED[deepest]
        REMARKS.add(
            "bits",
            path,
            f"has the brightest value {deepest}, the largest of {bits} bits, which of 16 is read as {found} of 255; "
            f"if the camera gives no more, scale all pictures alike ({bits} bits: times {2 ** (16 - bits)})",
        )
