"""The synthetic categories: deterministic, in MVTec AD's layout, with exact masks."""

import cv2
import numpy as np
import pytest
from PIL import Image

from src import demo_data, demo_web
from src.data.samples import list_test, list_train


@pytest.fixture
def watched(monkeypatch):
    """The pictures before and after each defect that is drawn, and its opacity."""
    seen = []

    def watch(function):
        def drawn(picture, washer, rng):
            changed, opacity = function(picture, washer, rng)
            seen.append((picture, changed, opacity))
            return changed, opacity

        return drawn

    for name, function in list(demo_data.DEFECTS.items()):
        monkeypatch.setitem(demo_data.DEFECTS, name, watch(function))
    return seen


@pytest.mark.parametrize("defect", demo_data.DEFECTS)
def test_mask(watched, defect):
    """A small place that shows in the picture and is all that changed, but for what nobody can see."""
    for number in range(3):
        picture, mask = demo_data.draw(defect, np.random.default_rng(number))
        before, after, _ = watched[-1]
        change = np.abs(after - before).max(axis=2)
        inside = mask == 255
        assert (mask[~inside] == 0).all()
        assert 0 < inside.mean() < 0.02
        assert change[~inside].max() < 15
        assert change[inside].mean() > 15
        # the picture is the changed one, in another light (up to 8 %, and 8 % either way) and with noise
        ratio = picture[inside] / np.maximum(after[inside], 30)
        assert 0.75 < np.median(ratio) < 1.25


def test_missed(monkeypatch):
    """A defect that falls beside the washer is drawn again, on a picture without the first."""
    pictures = []

    def miss_twice(picture, washer, rng):
        pictures.append(picture)
        opacity = np.zeros(picture.shape[:2])
        opacity[3, 4] = 0.5 if len(pictures) == 3 else 0.05
        return picture + 1, opacity

    monkeypatch.setitem(demo_data.DEFECTS, "miss", miss_twice)
    _, mask = demo_data.draw("miss", np.random.default_rng(0))
    assert np.argwhere(mask).tolist() == [[3, 4]]
    assert len(pictures) == 3
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


def test_washer():
    """A bright ring on a dark belt, off the centre by a few pixels."""
    centres = []
    for number in range(8):
        picture, mask = demo_data.draw(None, np.random.default_rng(number))
        assert picture.shape == (256, 256, 3)
        assert picture.dtype == mask.dtype == np.uint8
        assert not mask.any()
        grey = picture.mean(axis=2)
        assert grey[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 90
        assert grey[118:138, 118:138].mean() < 60
        steel = grey > 100
        rows, columns = np.nonzero(steel)
        # of outer radius 96 and inner radius 44
        assert steel.sum() == pytest.approx(np.pi * (96**2 - 44**2), rel=0.05)
        centres.append((columns.mean() - 127.5, rows.mean() - 127.5))
    assert 1 < np.abs(centres).max() < 6


def test_drawings():
    """One seed, one drawing."""
    for defect in (None, *demo_data.DEFECTS):
        first, second = (demo_data.draw(defect, np.random.default_rng(5)) for _ in range(2))
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])
    assert not np.array_equal(
        demo_data.draw(None, np.random.default_rng(6))[0], demo_data.draw(None, np.random.default_rng(5))[0]
    )


@pytest.fixture
def few(monkeypatch):
    for name, product in list(demo_data.PRODUCTS.items()):
        fewer = product._replace(train_good=3, test_good=2, test_per_defect=1)
        monkeypatch.setitem(demo_data.PRODUCTS, name, fewer)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.png")}


def test_category(tmp_path, few):
    """MVTec AD's layout, written once."""
    folder = demo_data.write_category(tmp_path)
    assert len(list_train(tmp_path, "washer")) == 3
    samples = list_test(tmp_path, "washer")
    assert [sample.defect for sample in samples] == ["chip", "dent", "good", "good", "rust", "scratch"]
    assert all((sample.mask_path is not None) == sample.is_defective for sample in samples)
    assert [path.name for path in tmp_path.iterdir()] == ["washer"]
    assert folder == tmp_path / "washer"
    assert folder.stat().st_mode & 0o777 == 0o755
    marker = folder / "train/good/000.png"
    Image.new("RGB", (4, 4)).save(marker)
    demo_data.write_category(tmp_path)
    assert Image.open(marker).size == (4, 4), "what is there is kept"


def test_seeds(tmp_path, few):
    """One seed, one data set, in which no two pictures are the same; another seed, another."""
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        flags = ["--out_dir", str(tmp_path / name), *(["--seed", str(seed)] if seed else [])]
        assert demo_data.main(demo_data.parse_args(flags)) == 0
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert len({*first.values(), *other.values()}) == 2 * len(first) == 26


def test_nothing_half_written(tmp_path, few, monkeypatch, refused):
    """A disk that fills up leaves no folder."""
    save = Image.Image.save

    def fail(self, path, *arguments, **named):
        if "rust" in str(path):
            raise OSError(28, "No space left on device")
        save(self, path, *arguments, **named)

    monkeypatch.setattr(Image.Image, "save", fail)
    assert "washer: cannot be written: No space left on device" in refused(demo_data, "--out_dir", tmp_path)
    assert not list(tmp_path.iterdir())


def test_unwritable_folder(refused, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be created" in refused(demo_data, "--out_dir", tmp_path / "file/data")


def test_bad_seeds(refused, tmp_path):
    for seed in (-1, 2**32, "x", 1.5):
        assert "argument --seed: expected a whole number" in refused(demo_data, "--out_dir", tmp_path, "--seed", seed)
    assert not list(tmp_path.iterdir())


# --- the web ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defect", demo_web.DEFECTS)
def test_mask_of_web(monkeypatch, defect):
    """One place of 4 to 12 pixels, away from the edges, that is all that changed; the same again by the same seed."""
    seen = []
    function = demo_web.DEFECTS[defect]

    def watch(picture, rng):
        changed, opacity = function(picture, rng)
        seen.append((picture, changed))
        return changed, opacity

    monkeypatch.setitem(demo_web.DEFECTS, defect, watch)
    picture, mask = demo_web.draw(defect, np.random.default_rng(3))
    (before, after), *_ = seen
    change = np.abs(after - before)
    inside = mask == 255
    assert change[~inside].max() < 10
    assert change[inside].mean() > 8
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    assert count == 2
    left, top, width, height, _ = stats[1]
    assert 4 <= max(width, height) <= 12
    assert min(left, top, 1280 - left - width, 800 - top - height) >= 10
    ratio = picture[inside] / after[inside]  # in another light, by 16 % at most
    assert 0.8 < np.median(ratio) < 1.1
    again, mask_again = demo_web.draw(defect, np.random.default_rng(3))
    assert np.array_equal(picture, again)
    assert np.array_equal(mask, mask_again)


def test_web():
    """Grey, as large as it is said to be, and of threads 8 pixels apart in both directions."""
    picture, mask = demo_web.draw(None, np.random.default_rng(1))
    assert picture.shape == mask.shape == (800, 1280)
    assert picture.dtype == mask.dtype == np.uint8
    assert not mask.any()
    spectrum = np.abs(np.fft.fft2(picture - picture.mean()))
    # over one thread and under the next: no single direction has their period, but both together have twice that
    rows, columns = np.unravel_index(spectrum[20:400, 20:640].argmax(), (380, 620))
    assert (800 / (rows + 20), 1280 / (columns + 20)) == pytest.approx((16, 16), rel=0.05)
    assert not np.array_equal(picture, demo_web.draw(None, np.random.default_rng(2))[0])


def test_category_of_web(tmp_path, few, monkeypatch):
    """By its flag, beside the other one, which stays what it was."""
    monkeypatch.setattr(demo_web, "HEIGHT", 96)
    monkeypatch.setattr(demo_web, "WIDTH", 128)
    assert demo_data.main(demo_data.parse_args(["--out_dir", str(tmp_path), "--product", "web"])) == 0
    assert len(list_train(tmp_path, "web")) == 3
    samples = list_test(tmp_path, "web")
    assert [sample.defect for sample in samples] == ["break", "fibre", "good", "good", "hole", "knot", "stain"]
    assert all((sample.mask_path is not None) == sample.is_defective for sample in samples)
    with Image.open(samples[0].path) as picture:
        assert (picture.mode, picture.size) == ("L", (128, 96))
    assert [path.name for path in tmp_path.iterdir()] == ["web"]


def test_washer_as_ever():
    """What was drawn before there was a web is drawn still: sums of the pixels, and of their squares, of back then."""
    picture, mask = demo_data.draw("rust", np.random.default_rng((0, 4, 3)))
    values = picture.astype(np.int64)
    # another processor may round a pixel otherwise
    sums = [values.sum(), (values**2).sum(), (mask > 0).sum()]
    assert sums == pytest.approx([17172856, 2158842990, 227], rel=1e-5)
