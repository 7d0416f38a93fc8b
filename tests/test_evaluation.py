"""test.py from the command line to results.json, on a model whose maps are known, against other sources."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score

import test as test_entry
from tests.conftest import make_tree
from tests.plain_model import red_map, write_red_model
from tests.test_metrics import brute_force_pro

SIZE = 32


def run(*flags):
    return test_entry.main(test_entry.parse_args([str(flag) for flag in flags]))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A category of 3 good images and 3 x 3 defective ones, one type without masks; their maps and masks by Pillow."""
    root = make_tree(tmp_path_factory.mktemp("scene"), good=3, defects=("crack", "hole", "stain"), per_defect=3)
    shutil.rmtree(root / "widget/ground_truth/stain")
    paths = sorted((root / "widget/test").glob("*/*.png"))
    kinds = np.array([path.parent.name for path in paths])
    masks = np.zeros((len(paths), SIZE, SIZE), np.uint8)
    rng = np.random.default_rng(5)
    for i, (path, brightness) in enumerate(zip(paths, rng.permutation(len(paths)), strict=True)):
        pixels = rng.integers(0, 60 + 10 * brightness, (40, 48, 3), np.uint8)
        mask_path = root / "widget/ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        if mask_path.exists():
            with Image.open(mask_path) as mask:
                masks[i] = np.asarray(mask.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
                pixels[np.asarray(mask) > 0] += 10 * (i % 4)
        Image.fromarray(pixels).save(path)
    return root, paths, kinds, np.stack([red_map(path) for path in paths]), masks


@pytest.fixture
def evaluate(scene, tmp_path):
    """Run test.py on the scene; return results.json."""

    def run_it(*flags, model=None):
        model = model or write_red_model(tmp_path / "model")
        words = ("--eval_url", scene[0], "--category", "widget", "--ckpt_path", model, "--out_dir", tmp_path / "out")
        assert run(*words, *flags) == 0
        return json.loads((tmp_path / "out/widget/results.json").read_text())

    return run_it


def test_metrics(scene, evaluate):
    _, _, kinds, maps, masks = scene
    results = evaluate()
    known, bad = kinds != "stain", kinds != "good"
    truth = masks >= 128  # covered by half
    assert results["image_auroc"] == pytest.approx(roc_auc_score(bad, maps.max((1, 2))))
    assert results["pixel_auroc"] == pytest.approx(roc_auc_score(truth[known].ravel(), maps[known].ravel()), abs=1e-6)
    assert results["pro"] == pytest.approx(brute_force_pro(maps[known], truth[known]), abs=1e-6)
    assert results["images"] == {"test": 12, "good": 3, "defective": 9, "in_pixel_metrics": 9}
    assert results["undefined"] == {}
    about = {name: results[name] for name in ("category", "model", "image_size", "mask_rule")}
    assert about == {"category": "widget", "model": "widget.onnx", "image_size": SIZE, "mask_rule": "half"}


def test_metrics_by_defect(scene, evaluate):
    """Each defect type against all good images, and against no other type."""
    _, _, kinds, maps, masks = scene
    found = evaluate()["by_defect"]
    assert list(found) == ["crack", "hole", "stain"]
    for kind, of_kind in found.items():
        rows = np.isin(kinds, ("good", kind))
        labels = kinds[rows] == kind
        assert of_kind["images"] == 3
        assert of_kind["image_auroc"] == pytest.approx(roc_auc_score(labels, maps[rows].max((1, 2))))
        if kind != "stain":  # has no masks
            expected = roc_auc_score((masks[rows] >= 128).ravel(), maps[rows].ravel())
            assert of_kind["pixel_auroc"] == pytest.approx(expected, abs=1e-6)
    assert found["stain"]["pixel_auroc"] is None


def test_mask_rules(scene, evaluate):
    _, _, kinds, maps, masks = scene
    known = kinds != "stain"
    expected = {
        rule: pytest.approx(roc_auc_score((masks[known] >= least).ravel(), maps[known].ravel()), abs=1e-6)
        for rule, least in (("half", 128), ("erode", 255), ("dilate", 1))
    }
    assert len({round(value.expected, 4) for value in expected.values()}) == 3
    results = evaluate("--mask_rule", "dilate")
    assert results["pixel_auroc_by_mask_rule"] == expected
    assert results["mask_rule"] == "dilate"
    assert results["pixel_auroc"] == expected["dilate"]
    assert results["pro"] == pytest.approx(brute_force_pro(maps[known], masks[known] >= 1), abs=1e-6)


def test_decisions(scene, evaluate, tmp_path, caplog):
    """At a threshold that is a score itself: from it on an image is defective; counts against scikit-learn."""
    caplog.set_level("INFO")
    _, paths, kinds, maps, _ = scene
    scores = [entry["score"] for entry in evaluate()["scores"]]
    assert scores == pytest.approx(maps.max((1, 2)).tolist(), abs=1e-6)
    middle = sorted(scores)[6]
    assert scores.count(middle) == 1
    for threshold in (middle, float(np.nextafter(np.float32(middle), np.float32(1)))):
        results = evaluate(model=write_red_model(tmp_path / "model", threshold=threshold))
        called = np.array(scores) >= threshold
        assert [entry["verdict"] for entry in results["scores"]] == ["defective" if one else "good" for one in called]
        names = [(entry["file"], entry["defect"]) for entry in results["scores"]]
        assert names == [(f"{path.parent.name}/{path.name}", path.parent.name) for path in paths]
        tn, fp, fn, tp = confusion_matrix(kinds != "good", called).ravel().tolist()
        counts = results["decision"]
        assert [counts[f"{name}s"] for name in ("true_negative", "false_positive")] == [tn, fp]
        assert [counts[f"{name}s"] for name in ("false_negative", "true_positive")] == [fn, tp]
        assert counts["threshold"] == threshold
        assert results["threshold_source"] == "the model, set by good images"
        said = f"{tp} of 9 defective images found, {fp} of 3 good ones called defective"
        assert said in caplog.text
    results = evaluate("--threshold", 0.001, model=tmp_path / "model/widget.onnx")
    assert results["decision"]["true_positives"] == 9
    assert results["threshold_source"] == "--threshold"


def test_without_threshold(evaluate, caplog):
    caplog.set_level("INFO")
    results = evaluate()
    assert results["decision"] is results["threshold_source"] is None
    assert not any("verdict" in entry for entry in results["scores"])
    assert "no threshold, no verdicts: the model is not calibrated for 32 pixels" in caplog.text
    assert "pixel metrics: over the 9 of 12 images that are good or have a mask" in caplog.text


def test_three_lines(evaluate, capsys):
    """The specification's words, with the numbers of results.json; the metrics' digits do not depend on a batch."""
    results = evaluate()
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "category:  widget",
        f"Total pixel-level auc-roc score :  {results['pixel_auroc']!r}",
        f"Total image-level auc-roc score :  {results['image_auroc']!r}",
    ]


def test_where_results_go(scene, evaluate, tmp_path):
    evaluate("--save_sample", "True", "--save_sample_path", tmp_path / "shown")
    assert {path.name for path in (tmp_path / "shown").iterdir()} == {"samples.png"}
    timing = json.loads((tmp_path / "out/widget/timing.json").read_text())
    stages = {"load_and_decode_seconds", "inference_seconds", "metrics_seconds"}
    assert set(timing) == stages | {"test_images"}
    assert all(timing[stage] >= 0 for stage in stages)
    assert timing["test_images"] == 12
    flags = ("--data_url", scene[0], "--category", "widget", "--ckpt_url", tmp_path / "model/widget.onnx")
    assert run(*flags, "--train_url", tmp_path / "other") == 0
    files = [path / "widget/results.json" for path in (tmp_path / "other", tmp_path / "out")]
    assert files[0].read_bytes() == files[1].read_bytes()


def append_byte(path):
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("changes", "damage", "flags", "message"),
    [
        ({}, append_byte, (), "widget.onnx: is damaged, or is not the file that widget.json describes"),
        ({}, None, ("--category", "nut"), "--category nut: "),
        ({}, None, ("--image_size", 64), "image_size 64: "),
        ({}, None, ("--eval_batch_size", 2), "batch_size 2: "),
        ({"bias": float("nan")}, None, (), "widget.onnx: computes maps that hold NaN or infinity"),
        ({"bias": float("inf")}, None, (), "widget.onnx: computes maps that hold NaN or infinity"),
        ({"channels": 2}, None, (), "widget.onnx: computes maps (4, 2, 32, 32) of images (4, 3, 32, 32)"),
        ({}, None, ("--threshold", "1e-60"), "--threshold 1e-60: is below 1.1754944e-38"),
        ({"threshold": 1e-60}, None, (), "widget.json: threshold 1e-60: is below 1.1754944e-38"),
    ],
)
def test_refused_models(refused, scene, tmp_path, changes, damage, flags, message):
    path = write_red_model(tmp_path / "model", **changes)
    if damage:
        damage(path)
    words = ("--eval_url", scene[0], "--category", "widget", "--ckpt_path", path, "--out_dir", tmp_path / "out")
    error = refused(test_entry, *words, *flags)
    assert message in error
    if flags and flags[0] in ("--image_size", "--eval_batch_size"):
        assert "was exported for" in error
    assert not (tmp_path / "out/widget/results.json").exists()


def test_sizes_of_the_model(evaluate):
    """The same sizes as the model's are no reason to refuse it."""
    assert evaluate("--image_size", SIZE, "--eval_batch_size", 4) == evaluate()
