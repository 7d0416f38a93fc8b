"""Minimum area, relative score and review band: from the map to the verdict."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

import test as test_entry
import train
from src import calibrate as calibrate_entry
from src import predict as predict_entry
from src.data.view import Area, Box, ImageSize, View, parse_area
from src.evaluation.decision import DecisionRule, region_level
from src.evaluation.regions import find_regions, without_small_regions
from src.exchange.origin import file_checksum
from src.exchange.scores import read_good_scores
from src.model.model_file import choose_rule, inspect_model
from src.model.sidecar import Sidecar, new_sidecar, read_sidecar
from src.utils import InputError
from tests.conftest import call, read_csv
from tests.plain_model import write_red_model

MAPS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.lists(st.integers(0, 12), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
        lambda values: np.array(values, np.float32).reshape(shape)
    )
)


@settings(max_examples=200, deadline=None)
@given(MAPS, st.data())
def test_level(one, data):
    """By the definition: the highest value at which a region, as scipy labels them, has that area."""
    area = data.draw(st.integers(1, one.size))
    reached = []
    for level in np.unique(one):
        labels, _ = ndimage.label(one >= level, np.ones((3, 3)))
        if max(np.bincount(labels.ravel())[1:], default=0) >= area:
            reached.append(level)
    rule = DecisionRule(min_area=area)
    assert region_level(one, area) == rule.scores(one[None])[0] == max(reached)
    # so that a region reaches a threshold exactly if the score does
    for threshold in (1.0, 6.0, 12.0):
        rule = DecisionRule(threshold, area)
        regions = find_regions(one, rule, box=Box(0, 0, *one.shape[::-1]))
        assert bool(regions) == (rule.verdict(float(rule.scores(one[None])[0])) == "defective")
        assert all(region.area >= area for region in regions)


def test_what_is_outlined():
    """Of a map whose small regions are left out, what reaches the threshold is what the regions are of."""
    one = np.zeros((6, 8), np.float32)
    one[0, 0], one[2:4, 2:5], one[5, 7] = 9, 3, 1
    kept = without_small_regions(one, DecisionRule(2.0, 4))
    assert np.array_equal(kept, np.where(one == 9, 0, one))
    assert without_small_regions(one, DecisionRule(2.0)) is one


def test_large_map():
    """Levels that differ by little, and a region that winds: as an image-sized map has them."""
    rng = np.random.default_rng(3)
    one = ndimage.gaussian_filter(rng.standard_normal((96, 160)), 2).astype(np.float32)
    for area in (2, 17, 300, one.size // 2, one.size):
        level = region_level(one, area)
        at, above = (
            max(np.bincount(ndimage.label(reached, np.ones((3, 3)))[0].ravel())[1:], default=0)
            for reached in (one >= level, one > level)
        )
        assert at >= area > above


def test_any_area():
    """Without a minimum area the score is the maximum, to the bit, of maps of any size."""
    maps = np.random.default_rng(0).random((3, 8, 5), np.float32)
    np.testing.assert_array_equal(DecisionRule().scores(maps), maps.max(axis=(1, 2)))
    assert DecisionRule().verdict(1e9) is None
    assert DecisionRule().verdicts == ()


@given(st.floats(2.0**-99, 2.0**99, width=32), st.floats(0.01, 0.99))
def test_band(threshold, review):
    """Next to the threshold and to its share: what is defective has a relative score of at least 1, and only that."""
    rule = DecisionRule(threshold, review=review)
    below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    assert rule.verdict(threshold) == "defective"
    assert rule.relative(threshold) == 1
    assert rule.verdict(below) == "review"
    assert rule.relative(below) < 1
    assert rule.verdict(threshold * review * 0.999) == "good"
    assert DecisionRule(threshold).verdict(below) == "good"


def test_share():
    """Review begins at the share itself, as defective begins at the threshold."""
    rule = DecisionRule(2.0, review=0.75)
    assert [rule.verdict(score) for score in (1.49, 1.5, 1.99, 2.0)] == ["good", "review", "review", "defective"]
    assert rule.verdicts == ("good", "review", "defective")
    assert DecisionRule(2.0).verdicts == ("good", "defective")


@pytest.mark.parametrize(
    ("text", "expected"), [("1", Area(1)), ("2500", Area(2500)), ("0.5%", Area(0.5, True)), ("100%", Area(100, True))]
)
def test_parse(text, expected):
    """Pixels are whole, percentages need not be; what is printed reads back."""
    assert parse_area(text) == parse_area(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "0%", "101%", "5 %", "1e3", "%", "x"])
def test_parse_refuses(text):
    """Anything else; the message says what would be right."""
    with pytest.raises(ValueError, match="expected a number of pixels, at least 1, or a percentage such as 0\\.5%"):
        parse_area(text)


def test_pixels_of_the_map():
    """Rounded up, so that what is smaller in the picture is smaller in the map, by the part that is seen."""
    view = View(ImageSize(64, 128))
    assert Area(100).in_map(view, [(256, 128)]) == 25
    assert Area(101).in_map(view, [(256, 128)]) == 26
    assert Area(1).in_map(view, [(4000, 3000)]) == 1
    assert Area(100).in_map(view, [(256, 128), (256, 128), (4000, 3000)]) == 25  # the median
    assert Area(100).in_map(replace(view, roi=Box(5, 5, 128, 64)), [(4000, 3000)]) == 100
    assert Area(0.5, True).in_map(view, [(7, 9)]) == 41
    counted = np.zeros((64, 128), bool)
    counted[:4, :10] = True
    with pytest.raises(ValueError, match="is 41 pixels of an anomaly map, of which 40 count"):
        Area(0.5, True).in_map(view.with_counted(counted), [(7, 9)])


def test_sidecar(tmp_path):
    """Absent where they are not set, kept otherwise, in proportion at another size."""
    plain = new_sidecar(category="a", view=View(ImageSize(64, 64)), config={})
    assert {"min_area", "review"}.isdisjoint(plain.to_json())
    set_so = replace(plain, threshold=0.5, min_area=10, review=0.8)
    content = set_so.to_json()
    assert (content["min_area"], content["review"]) == (10, 0.8)
    assert Sidecar.from_json(tmp_path, content) == set_so
    larger = set_so.at_image_size(ImageSize(128, 64))
    assert (larger.min_area, larger.review, larger.threshold) == (20, 0.8, None)
    assert set_so.at_image_size(ImageSize(32, 32)).min_area == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("min_area", 0), ("min_area", 1.0), ("min_area", True), ("min_area", 64 * 64 + 1), ("min_area", None),
     ("review", 1), ("review", 1.0), ("review", 0.0), ("review", "0.8")],
)  # fmt: skip
def test_damaged_sidecar(tmp_path, field, value):
    """The message names the field and the value."""
    content = new_sidecar(category="a", view=View(ImageSize(64, 64)), config={}).to_json() | {field: value}
    with pytest.raises(InputError, match=f"{field} {value!r}, expected"):
        Sidecar.from_json(tmp_path / "a.json", content)


@pytest.fixture
def speckled(tmp_path):
    """A model whose map is the red channel, and pictures: good ones have bright specks, defective ones a bright spot.

    Of a speck 2 x 2 pixels are bright, of a spot 6 x 6; the defect ``faint`` is darker than the specks. Pictures have
    twice the sides of the map.
    """
    model = write_red_model(tmp_path / "model", size=32)
    for folder, count, specks, spots in (
        ("train/good", 3, 0, 0), ("more", 9, 200, 0), ("test/good", 4, 220, 0), ("test/spot", 3, 0, 160),
        ("test/faint", 2, 0, 110),
    ):  # fmt: skip
        for i in range(count):
            picture = np.full((64, 64, 3), 40, np.uint8)
            picture[8 : 8 + 2, 10 + 4 * i : 12 + 4 * i, 0] = max(specks, 40)
            picture[30:36, 20:26, 0] = max(spots, 40)
            picture[50:62, 50:62, 0] = 90 + i  # what sets the level of a good image
            path = tmp_path / "data/widget" / folder / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return tmp_path, model


def test_chain(speckled, capsys):
    """Calibration, evaluation and prediction agree: specks make nothing defective, the rest sets the threshold."""
    tmp_path, model = speckled
    data = tmp_path / "data"
    flags = ("--ckpt_path", model, "--category", "widget", "--image_path", data / "widget/more", "--target_fpr", "0.2")
    test_flags = ("--ckpt_path", model, "--category", "widget", "--eval_url", data, "--out_dir", tmp_path)

    def evaluated(*more):
        assert call(test_entry, *test_flags, *more) == 0
        return json.loads((tmp_path / "widget/results.json").read_text())

    assert call(calibrate_entry, *flags) == 0
    assert evaluated()["decision"]["true_positives"] == 0  # the specks set the threshold
    assert call(calibrate_entry, *flags, "--min_area", "20", "--review", "0.8") == 0
    kept = read_sidecar(model, category=None)
    assert (kept.min_area, kept.review) == (5, 0.8)
    assert kept.threshold == pytest.approx(98 / 255, abs=0.02)

    results = evaluated()
    decision = results["decision"]
    assert (decision["true_positives"], decision["false_positives"], results["min_area"]) == (5, 0, 5)
    assert results["image_auroc"] == 1
    assert decision["review"] == {"from": 0.8, "good": 4, "defective": 0}
    for record in results["scores"]:
        assert record["relative_score"] == pytest.approx(record["score"] / kept.threshold)
        assert record["verdict"] == ("review" if record["defect"] == "good" else "defective")

    found = ("--ckpt_path", model, "--image_path", data / "widget/test/good", "--out_dir", tmp_path / "out")
    capsys.readouterr()
    assert call(predict_entry, *found) == 0
    assert capsys.readouterr().out == "4 images, 0 unreadable, 0 good, 4 review, 0 defective\n"
    assert call(predict_entry, *found, "--review", "0.99") == 0
    assert capsys.readouterr().out == "4 images, 0 unreadable, 4 good, 0 review, 0 defective\n"
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert (content["min_area"], content["review"]) == (5, 0.99)
    rows = read_csv(tmp_path / "out/scores.csv")
    assert [float(row["relative_score"]) for row in rows] == [one["relative_score"] for one in content["images"]]
    assert {row["regions"] for row in rows} == {"0"}

    # another threshold, by good images of the same kind, keeps what is set
    assert call(calibrate_entry, *flags) == 0
    assert read_sidecar(model, category=None).min_area == 5
    assert choose_rule(inspect_model(model), threshold=0.5, review=0.5) == DecisionRule(0.5, 5, 0.5, "--threshold")


def test_other_bands(speckled, capsys):
    """Flags where nothing is kept; a picture's regions are those of the verdict."""
    tmp_path, model = speckled
    picture = tmp_path / "data/widget/test/spot/0.png"
    flags = ("--ckpt_path", model, "--image_path", picture, "--out_dir", tmp_path / "out")
    assert call(predict_entry, *flags, "--review", "0.5") == 0
    assert capsys.readouterr().out == "1 images, 0 unreadable\n"
    assert call(predict_entry, *flags, "--threshold", "0.7", "--review", "0.5") == 0
    row = read_csv(tmp_path / "out/scores.csv")[0]
    assert (row["verdict"], row["regions"]) == ("review", "0")
    assert 0.5 <= float(row["relative_score"]) < 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--min_area", "2000000"), r"--min_area 2000000: is 500000 pixels of an anomaly map, of which 1024 count"),
        (("--min_area", "70%"), "no threshold for .*: scores must be positive"),
    ],
)
def test_too_large(tmp_path, caplog, flags, message):
    """An area of which no good image has a region above nothing, or that no map has."""
    model = write_red_model(tmp_path / "model", size=32)
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[10:20, 10:20] = 99
    (tmp_path / "more").mkdir()
    for i in range(4):
        Image.fromarray(picture).save(tmp_path / f"more/{i}.png")
    found = ("--ckpt_path", model, "--category", "widget", "--image_path", tmp_path / "more", *flags)
    if "%" in flags[1]:
        assert call(calibrate_entry, *found) == 1
        assert re.search(message, caplog.text)
    else:
        with pytest.raises(InputError, match=message):
            call(calibrate_entry, *found)
    assert read_sidecar(model, category=None).threshold is None


def test_scores_of_another_area(tmp_path):
    """What the C++ program scored by another minimum area sets no threshold."""
    model = write_red_model(tmp_path, size=32)
    (tmp_path / "maps").mkdir()
    path = tmp_path / "maps/scores.csv"
    path.write_text("input,score,milliseconds\na.bin,1,1\n")
    origin = {"format": 1, "model": file_checksum(model), "manifest": None, "min_area": 7}
    (tmp_path / "maps/origin.json").write_text(json.dumps(origin))
    with pytest.raises(InputError, match=r"computed with a minimum area of 7 pixels of a map, and .* has 1 now"):
        read_good_scores(path, model=model, category="widget")
    assert read_good_scores(path, model=model, category="widget", min_area=7) == {"a.bin": 1.0}


@pytest.mark.parametrize("flag", [("--min_area", "9"), ("--review", "0.8")])
def test_without_threshold(capsys, flag):
    """In training they go with the threshold that it sets."""
    with pytest.raises(SystemExit):
        train.parse_args(["--data_url", "a", "--category", "b", "--pre_ckpt_path", "random", *flag])
    assert f"{flag[0]} goes with a threshold, which --val_split sets" in capsys.readouterr().err


def test_pictures(speckled):
    """A picture outlines no speck that is too small to count."""
    tmp_path, model = speckled
    pictures = tmp_path / "data/widget/test/good"
    flags = ("--ckpt_path", model, "--image_path", pictures, "--save_sample", "True", "--threshold", "0.5")
    assert call(predict_entry, *flags, "--out_dir", tmp_path / "specks") == 0
    found = ("--ckpt_path", model, "--category", "widget", "--image_path", tmp_path / "data/widget/more")
    assert call(calibrate_entry, *found, "--target_fpr", "0.2", "--min_area", "20") == 0
    assert call(predict_entry, *flags, "--out_dir", tmp_path / "none") == 0
    for name in ("0.png.png", "3.png.png"):
        yellow = []
        for folder in ("specks", "none"):
            with Image.open(tmp_path / folder / "pictures" / name) as image:
                yellow.append((np.asarray(image) == (255, 230, 0)).all(axis=2).any())
        assert yellow == [True, False]
