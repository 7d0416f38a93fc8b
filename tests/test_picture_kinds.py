"""Pixels are right for every kind of PNG, JPEG, BMP and TIFF, or the file is refused with the reason.

Expectations come from the formats' specifications, by hand.
"""

import io
import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from src.utils import InputError
from tests.conftest import load_image, load_mask
from tests.picture_files import bmp, pack_bits, png, png_part, tiff

SIDE = 32  # nothing is resized


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def load(tmp_path):
    """Return a picture's pixels, or why it is refused."""

    def load(content):
        path = tmp_path / "a.png"
        path.write_bytes(content)
        try:
            return load_image(path, SIDE).astype(int)
        except InputError as error:
            return str(error).removeprefix(f"{path}: not a readable image: ")

    return load


@pytest.fixture
def ramp():
    """A smooth picture, that JPEG keeps."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([x * 8, y * 8, 255 - x * 4 - y * 3], -1).astype(np.uint8)


def grey(values, bits):
    """RGB of grey values of some bits."""
    scaled = (2 * values + 257) // 514 if bits == 16 else values * 255 // (2**bits - 1)
    return np.repeat(scaled, 3, -1)


def on_black(colours, alpha):
    return (colours * alpha + 127) // 255


def agree(found, expected, tolerance=0):
    assert not isinstance(found, str), found
    assert np.abs(found - expected).max() <= tolerance


def tiff_kinds():
    for bits, photometric, order in itertools.product((1, 2, 4, 8, 16), (0, 1, 2, 3), "<>"):
        if not (photometric == 2 and bits < 8) and not (photometric == 3 and bits == 16):
            yield bits, photometric, order


@pytest.mark.parametrize(("bits", "photometric", "order"), list(tiff_kinds()))
def test_tiff(rng, load, bits, photometric, order):
    """Grey of both kinds, RGB, palettes; uncompressed, LZW, Deflate, PackBits; strips, tiles; by pixel, by colour."""
    samples = rng.integers(0, 2**bits, (SIDE, SIDE, 3 if photometric == 2 else 1))
    more = {}
    if photometric == 3:
        colours = rng.integers(0, 65536, (3, 2**bits))
        colours[0, 0] = 65535
        more = {320: (3, colours.ravel().tolist())}
        expected = (colours >> 8).T[samples[..., 0]]
    elif photometric == 2:
        expected = samples >> (bits - 8)
    else:
        expected = grey(samples, bits) if photometric == 1 else 255 - grey(samples, bits)
    kind = {"bits": bits, "photometric": photometric, "order": order, "more": more}
    planars = (1, 2) if photometric == 2 else (1,)
    for compression, tile, planar in itertools.product((1, 5, 8, 32773), (None, 16), planars):
        found = load(tiff(samples, compression=compression, tile=tile, planar=planar, **kind))
        if planar == 2 and bits == 16 and compression == 1:
            assert found.startswith("its colours are stored one after the other")
        else:
            agree(found, expected)
        # bits from the other end: right, or refused
        found = load(tiff(samples, compression=compression, tile=tile, planar=planar, fill_order=2, **kind))
        if not isinstance(found, str):
            agree(found, expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 5])
def test_alpha_of_tiffs(rng, load, order, compression):
    """Black where transparent; what is no alpha is left out; associated alpha is in the colours already."""
    kind = {"order": order, "compression": compression}
    for bits in (8, 16):
        samples = rng.integers(0, 2**bits, (SIDE, SIDE, 4))
        colours, alpha = samples[..., :3], samples[..., 3:]
        plain, opacity = colours >> (bits - 8), alpha >> (bits - 8)
        premultiplied = colours * alpha // (2**bits - 1)
        for extra in (0, 1, 2, None, 999) if bits == 8 else (0, 1, 2, None):
            tag = {338: None if extra is None else (3, [extra])}
            stored = np.concatenate([premultiplied, alpha], -1) if extra == 1 else samples
            expected = plain if extra == 0 else premultiplied >> (bits - 8) if extra == 1 else on_black(plain, opacity)
            found = load(tiff(stored, photometric=2, bits=bits, more=tag, **kind))
            agree(found, expected, tolerance=int(extra == 1))
        agree(load(tiff(samples, photometric=5, bits=bits, **kind)), (255 - plain) * (255 - opacity) / 255, 1)
    level, alpha = rng.integers(0, 256, (2, SIDE, SIDE, 1))
    for extra, stored, expected in (
        (0, level, level),
        (1, on_black(level, alpha), on_black(level, alpha)),
        (2, level, on_black(level, alpha)),
    ):
        found = load(tiff(np.concatenate([stored, alpha], -1), more={338: (3, [extra])}, **kind))
        agree(found, np.repeat(expected, 3, -1), tolerance=int(extra == 1))


def test_colours_of_tiffs(rng, load):
    """YCbCr by JPEG's formula, CIELab by CIE's."""
    samples = rng.integers(0, 256, (SIDE, SIDE, 3))
    y, cb, cr = samples[..., 0], samples[..., 1] - 128, samples[..., 2] - 128
    expected = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1).clip(0, 255)
    for compression, planar in ((1, 1), (5, 1), (5, 2)):
        agree(load(tiff(samples, photometric=6, compression=compression, planar=planar, more={530: (3, [1, 1])})),
              expected, 1)  # fmt: skip
    for lightness, a, b, expected in (
        (128, 0, 0, (119.4, 119.4, 119.4)),
        (128, 10, 0, (136.2, 113.5, 119.8)),
        (128, 0, -10, (112.7, 119.8, 136.3)),
        (200, 20, -20, (218, 181.8, 231.7)),
    ):
        found = load(tiff(np.full((SIDE, SIDE, 3), (lightness, a % 256, b % 256)), photometric=8))
        agree(found, np.array(expected), 1)


RATIONALS_709 = [(2126, 10000), (7152, 10000), (722, 10000)]


@pytest.mark.parametrize(
    ("bands", "kind", "reason"),
    [
        (1, {"bits": 12}, "its pixels are whole numbers of 12 bits; expected unsigned ones of 8 or 16 bits"),
        (1, {"bits": 32}, "its pixels are whole numbers of 32 bits"),
        (1, {"bits": 32, "more": {339: (3, [3])}}, "its pixels are floating-point numbers of 32 bits"),
        (1, {"more": {339: (3, [2])}}, "its pixels are signed numbers of 8 bits"),
        (3, {}, "its pixels are grey of (8, 8, 8) bits, 3 a pixel"),
        (2, {"photometric": 0, "more": {338: (3, [2])}}, "its pixels are grey of (8, 8) bits, 2 a pixel, extra (2,)"),
        (1, {"photometric": 32803}, "its pixels are a sensor's raw colours of (8,) bits"),
        (1, {"photometric": 0, "more": {284: (3, [2])}}, "its colours are stored one after the other"),
        (4, {"photometric": 5, "more": {332: (3, [2])}}, "its inks are not CMYK"),
        (3, {"photometric": 6}, "its colours (YCbCr) are of less resolution than its brightness"),
        (3, {"photometric": 6, "more": {530: (3, [1, 1]), 529: (5, RATIONALS_709)}}, "its colours (YCbCr) are not"),
        (3, {"photometric": 6, "compression": 5, "more": {532: (5, [(16, 1), (235, 1)] * 3)}}, "its colours (YCbCr) h"),
        (1, {"photometric": 3, "more": {320: (3, list(range(256)) * 3)}}, "its palette is of 8 bits"),
        (2, {"photometric": 3, "more": {320: (3, [65535] * 768), 338: (3, [2])}}, "its pixels are a palette with alph"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_refused_tiffs(load, bands, kind, reason, order):
    """The reason names what is in the file, not what a library makes of it."""
    assert str(load(tiff(np.zeros((SIDE, SIDE, bands), int), order=order, **kind))).startswith(reason)


@pytest.mark.parametrize(
    ("mode", "compression"),
    [("RGB", "jpeg"), ("L", "jpeg"), ("YCbCr", "jpeg"), ("1", "group3"), ("1", "group4"), ("1", "tiff_ccitt")],
)
def test_compressions_of_tiffs(load, ramp, mode, compression):
    """Those of fax machines and cameras."""
    picture, file = Image.fromarray(ramp).convert(mode), io.BytesIO()
    picture.save(file, "tiff", compression=compression, **({"quality": 95} if compression == "jpeg" else {}))
    agree(load(file.getvalue()), np.asarray(picture.convert("RGB")), 6 if compression == "jpeg" else 0)


def test_big_tiff(load, ramp):
    """Of more than 4 GB; that its places are of 64 bits shows in a small one, too."""
    for compression in (None, "tiff_lzw"):
        file = io.BytesIO()
        Image.fromarray(ramp).save(file, "tiff", big_tiff=True, compression=compression)
        agree(load(file.getvalue()), ramp)


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        ((0, 1), None),
        ((1, 0), None),
        ((0, 1, 1), None),
        ((1,), None),
        ((0, 0), "holds 2 pages or frames; expected one"),
        ((0, 1, 0), "holds 2 pages or frames; expected one"),
        ((0, 4), "holds a transparency mask as a page of its own"),
    ],
)
def test_pages_of_tiffs(load, ramp, kinds, reason):
    """The one that is no reduced copy (1), wherever it stands."""
    picture, file = Image.fromarray(ramp), io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(file, new=True) as writer:
        for kind in kinds:
            page = picture.resize((16, 16)) if kind and len(kinds) > 1 else picture
            page.save(writer, "tiff", tiffinfo={254: kind})
            writer.newFrame()
    found = load(file.getvalue())
    if reason:
        assert found.startswith(reason)
    else:
        agree(found, ramp)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_png(rng, load, bits, interlaced):
    """Every colour type and depth, and the transparent colour of those that have one."""
    kind = {"bits": bits, "interlaced": interlaced}
    levels = rng.integers(0, 2**bits, (SIDE, SIDE, 1))
    agree(load(png(levels, **kind)), grey(levels, bits))
    hidden = int(levels[3, 3, 0])
    transparent = png_part(b"tRNS", struct.pack(">H", hidden))
    agree(load(png(levels, before=[transparent], **kind)), np.where(levels == hidden, 0, grey(levels, bits)))
    if bits <= 8:
        colours = rng.integers(0, 256, (2**bits, 3))
        palette = png_part(b"PLTE", colours.astype(np.uint8).tobytes())
        agree(load(png(levels, colours=3, before=[palette], **kind)), colours[levels[..., 0]])
        for alpha in (rng.integers(0, 256, 2**bits), np.where(np.arange(2**bits) == 1, 0, 255)):
            parts = [palette, png_part(b"tRNS", alpha.astype(np.uint8).tobytes())]
            found = load(png(levels, colours=3, before=parts, **kind))
            agree(found, on_black(colours[levels[..., 0]], alpha[levels]))
    if bits >= 8:
        samples = rng.integers(0, 2**bits, (SIDE, SIDE, 4))
        upper = samples >> (bits - 8)
        agree(load(png(samples[..., :3], colours=2, **kind)), upper[..., :3])
        agree(load(png(samples, colours=6, **kind)), on_black(upper[..., :3], upper[..., 3:]))
        found = load(png(samples[..., :2], colours=4, **kind))
        agree(found, on_black(np.repeat(upper[..., :1], 3, -1), upper[..., 1:2]))
        hidden = samples[3, 3, :3]
        transparent = png_part(b"tRNS", struct.pack(">HHH", *hidden.tolist()))
        found = load(png(samples[..., :3], colours=2, before=[transparent], **kind))
        if bits == 16:
            assert found.startswith("has a transparent colour of 16 bits")
        else:
            is_hidden = (samples[..., :3] == hidden).all(-1, keepdims=True)
            agree(found, np.where(is_hidden, 0, samples[..., :3]))


def test_hidden_content(tmp_path, ramp):
    """Magenta that nobody sees is no product; masks neither mark what is transparent. Opaque pictures stay."""
    hidden = np.full((SIDE, SIDE, 4), (255, 0, 255, 0), np.uint8)
    hidden[8:16, 8:16] = (10, 250, 30, 255)
    for name in ("a.png", "a.tif"):
        Image.fromarray(hidden).save(tmp_path / name)
        found = load_image(tmp_path / name, SIDE)
        assert np.array_equal(found, np.where(hidden[..., 3:] == 255, hidden[..., :3], 0))
        assert (load_mask(tmp_path / name, SIDE)[0] == 0).all()
    Image.fromarray(np.dstack([ramp, np.full((SIDE, SIDE), 255, np.uint8)])).save(tmp_path / "opaque.png")
    assert np.array_equal(load_image(tmp_path / "opaque.png", SIDE), ramp)
    Image.fromarray(np.dstack([ramp, np.zeros((SIDE, SIDE), np.uint8)])).save(tmp_path / "nothing.png")
    with pytest.raises(InputError, match=r"nothing\.png: .*all of its pixels are transparent"):
        load_image(tmp_path / "nothing.png", SIDE)


def frames(count):
    """Parts that make a PNG's picture the first of some frames."""
    control = struct.pack(">IIIIIHHBB", 0, SIDE, SIDE, 0, 0, 1, 1, 0, 0)
    return [png_part(b"acTL", struct.pack(">II", count, 0)), png_part(b"fcTL", control)]


@pytest.mark.parametrize(
    "part",
    [
        png_part(b"gAMA", struct.pack(">I", 100_000)),
        png_part(b"gAMA", b"1"),
        png_part(b"sRGB"),
        png_part(b"iCCP", b"x\0\5abc"),
        png_part(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(9_000_000))),
        png_part(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(9_000_000))),
        png_part(b"tEXt", b"Comment\0text")[:-1] + b"?",
        png_part(b"eXIf", b"MM\0*")[:-1] + b"?",
        png_part(b"eXIf", b"garbage"),
        png_part(b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x09\0\0\0\0\0\0"),
        png_part(b"zTXt", b"Raw profile type exif\0\0garbage"),
        png_part(b"tEXt", b"Raw profile type exif\0\nexif\n 3\nxyz\n"),
        png_part(b"pHYs", b"1"),
        png_part(b"prVt", bytes(100)),
    ],
    ids=lambda part: part[4:8].decode(),
)
def test_around_pngs(rng, load, part, capfd, caplog, recwarn):
    """It does not decide whether the picture is read; what is worth saying names the file."""
    samples = rng.integers(0, 256, (SIDE, SIDE, 3))
    for place in ("before", "behind"):
        agree(load(png(samples, colours=2, **{place: [part]})), samples)
    assert not recwarn
    assert capfd.readouterr().err == ""
    said = part[4:8] == b"eXIf" or b"text" in part
    assert [("a.png: has " in record.message) for record in caplog.records] == [True] * said


def test_orientations_of_pngs(rng, load):
    """In EXIF before or behind the pixels, as ImageMagick keeps EXIF, in XMP."""
    samples = rng.integers(0, 256, (SIDE, SIDE, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    content = exif.tobytes()
    profile = f"\nexif\n{len(content):8}\n{content.hex()}\n".encode()
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    for part in (
        png_part(b"eXIf", content[6:]),
        png_part(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
        png_part(b"tEXt", b"Raw profile type exif\0" + profile),
        png_part(b"iTXt", xmp),
    ):
        for place in ("before", "behind"):
            agree(load(png(samples, colours=2, **{place: [part]})), np.rot90(samples, -1))


def test_frames_of_pngs(rng, load):
    """One frame is a picture."""
    samples = rng.integers(0, 256, (SIDE, SIDE, 3))
    agree(load(png(samples, colours=2, before=frames(1))), samples)
    assert load(png(samples, colours=2, before=frames(2))).startswith("holds 2 pages or frames; expected one")
    assert load(png(samples, colours=2, behind=frames(1))).startswith("holds 2 pages or frames; expected one")
    assert load(png(samples, colours=2, before=[png_part(b"CgBI", bytes(4))])).startswith("has a part 'CgBI'")


def jpeg(picture, **options):
    file = io.BytesIO()
    picture.save(file, "jpeg", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(load, ramp, subsampling, progressive):
    """What OpenCV reads; near what was saved."""
    content = jpeg(Image.fromarray(ramp), subsampling=subsampling, progressive=progressive)
    agree(load(content), cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int), 1)
    agree(load(content), ramp, 12)


def test_colours_of_jpegs(load, ramp):
    """Grey, RGB, CMYK and YCCK by Adobe's marker; what is not known, or not decoded, is refused."""
    agree(load(jpeg(Image.fromarray(ramp[..., 0]))), ramp[..., :1], 5)
    agree(load(jpeg(Image.fromarray(ramp), keep_rgb=True)), ramp, 5)
    inks = Image.fromarray(np.dstack([255 - ramp, np.full((SIDE, SIDE), 20, np.uint8)]), "CMYK")
    content = jpeg(inks)
    agree(load(content), ramp * (235 / 255), 8)
    marker = content.index(b"\xff\xee")
    assert load(content[:marker] + content[marker + 16 :]).startswith("its pixels are CMYK without a word (Adobe's)")
    place = content.index(b"Adobe") + 11
    turned = content[:place] + b"\2" + content[place + 1 :]  # the same numbers, now YCCK
    agree(load(turned), cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int), 3)
    content = jpeg(Image.fromarray(ramp))
    frame = content.index(b"\xff\xc0")
    assert load(content[: frame + 4] + b"\x0c" + content[frame + 5 :]) == "cannot handle 12-bit layers"
    assert isinstance(load(content[: frame + 1] + b"\xc3" + content[frame + 2 :]), str)  # lossless
    assert "truncated" in load(content[:-40])


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        (0xE0, b"JFIF\0"),
        (0xE1, b"Exif\0\0garbage!"),
        (0xE1, b"Exif\0\0"),
        (0xE2, b"MPF\0garbage"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
        (0xEE, b"Adobe"),
        (0xFE, bytes(65_000)),
    ],
)
def test_around_jpegs(load, ramp, marker, text, capfd, caplog, recwarn):
    """It does not decide whether the picture is read; what is worth saying names the file."""
    content = jpeg(Image.fromarray(ramp))
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(text) + 2) + text
    agree(load(content[:2] + segment + content[2:]), load(content))
    assert not recwarn
    assert capfd.readouterr().err == ""
    assert [("a.png: has EXIF that cannot" in record.message) for record in caplog.records] == [True] * (b"!" in text)


@pytest.mark.parametrize("compression", [1, 5])
def test_around_tiffs(load, ramp, compression, capfd, caplog, recwarn):
    """Damaged tags beside those of the pixels, an odd orientation, a next page beyond the end."""
    more = {274: (3, [9]), 282: (5, [(1, 0)]), 305: (2, b"a" * 100), 330: (4, [5]), 700: (7, b"x" * 50),
            33723: (4, [1, 2, 3]), 34377: (7, b"8BIM" * 30), 34665: (4, [3]), 34853: (4, [10**9]),
            65000: (3, [1])}  # fmt: skip
    content = tiff(ramp.astype(int), photometric=2, compression=compression, more=more)
    agree(load(content), ramp)
    place = struct.unpack("<I", content[4:8])[0]
    place += 2 + 12 * struct.unpack("<H", content[place : place + 2])[0]
    for following in (3, 10**9, len(content) - 1):
        agree(load(content[:place] + struct.pack("<I", following) + content[place + 4 :]), ramp)
    assert not recwarn
    assert capfd.readouterr().err == ""
    assert [("has an orientation 9" in record.message) for record in caplog.records] == [True]


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes_of_bmps(rng, load, bits):
    """Bottom-up, top-down, with OS/2's header; grey ones that look like levels, too."""
    indices = rng.integers(0, 2**bits, (SIDE, SIDE))
    packed = pack_bits(indices, bits, "<")
    rows = [packed[start : start + len(packed) // SIDE] for start in range(0, len(packed), len(packed) // SIDE)]
    levels = np.arange(2**bits) * 255 // (2**bits - 1)
    greys = [np.repeat(one[:, None], 4, 1) for one in (levels, 255 - levels)]
    for palette in (rng.integers(0, 256, (2**bits, 4)), *greys):
        colours = palette.astype(np.uint8)
        expected = palette[indices][..., 2::-1]
        agree(load(bmp(rows[::-1], bits=bits, width=SIDE, palette=colours.tobytes())), expected)
        agree(load(bmp(rows, bits=bits, width=SIDE, palette=colours.tobytes(), top_down=True)), expected)
        found = load(bmp(rows[::-1], bits=bits, width=SIDE, palette=colours[:, :3].tobytes(), header=12))
        agree(found, expected)
    few = np.repeat(np.array([0, 255], np.uint8)[:, None], 4, 1) if bits > 1 else None
    if few is not None:  # Pillow takes the palette of two for that of one bit
        found = load(bmp(rows[::-1], bits=bits, width=SIDE, palette=few.tobytes()))
        assert found == f"its pixels are of {bits} bits, with a palette for 1; save it as PNG"


def test_colours_of_bmps(rng, load):
    """16, 24 and 32 bits, with and without fields of bits; alpha where the header declares it."""
    samples = rng.integers(0, 256, (SIDE, SIDE, 4))
    colours, alpha = samples[..., 2::-1], samples[..., 3:]
    rows = [row.astype(np.uint8).tobytes() for row in samples][::-1]
    agree(load(bmp([row.astype(np.uint8).tobytes() for row in samples[..., :3]][::-1], bits=24, width=SIDE)), colours)
    agree(load(bmp(rows, bits=32, width=SIDE)), colours)
    agree(load(bmp(rows[::-1], bits=32, width=SIDE, top_down=True)), colours)
    fields = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    agree(load(bmp(rows, bits=32, width=SIDE, compression=3, masks=fields[:12])), colours)
    agree(load(bmp(rows, bits=32, width=SIDE, compression=3, masks=fields, header=124)), on_black(colours, alpha))
    deep = rng.integers(0, 65536, (SIDE, SIDE))
    rows = [row.astype("<u2").tobytes() for row in deep][::-1]
    fifths = np.stack([deep >> 10, deep >> 5, deep], -1) & 31
    agree(load(bmp(rows, bits=16, width=SIDE)), fifths * (255 / 31), 1)
    fields = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    expected = np.stack([(deep >> 11) * (255 / 31), (deep >> 5 & 63) * (255 / 63), (deep & 31) * (255 / 31)], -1)
    agree(load(bmp(rows, bits=16, width=SIDE, compression=3, masks=fields)), expected, 1)
    fields = struct.pack("<III", 0xF00, 0xF0, 0xF)
    assert "bitfields" in load(bmp(rows, bits=16, width=SIDE, compression=3, masks=fields))


def test_runs_of_bmps(rng, load):
    """RLE8 and RLE4: runs, single values, jumps; an end before the last pixel is refused."""
    palette = rng.integers(0, 256, (256, 4))
    packed = palette.astype(np.uint8).tobytes()
    indices = np.sort(rng.integers(0, 256, (SIDE, SIDE)), 1)
    data = b""
    for row in indices[::-1].tolist():
        data += bytes([0, 5, *row[:5], 0])
        for value, run in itertools.groupby(row[5:]):
            data += bytes([len(list(run)), value])
        data += b"\0\0"
    agree(load(bmp(data + b"\0\1", bits=8, width=SIDE, compression=1, palette=packed)), palette[indices][..., 2::-1])
    assert load(bmp(data[:300], bits=8, width=SIDE, compression=1, palette=packed)) == "not enough image data"
    jump = b"\0\2\3\2" + bytes([29, 7, 0, 0]) + bytes([32, 9, 0, 0]) * 29 + b"\0\1"
    indices = np.full((SIDE, SIDE), 9)
    indices[30:], indices[29, :3], indices[29, 3:] = 0, 0, 7
    agree(load(bmp(jump, bits=8, width=SIDE, compression=1, palette=packed)), palette[indices][..., 2::-1])
    indices = rng.integers(0, 16, (SIDE, SIDE))
    data = b""
    for row in indices[::-1].tolist():
        data += bytes([0, 5, row[0] << 4 | row[1], row[2] << 4 | row[3], row[4] << 4, 0])
        data += b"".join(bytes([1, value << 4]) for value in row[5:]) + b"\0\0"
    found = load(bmp(data + b"\0\1", bits=4, width=SIDE, compression=2, palette=packed[:64]))
    agree(found, palette[indices][..., 2::-1])


def test_other_formats(load, ramp):
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "webp")
    assert load(file.getvalue()) == "it is neither PNG nor JPEG, BMP or TIFF"
