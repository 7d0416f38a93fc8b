"""Whole pictures of every kind load, but those listed; damaged ones load or are refused.

More of them: STPM_FUZZ_EXAMPLES=20000 bash scripts/run_tests.sh tests/test_any_pictures.py
"""

import io
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.utils import InputError
from tests.conftest import examples, load_image, load_mask, result_or_error


@dataclass(frozen=True)
class Picture:
    """A picture file, and what Pillow shows of it."""

    kind: str
    mode: str
    is_turned: bool
    content: bytes
    upright: Image.Image

    @property
    def name(self):
        return f"{self.kind}-{self.mode}{'-turned' if self.is_turned else ''}"


# What is refused whole, with the reason: to show it, one would have to know which of its numbers is white.
REFUSED = {"F": "its pixels are floating-point numbers of 32 bits", "I": "its pixels are signed numbers of 32 bits"}


def whole_pictures():
    """Small picture files: every format and the modes that it knows."""
    rng = np.random.default_rng(2)
    rgb = Image.fromarray(rng.integers(0, 255, (24, 20, 3), np.uint8))
    modes = {mode: rgb.convert(mode) for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "F", "I")}
    modes["I;16"] = Image.fromarray(rng.integers(0, 65535, (24, 20), np.uint16))
    modes["LAB"] = Image.frombytes("LAB", (20, 24), rng.bytes(20 * 24 * 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    kinds = {
        "png": ("RGB", "L", "1", "P", "RGBA", "LA", "I;16"),
        "jpeg": ("RGB", "L", "CMYK"),
        "bmp": ("RGB", "1", "P"),  # knows no EXIF
        "tiff": tuple(modes),
    }
    for kind, names in kinds.items():
        for mode in names:
            more = {"exif": exif} if kind in ("png", "jpeg") else {"compression": "tiff_lzw"} if kind == "tiff" else {}
            for options in ({}, more) if more else ({},):
                file = io.BytesIO()
                modes[mode].save(file, kind, **options)
                # what was saved, of which JPEGs lose some; libtiff converts YCbCr by itself
                loses = kind == "jpeg" or ("compression" in options and mode == "YCbCr")
                shown = Image.open(file) if loses else modes[mode]
                is_turned = "exif" in options
                upright = shown.transpose(Image.Transpose.ROTATE_270) if is_turned else shown
                yield Picture(f"{kind}{'-lzw' if 'compression' in options else ''}", mode, is_turned,
                              file.getvalue(), upright)  # fmt: skip


PICTURES = list(whole_pictures())


def mutate(content, rng, *, is_png):
    """Change a few bytes, or cut, repeat or insert some; in half of the PNGs make the checksums right again."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, len(content)))
        # headers and directories stand at either end
        place = int(rng.choice([place, min(place, 60), max(0, len(content) - 1 - place % 200)]))
        match rng.integers(0, 6):
            case 0:
                content[place] ^= 1 << int(rng.integers(0, 8))
            case 1:
                content[place : place + 1] = rng.bytes(1)
            case 2:
                number = int(rng.choice([0, 1, 255, 256, 65535, 2**31 - 1, 2**32 - 1]))
                content[place : place + 4] = struct.pack(rng.choice(["<I", ">I"]), number)
            case 3:
                del content[place : place + int(rng.integers(1, 40))]
            case 4:
                content[place:place] = content[place : place + 20]
            case 5:
                del content[max(place, 1) :]
        content = content or bytearray(b"x")
    if is_png and rng.integers(0, 2):
        start = 8
        while start + 12 <= len(content):
            end = start + 8 + int.from_bytes(content[start : start + 4], "big")
            if end + 4 > len(content):
                break
            content[end : end + 4] = struct.pack(">I", zlib.crc32(content[start + 4 : end]))
            start = end + 4
    return bytes(content)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda one: one.name)
def test_whole_pictures(tmp_path, picture):
    """All load, as Pillow shows and resizes them, but those listed; of masks counts the brightest channel."""
    path = tmp_path / f"a.{picture.kind}"
    path.write_bytes(picture.content)
    for load, filter_ in ((load_image, Image.Resampling.LANCZOS), (load_mask, Image.Resampling.BILINEAR)):
        found = result_or_error(load, path, 16)
        if reason := REFUSED.get(picture.mode):
            assert str(found).startswith(f"{path}: not a readable image: {reason}")
            continue
        upright = picture.upright
        if picture.mode == "I;16":
            upright = Image.fromarray(((np.asarray(upright).astype(int) * 2 + 257) // 514).astype(np.uint8))
        converted = upright.convert("RGB")
        if load is load_mask:
            converted = Image.fromarray(np.asarray(converted).max(axis=2))
        expected = converted.resize((16, upright.height), filter_).resize((16, 16), filter_)
        assert np.array_equal(found, np.asarray(expected))


@examples(800)
@given(st.sampled_from(PICTURES), st.integers(0, 2**32 - 1))
def test_damaged_pictures(picture, seed):
    """Arrays of the right shape, or errors that name the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{picture.kind}"
        path.write_bytes(mutate(picture.content, np.random.default_rng(seed), is_png=picture.kind == "png"))
        for load, shape in ((load_image, (16, 16, 3)), (load_mask, (16, 16))):
            found = result_or_error(load, path, 16)
            if isinstance(found, InputError):
                assert str(found).startswith(f"{path}: ")
                continue
            assert found.shape == shape
            assert found.dtype == np.uint8
