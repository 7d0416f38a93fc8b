"""Pictures of every kind that is read, and of those that are not, by a number: for a comparison of two readers."""

import io
import itertools
import struct

import numpy as np
from PIL import Image

from tests.picture_files import bmp, pack_bits, png, png_part, tiff
from tests.test_any_pictures import PICTURES, mutate

ORIENTATIONS = (1, 2, 3, 4, 5, 6, 7, 8, 0, 9)
_PILLOW_TIFFS = (
    ("RGB", "jpeg"), ("L", "jpeg"), ("YCbCr", "jpeg"), ("1", "group3"), ("1", "group4"), ("1", "tiff_ccitt"),
    ("RGB", "tiff_lzw"), ("RGB", "tiff_adobe_deflate"), ("L", "tiff_deflate"), ("RGBA", "packbits"), ("LA", None),
    ("P", "tiff_lzw"), ("CMYK", None), ("CMYK", "tiff_lzw"), ("YCbCr", None), ("YCbCr", "tiff_lzw"), ("I;16", None),
    ("I;16", "tiff_adobe_deflate"), ("RGB", "lzma"), ("RGB", "zstd"), ("F", None), ("I", "tiff_lzw"),
)  # fmt: skip


def scene(rng, width, height, channels=3):
    """Something like a photograph: slopes, edges and noise; uint8 (height, width, channels)."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0, 0.3) + y * rng.uniform(0, 0.3) + rng.uniform(0, 6)) for _ in range(channels)]
    picture = np.stack(waves, -1) * 90 + 128 + rng.normal(0, rng.choice([0, 3, 30]), (height, width, channels))
    picture[height // 3 : height // 2, width // 4 :] += 60
    return picture.clip(0, 255).astype(np.uint8)


def _levels(rng, width, height, channels, bits):
    """Whole numbers of some bits, (height, width, channels)."""
    if rng.integers(0, 3) == 0:
        return rng.integers(0, 2**bits, (height, width, channels))
    picture = scene(rng, width, height, channels).astype(int)
    return picture * 257 + rng.integers(-99, 99, picture.shape).clip(-1, 1) if bits == 16 else picture >> (8 - bits)


def _exif(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def _png(rng, width, height):
    colours = int(rng.choice([0, 0, 2, 2, 3, 4, 6]))
    bits = int(rng.choice({0: [1, 2, 4, 8, 16], 3: [1, 2, 4, 8]}.get(colours, [8, 16])))
    samples = _levels(rng, width, height, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours], bits).clip(0, 2**bits - 1)
    before, behind = [], []
    if colours == 3:
        colour_count = int(rng.integers(1, 2**bits + 1)) if rng.integers(0, 3) == 0 else 2**bits
        before.append(png_part(b"PLTE", rng.bytes(3 * colour_count)))
    if rng.integers(0, 3) == 0:  # a transparent colour, or several
        place = samples[rng.integers(0, height), rng.integers(0, width)].tolist()
        hidden = rng.choice([0, 255], 2**bits).astype(np.uint8).tobytes() if rng.integers(0, 2) else rng.bytes(2**bits)
        before.append(png_part(b"tRNS", hidden if colours == 3 else struct.pack(f">{len(place)}H", *place)))
    if rng.integers(0, 3) == 0:
        parts = behind if rng.integers(0, 2) else before
        parts.append(png_part(b"eXIf", _exif(int(rng.choice(ORIENTATIONS))).tobytes()[6:]))
    if rng.integers(0, 9) == 0:
        before.append(png_part(b"gAMA", b"1") if rng.integers(0, 2) else png_part(b"tEXt", b"a\0b")[:-1] + b"?")
    if colours == 2 and bits == 8 and rng.integers(0, 2):  # rows filtered in all ways
        file = io.BytesIO()
        Image.fromarray(samples.astype(np.uint8)).save(file, "png", compress_level=int(rng.integers(0, 10)))
        return file.getvalue()
    return png(samples, bits=bits, colours=colours, before=before, behind=behind, interlaced=bool(rng.integers(0, 2)))


def _jpeg(rng, width, height):
    mode = str(rng.choice(["RGB", "RGB", "RGB", "L", "CMYK"]))
    options = {"quality": int(rng.integers(20, 101)), "progressive": bool(rng.integers(0, 2)),
               "optimize": bool(rng.integers(0, 2))}  # fmt: skip
    if mode == "RGB":
        if rng.integers(0, 5) == 0:
            options["keep_rgb"] = True
        else:
            options["subsampling"] = str(rng.choice(["4:4:4", "4:2:2", "4:2:0", "4:1:1"]))
    if rng.integers(0, 3) == 0 and not (options["progressive"] or options["optimize"]):
        options["restart_marker_rows"] = 1
    if rng.integers(0, 2):
        options["exif"] = _exif(int(rng.choice(ORIENTATIONS)))
    file = io.BytesIO()
    image = Image.fromarray(scene(rng, width, height)).convert(mode)
    try:
        image.save(file, "jpeg", **options)
    except OSError:  # Pillow's buffer is too small for some of these options
        file = io.BytesIO()
        image.save(file, "jpeg", **options | {"progressive": False, "optimize": False})
    content = file.getvalue()
    if mode == "CMYK" and rng.integers(0, 2):  # the same numbers as YCCK, or nobody knows
        place = content.index(b"Adobe") + 11
        if rng.integers(0, 2):
            return content[:place] + b"\2" + content[place + 1 :]
        return content[: place - 15] + content[place + 1 :]
    return content


def _rows(packed, height):
    length = len(packed) // height
    return [packed[start : start + length] for start in range(0, len(packed), length)]


def _bmp(rng, width, height):
    bits = int(rng.choice([1, 4, 8, 16, 24, 32, 8]))
    header = int(rng.choice([40, 40, 108, 124]))
    if bits <= 8:
        header = int(rng.choice([12, 40, 108]))
        indices = _levels(rng, width, height, 1, bits)[..., 0]
        colour_count = 2**bits if rng.integers(0, 2) or header == 12 else int(rng.integers(1, 2**bits + 1))
        palette = rng.integers(0, 256, (colour_count, 4))
        if rng.integers(0, 3) == 0:
            palette[:] = (np.arange(colour_count) * (255 if colour_count == 2 else 1))[:, None]
        content = palette.astype(np.uint8)[:, : 3 if header == 12 else 4].tobytes()
        if bits > 1 and header != 12 and height == 32 and rng.integers(0, 2):
            return bmp(_runs(rng, indices[::-1], bits), bits=bits, width=width, compression=3 - bits // 4,
                       palette=content)  # fmt: skip
        return bmp(_rows(pack_bits(indices, bits, "<"), height), bits=bits, width=width, palette=content,
                   header=header, top_down=header > 12 and bool(rng.integers(0, 2)))  # fmt: skip
    if bits == 16:
        rows = _rows(rng.integers(0, 65536, (height, width)).astype("<u2").tobytes(), height)
        fields = [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F), (0xF00, 0xF0, 0xF)][
            rng.choice([0, 1, 2], p=[0.5, 0.4, 0.1])
        ]
    else:
        rows = _rows(scene(rng, width, height, bits // 8).tobytes(), height)
        choices = [(0xFF0000, 0xFF00, 0xFF), (0xFF000000, 0xFF0000, 0xFF00), (0xFF, 0xFF00, 0xFF0000)]
        fields = choices[rng.integers(0, 3)] if bits == 32 else choices[0]
    if rng.integers(0, 2) or bits == 24:
        return bmp(rows, bits=bits, width=width, header=header, top_down=bool(rng.integers(0, 2)))
    masks = struct.pack("<III", *fields)
    if header > 40 and bits == 32:
        masks += struct.pack("<I", int(rng.choice([0, 0xFF000000, 0xFF])))
    return bmp(rows, bits=bits, width=width, compression=3, masks=masks, header=header)


def _runs(rng, rows, bits):
    """Runs, single values and jumps of RLE8 or RLE4."""
    data = b""
    for row in rows.tolist():
        start = 0
        while start < len(row):
            length = int(rng.integers(1, 20))
            part = row[start : start + length]
            if rng.integers(0, 3) == 0 and len(part) >= 3:
                if bits == 8:
                    data += bytes([0, len(part), *part]) + b"\0" * (len(part) % 2)
                else:
                    packed = pack_bits([part], 4, "<")
                    data += bytes([0, len(part)]) + packed + b"\0" * (len(packed) % 2)
            else:
                for value, run in itertools.groupby(part):
                    data += bytes([len(list(run)), value if bits == 8 else value * 17])
            start += len(part)
        data += b"\0\0"
    return data + b"\0\1"


def _tiff(rng, width, height):
    if rng.integers(0, 3) == 0:
        mode, compression = _PILLOW_TIFFS[rng.integers(0, len(_PILLOW_TIFFS))]
        picture = scene(rng, width, height)
        if mode == "I;16":
            image = Image.fromarray(picture[..., 0].astype(np.uint16) * 250)
        else:
            image = Image.fromarray(picture).convert(mode)
        options = {"compression": compression} if compression else {}
        if compression == "jpeg":
            options["quality"] = int(rng.integers(40, 101))
        if compression and rng.integers(0, 2) and mode in ("RGB", "L"):
            options["tiffinfo"] = {317: 2} if compression != "jpeg" else {}
        if rng.integers(0, 2):
            options["exif"] = _exif(int(rng.integers(1, 9)))
        file = io.BytesIO()
        image.save(file, "tiff", big_tiff=bool(rng.integers(0, 5) == 0), **options)
        return file.getvalue()
    photometric = int(rng.choice([0, 1, 2, 2, 2, 3, 5, 6, 8]))
    bits = int(rng.choice([1, 2, 4, 8, 8, 16] if photometric in (0, 1, 3) else [8, 8, 16]))
    bands, more = {2: 3, 5: 4, 6: 3, 8: 3}.get(photometric, 1), {}
    if photometric == 3:
        more[320] = (3, rng.integers(0, 65536, 3 * 2**bits).tolist())
    compression = int(rng.choice([1, 5, 8, 32773]))
    if photometric == 6:  # uncompressed, it is refused where colours are of less resolution
        more[530] = (3, [1, 1] if rng.integers(0, 4) or compression > 1 else [2, 2])
    extras = int(rng.choice([0, 0, 0, 1, 1, 2, 3]))
    if extras:
        first = int(rng.choice([0, 1, 2, 999], p=[0.35, 0.3, 0.3, 0.05]))
        more[338] = (3, [first] + [0] * (extras - 1)) if rng.integers(0, 9) else None
    if rng.integers(0, 3) == 0:
        more[274] = (3, [int(rng.choice(ORIENTATIONS))])
    elif rng.integers(0, 5) == 0:
        more[700] = (1, b'<x tiff:Orientation="%d"/>' % rng.choice(ORIENTATIONS))
    if rng.integers(0, 9) == 0:
        more[254] = (4, [int(rng.choice([1, 4, 2]))])
    samples = _levels(rng, width, height, bands + extras, bits).clip(0, 2**bits - 1)
    rows, tile = int(rng.choice([1, 7, 16, height])), 16 if rng.integers(0, 3) == 0 else None
    if rng.integers(0, 6) == 0 and not tile:  # the last strip holds more rows than the picture has
        more[257] = (3, [height - int(rng.integers(0, (height - 1) % rows + 1))])
    return tiff(
        samples, bits=bits, photometric=photometric, order=str(rng.choice(["<", ">"])), more=more,
        compression=compression, planar=int(rng.choice([1, 1, 2])),
        tile=tile, rows=rows, fill_order=2 if rng.integers(0, 6) == 0 else 1,
    )  # fmt: skip


def _damaged(rng, whole, suffix):
    """Some bytes changed, or cut at the end."""
    if rng.integers(0, 2):
        return whole[: int(rng.integers(1, len(whole)))]
    return mutate(whole, rng, is_png=suffix == "png")


_KINDS = {"png": _png, "jpg": _jpeg, "bmp": _bmp, "tif": _tiff}


def picture(number, *, largest=80):
    """Return the ending and the content of a picture file, and if it is damaged: a function of its number."""
    rng = np.random.default_rng([20, number])
    suffix = tuple(_KINDS)[number % 4]
    width, height = (int(rng.integers(1, largest)) for _ in range(2))
    if rng.integers(0, 8) == 0:
        height = 32  # of which runs of bmp() are
    if number % 16 == 9 and rng.integers(0, 3) == 0:
        width, height = int(rng.integers(3000, 6001)), int(rng.integers(1, 40))
    if rng.integers(0, 12) == 0:
        width, height = ((1, height), (width, 1), (1, 1))[rng.integers(0, 3)]
    if rng.integers(0, 12) == 0:
        small = PICTURES[rng.integers(0, len(PICTURES))]
        suffix, content = small.kind.split("-")[0], small.content
    else:
        content = _KINDS[suffix](rng, width, height)
    is_damaged = rng.integers(0, 6) == 0
    return suffix, _damaged(rng, content, suffix) if is_damaged else content, is_damaged


def size_and_box(number, width, height):
    """Return what an upright picture of a number is cut and resized to: width and height, and a box (x, y, w, h)."""
    rng = np.random.default_rng([21, number])
    to = tuple(int(side) for side in rng.integers(1, 6, 2) * 16) if rng.integers(0, 3) else (width, height)
    if rng.integers(0, 2):
        return to, None
    x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
    return to, (x, y, int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1)))
