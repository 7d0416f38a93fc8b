"""Picture files made by hand, of kinds that Pillow does not write."""

import struct
import zlib

import numpy as np


def pack_bits(rows, bits, order):
    """Lay whole numbers (h, n) into bytes, each row from a new byte on; ``order``: ">" or "<", of 16 and 32 bits."""
    if bits >= 16:
        return np.asarray(rows).astype(f"{order}u{bits // 8}").tobytes()
    digits = (np.asarray(rows)[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def pack_lzw(data):
    """LZW of codes that never grow beyond 9 bits: the table is cleared in time."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    codes.append(257)
    text = "".join(f"{code:09b}" for code in codes)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def pack_packbits(data):
    """PackBits without repetitions."""
    return b"".join(bytes([len(part) - 1]) + part for part in (data[i : i + 100] for i in range(0, len(data), 100)))


PACK = {1: bytes, 5: pack_lzw, 8: zlib.compress, 32773: pack_packbits}


def tiff_page(order, offset, tags, *, following=0):
    """A directory at ``offset``: tags as {number: (type, values)}, with what does not fit into it behind it."""
    formats = {3: "H", 4: "I", 5: "I"}  # SHORT, LONG, RATIONAL as pairs; others are bytes
    entries, behind = b"", b""
    place = offset + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        count = len(values)
        if kind not in formats:
            data = bytes(values)
        else:
            data = struct.pack(f"{order}{len(np.ravel(values))}{formats[kind]}", *np.ravel(values).tolist())
        if len(data) > 4:
            entries += struct.pack(f"{order}HHII", tag, kind, count, place + len(behind))
            behind += data + b"\0" * (len(data) % 2)
        else:
            entries += struct.pack(f"{order}HHI", tag, kind, count) + data.ljust(4, b"\0")
    return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following) + behind


def tiff(
    samples, *, bits=8, photometric=1, order="<", compression=1, planar=1, tile=None, rows=16, more=(), fill_order=1
):
    """A TIFF of samples (h, w, n), whole numbers; more: further tags, of which None leaves one out."""
    height, width, bands = samples.shape
    planes = [samples] if planar == 1 else [samples[..., i : i + 1] for i in range(bands)]
    pieces = []
    for plane in planes:
        if tile:
            padded = np.zeros((-(-height // tile) * tile, -(-width // tile) * tile, plane.shape[2]), plane.dtype)
            padded[:height, :width] = plane
            pieces += [
                padded[y : y + tile, x : x + tile]
                for y in range(0, len(padded), tile)
                for x in range(0, padded.shape[1], tile)
            ]
        else:
            pieces += [plane[y : y + rows] for y in range(0, height, rows)]
    packed = []
    for piece in pieces:
        data = pack_bits(piece.reshape(len(piece), -1), bits, order)
        packed.append(PACK[compression](data))
        if fill_order == 2:
            packed[-1] = np.packbits(np.unpackbits(np.frombuffer(packed[-1], np.uint8), bitorder="little")).tobytes()
    places = np.cumsum([8] + [len(one) for one in packed]).tolist()
    end = places.pop()
    tags = {256: (3, [width]), 257: (3, [height]), 258: (3, [bits] * bands), 259: (3, [compression]),
            262: (3, [photometric]), 277: (3, [bands]), 284: (3, [planar])}  # fmt: skip
    where, counts = (324, 325) if tile else (273, 279)
    tags |= {where: (4, places), counts: (4, [len(one) for one in packed])}
    tags |= {322: (3, [tile]), 323: (3, [tile])} if tile else {278: (3, [rows])}
    if fill_order == 2:
        tags[266] = (3, [2])
    tags |= dict(more)
    tags = {tag: value for tag, value in tags.items() if value is not None}
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, end + end % 2)
    return start + b"".join(packed) + b"\0" * (end % 2) + tiff_page(order, end + end % 2, tags)


def png_part(kind, content=b""):
    """A part of a PNG with its right checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples, *, bits=8, colours=0, before=(), behind=(), interlaced=False):
    """A PNG of samples (h, w, n), whole numbers; before and behind: parts around those of the pixels."""
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    data = b""
    for x, y, dx, dy in passes:
        part = samples[y::dy, x::dx]
        if part.size:
            rows = pack_bits(part.reshape(len(part), -1), bits, ">")
            length = len(rows) // len(part)
            data += b"".join(b"\0" + rows[i * length : (i + 1) * length] for i in range(len(part)))
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlaced)
    packed = zlib.compress(data)
    half = len(packed) // 2
    parts = [png_part(b"IHDR", header), *before, png_part(b"IDAT", packed[:half]), png_part(b"IDAT", packed[half:])]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, *behind, png_part(b"IEND")])


def bmp(rows, *, bits, width, compression=0, palette=b"", masks=b"", header=40, top_down=False):
    """A BMP of rows of bytes as they stand in the file, or of all of them where they are compressed."""
    height = len(rows)
    data = rows if compression in (1, 2) else b"".join(row + b"\0" * (-len(row) % 4) for row in rows)
    height = 32 if compression in (1, 2) else height
    if header == 12:
        about = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        about = struct.pack("<IiiHHIIiiII", header, width, -height if top_down else height, 1, bits, compression,
                            len(data), 0, 0, len(palette) // 4, 0)  # fmt: skip
        about += masks
        about += b"\0" * (header - len(about)) if header > 40 else b""
    place = 14 + len(about) + len(palette)
    return b"BM" + struct.pack("<IHHI", place + len(data), 0, 0, place) + about + palette + data
