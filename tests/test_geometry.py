"""A wide image, a region of it, an ignored area, pieces and a minimum area: the same in every program."""

import json

import numpy as np
import pytest
from PIL import Image

import test as evaluation
from src import predict
from src.data.view import View
from src.exchange.manifest import read_manifest
from src.model.sidecar import read_sidecar
from tests.conftest import call, read_csv, run_python
from tests.test_infer import program  # noqa: F401 - a fixture
from tests.test_scripts import run_script

PICTURES = 10
ROI = (6, 4, 120, 60)


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """Wide pictures: a grey product within a bright frame, with a label of noise that counts for nothing."""
    root = tmp_path_factory.mktemp("line") / "data"
    rng = np.random.default_rng(5)
    for folder, count in (("train/good", PICTURES), ("test/good", 3), ("test/hole", 3)):
        for i in range(count):
            picture = np.full((80, 140, 3), 250, np.uint8)
            picture[4:64, 6:126] = rng.integers(90, 110, (60, 120, 3))
            picture[4:20, 6:40] = rng.integers(0, 255, (16, 34, 3))
            if folder == "test/hole":
                picture[40:52, 70 + 5 * i : 84 + 5 * i] = 10
                mask = np.zeros((80, 140), np.uint8)
                mask[40:52, 70 + 5 * i : 84 + 5 * i] = 255
                path = root / f"widget/ground_truth/hole/{i}_mask.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(path)
            path = root / "widget" / folder / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    counted = np.full((80, 140), 255, np.uint8)
    counted[:22, :44] = 0
    Image.fromarray(counted).save(root.parent / "counted.png")
    return root


@pytest.fixture(scope="module")
def model(line, random_backbone, tmp_path_factory):
    """The output folder of a training on pieces, which sets a threshold, and of both exports."""
    out = tmp_path_factory.mktemp("geometry")
    done = run_python(
        "train.py", "--data_url", line, "--category", "widget", "--pre_ckpt_path", random_backbone,
        "--train_url", out, "--image_size", "96x160", "--roi", ",".join(map(str, ROI)),
        "--ignore_mask", line.parent / "counted.png", "--train_tile", 64, "--batch_size", 7, "--epoch", 3,
        "--val_split", 0.3, "--target_fpr", 0.2, "--min_area", 20, "--review", 0.5, "--device_target", "CPU",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for file_format in ("MINDIR", "ONNX"):
        flags = ("--category", "widget", "--file_format", file_format, "--out_dir", out / "widget")
        done = run_python("export.py", "--ckpt_file", out / "widget/widget_last.ckpt", *flags)
        assert done.returncode == 0, done.stderr
    return out / "widget"


def predicted(model, pictures, out):
    """What src.predict writes of them: scores by file, regions, and the JSON's head."""
    assert call(predict, "--ckpt_path", model, "--image_path", pictures, "--out_dir", out) == 0
    content = json.loads((out / "predictions.json").read_text())
    return read_csv(out / "scores.csv"), read_csv(out / "regions.csv"), content


def test_sidecars(model):
    """The whole view and the rule stand beside checkpoint and exported models."""
    checkpoint = read_sidecar(model / "widget_last.ckpt", category="widget")
    exported = read_sidecar(model / "widget.mindir", category="widget")
    assert checkpoint.view == exported.view
    assert (checkpoint.view.size, checkpoint.view.roi) == ((96, 160), ROI)
    ignored = ~checkpoint.view.counted
    # of the region's 60 x 120 pixels the label's rest: 18 rows and 38 columns
    assert ignored.sum() == pytest.approx(18 / 60 * 96 * 38 / 120 * 160, rel=0.05)
    assert checkpoint.min_area == exported.min_area == -(-20 * 96 * 160 // (60 * 120))
    assert (checkpoint.threshold, checkpoint.review) == (exported.threshold, 0.5)
    record = json.loads((model / "train.json").read_text())
    assert record["config"]["train_tile"] == [64, 64]
    assert record["train_pieces"] == 7 * 6  # 2 x 3 pieces of each of 7 pictures
    assert View.from_json(record["config"]) == checkpoint.view


def test_runtimes(model, line, tmp_path):
    """Checkpoint, MINDIR and ONNX give the same scores, verdicts and regions; these lie within the region."""
    pictures = line / "widget/test/hole"
    scores, regions, content = predicted(model / "widget_last.ckpt", pictures, tmp_path / "ckpt")
    assert content["min_area"] == 43
    for row in regions:
        x, y, width, height = (int(row[name]) for name in ("x", "y", "width", "height"))
        assert ROI[0] <= x
        assert ROI[1] <= y
        assert x + width <= ROI[0] + ROI[2]
        assert y + height <= ROI[1] + ROI[3]
        assert int(row["area"]) >= 20
    for name in ("widget.mindir", "widget.onnx"):
        others, other_regions, _ = predicted(model / name, pictures, tmp_path / name)
        assert [row["verdict"] for row in others] == [row["verdict"] for row in scores]
        assert [float(row["score"]) for row in others] == pytest.approx(
            [float(row["score"]) for row in scores], rel=1e-4
        )
        places = [[{**row, "score": ""} for row in rows] for rows in (regions, other_regions)]
        assert places[0] == places[1]


def test_program(program, model, line, tmp_path):  # noqa: F811
    """The C++ program, from the script: scores, relative scores and verdicts of labelled and of new pictures."""
    arguments = (model / "widget.mindir", line, "y", 0, "widget", "CPU")
    done = run_script("run_310_infer.sh", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "widget/310_infer"
    assert read_manifest(folder / "inputs").view == read_sidecar(model / "widget.mindir", category=None).view
    flags = ("--eval_url", line, "--category", "widget", "--ckpt_path", model / "widget_last.ckpt")
    assert call(evaluation, *flags, "--out_dir", tmp_path / "test") == 0
    expected = json.loads((tmp_path / "test/widget/results.json").read_text())
    results = json.loads((folder / "results.json").read_text())
    for metric in ("pixel_auroc", "image_auroc", "pro"):
        assert results[metric] == pytest.approx(expected[metric], abs=1e-4)
    assert (results["min_area"], results["decision"]["review"]) == (43, expected["decision"]["review"])
    names = {
        f"{name}.bin": source for name, source in zip(read_manifest(folder / "inputs").names, range(6), strict=True)
    }
    rows = sorted(read_csv(folder / "maps/scores.csv"), key=lambda row: names[row["input"]])
    for row, of_postprocess, of_test in zip(rows, results["scores"], expected["scores"], strict=True):
        assert row["verdict"] == of_postprocess["verdict"] == of_test["verdict"]
        # of the same maps: the same numbers in both languages
        assert np.float32(row["score"]) == np.float32(of_postprocess["score"])
        assert np.float32(row["relative_score"]) == np.float32(of_postprocess["relative_score"])
        assert of_postprocess["score"] == pytest.approx(of_test["score"], rel=1e-4)
    assert json.loads((folder / "maps/origin.json").read_text())["min_area"] == 43

    done = run_script("run_310_infer.sh", model / "widget.mindir", line / "widget/test/hole", "y", 0, "widget", "CPU",
                      cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    scores, _, _ = predicted(model / "widget_last.ckpt", line / "widget/test/hole", tmp_path / "new")
    rows = read_csv(folder / "scores.csv")
    assert [row["verdict"] for row in rows] == [row["verdict"] for row in scores]
    assert [float(row["relative_score"]) for row in rows] == pytest.approx(
        [float(row["relative_score"]) for row in scores], rel=1e-4
    )


def test_outside_the_view(model, line, tmp_path):
    """What lies outside the region, or in the ignored area, changes no score by a bit."""
    source = line / "widget/test/hole/0.png"
    with Image.open(source) as image:
        picture = np.array(image)
    picture[:, :6] = picture[64:] = picture[:4] = picture[:, 126:] = 0
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(picture).save(pictures / "frame.png")
    (pictures / "small.png").write_bytes(b"")
    Image.fromarray(picture[:60]).save(pictures / "small.png")
    (pictures / "0.png").symlink_to(source)
    out = tmp_path / "out"
    done = run_python("-m", "src.predict", "--ckpt_path", model / "widget_last.ckpt", "--image_path", pictures,
                      "--out_dir", out)  # fmt: skip
    assert done.returncode == 1
    rows = {row["file"]: row for row in read_csv(out / "scores.csv")}
    assert rows["0.png"]["score"] == rows["frame.png"]["score"]
    assert "do not contain the region of interest 6,4,120,60" in rows["small.png"]["error"]
