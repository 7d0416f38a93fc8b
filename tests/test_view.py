"""What of a picture the network sees: size, region of interest, ignored area, and pieces to train on."""

import json

import numpy as np
import pytest
from PIL import Image

from src.data.arrays import decode_images, decode_masks, settle_view
from src.data.images import ignore_outside, load_image_and_box
from src.data.pieces import Pieces, choose_tile
from src.data.samples import GOOD, Sample, list_test, list_train
from src.data.view import (
    AutoSize,
    Box,
    ImageSize,
    View,
    counted_positions,
    keep_aspect,
    parse_training_size,
    square,
)
from src.utils import InputError
from tests.conftest import make_tree, save_picture

WIDE = ImageSize(32, 64)
HALF = np.arange(64) < 32  # columns of a WIDE map


def save_mask(path, counted):
    Image.fromarray(np.where(counted, 255, 0).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def picture(tmp_path):
    """A picture of 40 rows and 100 columns, each pixel another colour."""
    rows, columns = np.mgrid[:40, :100]
    Image.fromarray(np.stack([rows * 6, columns * 2, rows + columns], -1).astype(np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    ("view", "content"),
    [
        (square(256), {"image_size": 256}),
        (View(ImageSize(320, 1024)), {"image_size": [320, 1024]}),
        (View(WIDE, Box(3, 4, 50, 20)), {"image_size": [32, 64], "roi": [3, 4, 50, 20]}),
        (View(WIDE, ignored_runs=(64, 1984)), {"image_size": [32, 64], "ignored_runs": [64, 1984]}),
    ],
)
def test_json(view, content):
    """A square is one number, as ever; what is not set is absent."""
    assert view.to_json() == content
    assert View.from_json(json.loads(json.dumps(content))) == view


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "image_size None, expected a multiple of 16"),
        ({"image_size": [64]}, r"image_size \[64\]"),
        ({"image_size": [64, 40]}, r"image_size \[64, 40\]"),
        ({"image_size": True}, "image_size True"),
        ({"image_size": 64, "roi": [0, 0, 0, 5]}, r"roi \[0, 0, 0, 5\], expected x, y, width and height"),
        ({"image_size": 64, "roi": [0, -1, 5, 5]}, "roi"),
        ({"image_size": 64, "roi": "0,0,5,5"}, "roi"),
        ({"image_size": 64, "ignored_runs": [64]}, "ignored_runs: expected numbers of pixels, 4096 in all"),
        ({"image_size": 64, "ignored_runs": [4097, -1]}, "ignored_runs"),
        ({"image_size": 64, "ignored_runs": 4096}, "ignored_runs"),
    ],
)
def test_damaged_json(content, reason):
    with pytest.raises(ValueError, match=reason):
        View.from_json(content)


@pytest.mark.parametrize("first", [True, False])
def test_counted(first):
    """Runs say which pixels count, wherever the first of them lies."""
    counted = np.zeros((32, 64), bool)
    counted[0, 0], counted[5, 10:20], counted[31, 63] = first, True, True
    view = View(WIDE).with_counted(counted)
    assert np.array_equal(view.counted, counted)
    assert view == View.from_json(view.to_json())
    # by hand: row 5 from column 10 on is pixel 330, the last one is 2047
    assert view.ignored_runs == ((1, 329) if first else (0, 330)) + (10, 1707, 1)
    assert View(WIDE).with_counted(np.ones((32, 64), bool)) == View(WIDE)
    assert View(WIDE).counted is None


def test_other_size():
    """What counts is scaled with the image."""
    view = View(WIDE, Box(0, 0, 9, 9)).with_counted(np.tile(HALF, (32, 1)))
    larger = view.at(ImageSize(64, 128))
    assert (larger.size, larger.roi) == ((64, 128), view.roi)
    assert np.array_equal(larger.counted, np.tile(np.arange(128) < 64, (64, 1)))
    assert larger.at(WIDE) == view
    assert square(64).at(WIDE) == View(WIDE)


def test_positions():
    """A position counts if at least half of its pixels do."""
    counted = np.zeros((16, 16), bool)
    counted[:, :2] = True  # half of the first column of 4x4 blocks
    counted[0, 4:11] = True  # 4 of 16 pixels
    assert np.array_equal(counted_positions(counted, 4), np.tile([True, False, False, False], (4, 1)))
    assert not counted_positions(counted, 16).any()
    assert counted_positions(np.stack([counted, ~counted]), 8).tolist() == [[[False] * 2] * 2, [[True] * 2] * 2]


@pytest.mark.parametrize(
    ("shapes", "longest", "size"),
    [
        ([(900, 900)], 256, (256, 256)),
        ([(600, 800)], 256, (256, 192)),  # a tyre, lying in width and height
        ([(1280, 800)], 1280, (800, 1280)),
        ([(100, 100), (100, 200), (100, 300)], 96, (96, 48)),  # the median
        ([(10000, 10)], 256, (32, 256)),  # the smallest side
    ],
)
def test_aspect(shapes, longest, size):
    assert keep_aspect(longest, shapes) == size


def test_size_of_training():
    assert parse_training_size("auto:320") == AutoSize(320)
    assert parse_training_size("64x32") == (64, 32)
    for text in ("auto:", "auto:40", "auto:64x64", "Auto:64"):
        with pytest.raises(ValueError, match="expected"):
            parse_training_size(text)


def test_region(picture):
    """It is cut out before resizing, and everything is told in the picture's pixels."""
    box = Box(30, 5, 20, 30)
    loaded, found = load_image_and_box(picture, View(WIDE, box))
    with Image.open(picture) as image:
        expected = image.crop((30, 5, 50, 35)).resize((64, 30), Image.Resampling.LANCZOS)
        expected = expected.resize((64, 32), Image.Resampling.LANCZOS)
    assert np.array_equal(loaded, np.asarray(expected))
    assert found == box
    whole, found = load_image_and_box(picture, View(WIDE))
    assert found == (0, 0, 100, 40)
    assert np.array_equal(whole, load_image_and_box(picture, View(WIDE, Box(0, 0, 100, 40)))[0])


def test_region_outside(picture):
    """A picture that does not contain it is refused, before the training, too."""
    for box in (Box(81, 0, 20, 40), Box(0, 11, 10, 30)):
        expected = rf"a\.png: has 100x40 pixels .* region of interest {box}"
        with pytest.raises(InputError, match=expected):
            load_image_and_box(picture, View(WIDE, box))
        with pytest.raises(InputError, match=expected):
            settle_view([Sample(picture, GOOD)], WIDE, roi=box)


def test_region_of_masks(tmp_path):
    """A mask is cut like its image."""
    make_tree(tmp_path, good=1, defects=("hole",), per_defect=1)
    samples = [sample for sample in list_test(tmp_path, "widget") if sample.mask_path]
    marked = np.zeros((40, 48), bool)
    marked[10:20, 8:24] = True
    save_mask(samples[0].mask_path, marked)
    assert decode_masks(samples, view=View(WIDE, Box(8, 10, 16, 10))).min() == 255
    assert decode_masks(samples, view=View(WIDE, Box(24, 10, 16, 10))).max() == 0


def test_settled(tmp_path):
    """The size follows the images, or their region; the mask belongs to the upright image."""
    tree = make_tree(tmp_path / "data")
    samples = list_train(tree, "widget")  # 48 x 40
    assert settle_view(samples, WIDE) == View(WIDE)
    assert settle_view(samples, AutoSize(96)).size == (80, 96)
    assert settle_view(samples, AutoSize(96), roi=Box(0, 0, 20, 40)) == View(ImageSize(96, 48), Box(0, 0, 20, 40))
    counted = np.zeros((40, 48), bool)
    counted[:, :24] = True
    mask = save_mask(tmp_path / "mask.png", counted)
    assert np.array_equal(settle_view(samples, WIDE, ignore_mask=mask).counted, np.tile(HALF, (32, 1)))
    region = settle_view(samples, WIDE, roi=Box(12, 0, 24, 40), ignore_mask=mask)
    assert np.array_equal(region.counted, np.tile(HALF, (32, 1)))
    assert settle_view(samples, WIDE, roi=Box(0, 0, 24, 40), ignore_mask=mask).counted is None
    save_mask(mask, np.ones((40, 48), bool))
    assert settle_view(samples, WIDE, ignore_mask=mask) == View(WIDE)


def test_unfit_mask(tmp_path):
    samples = list_train(make_tree(tmp_path / "data"), "widget")
    with pytest.raises(InputError, match=r"--ignore_mask .*mask\.png: has 40x48 pixels .* image has 48x40"):
        settle_view(samples, WIDE, ignore_mask=save_mask(tmp_path / "mask.png", np.ones((48, 40), bool)))
    with pytest.raises(InputError, match=r"black\.png: leaves nothing that counts"):
        ignore_outside(save_mask(tmp_path / "black.png", np.zeros((40, 48), bool)), View(WIDE), [(48, 40)])


@pytest.mark.parametrize("size", [(64, 64), (64, 160), (96, 208), (48, 512)])
@pytest.mark.parametrize("tile", [32, 64, 96])
def test_pieces(size, tile):
    """They are equal, cover the image, and begin at multiples of the largest stride."""
    pieces = Pieces(View(ImageSize(*size)), tile)
    covered = np.zeros(size, int)
    for window in pieces.windows:
        covered[window] += 1
        assert covered[window].shape == pieces.size == (min(size[0], tile), min(size[1], tile))
        assert all(one.start % 16 == 0 for one in window)
    assert covered.min() >= 1
    images = np.random.default_rng(0).integers(0, 255, (3, *size, 3), np.uint8)
    cut = pieces.cut(images)
    assert np.array_equal(cut, np.stack([image[window] for image in images for window in pieces.windows]))


def test_whole_images():
    """Without pieces, images stay what they are, not even copied."""
    images = np.zeros((2, 32, 64, 3), np.uint8)
    for tile in (0, 64, 128):
        assert Pieces(View(WIDE), tile).is_whole_image
        assert Pieces(View(WIDE), tile).cut(images) is images
    assert choose_tile(ImageSize(384, 384), None) == 0
    assert choose_tile(ImageSize(400, 384), None) == 256
    assert choose_tile(ImageSize(1024, 1024), 0) == 0
    assert choose_tile(ImageSize(64, 64), 32) == 32


def test_ignored_pieces():
    """Pieces in which nothing counts are left out; of the others it is known which positions do."""
    counted = np.zeros((32, 64), bool)
    counted[:, :40] = True
    view = View(WIDE).with_counted(counted)
    assert len(Pieces(view, 32)) == 2
    pieces = Pieces(view.with_counted(np.tile(HALF, (32, 1))), 32)
    assert len(pieces) == 1
    assert not pieces.is_whole_image
    assert pieces.cut(np.zeros((3, 32, 64, 3), np.uint8)).shape == (3, 32, 32, 3)
    weights = Pieces(view, 32).position_weights(2, (4, 8, 16))
    assert [one.shape for one in weights] == [(4, 1, 8, 8), (4, 1, 4, 4), (4, 1, 2, 2)]
    assert [[int(piece[0, 0].sum()) for piece in one] for one in weights] == [[8, 2] * 2, [4, 1] * 2, [2, 1] * 2]
    assert Pieces(View(WIDE), 32).position_weights(2, (4, 8, 16)) == ()


def test_decoded_region(tmp_path):
    rng = np.random.default_rng(0)
    save_picture(tmp_path / "a.png", rng)
    samples = [Sample(tmp_path / "a.png", GOOD)]
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(image.crop((8, 4, 40, 36)))
    assert np.array_equal(decode_images(samples, view=View(ImageSize(32, 32), Box(8, 4, 32, 32)))[0], expected)
