"""A model whose anomaly map is known by heart: how red the picture is, from 0 to 1. It needs no training, no MindSpore.

It is an exported model like any other, an ONNX file with its JSON beside it, so that every program takes it.
"""

import struct
from dataclasses import replace

import numpy as np
from PIL import Image

from src.data.view import square
from src.model.sidecar import new_sidecar, record_export


def _varint(number):
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes((*content, number))


def _field(number, value):
    """A field of a protocol buffer: a whole number, or text or another message behind its length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _tensor(name, shape, *numbers):
    dimensions = b"".join(_field(1, size) for size in shape)
    return dimensions + _field(2, 1) + _field(8, name) + _field(9, struct.pack(f"<{len(numbers)}f", *numbers))


def _port(name, shape):
    dimensions = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dimensions)))


def red_onnx(*, size, batch_size, bias=0.485, channels=1):
    """An ONNX file of one 1x1 convolution, which undoes the normalisation of red and leaves out green and blue."""
    node = b"".join(_field(1, name) for name in ("images", "weight", "bias")) + _field(2, "maps") + _field(4, "Conv")
    graph = (
        _field(1, node)
        + _field(2, "red")
        + _field(5, _tensor("weight", (channels, 3, 1, 1), *(0.229, 0.0, 0.0) * channels))
    )
    graph += _field(5, _tensor("bias", (channels,), *(bias,) * channels))
    graph += _field(11, _port("images", (batch_size, 3, size, size)))
    graph += _field(12, _port("maps", (batch_size, channels, size, size)))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))


def write_red_model(folder, *, size=32, batch_size=4, threshold=None, **changes):
    """Write the model of the category ``widget`` into a folder; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "widget.onnx"
    path.write_bytes(red_onnx(size=size, batch_size=batch_size, **changes))
    sidecar = replace(new_sidecar(category="widget", view=square(size), config={"red": 1}), threshold=threshold)
    facts = {"file_format": "ONNX", "batch_size": batch_size}
    record_export(path, path, sidecar, checkpoint={"file": "none.ckpt", "sha256": "0"}, facts=facts)
    return path


def red_map(path, size=32):
    """What the model must make of a picture, by Pillow alone: float (size, size)."""
    with Image.open(path) as image:
        resized = image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(resized)[..., 0] / 255
