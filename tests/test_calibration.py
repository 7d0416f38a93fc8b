"""The threshold: its definition, its guarantees on simulated scores, and its way through the command lines."""

import ctypes
import json
import random
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

import export as export_entry
import postprocess
import preprocess
import test as test_entry
import train as train_entry
from src import calibrate as calibrate_entry
from src import picture_stream, predict
from src.calibration import best_f1_threshold, calibrate, confusion, proportion_interval
from src.dataset import Sample, hold_out, list_train
from src.evaluate import verdict
from src.manifest import read_manifest
from src.model_file import choose_threshold, inspect_model
from src.regions import find_regions
from src.sidecar import read_export, record_calibration
from src.utils import InputError, file_sha256
from tests.conftest import make_tree, run_python, save_picture, train_arguments
from tests.damage import contents


def true_rates(count, draws, target_fpr=0.01):
    """The real false positive rate of the thresholds from many samples of a log-normal distribution."""
    rng = np.random.default_rng(4)
    scores = np.exp(rng.normal(-7, 0.5, (draws, count)))
    thresholds = [calibrate(one, target_fpr=target_fpr).threshold for one in scores]
    return stats.norm.sf((np.log(thresholds) + 7) / 0.5)


@pytest.mark.parametrize(("count", "method"), [(5, "log-normal"), (42, "log-normal"), (199, "order statistic")])
def test_the_rate_is_the_target_on_average_and_inside_the_interval(count, method):
    rates = true_rates(count, 400)
    assert rates.mean() == pytest.approx(0.01, abs=0.002)
    calibration = calibrate(np.exp(np.random.default_rng(0).normal(-7, 0.5, count)), target_fpr=0.01)
    assert calibration.method == method
    assert calibration.images == count
    low, high = calibration.fpr_interval
    assert 0 <= low < 0.01 < high
    assert ((rates >= low) & (rates <= high)).mean() == pytest.approx(0.95, abs=0.035)


def smallest_rank(count, rate):
    """The lowest of the places among ``count`` scores above which a further one lies with at most this probability."""
    return next(rank for rank in range(1, count + 1) if Fraction(count + 1 - rank, count + 1) <= rate)


@given(st.integers(2, 200), st.integers(1, 999).map(lambda thousandths: Fraction(thousandths, 1000)), st.randoms())
@example(9, Fraction(7, 10), random.Random(0))  # products that are whole numbers, and are not in binary floating point
@example(24, Fraction(44, 100), random.Random(0))
@example(149, Fraction(18, 100), random.Random(0))
@example(9, Fraction(1, 10), random.Random(0))
@example(19, Fraction(1, 20), random.Random(0))
@example(99, Fraction(1, 100), random.Random(0))
def test_rank(count, rate, shuffler):
    """The threshold is the number next to the score of the lowest rank that keeps the rate, in exact fractions."""
    if (count + 1) * rate < 1:
        return
    scores = list(range(1, count + 1))
    shuffler.shuffle(scores)
    calibration = calibrate(np.array(scores, np.float32), target_fpr=float(rate))
    assert calibration.method == "order statistic"
    assert calibration.threshold == np.nextafter(np.float32(smallest_rank(count, rate)), np.float32(np.inf))


def test_order_statistic_by_hand():
    """99 scores, 1 %: the highest is the largest that a good image has reached; one above it is defective."""
    scores = np.arange(1, 100, dtype=np.float32)
    calibration = calibrate(scores, target_fpr=0.01)
    assert calibration.method == "order statistic"
    assert 99 < calibration.threshold < 99.001
    assert calibrate(scores, target_fpr=0.5).threshold == pytest.approx(50, abs=1e-3)


def test_log_normal_limit_by_hand():
    logarithms = np.array([0.0, 1.0, 2.0])
    expected = np.exp(1 + stats.t.ppf(0.95, 2) * np.sqrt(1 + 1 / 3))
    assert calibrate(np.exp(logarithms), target_fpr=0.05).threshold == pytest.approx(expected)


def test_a_threshold_is_never_infinite():
    with pytest.raises(ValueError, match="scores from 1e-12 to 1 are too far apart for 2 images"):
        calibrate(np.array([1e-12, 1], np.float32), target_fpr=0.01)


@pytest.mark.parametrize("scores", [[0.1], [], [0.1, 0.0], [0.1, np.nan], [0.1, np.inf]])
def test_what_cannot_be_calibrated(scores):
    with pytest.raises(ValueError, match=r"expected at least 2|must be positive and finite"):
        calibrate(np.array(scores, np.float32), target_fpr=0.01)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30).filter(
        lambda pairs: any(label for _, label in pairs)
    )
)
def test_best_f1_is_that_of_an_exhaustive_search(pairs):
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs])
    best = max(f1_score(labels, scores >= candidate) for candidate in np.unique(scores))
    assert f1_score(labels, scores >= best_f1_threshold(scores, labels)) == pytest.approx(best)


def test_confusion_and_intervals():
    counts = confusion(np.array([0.1, 0.6, 0.5, 0.9]), np.array([False, False, True, True]), 0.5)
    assert (counts["true_positives"], counts["false_positives"]) == (2, 1)
    assert (counts["true_negatives"], counts["false_negatives"]) == (1, 0)
    assert counts["recall"]["value"] == 1.0
    assert counts["precision"]["value"] == pytest.approx(2 / 3)
    assert counts["false_positive_rate"]["value"] == 0.5
    # the rule of three, exactly: nothing in n trials
    assert proportion_interval(0, 20)[1] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert proportion_interval(0, 0) == (0.0, 1.0)
    assert best_f1_threshold(np.ones(3), np.zeros(3, bool)) is None


def test_hold_out_is_a_partition_that_the_seed_decides(tree):
    samples = list_train(tree, "widget")
    kept, held = hold_out(samples, 0.34, seed=1)
    assert len(held) == 2
    assert sorted(kept + held, key=lambda sample: sample.path) == samples
    assert hold_out(samples, 0.34, seed=1) == (kept, held)
    assert any(hold_out(samples, 0.34, seed=seed) != (kept, held) for seed in range(2, 9))
    assert hold_out(samples, 0.0, seed=1) == (samples, [])
    assert len(hold_out(samples, 0.01, seed=1)[1]) == 1
    with pytest.raises(InputError, match="leaves none of 6 images to train on"):
        hold_out(samples, 0.99, seed=1)


def test_held_out_images_give_the_model_a_threshold(random_backbone, tmp_path, caplog):
    """Training on 4 of 6, threshold from 2, verdicts in the evaluation; then another threshold from other images."""
    data = make_tree(tmp_path / "data")
    arguments = train_arguments(data, random_backbone, tmp_path, epoch=1)
    done = run_python("train.py", *arguments, "--val_split", 0.3, "--target_fpr", 0.1)
    assert done.returncode == 0, done.stderr
    assert "(log-normal of 2 good images, target false positive rate 0.1; the true one lies in" in done.stdout
    assert " with 95 % confidence)" in done.stdout
    assert "models exported" not in done.stdout
    sidecar_path = tmp_path / "widget/widget_last.json"
    sidecar = json.loads(sidecar_path.read_text())
    assert sidecar["config"]["val_split"] == 0.3
    calibration = sidecar["calibration"]
    scores = np.array(list(calibration["scores"].values()))
    assert len(scores) == 2
    assert sidecar["threshold"] == calibrate(scores, target_fpr=0.1).threshold == calibration["threshold"]

    evaluation = ("--eval_url", data, "--category", "widget", "--ckpt_path", tmp_path / "widget/widget_last.ckpt")
    assert run_python("test.py", *evaluation, "--out_dir", tmp_path).returncode == 0
    results = json.loads((tmp_path / "widget/results.json").read_text())
    assert results["decision"]["threshold"] == sidecar["threshold"]
    verdicts = {entry["verdict"] == "defective": entry["score"] for entry in results["scores"]}
    assert all(is_defective == (score >= sidecar["threshold"]) for is_defective, score in verdicts.items())
    assert results["best_f1_on_test_labels"]["recall"]["value"] > 0

    override = [str(word) for word in (*evaluation, "--out_dir", tmp_path, "--threshold", "1e-9")]
    assert test_entry.main(test_entry.parse_args(override)) == 0
    results = json.loads((tmp_path / "widget/results.json").read_text())
    assert results["decision"]["false_positives"] == 2
    assert results["decision"]["recall"]["value"] == 1.0

    for i in range(4):
        save_picture(tmp_path / f"more/{i}.png", np.random.default_rng(i))
    flags = ("--ckpt_path", tmp_path / "widget/widget_last.ckpt", "--category", "widget", "--image_path")
    args = calibrate_entry.parse_args([str(word) for word in (*flags, tmp_path / "more")])
    caplog.set_level("INFO")
    assert calibrate_entry.main(args) == 0
    assert "models exported from it before keep their threshold: export again, or calibrate them" in caplog.text
    assert "such as --ckpt_path widget.mindir" in caplog.text
    again = json.loads(sidecar_path.read_text())
    assert list(again["calibration"]["scores"]) == ["0.png", "1.png", "2.png", "3.png"]
    assert again["threshold"] != sidecar["threshold"]
    assert again["config_hash"] == sidecar["config_hash"]
    assert again["calibration"]["set_at"] >= calibration["set_at"] > "2026"


def test_without_held_out_images_there_is_no_verdict(trained, session_tree, tmp_path):
    flags = ("--eval_url", session_tree, "--category", "widget", "--out_dir", tmp_path)
    done = run_python("test.py", *flags, "--ckpt_path", trained[0] / "widget/widget_last.ckpt")
    assert "no threshold, no verdicts: the model is not calibrated" in done.stdout
    results = json.loads((tmp_path / "widget/results.json").read_text())
    assert results["decision"] is None
    assert "verdict" not in results["scores"][0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--val_split", "1"), "argument --val_split: expected a number of at least 0 and below 1, got '1'"),
        (("--val_split", "-0.1"), "argument --val_split: expected a number of at least 0"),
        (("--target_fpr", "0"), "argument --target_fpr: expected a number above 0 and below 1, got '0'"),
        (("--val_split", "0.95"), "--val_split 0.95: leaves none of 6 images to train on"),
    ],
)
def test_training_refuses(refused, tree, random_backbone, tmp_path, flags, message):
    assert message in refused(train_entry, *train_arguments(tree, random_backbone, tmp_path, epoch=1), *flags)


def test_calibration_refuses(refused, trained, tmp_path):
    flags = ("--ckpt_path", trained[0] / "widget/widget_last.ckpt", "--category", "widget")
    assert "--image_path is required" in refused(calibrate_entry, *flags)
    assert "/nowhere: no such image" in refused(calibrate_entry, *flags, "--image_path", "/nowhere")
    (tmp_path / "one").mkdir()
    assert "one: holds no image" in refused(calibrate_entry, *flags, "--image_path", tmp_path / "one")
    save_picture(tmp_path / "one/0.png", np.random.default_rng(0))
    assert "holds 1 image, expected at least 2" in refused(calibrate_entry, *flags, "--image_path", tmp_path / "one")
    error = refused(calibrate_entry, *flags, "--image_path", tmp_path / "one", "--image_size", 32)
    assert "--image_size 32: " in error
    assert "has its threshold at 64 pixels; leave the flag out, or export it at that size" in error


@pytest.fixture
def calibrated(trained, tmp_path):
    """A copy of the trained model, with a threshold that calls every image defective."""
    folder = shutil.copytree(trained[0] / "widget", tmp_path / "calibrated")
    path = folder / "widget_last.ckpt"
    record_calibration(path, {"threshold": 1e-9, "scores": {}}, sha256=file_sha256(path))
    return path


def test_a_threshold_is_for_one_image_size(calibrated, session_tree, tmp_path, caplog, capsys):
    warning = f"no verdicts: the threshold of {calibrated} was set at 64 pixels, not 32 (--threshold sets another)"

    def evaluate(*flags):
        caplog.clear()
        words = ("--eval_url", session_tree, "--category", "widget", "--ckpt_path", calibrated, "--out_dir", tmp_path)
        assert test_entry.main(test_entry.parse_args([str(word) for word in (*words, *flags)])) == 0
        return json.loads((tmp_path / "widget/results.json").read_text())["decision"]

    caplog.set_level("INFO")
    assert evaluate()["false_positives"] == 2
    assert evaluate("--image_size", 32) is None
    assert warning in caplog.text
    assert "the model is not calibrated for 32 pixels" in caplog.text
    assert evaluate("--image_size", 32, "--threshold", 1)["threshold"] == 1
    assert "no verdicts" not in caplog.text
    flags = ("--image_path", session_tree / "widget/test/hole", "--ckpt_path", calibrated, "--out_dir", tmp_path / "p")
    assert predict.main(predict.parse_args([str(word) for word in (*flags, "--image_size", 32)])) == 0
    assert warning in caplog.text
    assert json.loads((tmp_path / "p/predictions.json").read_text())["threshold"] is None
    assert "defective" not in capsys.readouterr().out


def test_maps_of_another_size_get_no_verdicts(calibrated, session_tree, tmp_path, caplog):
    inputs, maps = tmp_path / "inputs", tmp_path / "maps"
    data = ("--data_dir", session_tree, "--category", "widget")
    flags = (*data, "--img_dir", inputs, "--image_size", 32)
    assert preprocess.main(preprocess.parse_args([str(word) for word in flags])) == 0
    maps.mkdir()
    for name in read_manifest(inputs).names:
        np.ones((32, 32), np.float32).tofile(maps / f"{name}_0.bin")
    flags = (*data, "--label_dir", inputs, "--result_dir", maps, "--mindir_path", calibrated, "--out_dir", tmp_path)
    assert postprocess.main(postprocess.parse_args([str(word) for word in flags])) == 0
    assert "was set at 64 pixels, not 32" in caplog.text
    assert json.loads((tmp_path / "results.json").read_text())["decision"] is None


def test_an_export_at_another_size_has_no_threshold(calibrated, tmp_path, caplog):
    def export(size):
        flags = ("--ckpt_file", calibrated, "--category", "widget", "--image_size", size, "--out_dir", tmp_path)
        assert export_entry.main(export_entry.parse_args([str(word) for word in flags])) == 0
        content, _ = read_export(tmp_path / "widget.mindir", category="widget")
        return content["threshold"], bool(content["calibration"])

    assert export(64) == (1e-9, True)
    assert "without a threshold" not in caplog.text
    assert export(32) == (None, False)
    assert "--image_size 32: without a threshold, since the checkpoint's was set at 64 pixels" in caplog.text


@pytest.fixture(scope="module")
def strtof():
    """What the C++ program reads numbers with."""
    function = ctypes.CDLL(None).strtof
    function.argtypes, function.restype = (ctypes.c_char_p, ctypes.c_void_p), ctypes.c_float
    return lambda text: np.float32(function(text.encode(), None))


@pytest.mark.parametrize("start", [0.7, 1e-4, 0.3, 2.5e-9, 17.0])
def test_verdicts_are_those_of_the_cpp_program(strtof, start):
    """At the score next to the threshold: with thresholds of both its sides, as numbers and as the printed text."""
    middle = np.float32(start)
    scores = np.array([np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(np.inf))])
    labels = np.array([False, True, True])
    for threshold in (float(start), float(middle), *np.linspace(float(scores[0]), float(scores[2]), 100)):
        chosen, _ = choose_threshold(threshold, None)
        assert strtof(repr(threshold)) == strtof(repr(chosen)) == chosen
        cpp = [strtof(f"{score:.9g}") >= strtof(repr(chosen)) for score in scores.tolist()]
        for value in (threshold, chosen):
            assert [verdict(score, value) == "defective" for score in scores.tolist()] == cpp
            counts = confusion(scores, labels, value)
            assert counts["true_positives"] + counts["false_positives"] == sum(cpp)
        whole = [bool(find_regions(np.full((4, 4), score), chosen, size=(4, 4))) for score in scores]
        assert whole == cpp


def test_a_threshold_is_a_float32_number_on_the_safe_side():
    for seed in range(50):
        scores = np.exp(np.random.default_rng(seed).normal(-7, 0.5, 6)).astype(np.float32)
        logarithms = np.log(scores.astype(np.float64))
        exact = np.exp(logarithms.mean() + stats.t.ppf(0.95, 5) * np.sqrt(1 + 1 / 6) * logarithms.std(ddof=1))
        threshold = calibrate(scores, target_fpr=0.05).threshold
        assert np.float32(threshold) == threshold >= exact
        assert threshold == pytest.approx(exact, rel=2e-7)


def test_a_bound_between_neighbouring_scores_tells_them_apart():
    one = np.float32(1)
    for low, high in ((one, np.nextafter(one, np.float32(2))), (np.nextafter(one, np.float32(0)), one)):
        best = best_f1_threshold(np.array([low, high]), np.array([False, True]))
        assert confusion(np.array([low, high]), np.array([False, True]), best)["precision"]["value"] == 1.0


def test_a_threshold_that_float32_cannot_hold(calibrated):
    with pytest.raises(InputError, match=r"--threshold 1e-60: is no float32 number above 0"):
        choose_threshold(1e-60, None)
    about = calibrated.with_suffix(".json")
    about.write_text(about.read_text().replace('"threshold": 1e-09', '"threshold": 1e-60'))
    with pytest.raises(InputError, match=r"widget_last.json: threshold 1e-60: is no float32 number"):
        choose_threshold(None, inspect_model(calibrated))
    about.write_text(about.read_text().replace('"threshold": 1e-60', '"threshold": 1' + "0" * 400))
    with pytest.raises(InputError, match=r"widget_last.json: threshold 10+, expected null or a number above 0"):
        inspect_model(calibrated)


def test_good_images_are_decoded_as_they_are_scored(monkeypatch):
    """At most two batches ahead of the one in work; the last batch is smaller."""
    decoded, scored = [], []

    def load(path, size):
        decoded.append(path)
        return np.full((4, 4, 3), int(path.name), np.uint8), (4, 4)

    def anomaly_map(images):
        scored.extend(images[:, 0, 0, 0])
        assert len(decoded) <= len(scored) + 2 * 2 + 1
        return images[:, :1]

    monkeypatch.setattr(picture_stream, "load_image_and_size", load)
    samples = [Sample(Path(str(i)), "good") for i in range(101)]
    scores = calibrate_entry.score_good(anomaly_map, samples, image_size=4, batch_size=2)
    assert scores.shape == (101,)
    assert (np.diff(scores) > 0).all()


def test_a_picture_that_is_no_good_ends_the_calibration(refused, calibrated, tmp_path):
    for i in range(12):
        save_picture(tmp_path / f"more/{i:02}.png", np.random.default_rng(i))
    (tmp_path / "more/10.png").write_text("no picture")
    before = contents(calibrated.parent)
    flags = ("--ckpt_path", calibrated, "--category", "widget", "--image_path", tmp_path / "more")
    assert "more/10.png: not a readable image" in refused(calibrate_entry, *flags)
    assert contents(calibrated.parent) == before
