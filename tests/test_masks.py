"""Masks as people have them: two values of any kind, transparency, doubtful ones, black ones, several for one image."""

import json
import logging
import re
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

import postprocess
import preprocess
import test as test_entry
from src import dataset
from src.data.arrays import decode_masks
from src.data.images import load_mask_and_doubts
from src.data.samples import list_test, samples_sha256
from src.data.view import square
from src.utils import InputError
from tests.conftest import load_mask
from tests.plain_model import write_red_model

MARKED = np.zeros((40, 48), bool)
MARKED[10:20, 8:24] = True
WHITE = Image.fromarray(MARKED.astype(np.uint8) * 255)
EXPECTED = np.asarray(WHITE.resize((32, 32), Image.Resampling.BILINEAR))


def levels(other, kind=np.uint8, background=0):
    return Image.fromarray(np.where(MARKED, np.array(other, kind), np.array(background, kind)))


def colours(other, background=(0, 0, 0)):
    return Image.fromarray(np.where(MARKED[..., None], other, background).astype(np.uint8))


def palette(*entries):
    image = Image.fromarray(MARKED.astype(np.uint8)).convert("P")
    image.putpalette([level for entry in entries for level in entry])
    return image


TWO_VALUED = {
    "255": WHITE,
    "1": levels(1),
    "236": levels(236),
    "127": levels(127),
    "one bit": WHITE.convert("1"),
    "16 bits": levels(65535, np.uint16),
    "1 of 16 bits": levels(1, np.uint16),
    "red": colours((255, 0, 0)),
    "nearly black": colours((0, 0, 1)),
    "PASCAL VOC": palette((0, 0, 0), (128, 0, 0)),
    "grey palette": palette((0, 0, 0), (255, 255, 255)),
    "opaque": colours((255, 255, 255, 255), (0, 0, 0, 255)),
    "red on a transparent layer": colours((255, 0, 0, 255), (0, 0, 0, 0)),
    "white on transparent white": colours((255, 255, 255, 255), (255, 255, 255, 0)),
    "grey with alpha": WHITE.convert("LA"),
    "alpha alone": Image.merge("LA", (Image.new("L", (48, 40), 200), WHITE)),
}


@pytest.mark.parametrize("kind", TWO_VALUED)
def test_two_values(tmp_path, kind):
    """The one that is not 0 marks, whatever it is; what is transparent is 0."""
    TWO_VALUED[kind].save(tmp_path / "a.png")
    mask, doubts = load_mask_and_doubts([tmp_path / "a.png"], square(32))
    assert np.array_equal(mask, EXPECTED)
    assert not doubts


@pytest.mark.parametrize("suffix", ["bmp", "tif"])
@pytest.mark.parametrize("kind", ["255", "1", "PASCAL VOC"])
def test_two_values_of_other_formats(tmp_path, kind, suffix):
    TWO_VALUED[kind].save(tmp_path / f"a.{suffix}")
    assert np.array_equal(load_mask(tmp_path / f"a.{suffix}", 32), EXPECTED)


def test_transparent_colour(tmp_path):
    """A PNG may name one colour as transparent, without an alpha channel."""
    WHITE.save(tmp_path / "black.png", transparency=0)
    assert np.array_equal(load_mask(tmp_path / "black.png", 32), EXPECTED)
    WHITE.save(tmp_path / "white.png", transparency=255)
    with pytest.raises(InputError, match=r"white\.png: marks nothing"):
        load_mask(tmp_path / "white.png", 32)
    levels(255, np.uint16).save(tmp_path / "deep.png", transparency=255)
    with pytest.raises(InputError, match=r"deep\.png: marks nothing"):
        load_mask(tmp_path / "deep.png", 32)
    levels(65535, np.uint16).save(tmp_path / "deep.png", transparency=0)
    assert np.array_equal(load_mask(tmp_path / "deep.png", 32), EXPECTED)


def test_grey_levels(tmp_path):
    """As they were read before: those that are neither 0 nor one other value."""
    grey = WHITE.resize((70, 70), Image.Resampling.BILINEAR)
    for name, image in (("a.png", grey), ("b.png", grey.convert("RGB")), ("c.png", grey.convert("RGBA"))):
        image.save(tmp_path / name)
        mask, doubts = load_mask_and_doubts([tmp_path / name], square(32))
        assert np.array_equal(mask, np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR)))
        assert not doubts


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)])
def test_colours(tmp_path, colour):
    """With soft edges, red is as bright as white: the brightest channel counts, as in GIMP's "value"."""
    grey = WHITE.resize((70, 70), Image.Resampling.BILINEAR)
    channels = [grey if level else Image.new("L", grey.size) for level in colour]
    Image.merge("RGB", channels).save(tmp_path / "a.png")
    mask, doubts = load_mask_and_doubts([tmp_path / "a.png"], square(32))
    assert np.array_equal(mask, np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR)))
    assert not doubts


def test_two_colours(tmp_path):
    """One for each type of defect, on black: both mark."""
    pixels = np.asarray(colours((255, 0, 0))).copy()
    pixels[30:35, 30:40] = 0, 255, 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = Image.fromarray(pixels.max(axis=2)).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(load_mask(tmp_path / "a.png", 32), expected)


def test_dark_values(tmp_path):
    """What is said of a mask that marks nothing: the values that it has, not only what they became."""
    labels = np.zeros((40, 48), np.uint8)
    labels[:10], labels[20:] = 1, 2
    black = Image.fromarray(labels).convert("P")
    black.putpalette([0] * 768)
    steps = np.linspace(0, 255, 40 * 48).reshape(40, 48).astype(np.uint16)
    for image, said in (
        (Image.fromarray(labels), "is 2 (its values are 0, 1, 2; if they are labels, mark all by 255), expected"),
        (black, "is 0 (the colours of its palette are all dark), expected"),
        (Image.fromarray(steps), "is 1 (255 of 65535), expected"),
    ):
        image.save(tmp_path / "a.png")
        with pytest.raises(InputError, match=re.escape(f"a.png: marks nothing: its brightest pixel {said}")):
            load_mask(tmp_path / "a.png", 32)
    cv2.imwrite(str(tmp_path / "a.png"), np.stack([labels.astype(np.uint16)] * 3, -1))
    with pytest.raises(InputError, match=r"pixel is 0 \(of 16 bits in colour the upper 8 count\), expected"):
        load_mask(tmp_path / "a.png", 32)


@pytest.mark.parametrize("other", [(0, 0, 0), (0, 0, 0, 255), (255, 255, 255, 0)])
def test_marking_nothing(tmp_path, other):
    Image.new("RGBA" if len(other) == 4 else "RGB", (48, 40), other).save(tmp_path / "a.png")
    with pytest.raises(
        InputError, match=r"a\.png: marks nothing: its brightest pixel is 0, expected 255 on the defect"
    ):
        load_mask(tmp_path / "a.png", 32)


def big(seed=0):
    """Two spots of 300 x 300."""
    y, x = np.mgrid[:300, :300]
    spots = np.hypot(y - 90, x - 100) < 40, np.hypot(y - 220, x - 200) < 25
    return Image.fromarray((spots[0] | spots[1]).astype(np.uint8) * 255)


def doubts_of(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return set(load_mask_and_doubts([tmp_path / name], square(32))[1])


@pytest.mark.parametrize("size", [100, 210, 450])
@pytest.mark.parametrize("filter_", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_resampled(tmp_path, size, filter_):
    """Grey at edges is no doubt."""
    assert not doubts_of(tmp_path, big().resize((size, size), filter_))


@pytest.mark.parametrize("quality", [60, 75, 90, 95])
def test_jpeg(tmp_path, quality):
    """Its grey levels are; in a PNG, too."""
    assert doubts_of(tmp_path, big(), "a.jpg", quality=quality) == {"grey"}
    with Image.open(tmp_path / "a.jpg") as image:
        assert doubts_of(tmp_path, image) == {"grey"}


def test_several_labels(tmp_path):
    """Two types of defect in one mask, or a border to be ignored: of 1 and 255 only the latter counts."""
    pixels = np.asarray(big()).copy()
    pixels[:150] //= 255
    assert doubts_of(tmp_path, Image.fromarray(pixels)) == {"grey"}


@pytest.mark.parametrize(("rows", "is_doubtful"), [(20, False), (21, True), (40, True)])
def test_more_than_half(tmp_path, rows, is_doubtful):
    pixels = np.zeros((40, 48), np.uint8)
    pixels[:rows] = 255
    assert doubts_of(tmp_path, Image.fromarray(pixels)) == ({"inverted"} if is_doubtful else set())


def test_warnings(tree, caplog):
    """One of each kind, which names the first mask."""
    for defect, i in (("hole", 0), ("hole", 1), ("stain", 0)):
        path = tree / f"widget/ground_truth/{defect}/00{i}_mask.png"
        levels(0, background=255).save(path)
    Image.new("L", (48, 40), 255).save(tree / "widget/ground_truth/stain/001_mask.png")
    Image.linear_gradient("L").resize((48, 40)).save(tree / "widget/ground_truth/stain/000_mask.png")
    with caplog.at_level(logging.WARNING):
        decode_masks(list_test(tree, "widget"), view=square(32))
    inverted, grey = sorted(caplog.messages)
    truth = tree / "widget/ground_truth"
    assert inverted.startswith(f"warning: mask {truth}/hole/000_mask.png marks 92% of its picture")
    assert inverted.endswith("(3 of 4 masks)")
    assert grey.startswith(f"warning: mask {truth}/stain/000_mask.png is not two-valued: grey levels far from any edge")


def turned_picture(path, orientation, size=(48, 48)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (90, 80, 70)).save(path, exif=exif)


@pytest.mark.parametrize(
    ("orientation", "size", "own", "is_doubtful"),
    [
        *((orientation, (48, 48), 1, orientation > 1) for orientation in range(1, 9)),
        *((orientation, (48, 40), 1, True) for orientation in (2, 3, 4)),
        (6, (40, 48), 1, False),  # as they lie in the file: turned, they are as large as the mask
        (3, (48, 40), 3, False),
        (6, (48, 48), 6, False),
    ],
)
def test_orientation_untold(tmp_path, orientation, size, own, is_doubtful):
    """Whether a mask was drawn on the upright picture, where its size is the same either way."""
    turned_picture(tmp_path / "a.png", orientation, size)
    turned_picture(tmp_path / "mask.png", own, size if orientation < 5 or own > 1 else size[::-1])
    with Image.open(tmp_path / "mask.png") as mask:
        exif = mask.getexif()
        pixels = np.zeros((mask.height, mask.width), np.uint8)
        pixels[:10, :8] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png", exif=exif if own > 1 else None)
    doubts = load_mask_and_doubts([tmp_path / "mask.png"], square(32), picture=tmp_path / "a.png")[1]
    assert set(doubts) == ({"turned"} if is_doubtful else set())
    if is_doubtful:
        assert f"a.png as its EXIF orientation {orientation} turns it" in doubts["turned"]


def test_check_of_doubts(tree, capsys):
    """The one about all masks of a category is one line; each of the others is a mask's own."""
    for i in (0, 1):
        turned_picture(tree / f"widget/test/hole/00{i}.png", 3, (48, 40))
    for name in ("hole/000", "stain/001"):
        levels(0, background=255).save(tree / f"widget/ground_truth/{name}_mask.png")
    for i in range(3):
        turned_picture(tree / f"widget/train/good/00{i}.png", 9, (48, 40))
        Image.fromarray(np.full((40, 48), 400 + i, np.uint16)).save(tree / f"widget/train/good/00{i + 3}.png")
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 0
    lines = capsys.readouterr().out.splitlines()
    truth, train = tree / "widget/ground_truth", tree / "widget/train/good"
    assert [line.partition(".png")[0] for line in lines[2:-1]] == [
        f"warning: {truth}/hole/000_mask",
        f"warning: {truth}/stain/001_mask",
        f"warning: {truth}/hole/000_mask",
        f"warning: {train}/003",
        f"warning: {train}/000",
    ]
    assert lines[4].endswith("turn the mask, too (2 such masks)")
    assert [line.rpartition(" (")[2] for line in lines[5:7]] == ["3 such images)", "3 such images)"]
    assert lines[-1] == "categories: 1, problems: 0, warnings: 5"


# Masks of good images


def add_good_masks(tree, image):
    folder = tree / "widget/ground_truth/good"
    folder.mkdir()
    image.save(folder / "001_mask.png")


def test_black_masks(tree):
    """Of good images, of some of them, too; the numbers do not change."""
    before = list_test(tree, "widget")
    masks = decode_masks(before, view=square(32))
    add_good_masks(tree, Image.new("L", (48, 40)))
    samples = list_test(tree, "widget")
    assert [sample.mask_path and sample.mask_path.name for sample in samples][:2] == [None, "001_mask.png"]
    assert np.array_equal(decode_masks(samples, view=square(32)), masks)
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 0


def test_marked_good_images(tree, capsys):
    add_good_masks(tree, levels(1))
    with pytest.raises(InputError, match=r"good/001_mask\.png: marks pixels of a good image; expected a black mask"):
        decode_masks(list_test(tree, "widget"), view=square(32))
    assert dataset.main(dataset.parse_args(["--check", str(tree)])) == 1
    assert "good/001_mask.png: marks pixels of a good image" in capsys.readouterr().out


def test_extra_masks_of_good_images(tree):
    add_good_masks(tree, Image.new("L", (48, 40)))
    (tree / "widget/ground_truth/good/001_mask.png").rename(tree / "widget/ground_truth/good/009_mask.png")
    with pytest.raises(InputError, match=r"good/009_mask\.png: extra mask"):
        list_test(tree, "widget")


# MVTec LOCO's layout


@pytest.fixture
def loco(tree):
    """The masks of ``hole`` in folders, the first one's in two parts of a value of its own each."""
    truth = tree / "widget/ground_truth/hole"
    parts = np.zeros((2, 40, 48), np.uint8)
    parts[0, 10:15, 8:24], parts[1, 13:20, 8:24] = 236, 255
    for i in (0, 1):
        (truth / f"00{i}").mkdir()
        (truth / f"00{i}_mask.png").rename(truth / f"00{i}/000.png")
    for i in (0, 1):
        Image.fromarray(parts[i]).save(truth / f"000/00{i}.png")
    return tree


def test_parts(loco):
    """They are read as one mask: where any marks."""
    samples = list_test(loco, "widget")
    assert [sample.mask_path for sample in samples[2:4]] == [loco / f"widget/ground_truth/hole/00{i}" for i in (0, 1)]
    assert np.array_equal(decode_masks(samples, view=square(32))[2], EXPECTED)
    whole = samples_sha256(samples, with_masks=True)
    (loco / "widget/ground_truth/hole/000/001.png").unlink()
    assert samples_sha256(list_test(loco, "widget"), with_masks=True) != whole


def test_same_results(loco, tmp_path):
    """As with the same masks in files, through both roads."""
    plain = tmp_path / "plain"
    shutil.copytree(loco, plain)
    truth = plain / "widget/ground_truth/hole"
    WHITE.save(truth / "000_mask.png")
    shutil.copy(truth / "001/000.png", truth / "001_mask.png")
    for i in (0, 1):
        shutil.rmtree(truth / f"00{i}")
    model = write_red_model(tmp_path / "model", size=32)
    found = []
    for name, root in (("plain", plain), ("loco", loco)):
        flags = ("--category", "widget", "--out_dir", tmp_path / name)
        words = [str(word) for word in ("--eval_url", root, "--ckpt_path", model, *flags)]
        assert test_entry.main(test_entry.parse_args(words)) == 0
        inputs = ("--data_dir", root, "--img_dir", tmp_path / name / "in", "--category", "widget", "--image_size", 32)
        assert preprocess.main(preprocess.parse_args([str(word) for word in inputs])) == 0
        images = json.loads((tmp_path / name / "in/manifest.json").read_text())["images"]
        assert images[2]["mask"] == f"ground_truth/hole/000{'_mask.png' if name == 'plain' else ''}"
        maps = tmp_path / name / "maps"
        maps.mkdir()
        for image in images:
            np.fromfile(tmp_path / name / f"in/{image['name']}.bin", np.float32)[:1024].tofile(
                maps / f"{image['name']}_0.bin"
            )
        words = ("--data_dir", root, "--label_dir", tmp_path / name / "in", "--result_dir", maps, *flags)
        assert postprocess.main(postprocess.parse_args([str(word) for word in words])) == 0
        found.append([path.read_bytes() for path in sorted((tmp_path / name).rglob("results.json"))])
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_part_of_another_size(loco):
    Image.new("L", (40, 48), 255).save(loco / "widget/ground_truth/hole/000/001.png")
    with pytest.raises(InputError, match=r"hole/000/001\.png: is 40 x 48 pixels"):
        decode_masks(list_test(loco, "widget"), view=square(32))


def test_folder_and_file(loco):
    WHITE.save(loco / "widget/ground_truth/hole/000_mask.png")
    with pytest.raises(InputError, match=r"hole/000: second mask for one image, besides 000_mask\.png"):
        list_test(loco, "widget")


@pytest.mark.parametrize("name", ["002.gif", "more/002.png", "002"])
def test_part_that_is_not_read(loco, capsys, name):
    """Without it, a part of the defect would count as good."""
    folder = loco / "widget/ground_truth/hole/000"
    (folder / name).parent.mkdir(exist_ok=True)
    WHITE.save(folder / name, "GIF" if name.endswith("gif") else "PNG")
    with pytest.raises(InputError, match=rf"hole/000: 1 picture left out: {name} .* each marks a part of one defect"):
        list_test(loco, "widget")
    assert dataset.main(dataset.parse_args(["--check", str(loco)])) == 1


def test_folder_without_image(loco):
    """As with a file: a mask that belongs to nothing tells of an image that is missing."""
    shutil.copytree(loco / "widget/ground_truth/hole/001", loco / "widget/ground_truth/hole/007")
    with pytest.raises(InputError, match=r"hole/007: extra mask, there is no image 007"):
        list_test(loco, "widget")


def test_image_named_mask(tree):
    """An image may be called so itself."""
    for part, name, new in (
        ("test", "000.png", "a_mask.png"),
        ("ground_truth", "000_mask.png", "a_mask.png"),
        ("test", "001.png", "b_mask.png"),
        ("ground_truth", "001_mask.png", "b_mask_mask.png"),
    ):
        (tree / f"widget/{part}/hole/{name}").rename(tree / f"widget/{part}/hole/{new}")
    pairs = [(sample.path.name, sample.mask_path.name) for sample in list_test(tree, "widget")[2:4]]
    assert pairs == [("a_mask.png", "a_mask.png"), ("b_mask.png", "b_mask_mask.png")]


@pytest.mark.parametrize("name", ["000_mask.gif", "000_Mask.png", "000-mask.png", "mask"])
def test_nearly_named_mask(tree, name):
    """The message names what lies there instead."""
    truth = tree / "widget/ground_truth/hole"
    said = f", found {name} "
    if name == "mask":
        (truth / "000_mask.png").unlink()
        (truth / "000_mask").mkdir()
        said = ", found the folder 000_mask without masks "
    else:
        (truth / "000_mask.png").rename(truth / name)
    with pytest.raises(InputError, match=rf"no mask for .*/000\.png; expected 000_mask\.png{said}"):
        list_test(tree, "widget")


def test_folder_missing(loco):
    shutil.rmtree(loco / "widget/ground_truth/hole/001")
    with pytest.raises(InputError, match=r"hole: no mask for .*test/hole/001\.png; expected 001_mask\.png"):
        list_test(loco, "widget")
