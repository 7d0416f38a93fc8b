"""All threads together decode within a number of bytes."""

import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data import decoding
from src.data.arrays import decode_images
from src.data.decoding import decoded, opened
from src.data.samples import Sample
from src.data.stream import decode
from src.data.view import square


@pytest.fixture
def watched(monkeypatch):
    """The bytes that pictures say they need, while they are decoded: the sum of now, and the largest sum so far."""
    lock, sums = threading.Lock(), {"now": 0, "largest": 0, "at once": 0, "most": 0}
    original = decoding.Picture.decode

    def watch(picture, mode):
        with lock:
            sums["now"] += picture.memory(mode)
            sums["at once"] += 1
            sums["largest"] = max(sums["largest"], sums["now"])
            sums["most"] = max(sums["most"], sums["at once"])
        time.sleep(0.01)
        result = original(picture, mode)
        with lock:
            sums["now"] -= picture.memory(mode)
            sums["at once"] -= 1
        return result

    monkeypatch.setattr(decoding.Picture, "decode", watch)
    return sums


@pytest.mark.parametrize(("budget", "at_once"), [(4 * 100 * 100 * 3, 3), (1000, 1), (10**9, 4)])
def test_budget(tmp_path, watched, monkeypatch, budget, at_once):
    """As many pictures at once as fit, at least one; by every way to decode; errors give back what they took."""
    monkeypatch.setattr(decoding, "BUDGET", budget)
    for module in ("arrays", "stream"):
        monkeypatch.setattr(f"src.data.{module}.core_count", lambda: 4)
    paths = []
    for i in range(12):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.full((100, 100, 3), i, np.uint8)).save(paths[-1])
    samples = [Sample(path, "good") for path in paths]
    images = decode_images(samples, view=square(32))
    assert images[:, 0, 0, 0].tolist() == list(range(12))
    assert [one.image[0, 0, 0] for one in decode(paths, view=square(32), ahead=8)] == list(range(12))
    assert min(2, at_once) <= watched["most"] <= at_once  # a busy machine need not run all of them
    assert watched["largest"] <= max(budget, 4 * 100 * 100)
    paths[3].write_bytes(b"none")
    Image.new("RGBA", (100, 100)).save(paths[4])  # fails while it is decoded
    assert [bool(one.error) for one in decode(paths, view=square(32), ahead=8)] == [i in (3, 4) for i in range(12)]
    assert decoding._ROOM._taken == 0


def test_no_starving(monkeypatch):
    """A large one gets its turn although small ones come all the time."""
    monkeypatch.setattr(decoding, "BUDGET", 10)
    room, stop, done = decoding._Room(), threading.Event(), threading.Event()

    def small():
        while not stop.is_set():
            with room.take(3):
                time.sleep(0.001)

    def large():
        with room.take(100):
            done.set()

    with ThreadPoolExecutor(5) as pool:
        for _ in range(4):
            pool.submit(small)
        time.sleep(0.02)
        pool.submit(large)
        got_there = done.wait(10)
        stop.set()
    assert got_there


def status(name):
    """Bytes of memory that the system says this process has (VmRSS), or had at most (VmHWM)."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split(f"{name}:")[1].split()[0])


PLAIN, TURNED = Image.Exif(), Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize("exif", [PLAIN, TURNED], ids=["upright", "turned"])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"format": "PNG"}),
        ("L", {"format": "PNG"}),
        ("P", {"format": "PNG"}),
        ("RGBA", {"format": "PNG"}),
        ("I;16", {"format": "PNG"}),
        ("RGB", {"format": "JPEG"}),
        ("RGB", {"format": "JPEG", "progressive": True}),
        ("RGB", {"format": "TIFF", "compression": "tiff_lzw", "tiffinfo": {278: 3000}}),
        ("L", {"format": "TIFF"}),
    ],
    ids=str,
)
def test_estimate(tmp_path, mode, options, exif):
    """What the process has more, while it decodes a picture, is what was reserved; small change apart."""
    path = tmp_path / "a.png"
    image = Image.new("L", (3000, 2000), 100)
    if mode == "RGBA":
        image.putalpha(100)
    image.convert(mode).save(path, **options, **({"exif": exif} if "tiffinfo" not in options else {}))
    with opened(path) as picture:
        reserved, size = picture.memory("RGB"), picture.upright_size
    del image
    ctypes.CDLL(None).malloc_trim(0)  # else what was released before is used again, and does not count
    Path("/proc/self/clear_refs").write_text("5")  # the most from now on
    before = status("VmRSS")
    with decoded(path, "RGB") as image:
        assert image.size == size
    assert status("VmHWM") - before <= reserved + 8e6
