"""Pictures of every kind are read right, and prepared as torchvision's users would."""

import struct

import cv2
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from src import utils
from src.data import images
from src.data.images import (
    MASK_RULES,
    binary_mask,
    formula_image,
    load_image_and_box,
    to_network_input,
)
from src.data.view import ImageSize, square
from src.utils import InputError, pixel_limit
from tests.conftest import load_image, load_mask


@pytest.fixture
def ramp():
    return np.linspace(0, 255, 64 * 64).reshape(64, 64).round().astype(np.uint8)


def test_resizing(tmp_path):
    """Pillow's LANCZOS, width first, whatever the shape; of wide and square pictures that is its one call."""
    for shape in ((90, 70, 3), (70, 90, 3), (90, 90, 3), (400, 40, 3), (40, 400, 3), (20, 300, 3), (300, 20, 3)):
        array = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
        Image.fromarray(array).save(tmp_path / "a.png")
        Image.fromarray(array).convert("L").save(tmp_path / "mask.png")
        loaded = load_image(tmp_path / "a.png", 64)
        assert loaded.dtype == np.uint8
        assert np.array_equal(loaded, by_width_first(Image.fromarray(array), 64, Image.Resampling.LANCZOS))
        mask = by_width_first(Image.fromarray(array).convert("L"), 64, Image.Resampling.BILINEAR)
        assert np.array_equal(load_mask(tmp_path / "mask.png", 64), mask)
        if shape[0] <= shape[1]:
            once = Image.fromarray(array).resize((64, 64), Image.Resampling.LANCZOS)
            assert np.array_equal(loaded, np.asarray(once))


def by_width_first(picture, side, resampling):
    """By Pillow's passes of a picture that lies on its side, each of one direction only."""
    wide = picture.resize((side, picture.height), resampling).transpose(Image.Transpose.TRANSPOSE)
    return np.asarray(wide.resize((side, side), resampling).transpose(Image.Transpose.TRANSPOSE))


def test_former_resizing(tmp_path, caplog):
    """Of a file by a release that left the order to Pillow, the first picture that differs is told, and no other."""
    rng = np.random.default_rng(0)
    for name, shape in {"square": (90, 90), "wide": (90, 200), "tall": (400, 90), "too": (500, 90)}.items():
        Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(tmp_path / f"{name}.png")
    everything = [tmp_path / f"{name}.png" for name in ("square", "wide", "tall", "too")]
    for path in everything:
        load_image(path, 64)
    images.find_former_resizing(everything, square(64))
    assert not caplog.records
    for look in (lambda: [load_image(path, 64) for path in everything],
                 lambda: [load_mask(path, 64) for path in everything],
                 lambda: images.find_former_resizing([tmp_path / "absent.png", *everything], square(64))):  # fmt: skip
        images.note_former_resizing(tmp_path / "model.json")
        caplog.clear()
        look()
        assert [record.message.partition(" by up")[0] for record in caplog.records] == [
            f"warning: {tmp_path}/model.json: was made by a release that resized tall pictures height first; they are "
            f"now resized width first, by which {tmp_path}/tall.png differs"
        ]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "jpg"])
def test_formats(tmp_path, ramp, suffix):
    """What was saved, or, of a JPEG, what Pillow reads; each colour in its place."""
    rgb = np.stack([ramp, ramp[::-1], ramp.T], -1)
    Image.fromarray(rgb).save(tmp_path / f"a.{suffix}")
    loaded = load_image(tmp_path / f"a.{suffix}", 64)
    with Image.open(tmp_path / f"a.{suffix}") as picture:
        assert np.array_equal(loaded, np.asarray(picture))
    assert np.abs(loaded.astype(int) - rgb).max() <= (30 if suffix == "jpg" else 0)


def test_rounding_of_16_bits(tmp_path):
    """257 levels of 16 bits are one of 8, to the nearest."""
    deep = np.array([[0, 128, 129, 385, 386, 65406, 65407, 65535]] * 8, np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(np.array([[0, 0, 1, 1, 2, 254, 255, 255]] * 8, np.uint8)).save(tmp_path / "b.png")
    assert np.array_equal(load_image(tmp_path / "a.png", 32), load_image(tmp_path / "b.png", 32))


def test_modes(tmp_path, ramp):
    rgb = np.stack([ramp, ramp[::-1], ramp.T], -1)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([rgb, np.full_like(ramp, 255)])).save(tmp_path / "alpha.png")
    Image.fromarray(rgb // 64 * 64).quantize(256).save(tmp_path / "palette.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "deep.tif")
    assert np.array_equal(load_image(tmp_path / "grey.png", 64), np.stack([ramp] * 3, -1))
    assert np.array_equal(load_image(tmp_path / "alpha.png", 64), rgb)
    assert np.array_equal(load_image(tmp_path / "palette.png", 64), rgb // 64 * 64)
    assert np.array_equal(load_image(tmp_path / "deep.png", 64), np.stack([ramp] * 3, -1))
    assert np.array_equal(load_image(tmp_path / "deep.tif", 64), np.stack([ramp] * 3, -1))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("array", [np.uint8, np.uint16])
def test_orientation(tmp_path, ramp, suffix, array):
    """Pillow 13.0 jumbles the pixels of an uncompressed grey TIFF that lies on its side."""
    lying = ramp[:40].astype(array) * (np.iinfo(array).max // 255)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn by 90 degrees clockwise to show
    Image.fromarray(lying).save(tmp_path / f"turned.{suffix}", exif=exif)
    Image.fromarray(np.rot90(ramp[:40], -1)).save(tmp_path / "upright.png")
    assert np.array_equal(load_image(tmp_path / f"turned.{suffix}", 64), load_image(tmp_path / "upright.png", 64))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_masks(tmp_path, suffix, orientation):
    """Upright, whether turned when saved or when read; not as the picture lies in the file."""
    upright = np.zeros((40, 48), np.uint8)
    upright[4:12, 8:30] = 255
    turn_back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # to PIL's transpositions: none, or the inverse of EXIF's
    image = Image.fromarray(upright)
    lying = image.transpose(turn_back[orientation]) if orientation > 1 else image
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture = tmp_path / f"a.{suffix}"
    lying.save(picture, exif=exif)
    image.save(tmp_path / "upright.png")
    lying.save(tmp_path / "lying.png")
    lying.save(tmp_path / "turned.png", exif=exif)
    loaded, box = load_image_and_box(picture, square(64))
    assert box == (0, 0, 48, 40)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS))
    assert np.abs(loaded[..., 0].astype(int) - expected).max() <= (40 if suffix == "jpg" else 0)
    for name in ("upright.png", "turned.png"):
        mask = load_mask(tmp_path / name, 64, picture=picture)
        assert np.array_equal(mask, np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)))
    if orientation >= 5:
        expected = rf"lying\.png: is 40 x 48 pixels, its .* is 48 x 40 once its EXIF orientation {orientation} turns"
        with pytest.raises(InputError, match=expected):
            load_mask(tmp_path / "lying.png", 48, picture=picture)


@pytest.mark.parametrize("load", [load_image, load_mask])
def test_unreadable(tmp_path, load):
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:500])
    (tmp_path / "empty.png").touch()
    (tmp_path / "dead.png").symlink_to("nowhere")
    (tmp_path / "folder.png").mkdir()
    for name in ("text.png", "cut.png", "empty.png"):
        with pytest.raises(InputError, match=rf"{name}: not a readable image"):
            load(tmp_path / name, 64)
    for name, said in (
        ("absent.png", "cannot be read: No such file or directory"),
        ("dead.png", "is a link that leads nowhere"),
        ("folder.png", "cannot be read: Is a directory"),
    ):
        with pytest.raises(InputError, match=rf"/{name}: {said}$"):
            load(tmp_path / name, 64)


def test_png_checksums(tmp_path):
    """PIL stops at the last row, before the checksum of the stream, and does not look at those of the chunks."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    whole = cv2.imencode(".png", pixels)[1].tobytes()
    path = tmp_path / "a.png"
    path.write_bytes(whole)
    load_image(path, 48)
    for place in range(len(whole) - 64, len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(InputError, match=r"a\.png: not a readable image"):
                load_image(path, 48)
    path.write_bytes(whole + b"appended by a phone")
    load_image(path, 48)


@pytest.mark.parametrize("load", [load_image, load_mask])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_pixel_limit(tmp_path, load, suffix, recwarn, monkeypatch):
    """179 million as before; the message names the variable that raises it, with a value that does."""
    assert pixel_limit() == 2 * Image.MAX_IMAGE_PIXELS
    path = tmp_path / f"a.{suffix}"
    Image.new("L", (200, 100), 200).save(path)
    monkeypatch.setattr(utils, "_PIXELS", 19_999)
    with pytest.raises(InputError, match=r"200 x 100 pixels, more than 19999; .* set STPM_MAX_PIXELS=20000 in"):
        load(path, 64)
    monkeypatch.setenv("STPM_MAX_PIXELS", "20000")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own limit has no say
    assert load(path, 64).min() >= 198
    assert not recwarn


@pytest.mark.parametrize("value", ["0", "-1", "1e9", "many", "1.5"])
def test_wrong_pixel_limit(monkeypatch, capsys, value):
    """Said before any work, by every program."""
    monkeypatch.setenv("STPM_MAX_PIXELS", value)
    assert utils.run_entry_point(lambda _: pytest.fail("it worked"), None) == 1
    assert f"STPM_MAX_PIXELS={value}: expected a number of pixels" in capsys.readouterr().err


def test_empty_mask(tmp_path):
    """A mask of several grey levels whose brightest pixel is not even half white marks nothing."""
    for level in (0, 127, 128):
        Image.fromarray(np.array([[0, level // 2, level]] * 8, np.uint8)).save(tmp_path / f"{level}.png")
    for level, values in ((0, ""), (127, r" \(its values are 0, 63, 127; if they are labels, mark all by 255\)")):
        said = rf"{level}\.png: marks nothing: its brightest pixel is {level}{values}, expected 255"
        with pytest.raises(InputError, match=said):
            load_mask(tmp_path / f"{level}.png", 32)
    assert load_mask(tmp_path / "128.png", 32).max() == 128


def test_mask_of_another_size(tmp_path):
    Image.new("L", (40, 48), 255).save(tmp_path / "mask.png")
    for size, is_right in (((40, 48), True), ((48, 40), False), ((40, 49), False)):
        Image.new("L", size).save(tmp_path / "a.png")
        if is_right:
            assert load_mask(tmp_path / "mask.png", 32, picture=tmp_path / "a.png").min() == 255
        else:
            with pytest.raises(InputError, match=r"mask\.png: is 40 x 48 pixels, its image .*a\.png is 4[08] x 4[09]$"):
                load_mask(tmp_path / "mask.png", 32, picture=tmp_path / "a.png")


def test_mask_rules():
    grey = np.array([0, 1, 127, 128, 254, 255], np.uint8)
    assert binary_mask(grey).tolist() == [False, False, False, True, True, True]
    assert binary_mask(grey, "erode").tolist() == [False] * 5 + [True]
    assert binary_mask(grey, "dilate").tolist() == [False] + [True] * 5
    assert set(MASK_RULES) == {"half", "erode", "dilate"}


def test_network_input():
    """torchvision's normalisation, in PyTorch's words."""
    pictures = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((torch.from_numpy(pictures).float() / 255 - mean) / std).permute(0, 3, 1, 2).numpy()
    prepared = to_network_input(pictures)
    assert prepared.dtype == np.float32
    assert prepared.flags["C_CONTIGUOUS"]
    assert np.allclose(prepared, expected, atol=1e-6)


def test_formula():
    """The image of the self-test by plain whole numbers, some worked by hand, and its input in steps of float32."""
    image = formula_image(ImageSize(96, 96))
    assert (image.shape, image.dtype) == ((96, 96, 3), np.uint8)
    expected = [
        [[((7 * x + 13 * y + 53 * c) ^ ((x * y) >> 4)) % 256 for c in range(3)] for x in range(96)] for y in range(96)
    ]
    assert image.tolist() == expected
    # 7 * 5 + 13 * 40 + 53 = 608 = 0b10_0110_0000, 5 * 40 / 16 = 12.5; xor 12 and the lowest eight bits: 0b0110_1100
    assert image[40, 5, 1] == 0b0110_1100
    assert image[0, 0].tolist() == [0, 53, 106]
    found = to_network_input(image[None])
    for channel, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        # rounded after each operation, which double numbers are exact enough to do without a second rounding
        scaled = (image[..., channel] / 255.0).astype(np.float32)
        shifted = (scaled.astype(float) - float(np.float32(mean))).astype(np.float32)
        by_hand = (shifted.astype(float) / float(np.float32(std))).astype(np.float32)
        assert np.array_equal(found[0, channel], by_hand)


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        (258, 12, "its pixels are whole numbers of 12 bits; expected unsigned ones of 8 or 16 bits"),
        (258, 32, "its pixels are whole numbers of 32 bits"),
        (339, 2, "its pixels are signed numbers of 16 bits"),
    ],
)
def test_numbers_of_tiffs(tmp_path, ramp, tag, value, words):
    path = tmp_path / "a.tif"
    before = {258: 16, 339: 1}[tag]
    Image.fromarray(ramp.astype(np.uint16) * 257).save(path, tiffinfo={339: 1})
    entry = struct.pack("<HHI", tag, 3, 1)  # a SHORT
    old, new = entry + struct.pack("<H", before), entry + struct.pack("<H", value)
    assert path.read_bytes().count(old) == 1
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(InputError, match=rf"a\.tif: not a readable image: {words}"):
        load_image(path, 64)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_12_bits_of_16(tmp_path, ramp, caplog, suffix, colour):
    """The brightest of 12 bits, 4095, warns; what is above, as 4369, which is 17 of 255, does not."""
    deep = np.round(ramp * (4095 / 255)).astype(np.uint16)
    for name, array in (("bright", np.maximum(deep, 4369)), ("dark", deep), ("darker", deep)):
        cv2.imwrite(str(tmp_path / f"{name}.{suffix}"), np.stack([array] * 3, -1) if colour else array)
        load_image(tmp_path / f"{name}.{suffix}", 64)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"dark.{suffix}: uses the lowest 12 of its 16 bits at most" in caplog.text


@pytest.mark.parametrize(("brightest", "factor"), [(8191, 8), (16383, 4), (32767, 2), (16382, None), (16384, None)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_14_bits_of_16(tmp_path, ramp, caplog, suffix, brightest, factor):
    """Of a camera of 14 bits a highlight is 16383; what is just not so bright may be of 16 bits, and dark."""
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.{suffix}"), np.round(ramp * (brightest / ramp.max())).astype(np.uint16))
        load_image(tmp_path / f"{name}.{suffix}", 64)
    if factor is None:
        assert not caplog.records
        return
    (said,) = caplog.messages
    level = round(brightest / 257)
    assert f"a.{suffix}: has the brightest value {brightest}, the largest of " in said
    assert f"is read as {level} of 255; if the camera gives no more, scale all pictures alike" in said
    assert f"bits: times {factor})" in said


def test_masks_are_no_camera(tmp_path, caplog):
    """Labels of 16 bits are dark, too; a warning of them would take the place of that of an image."""
    array = np.zeros((40, 48), np.uint16)
    array[:10], array[20:30] = 1, 2
    Image.fromarray(array).save(tmp_path / "mask.png")
    said = r"its brightest pixel is 0 \(its values are 0, 1, 2; if they are labels, mark all by 255\), expected"
    with pytest.raises(InputError, match=said):
        load_mask(tmp_path / "mask.png", 64)
    assert not caplog.records


def test_dark_8_bits(tmp_path, caplog):
    """No warning."""
    Image.new("RGB", (40, 40), (3, 3, 3)).save(tmp_path / "a.png")
    load_image(tmp_path / "a.png", 64)
    assert not caplog.records


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_several_pages(tmp_path, kind):
    first, second = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    first.save(tmp_path / "a.png", kind, save_all=True, append_images=[second])
    with pytest.raises(InputError, match=r"a\.png: not a readable image: holds 2 pages or frames; expected one"):
        load_image(tmp_path / "a.png", 64)


def test_preview_of_a_phone(tmp_path):
    """It is left out."""
    first, second = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert (load_image(tmp_path / "a.jpg", 64)[0, 0] == (254, 0, 0)).all()


def test_damaged_tiff_directory(tmp_path):
    """A place in the file that is a double makes PIL raise TypeError."""
    path = tmp_path / "a.tif"
    Image.new("1", (20, 24)).save(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x11\x01\x04\x00", b"\x11\x01\x0c\x00"))  # StripOffsets, from LONG to DOUBLE
    assert path.read_bytes() != content
    with pytest.raises(InputError, match=r"a\.tif: not a readable image"):
        load_image(path, 64)
