"""The synthetic category: deterministic, in MVTec AD's layout, with exact masks."""

import numpy as np
import pytest
from PIL import Image

from src import demo_data
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
    for name, count in (("TRAIN_GOOD", 3), ("TEST_GOOD", 2), ("TEST_PER_DEFECT", 1)):
        monkeypatch.setattr(demo_data, name, count)


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
