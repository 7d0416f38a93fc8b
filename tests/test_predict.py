"""Prediction on new pictures: scores, verdicts, regions, files, and what is unreadable."""

import contextlib
import json
import math
import os
import shutil
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags, Image
from scipy import ndimage

from src import predict
from src.data.stream import decode
from src.data.view import Box, square
from src.detector import Detector
from src.evaluation.decision import DecisionRule
from src.evaluation.regions import Region, find_regions
from src.model.maps import predict_maps
from src.model.model_file import inspect_model, load_network
from src.report.pictures import colour_map, defect_overlay
from tests.conftest import examples, load_image, read_csv, save_picture
from tests.plain_model import write_red_model
from tests.test_scripts import run_script


@pytest.fixture
def pictures(tmp_path):
    """A folder of 5 pictures of several kinds, one unreadable, and something that is no picture."""
    rng = np.random.default_rng(8)
    for i, name in enumerate(("a b.png", "b.jpg", "c,d.bmp", "e.tiff")):
        save_picture(tmp_path / "new" / name, rng, size=(60 + 20 * i, 50))
    (tmp_path / "new/broken.png").write_text("no picture")
    (tmp_path / "new/notes.txt").write_text("")
    return tmp_path / "new"


def run(*flags):
    return predict.main(predict.parse_args([str(flag) for flag in flags]))


def read(folder, name):
    return read_csv(folder / name)


@pytest.mark.parametrize("model", ["widget_last.ckpt", "widget.mindir", "widget.onnx"])
def test_scores(pictures, trained, exported, tmp_path, capsys, model):
    """They are those of the evaluation, for each kind of model."""
    path = trained[0] / "widget" / model if model.endswith("ckpt") else exported / model
    assert run("--image_path", pictures, "--ckpt_path", path, "--out_dir", tmp_path / "out", "--threshold", 1) == 1
    captured = capsys.readouterr()
    assert "broken.png: not a readable image" in captured.err
    assert "5 images, 1 unreadable, 4 good, 0 defective" in captured.out
    rows = {row["file"]: row for row in read(tmp_path / "out", "scores.csv")}
    assert list(rows) == ["a b.png", "b.jpg", "broken.png", "c,d.bmp", "e.tiff"]
    assert rows["broken.png"]["score"] == ""
    assert "not a readable image" in rows["broken.png"]["error"]
    checkpoint = inspect_model(trained[0] / "widget/widget_last.ckpt")
    names = ["a b.png", "b.jpg", "c,d.bmp", "e.tiff"]
    images = np.stack([load_image(pictures / name, 64) for name in names])
    maps = predict_maps(load_network(checkpoint), images, batch_size=4)
    found = [float(rows[name]["score"]) for name in names]
    assert found == pytest.approx(maps.max((1, 2)).tolist(), rel=1e-4)


def test_files(pictures, trained, tmp_path):
    (pictures / "broken.png").unlink()
    checkpoint = trained[0] / "widget/widget_last.ckpt"
    assert run("--image_path", pictures, "--ckpt_path", checkpoint, "--out_dir", tmp_path / "first") == 0
    scores = sorted(float(row["score"]) for row in read(tmp_path / "first", "scores.csv"))
    assert {row["verdict"] for row in read(tmp_path / "first", "scores.csv")} == {""}
    threshold = scores[1] * 0.9999
    flags = ("--threshold", threshold, "--save_sample", "True", "--save_sample_path", tmp_path / "shown")
    assert run("--image_path", pictures, "--ckpt_path", checkpoint, "--out_dir", tmp_path / "out", *flags) == 0
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert content["threshold"] == np.float32(threshold)
    assert sorted(record["verdict"] for record in content["images"]) == ["defective"] * 3 + ["good"]
    rows = read(tmp_path / "out", "regions.csv")
    regions = [{"file": record["file"]} | region for record in content["images"] for region in record["regions"]]
    assert rows == [{key: str(value) for key, value in region.items()} for region in regions]
    for record in content["images"]:
        assert bool(record["regions"]) == (record["verdict"] == "defective")
        if record["regions"]:
            assert record["regions"][0]["score"] == record["score"]
            with Image.open(pictures / record["file"]) as picture:
                for region in record["regions"]:
                    assert 0 <= region["x"] < region["x"] + region["width"] <= picture.width
                    assert 0 <= region["y"] < region["y"] + region["height"] <= picture.height
    assert {path.name for path in (tmp_path / "shown").iterdir()} == {f"{r['file']}.png" for r in content["images"]}
    with Image.open(tmp_path / "shown/b.jpg.png") as shown:
        assert shown.width > 3 * 256


@pytest.fixture
def turned(tmp_path):
    """A picture of 96 x 64 with two red spots, as it is and twice turned by EXIF orientation; and a plain one."""
    pixels = np.full((64, 96, 3), (20, 200, 200), np.uint8)
    pixels[32:52, 9:30] = (255, 200, 200)  # whole pixels of a map of 32 x 32: 3 x 2 of the picture's each
    pixels[0:4, 60:66, 0] = 180
    folder = tmp_path / "turned"
    folder.mkdir()
    Image.fromarray(pixels).save(folder / "a.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90 degrees to the right
    Image.fromarray(np.rot90(pixels)).save(folder / "b.png", exif=exif)
    exif[ExifTags.Base.Orientation] = 3
    Image.fromarray(np.rot90(pixels, 2)).save(folder / "c.png", exif=exif)
    Image.new("RGB", (48, 40), (20, 0, 0)).save(folder / "d.png")
    return folder


def test_coordinates(turned, tmp_path, capsys):
    """Regions are told in pixels of the picture as it is seen upright, whatever way its file holds it."""
    model = write_red_model(tmp_path / "model", threshold=0.5)
    assert run("--image_path", turned, "--ckpt_path", model, "--out_dir", tmp_path / "out") == 0
    assert "4 images, 0 unreadable, 1 good, 3 defective" in capsys.readouterr().out
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert content["model"] == "widget.onnx"
    assert content["config_hash"] == json.loads(model.with_suffix(".json").read_text())["config_hash"]
    assert content["threshold"] == 0.5
    boxes = [[9, 32, 21, 20, 420], [60, 0, 6, 4, 24]]  # the redder first
    for record, name in zip(content["images"][:3], "abc", strict=True):
        found = [[region[key] for key in ("x", "y", "width", "height", "area")] for region in record["regions"]]
        assert (record["file"], record["verdict"], found) == (f"{name}.png", "defective", boxes)
    assert content["images"][3] == {
        "file": "d.png", "score": pytest.approx(20 / 255, abs=1e-6), "verdict": "good", "regions": [],
        "relative_score": pytest.approx(20 / 255 / 0.5, abs=1e-6),
    }  # fmt: skip
    assert [row["regions"] for row in read(tmp_path / "out", "scores.csv")] == ["2", "2", "2", "0"]
    rows = [list(row.values())[:6] for row in read(tmp_path / "out", "regions.csv")]
    assert rows == [[f"{name}.png", *map(str, box)] for name in "abc" for box in boxes]


def test_pairing(tmp_path, capsys):
    """More pictures than two batches, unreadable ones among them, one of a name that is no text: each its own."""
    model = write_red_model(tmp_path / "model")
    folder = tmp_path / "many"
    folder.mkdir()
    names = [f"{i:02}.png" for i in range(10)] + [os.fsdecode(b"\xff.png")]
    for i, name in enumerate(names):
        Image.new("RGB", (40, 40), (20 * i + 5, 0, 0)).save(folder / name)
    for name in ("001.png", "03a.png", "06b.png"):
        (folder / name).write_text("no picture")
    assert run("--image_path", folder, "--ckpt_path", model, "--out_dir", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "14 images, 3 unreadable"
    assert captured.err.count("not a readable image") == 3
    rows = read_csv(tmp_path / "out/scores.csv")
    assert [row["file"] for row in rows] == sorted([*names, "001.png", "03a.png", "06b.png"])
    scores = {row["file"]: float(row["score"]) for row in rows if row["score"]}
    assert scores == {name: pytest.approx((20 * i + 5) / 255, abs=1e-6) for i, name in enumerate(names)}
    assert {row["verdict"] for row in rows} == {""}
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert content["threshold"] is None
    assert [record["file"] for record in content["images"]] == [row["file"] for row in rows]
    assert ["error" in record for record in content["images"]] == [not row["score"] for row in rows]


@pytest.mark.parametrize("step", [0, 1])
def test_verdict_at_the_threshold(tmp_path, capsys, step):
    """A score that is the threshold is defective, with a region; at the next number it is good, with none."""
    model = write_red_model(tmp_path / "model")
    Image.new("RGB", (32, 32), (77, 0, 0)).save(tmp_path / "one.png")
    flags = ("--image_path", tmp_path / "one.png", "--ckpt_path", model, "--out_dir", tmp_path / "out")
    assert run(*flags) == 0
    score = np.float32(read(tmp_path / "out", "scores.csv")[0]["score"])
    threshold = np.nextafter(score, np.float32(1)) if step else score
    assert run(*flags, "--threshold", repr(float(threshold))) == 0
    row = read(tmp_path / "out", "scores.csv")[0]
    assert (row["verdict"], row["regions"]) == (("good", "0") if step else ("defective", "1"))


def test_default_folder(tmp_path, monkeypatch):
    model = write_red_model(tmp_path / "model")
    save_picture(tmp_path / "one.png", np.random.default_rng(0))
    monkeypatch.chdir(tmp_path)
    assert run("--image_path", "one.png", "--ckpt_path", model) == 0
    names = {"scores.csv", "regions.csv", "predictions.json"}
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == names


def test_pictures_that_cannot_be_shown(pictures, tmp_path, capsys, monkeypatch):
    """Neither a name too long for another word behind it, nor a place that is taken, nor an error that nobody reads."""
    long = ["ü" * 120 + f"{i}.jpg" for i in range(2)]
    for name in long:
        shutil.copy(pictures / "b.jpg", pictures / name)
    model = write_red_model(tmp_path / "model")
    flags = ("--image_path", pictures, "--ckpt_path", model, "--out_dir", tmp_path / "out", "--threshold", 2)
    shown = tmp_path / "out/pictures"
    assert run(*flags, "--save_sample", "True") == 1  # for broken.png
    assert len(list(shown.iterdir())) == 6
    assert not any("tmp" in path.name for path in shown.iterdir())
    (pictures / "broken.png").unlink()
    (shown / "b.jpg.png").unlink()
    (shown / "b.jpg.png").mkdir()
    capsys.readouterr()
    assert run(*flags, "--save_sample", "True") == 1
    captured = capsys.readouterr()
    assert captured.err.strip() == f"error: {shown / 'b.jpg.png'}: cannot be written: Is a directory"
    assert "6 images, 0 unreadable, 6 good, 0 defective, 1 not shown" in captured.out
    assert {row["file"] for row in read(tmp_path / "out", "scores.csv")} >= {"b.jpg", *long}
    (pictures / "broken.png").touch()
    with open("/dev/full", "w") as full:
        full.reconfigure(line_buffering=True)
        monkeypatch.setattr(sys, "stderr", full)
        assert run(*flags) == 1
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    assert "broken.png" in {row["file"] for row in read(tmp_path / "out", "scores.csv")}


def test_earlier_pictures(pictures, tmp_path, caplog):
    """Those of an earlier run stay, and are told of."""
    model = write_red_model(tmp_path / "model")
    flags = ("--ckpt_path", model, "--out_dir", tmp_path / "out", "--threshold", 2, "--save_sample", "True")
    for _ in range(2):
        assert run("--image_path", pictures / "b.jpg", *flags) == 0
    assert "not of these images" not in caplog.text
    assert run("--image_path", pictures / "e.tiff", *flags) == 0
    assert "pictures: holds 1 files that are not of these images, such as b.jpg.png; they stay" in caplog.text


def test_regions_by_hand():
    one = np.zeros((64, 64), np.float32)
    one[10:12, 20:24] = 2.0
    one[12, 24] = 3.0  # touches the first at a corner
    one[40:50, 0:8] = 1.0
    one[60, 60] = 0.99
    assert find_regions(one, DecisionRule(1.0), box=Box(0, 0, 128, 64)) == [
        Region(40, 10, 10, 3, 18, 3.0),
        Region(0, 40, 16, 10, 160, 1.0),
    ]
    assert find_regions(one, DecisionRule(4.0), box=Box(0, 0, 128, 64)) == []
    # of one score from the top, then from the left; OpenCV numbers them in another order
    level = np.zeros((8, 8), np.float32)
    level[[0, 2, 2, 6], [6, 0, 3, 5]] = 1
    found = find_regions(level, DecisionRule(1.0), box=Box(0, 0, 8, 8))
    assert [(region.x, region.y) for region in found] == [(6, 0), (0, 2), (3, 2), (5, 6)]


@examples(100)
@given(
    arrays(np.float32, st.sampled_from([(3, 3), (6, 6), (7, 7), (48, 48)]), elements=st.sampled_from([0.0, 0.5, 1, 2])),
    st.sampled_from([0.5, 0.75, 2.0]),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
@example(np.ones((112, 112), np.float32), 1.0, (225, 450))  # 225 / 112 * 112 is above 225
@example(np.eye(48, dtype=np.float32), 1.0, (400, 200))
@example(np.array([[1, 0, 2], [1, 0, 0], [1, 1, 1]], np.float32), 0.5, (9, 9))  # a higher one inside a region's box
def test_regions(one, threshold, size):
    """Against scipy's labels and exact fractions: what a region covers, its area, the highest first."""
    labels, count = ndimage.label(one >= threshold, structure=np.ones((3, 3)))
    scale_x, scale_y = Fraction(size[0], one.shape[1]), Fraction(size[1], one.shape[0])
    expected = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        x, y = math.floor(columns.start * scale_x), math.floor(rows.start * scale_y)
        right, bottom = math.ceil(columns.stop * scale_x), math.ceil(rows.stop * scale_y)
        assert right <= size[0]
        assert bottom <= size[1]
        area = round(int((labels == label).sum()) * scale_x * scale_y)
        expected.append(Region(x, y, right - x, bottom - y, area, float(one[labels == label].max())))
    found = find_regions(one, DecisionRule(threshold), box=Box(0, 0, *size))
    assert len(found) == count
    assert [region.score for region in found] == sorted((region.score for region in expected), reverse=True)
    assert Counter(found) == Counter(expected)


def test_colours():
    """Half the threshold, the threshold and twice that: the colours of 0.25, 0.5 and 1, whatever else is in the map."""
    one = np.array([[0.5, 1.0], [2.0, 9.0]], np.float32)
    other = np.array([[0.5, 1.0], [2.0, 0.0]], np.float32)
    assert np.array_equal(colour_map(one, 1.0)[0], colour_map(other, 1.0)[0])
    assert np.array_equal(colour_map(one, 1.0)[1, 0], colour_map(other, 1.0)[1, 0])
    brightness = colour_map(np.array([[0, 0.5, 1.0, 1.5, 2.0]], np.float32), 1.0)[0].astype(int).sum(-1)
    assert (np.diff(brightness) > 0).all()
    image = np.full((64, 64, 3), 100, np.uint8)
    anomaly_map = np.zeros((64, 64), np.float32)
    assert (defect_overlay(image, anomaly_map, 1.0) == 100).all()
    anomaly_map[20:40, 20:40] = 2.0
    outlined = defect_overlay(image, anomaly_map, 1.0)
    assert (outlined[128, 128] == 100).all()  # the inside stays visible
    assert (outlined != 100).any()


def counted(path, taken):
    """The same picture a hundred times, and a note of each that was asked for."""
    for i in range(100):
        taken.append(i)
        yield path


def test_decoding_ahead(tmp_path):
    """As many pictures as allowed are decoded before they are asked for, and not one more; none is lost."""
    save_picture(tmp_path / "one.png", np.random.default_rng(0), size=(7, 5))
    taken, ahead = [], []
    for seen, picture in enumerate(decode(counted(tmp_path / "one.png", taken), view=square(4), ahead=6), start=1):
        ahead.append(len(taken) - seen)
        assert (Path(picture.name).name, picture.image.shape, picture.box) == ("one.png", (4, 4, 3), (0, 0, 7, 5))
    assert ahead == [6] * 94 + [5, 4, 3, 2, 1, 0]


def test_memory(tmp_path):
    """Of any number of pictures, at most two batches are decoded ahead of the one in work."""
    save_picture(tmp_path / "one.png", np.random.default_rng(0), size=(7, 5))
    taken, seen = [], 0
    detector = Detector(lambda images: np.ones((len(images), 1, 4, 4), np.float32), view=square(4), batch_size=2)
    for _ in detector.stream(counted(tmp_path / "one.png", taken)):
        seen += 1
        assert len(taken) <= seen + 3 * 2
    assert seen == 100


def test_refused(refused, pictures, trained, tmp_path):
    checkpoint = trained[0] / "widget/widget_last.ckpt"
    flags = ("--image_path", pictures, "--ckpt_path", checkpoint, "--out_dir", tmp_path / "o")
    assert "has no threshold, which is the unit of the colours" in refused(predict, *flags, "--save_sample", "True")
    assert "argument --threshold: expected a number above 0" in refused(predict, *flags, "--threshold", 0)
    assert "--ckpt_path is required" in refused(predict, "--image_path", pictures)
    assert "/nowhere: no such image" in refused(predict, "--image_path", "/nowhere", "--ckpt_path", checkpoint)
    (tmp_path / "o").mkdir(exist_ok=True)
    assert not list((tmp_path / "o").iterdir())


def test_script(pictures, trained, tmp_path):
    here = tmp_path / "a folder"
    here.mkdir()
    shutil.copytree(trained[0] / "widget", here / "widget")
    done = run_script("run_predict.sh", pictures / "b.jpg", "widget/widget_last.ckpt", "--threshold", "1", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "1 images, 0 unreadable, 1 good, 0 defective" in done.stdout
    assert (here / "predictions/scores.csv").exists()
    assert run_script("run_predict.sh", "none", "none", cwd=here).returncode == 1
    assert run_script("run_predict.sh", pictures, cwd=here).returncode == 2
