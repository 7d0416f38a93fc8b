"""The synthetic category: deterministic, in MVTec AD's layout, with exact masks."""

import numpy as np
import pytest
from PIL import Image

from src import demo_data
from src.dataset import list_test, list_train


def test_a_good_and_a_defective_drawing_differ_only_inside_the_mask():
    for number in range(3):
        for defect in demo_data.DEFECTS:
            rng = np.random.default_rng(number)
            good, washer = demo_data._good_picture(rng)
            bad, opacity = demo_data.DEFECTS[defect](good, washer, rng)
            changed = np.abs(bad - good).max(axis=2) > 0
            assert not changed[opacity == 0].any()
            mask = opacity > demo_data._VISIBLE
            assert mask.any()
            assert mask.mean() < 0.02, "a defect is small"


def test_drawings_are_deterministic():
    for defect in (None, *demo_data.DEFECTS):
        first, second = (demo_data.draw(defect, np.random.default_rng(5)) for _ in range(2))
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])
        assert set(np.unique(first[1])) == ({0, 255} if defect else {0})
    assert not np.array_equal(demo_data.draw(None, np.random.default_rng(6))[0], first[0])


def test_category_has_mvtecs_layout_and_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_data, "TRAIN_GOOD", 3)
    monkeypatch.setattr(demo_data, "TEST_GOOD", 2)
    monkeypatch.setattr(demo_data, "TEST_PER_DEFECT", 2)
    folder = demo_data.write_category(tmp_path)
    assert len(list_train(tmp_path, "washer")) == 3
    samples = list_test(tmp_path, "washer")
    assert len(samples) == 2 + 2 * 4
    assert all((sample.mask_path is not None) == sample.is_defective for sample in samples)
    assert [path.name for path in tmp_path.iterdir()] == ["washer"]
    marker = folder / "train/good/000.png"
    Image.new("RGB", (4, 4)).save(marker)
    demo_data.write_category(tmp_path)
    assert Image.open(marker).size == (4, 4), "what is there is kept"


def test_unwritable_folder(refused, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be created" in refused(demo_data, "--out_dir", tmp_path / "file/data")


@pytest.mark.parametrize("seed", ["x", "1.5"])
def test_bad_seed(refused, tmp_path, seed):
    assert "--seed" in refused(demo_data, "--out_dir", tmp_path, "--seed", seed)


def test_seeds_that_no_generator_takes(refused, tmp_path):
    for seed in (-1, 2**32, "x"):
        assert "argument --seed: expected a whole number" in refused(demo_data, "--out_dir", tmp_path, "--seed", seed)
    assert not list(tmp_path.iterdir())
