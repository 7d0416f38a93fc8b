"""The threshold: its definition, its guarantees on simulated scores, and its way through the command lines."""

import ctypes
import json
import math
import random
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

import export as export_entry
import postprocess
import preprocess
import test as test_entry
import train as train_entry
from src import calibrate as calibrate_entry
from src import predict
from src.data.samples import hold_out, list_train, samples_sha256
from src.data.view import Box, square
from src.detector import Detector
from src.evaluation.decision import DecisionRule, is_anomalous
from src.evaluation.regions import find_regions
from src.evaluation.threshold import (
    as_float32,
    best_f1_threshold,
    calibrate,
    confusion,
    doubt,
    proportion_interval,
)
from src.exchange.manifest import read_manifest
from src.exchange.origin import file_checksum
from src.files import file_sha256, make_output_folder
from src.model.model_file import choose_rule, inspect_model
from src.model.sidecar import new_sidecar, read_export, record_calibration
from src.utils import InputError
from tests.conftest import call, forget_process, make_tree, run_python, save_picture, train_arguments
from tests.damage import contents
from tests.plain_model import red_map, write_red_model


@pytest.mark.parametrize(("count", "rate"), [(2, 0.1), (5, 0.01), (42, 0.01)])
def test_few_images(count, rate):
    """With too few images for a rank: the rate on average over all samples of a log-normal distribution, simulated.

    The threshold is so many standard deviations above the mean of the logarithms, the same number for any sample. The
    interval is that between the real rates' quantiles, told by the normal quantiles that belong to them.
    """
    rng = np.random.default_rng(4)
    samples = np.exp(rng.normal(-7, 0.5, (5, count)))
    calibrations = [calibrate(sample, target_fpr=rate) for sample in samples]
    assert {(one.method, one.images, one.target_fpr) for one in calibrations} == {("log-normal", count, rate)}
    logarithms = np.log(samples)
    above = np.log([one.threshold for one in calibrations]) - logarithms.mean(1)
    factors = above / logarithms.std(1, ddof=1)
    assert factors == pytest.approx(factors[0], rel=1e-4)
    others = rng.standard_normal((400_000 // count, count))
    rates = stats.norm.sf(others.mean(1) + factors[0] * others.std(1, ddof=1))
    assert rates.mean() == pytest.approx(rate, abs=4 * rates.std() / np.sqrt(len(rates)))
    low, high = calibrations[0].fpr_interval
    expected = np.quantile(rates, [0.025, 0.975])
    assert stats.norm.isf([low, high]) == pytest.approx(stats.norm.isf(expected), rel=0.02, abs=0.02)


@pytest.mark.parametrize(
    ("scores", "rate", "told"),
    [
        # t of 1 degree of freedom at 99 % is 31.820516: exp(31.820516 sqrt(1.5) ln(3) / sqrt(2) - ln(3) / 2)
        ([1, 3], 0.01, "rests on 2 good images and is 8.12e+12 times the highest of their scores"),
        ([1, 1.01], 0.01, "rests on 2 good images"),
        (range(1, 10), 0.1, "rests on 9 good images"),
        (range(1, 11), 0.1, None),
        # t of 9 at 99 % is 2.821438: exp(2.821438 sqrt(1.1) ln(2) sqrt(10) / 6 - ln(2) / 2), and with 1.9 for 2
        ([1] * 5 + [2] * 5, 0.01, "rests on 10 good images and is 2.08 times the highest of their scores"),
        ([1] * 5 + [1.9] * 5, 0.01, None),
    ],
)
def test_doubt(scores, rate, told):
    """Of few images, and of an extrapolation to far above them, it is said; of others nothing."""
    scores = np.float32(scores)
    found = doubt(calibrate(scores, target_fpr=rate), scores)
    enough = 99 if rate == 0.01 else 10
    end = f": calibrate with more, at least 10; from {enough} on it is one of their scores"
    assert found == (told and told + end)


def lattice(rng, size):
    """How often a die is thrown until it shows six: few values, most of them ties."""
    return rng.geometric(1 / 6, size)


@pytest.mark.parametrize(
    ("draw", "true_rate", "has_ties"),
    [
        (lambda rng, size: rng.uniform(1, 2, size), lambda threshold: np.clip(2 - threshold, 0, 1), False),
        (lambda rng, size: rng.pareto(0.5, size) + 1, lambda threshold: threshold**-0.5, False),  # without a mean
        (lattice, lambda threshold: (5 / 6) ** (np.ceil(threshold) - 1), True),
    ],
    ids=["uniform", "pareto", "lattice"],
)
@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (199, 0.05), (99, 0.3)])
def test_coverage(draw, true_rate, has_ties, count, rate):
    """Whatever the distribution: the rate on average, or less where scores are equal; inside the interval in 95 %."""
    samples = draw(np.random.default_rng(2), (300, count)).astype(np.float32)
    calibrations = [calibrate(sample, target_fpr=rate) for sample in samples]
    rates = true_rate(np.array([one.threshold for one in calibrations]))
    tolerance = 3.5 * np.sqrt(rate * (1 - rate) / (count + 2) / len(rates))  # standard deviation of Beta(n + 1 - k, k)
    low, high = calibrations[0].fpr_interval
    assert low < rate < high
    if has_ties:
        assert rates.mean() < rate + tolerance
        assert (rates <= high).mean() > 0.975 - 0.03
    else:
        assert rates.mean() == pytest.approx(rate, abs=tolerance)
        assert ((low <= rates) & (rates <= high)).mean() == pytest.approx(0.95, abs=0.045)


@given(st.lists(st.integers(1, 6), min_size=3, max_size=24), st.integers(1, 19))
def test_ties(scores, twentieths):
    """Of any equally likely images, ties or not, each in turn is judged by the others: at most the rate is defective.

    This is the whole of the guarantee, without any chance in it.
    """
    rate = Fraction(twentieths, 20)
    if len(scores) * rate < 1:
        return
    scores = np.array(scores, np.float32)
    called = [one >= calibrate(np.delete(scores, i), target_fpr=float(rate)).threshold for i, one in enumerate(scores)]
    assert Fraction(sum(map(int, called)), len(scores)) <= rate


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


def test_rank_by_hand():
    """Of 9 images and at 20 %, the second highest: of 10 places for a further score, 2 are above it."""
    scores = np.array([0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4], np.float32)
    calibration = calibrate(scores, target_fpr=0.2)
    assert [bool(is_anomalous(score, calibration.threshold)) for score in (0.7, 0.8, 0.8001, 0.9)] == [
        False,
        False,
        True,
        True,
    ]
    assert calibration.to_json()["threshold"] == calibration.threshold
    assert calibration.to_json()["confidence"] == 0.95


def test_log_normal_by_hand():
    """Logarithms 0, 1, 2: mean 1, s 1; Student's t of 2 degrees of freedom at 95 % is 2.919986 in any table."""
    expected = np.exp(1 + 2.919986 * np.sqrt(4 / 3))
    assert calibrate(np.exp([0.0, 1.0, 2.0]), target_fpr=0.05).threshold == pytest.approx(expected, rel=1e-6)


def test_scores_too_far_apart():
    with pytest.raises(ValueError, match="scores from 1e-12 to 1 are too far apart for 2 images"):
        calibrate(np.array([1e-12, 1], np.float32), target_fpr=0.01)


@pytest.mark.parametrize("scores", [[0.1], [], [0.1, 0.0], [0.1, np.nan], [0.1, np.inf]])
def test_refused_scores(scores):
    with pytest.raises(ValueError, match=r"expected at least 2|must be positive and finite"):
        calibrate(np.array(scores, np.float32), target_fpr=0.01)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30).filter(
        lambda pairs: any(label for _, label in pairs)
    )
)
def test_best_f1(pairs):
    """By an exhaustive search with scikit-learn."""
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs])
    best = max(f1_score(labels, scores >= candidate) for candidate in np.unique(scores))
    assert f1_score(labels, scores >= best_f1_threshold(scores, labels)) == pytest.approx(best)


def test_best_f1_by_hand():
    """Between the lowest score that counts as defective and the next; between that and 0 where there is none."""
    scores = np.array([0.125, 0.75, 0.25, 0.5], np.float32)
    assert best_f1_threshold(scores, np.array([False, True, False, True])) == 0.375
    assert best_f1_threshold(scores, np.ones(4, bool)) == 0.0625
    assert best_f1_threshold(scores, np.zeros(4, bool)) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20), st.integers(0, 4))
def test_confusion(pairs, threshold):
    """Counts and rates against scikit-learn, intervals those of the counts."""
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs])
    found = confusion(scores, labels, float(threshold))
    called = scores >= threshold
    (tn, fp), (fn, tp) = confusion_matrix(labels, called, labels=[False, True]).tolist()
    names = ("true_negatives", "false_positives", "false_negatives", "true_positives")
    assert [found[name] for name in names] == [tn, fp, fn, tp]
    undefined = {"zero_division": np.nan}
    for name, value, part, whole in (
        ("recall", recall_score(labels, called, **undefined), tp, tp + fn),
        ("precision", precision_score(labels, called, **undefined), tp, tp + fp),
        ("false_positive_rate", 1 - recall_score(~labels, ~called, **undefined), fp, fp + tn),
    ):
        assert found[name]["value"] == (None if np.isnan(value) else pytest.approx(value))
        assert found[name]["interval"] == list(proportion_interval(part, whole))
    assert found["threshold"] == threshold
    assert found["confidence"] == 0.95


@given(st.integers(1, 40).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_intervals(case):
    """At each end what was seen, or something yet more extreme, has a probability of 2.5 %: sums of the binomial."""
    successes, count = case

    def probability(chance, numbers):
        return sum(math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in numbers)

    low, high = proportion_interval(successes, count)
    assert low == 0 if successes == 0 else probability(low, range(successes, count + 1)) == pytest.approx(0.025)
    assert high == 1 if successes == count else probability(high, range(successes + 1)) == pytest.approx(0.025)


def test_interval_of_nothing():
    assert proportion_interval(0, 0) == (0.0, 1.0)


def test_hold_out(tree):
    """A partition that the seed decides."""
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


def test_held_out(random_backbone, tmp_path, caplog):
    """Two of six images set the threshold, and the student never sees them: others in their place change no weight."""
    caplog.set_level("INFO")
    data = make_tree(tmp_path / "data")
    flags = ("--val_split", 0.3, "--target_fpr", 0.1)

    def train(name):
        assert call(train_entry, *train_arguments(data, random_backbone, tmp_path / name, epoch=1), *flags) == 0
        folder = tmp_path / name / "widget"
        return (json.loads((folder / file).read_text()) for file in ("widget_last.json", "train.json"))

    sidecar, record = train("first")
    assert "(log-normal of 2 good images, target false positive rate 0.1; the true one lies in" in caplog.text
    assert "with 95 % confidence)" in caplog.text
    calibration = sidecar["calibration"]
    held = set(calibration["scores"])
    samples = list_train(data, "widget")
    kept = [sample for sample in samples if sample.path.name not in held]
    assert calibration["images"] == len(held) == 2
    assert len(kept) == record["train_images"] == 4
    assert sidecar["config"]["train_images_sha256"] == samples_sha256(kept)
    assert sidecar["config"]["val_split"] == 0.3
    scores = np.array(list(calibration["scores"].values()))
    expected = np.exp(np.log(scores).mean() + 3.077684 * np.sqrt(1.5) * np.log(scores).std(ddof=1))  # t of 1 at 90 %
    assert sidecar["threshold"] == calibration["threshold"] == pytest.approx(expected, rel=1e-5)

    # the same images, scored by the finished model on their own
    (tmp_path / "held").mkdir()
    for name in held:
        shutil.copy(data / "widget/train/good" / name, tmp_path / "held")
    assert call(predict, "--image_path", tmp_path / "held", "--ckpt_path", tmp_path / "first/widget/widget_last.ckpt",
               "--out_dir", tmp_path / "p") == 0  # fmt: skip
    images = json.loads((tmp_path / "p/predictions.json").read_text())["images"]
    assert {one["file"]: pytest.approx(one["score"], rel=1e-4) for one in images} == calibration["scores"]

    rng = np.random.default_rng(99)
    for name in held:
        save_picture(data / "widget/train/good" / name, rng)
    again, _ = train("second")
    assert set(again["calibration"]["scores"]) == held
    assert again["threshold"] != sidecar["threshold"]
    assert again["config"] == sidecar["config"]
    import mindspore  # slow, and no other test here needs it itself

    weights = [
        mindspore.load_checkpoint(str(tmp_path / name / "widget/widget_last.ckpt")) for name in ("first", "second")
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, parameter in weights[0].items():
        assert np.array_equal(parameter.asnumpy(), weights[1][name].asnumpy()), name


def test_calibrate(tmp_path, caplog):
    """Other good images set another threshold, by their scores and at the rate asked for; the file says which."""
    caplog.set_level("INFO")
    model = write_red_model(tmp_path / "model", threshold=0.5)
    before = json.loads(model.with_suffix(".json").read_text())
    rng = np.random.default_rng(0)
    for i in range(9):
        picture = rng.integers(0, 100 + 10 * ((7 * i) % 9), (40, 48, 3), np.uint8)
        (tmp_path / "more").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / f"more/{i}.png")
    flags = ("--ckpt_path", model, "--category", "widget", "--image_path", tmp_path / "more", "--target_fpr", 0.2)
    assert call(calibrate_entry, *flags) == 0
    assert "(order statistic of 9 good images, target false positive rate 0.2; the true one lies in" in caplog.text
    assert "models exported from it" not in caplog.text  # it is one
    after = json.loads(model.with_suffix(".json").read_text())
    about = after["calibration"]
    scores = {f"{i}.png": red_map(tmp_path / f"more/{i}.png").max() for i in range(9)}
    assert about["scores"] == pytest.approx(scores, abs=1e-6)
    assert list(about["scores"]) == list(scores)
    assert after["threshold"] == about["threshold"] == pytest.approx(sorted(scores.values())[7], abs=1e-6)
    assert (about["images"], about["target_fpr"], about["method"]) == (9, 0.2, "order statistic")
    assert abs(datetime.fromisoformat(about["set_at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    changed = {"threshold", "calibration"}
    assert {key: after[key] for key in after if key not in changed} == {
        key: before[key] for key in before if key not in changed
    }
    assert call(calibrate_entry, *flags, "--target_fpr", 0.5) == 0
    median = json.loads(model.with_suffix(".json").read_text())["threshold"]
    assert median == pytest.approx(sorted(scores.values())[4], abs=1e-6)


def test_doubtful(tmp_path, caplog):
    """Python and the command line warn of a doubtful threshold in the same words, and keep it."""
    model = write_red_model(tmp_path / "model")
    for i, red in enumerate((10, 30)):
        Image.fromarray(np.full((40, 48, 3), red, np.uint8)).save(make_output_folder(tmp_path / "more") / f"{i}.png")
    threshold = Detector.load(model).calibrate(tmp_path / "more")
    (warning,) = caplog.messages
    assert warning.startswith(f"warning: the threshold {threshold:.6g} of {model} rests on 2 good images and is ")
    assert json.loads(model.with_suffix(".json").read_text())["threshold"] == threshold
    caplog.clear()
    assert call(calibrate_entry, "--ckpt_path", model, "--image_path", tmp_path / "more") == 0
    assert warning in caplog.messages


def infer_in_cpp(pictures, model, folder, scores):
    """Stand in for the C++ program in the folder that the script makes; these scores are in the order of the inputs."""
    inputs, maps = folder / "inputs", folder / "maps"
    flags = ("--data_dir", pictures, "--img_dir", inputs, "--category", "widget", "--mindir_path", model)
    assert call(preprocess, *flags) == 0
    maps.mkdir()
    rows = [f"{name}.bin,{score:.9g},1.5" for name, score in zip(read_manifest(inputs).names, scores, strict=True)]
    (maps / "scores.csv").write_text("\n".join(["input,score,milliseconds", *reversed(rows)]) + "\n")
    marks = {"manifest": file_checksum(inputs / "manifest.json"), "model": file_checksum(model)}
    (maps / "origin.json").write_text(json.dumps({"format": 1} | marks))
    return maps / "scores.csv"


@pytest.fixture
def inferred(tmp_path):
    """Nine good pictures without labels, and what the C++ program made of them; the model."""
    model = write_red_model(tmp_path / "model", threshold=0.5)
    for i in range(9):
        save_picture(tmp_path / f"more/{i}.png", np.random.default_rng(i))
    scores = np.float32([0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4])
    return infer_in_cpp(tmp_path / "more", model, tmp_path / "widget/310_infer", scores), model


def test_scores_of_program(inferred, tmp_path):
    """They set the threshold as pictures do, to the last bit, by the pictures' names, and without MindSpore."""
    scores, model = inferred
    before = json.loads(model.with_suffix(".json").read_text())
    forget_process()  # which wrote the model, and keeps others from it
    code = "import sys, runpy; sys.modules['mindspore'] = None; runpy.run_module('src.calibrate', run_name='__main__')"
    done = run_python("-c", code, "--scores", scores, "--mindir_path", model, "--target_fpr", 0.2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "threshold 0.8 (order statistic of 9 good images, target false positive rate 0.2" in done.stdout
    after = json.loads(model.with_suffix(".json").read_text())
    # of 10 places for a further score 2 are above the second highest, and the threshold is the next number
    assert after["threshold"] == np.nextafter(np.float32(0.8), np.float32(1))
    expected = {f"{i}.png": score for i, score in enumerate((0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4))}
    assert {name: np.float32(score) for name, score in after["calibration"]["scores"].items()} == {
        name: np.float32(score) for name, score in expected.items()
    }
    assert after["calibration"]["images"] == 9
    assert {**after, "threshold": 0, "calibration": 0} == {**before, "threshold": 0, "calibration": 0}


def test_scores_of_test_images(tree, tmp_path, caplog):
    """Of a data set with labels the defective images do not count, and it is said what such a threshold is worth."""
    model = write_red_model(tmp_path / "model")
    scores = infer_in_cpp(tree, model, tmp_path / "310", [0.25, 0.5, 9, 8, 7, 6])
    moved = (tmp_path / "310/inputs").rename(tmp_path / "elsewhere")
    assert call(calibrate_entry, "--scores", scores, "--mindir_path", model, "--label_dir", moved) == 0
    assert "of test images: the 4 defective ones of 6 are left out" in caplog.text
    about = json.loads(model.with_suffix(".json").read_text())["calibration"]
    assert about["scores"] == {"test/good/000.png": 0.25, "test/good/001.png": 0.5}
    assert about["images"] == 2


def test_scores_without_manifest(inferred, caplog):
    """Inputs that another program made are the user's word; results may lie in the folder of the inputs."""
    scores, model = inferred
    origin = json.loads((scores.parent / "origin.json").read_text())
    (scores.parent / "origin.json").write_text(json.dumps(origin | {"manifest": None}))
    assert call(calibrate_entry, "--scores", scores, "--mindir_path", model, "--target_fpr", 0.2) == 0
    assert "its inputs had no manifest, so that all images are taken to be good" in caplog.text
    names = json.loads(model.with_suffix(".json").read_text())["calibration"]["scores"]
    assert sorted(names) == [f"{i:05}_unlabelled_{i}.bin" for i in range(9)]

    (scores.parent / "origin.json").write_text(json.dumps(origin))
    inside = shutil.move(scores.parent, scores.parent.parent / "inputs/results")
    caplog.clear()
    assert call(calibrate_entry, "--scores", f"{inside}/scores.csv", "--mindir_path", model) == 0
    assert not caplog.records or "no manifest" not in caplog.text


def swap(old, new, name="scores.csv"):
    def damage(maps):
        text = (maps / name).read_text()
        assert old in text
        (maps / name).write_text(text.replace(old, new))

    return damage


def other_manifest(maps):
    path = maps.parent / "inputs/manifest.json"
    path.write_text(path.read_text() + " ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda maps: (maps / "scores.csv").unlink(), "scores.csv: cannot be read: No such file or directory"),
        (lambda maps: (maps / "origin.json").unlink(), "origin.json: is missing; the inference program writes it"),
        (swap('"model": {"bytes": ', '"model": {"bytes": 1', "origin.json"), "the maps are not of the model"),
        (swap('"crc32": ', '"crc32": 1', "origin.json"), "name the folder that preprocess.py wrote as --label_dir"),
        (other_manifest, "scores.csv: the manifest of its inputs, which tells the good ones, is not near it; name the"),
        (swap(",0.5,", ",nan,"), "scores.csv: is damaged (ValueError('score of 00000_unlabelled_0.bin: nan, expected"),
        (swap(",0.5,", ",0,"), "score of 00000_unlabelled_0.bin: 0.0, expected a number above 0"),
        (swap(",0.5,", ",high,"), "scores.csv: is damaged (ValueError("),
        (swap(",0.5,1.5", ""), "scores.csv: is damaged (TypeError("),
        (swap("00001_", "00000_"), "scores.csv: does not match the manifest in "),
        (swap("00001_unlabelled_1", "00000_unlabelled_0"), "00000_unlabelled_0.bin stands twice"),
        (swap("score,", "value,"), "scores.csv: is damaged (KeyError('score'))"),
        (swap("00008_unlabelled_8.bin,0.400000006,1.5\n", ""), "scores.csv: does not match the manifest in "),
    ],
)
def test_refused_scores_of_program(refused, inferred, damage, message):
    scores, model = inferred
    damage(scores.parent)
    before = model.with_suffix(".json").read_bytes()
    assert message in refused(calibrate_entry, "--scores", scores, "--mindir_path", model)
    assert model.with_suffix(".json").read_bytes() == before


def test_refused_uses_of_scores(refused, inferred, trained, tmp_path):
    """Of another category, too few, of a checkpoint, beside pictures; and a manifest that is not theirs."""
    scores, model = inferred
    flags = ("--scores", scores, "--mindir_path", model)
    assert "give --image_path or --scores, not both" in refused(calibrate_entry, *flags, "--image_path", tmp_path)
    assert "--label_dir belongs to --scores" in refused(
        calibrate_entry, *flags[2:], "--image_path", "a", "--label_dir", "b"
    )
    assert "--image_path is required, good images, or --scores" in refused(calibrate_entry, *flags[2:])
    assert "--ckpt_path is required" in refused(calibrate_entry, *flags[:2])
    assert "was trained on 'widget'" in refused(calibrate_entry, *flags, "--category", "nut")
    (tmp_path / "empty").mkdir()
    assert "manifest.json: cannot be read" in refused(calibrate_entry, *flags, "--label_dir", tmp_path / "empty")
    checkpoint = trained[0] / "widget/widget_last.ckpt"
    error = refused(calibrate_entry, *flags[:2], "--ckpt_path", checkpoint)
    assert f"--scores: are of an exported model, and {checkpoint} is a checkpoint; see --mindir_path" in error
    (tmp_path / "one").mkdir()
    save_picture(tmp_path / "one/0.png", np.random.default_rng(0))
    one = infer_in_cpp(tmp_path / "one", model, tmp_path / "few", [0.5])
    error = refused(calibrate_entry, "--scores", one, *flags[2:])
    assert f"{one}: cannot set a threshold: 1 image, expected at least 2" in error
    about = model.with_suffix(".json")
    about.write_text(about.read_text().replace('"category": "widget"', '"category": "nut"'))
    assert "scores.csv: of images of 'widget', and " in refused(calibrate_entry, *flags)


def test_calibrate_without_result(tmp_path, caplog):
    """Two pictures of which one has no red at all: no threshold, exit status 1, and the one before stays."""
    model = write_red_model(tmp_path / "model", threshold=0.5)
    (tmp_path / "more").mkdir()
    for i in range(2):
        Image.new("RGB", (32, 32), (100 * i, 50, 50)).save(tmp_path / f"more/{i}.png")
    before = model.with_suffix(".json").read_bytes()
    flags = ("--ckpt_path", model, "--category", "widget", "--image_path", tmp_path / "more")
    assert call(calibrate_entry, *flags) == 1
    assert f"no threshold for {model}: scores must be positive and finite" in caplog.text
    assert model.with_suffix(".json").read_bytes() == before


def test_checkpoints_threshold(calibrated, tmp_path, caplog):
    """A checkpoint that gets a threshold: the models exported from it keep theirs, and the user is told so."""
    caplog.set_level("INFO")
    for i in range(4):
        save_picture(tmp_path / f"more/{i}.png", np.random.default_rng(i))
    before = json.loads(calibrated.with_suffix(".json").read_text())
    flags = ("--ckpt_path", calibrated, "--category", "widget", "--image_path", tmp_path / "more")
    assert call(calibrate_entry, *flags) == 0
    assert "models exported from it before keep their threshold: export again, or calibrate them" in caplog.text
    assert "such as --ckpt_path widget.mindir" in caplog.text
    after = json.loads(calibrated.with_suffix(".json").read_text())
    assert list(after["calibration"]["scores"]) == ["0.png", "1.png", "2.png", "3.png"]
    assert after["threshold"] != before["threshold"]
    assert after["config_hash"] == before["config_hash"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--val_split", "1"), "argument --val_split: expected a number of at least 0 and below 1, got '1'"),
        (("--val_split", "-0.1"), "argument --val_split: expected a number of at least 0"),
        (("--target_fpr", "0"), "argument --target_fpr: expected a number above 0 and below 1, got '0'"),
        (("--val_split", "0.95"), "val_split 0.95: leaves none of 6 images to train on"),
        (
            ("--val_split", "0.1"),
            "--val_split 0.1: cannot set a threshold by what it holds out: 1 image, expected at least 2; hold out more",
        ),
        (
            ("--val_split", "0.3", "--target_fpr", "1e-300"),
            "--val_split 0.3: cannot set a threshold by what it holds out: no score is so high that 2 images tell of",
        ),
    ],
)
def test_refused_training(refused, tree, random_backbone, tmp_path, flags, message):
    assert message in refused(train_entry, *train_arguments(tree, random_backbone, tmp_path, epoch=1), *flags)


def test_unreadable_held_out(refused, tree, random_backbone, tmp_path):
    """It is told before the training, not behind its last epoch."""
    _, held_out = hold_out(list_train(tree, "widget"), 0.3, seed=1)
    held_out[0].path.write_bytes(held_out[0].path.read_bytes()[:100])
    flags = (*train_arguments(tree, random_backbone, tmp_path / "out", epoch=1), "--val_split", 0.3)
    error = refused(train_entry, *flags)
    assert f"{held_out[0].path}: not a readable image: truncated" in error
    assert f"python -m src.dataset --check {tree} lists all such files at once" in error
    assert not list((tmp_path / "out").rglob("*.ckpt"))


def test_refused_calibration(refused, trained, tmp_path):
    flags = ("--ckpt_path", trained[0] / "widget/widget_last.ckpt", "--category", "widget")
    assert "--image_path is required" in refused(calibrate_entry, *flags)
    assert "/nowhere: no such image" in refused(calibrate_entry, *flags, "--image_path", "/nowhere")
    (tmp_path / "one").mkdir()
    assert "one: holds no image" in refused(calibrate_entry, *flags, "--image_path", tmp_path / "one")
    save_picture(tmp_path / "one/0.png", np.random.default_rng(0))
    assert "one: cannot set a threshold: 1 image, expected at least 2" in refused(
        calibrate_entry, *flags, "--image_path", tmp_path / "one"
    )
    error = refused(calibrate_entry, *flags, "--image_path", tmp_path / "one", "--image_size", 32)
    assert "--image_size 32: " in error
    assert "has its threshold at 64 pixels; leave the flag out, or export it at that size" in error


@pytest.fixture
def calibrated(trained, tmp_path):
    """A copy of the trained model, with a threshold that calls every image defective."""
    folder = shutil.copytree(trained[0] / "widget", tmp_path / "calibrated")
    path = folder / "widget_last.ckpt"
    assert inspect_model(path).threshold is None  # nothing was held out
    record_calibration(path, {"threshold": 1e-9, "scores": {}}, sha256=file_sha256(path))
    return path


def test_threshold_at_another_size(calibrated, session_tree, tmp_path, caplog, capsys):
    """No verdicts, and a warning, at other pixels than those the threshold was set at."""
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


@pytest.fixture
def stand_in(tmp_path):
    """A checkpoint that nobody loads, with a threshold for 64 pixels beside it."""
    path = tmp_path / "stand_in/widget_last.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    replace(new_sidecar(category="widget", view=square(64), config=None), threshold=1e-9).write(path)
    return path


def test_maps_of_another_size(stand_in, session_tree, tmp_path, caplog):
    """They get no verdicts."""
    inputs, maps = tmp_path / "inputs", tmp_path / "maps"
    data = ("--data_dir", session_tree, "--category", "widget")
    flags = (*data, "--img_dir", inputs, "--image_size", 32)
    assert preprocess.main(preprocess.parse_args([str(word) for word in flags])) == 0
    maps.mkdir()
    for name in read_manifest(inputs).names:
        np.ones((32, 32), np.float32).tofile(maps / f"{name}_0.bin")
    flags = (*data, "--label_dir", inputs, "--result_dir", maps, "--mindir_path", stand_in, "--out_dir", tmp_path)
    assert postprocess.main(postprocess.parse_args([str(word) for word in flags])) == 0
    assert "was set at 64 pixels, not 32" in caplog.text
    assert json.loads((tmp_path / "results.json").read_text())["decision"] is None


def test_export_at_another_size(calibrated, tmp_path, caplog):
    """It has no threshold."""

    def export(size):
        flags = ("--ckpt_file", calibrated, "--category", "widget", "--image_size", size, "--out_dir", tmp_path)
        assert export_entry.main(export_entry.parse_args([str(word) for word in flags])) == 0
        about, _ = read_export(tmp_path / "widget.mindir", category="widget")
        return about.threshold, bool(about.calibration)

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
def test_verdicts_as_in_cpp(strtof, start):
    """At the score next to the threshold: with thresholds of both its sides, as numbers and as the printed text."""
    middle = np.float32(start)
    scores = np.array([np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(np.inf))])
    labels = np.array([False, True, True])
    for threshold in (float(start), float(middle), *np.linspace(float(scores[0]), float(scores[2]), 20)):
        rule = choose_rule(None, threshold=threshold)
        chosen = rule.threshold
        assert strtof(repr(threshold)) == strtof(repr(chosen)) == chosen
        cpp = [strtof(f"{score:.9g}") >= strtof(repr(chosen)) for score in scores.tolist()]
        for value in (threshold, chosen):
            assert [DecisionRule(value).verdict(score) == "defective" for score in scores.tolist()] == cpp
            counts = confusion(scores, labels, value)
            assert counts["true_positives"] + counts["false_positives"] == sum(cpp)
        whole = [bool(find_regions(np.full((4, 4), score), rule, box=Box(0, 0, 4, 4))) for score in scores]
        assert whole == cpp


@given(st.floats(1e-30, 1e30))
def test_rounding_up(threshold):
    """To the lowest float32 number that is not below: any lower one would call more images defective."""
    rounded = as_float32(threshold)
    assert np.float32(rounded) == rounded >= threshold
    assert np.nextafter(np.float32(rounded), np.float32(0)) < threshold


def test_best_f1_of_neighbours():
    """A bound between neighbouring float32 numbers tells them apart."""
    one = np.float32(1)
    for low, high in ((one, np.nextafter(one, np.float32(2))), (np.nextafter(one, np.float32(0)), one)):
        best = best_f1_threshold(np.array([low, high]), np.array([False, True]))
        assert confusion(np.array([low, high]), np.array([False, True]), best)["precision"]["value"] == 1.0


def test_threshold_beyond_float32(stand_in):
    with pytest.raises(InputError, match=r"--threshold 1e-60: is below 1.1754944e-38"):
        choose_rule(None, threshold=1e-60)
    about = stand_in.with_suffix(".json")
    about.write_text(about.read_text().replace('"threshold": 1e-09', '"threshold": 1e-60'))
    with pytest.raises(InputError, match=r"widget_last.json: threshold 1e-60: is below 1.1754944e-38"):
        choose_rule(inspect_model(stand_in))
    about.write_text(about.read_text().replace('"threshold": 1e-60', '"threshold": 1' + "0" * 400))
    with pytest.raises(InputError, match=r"widget_last.json: threshold 10+, expected null or a number above 0"):
        inspect_model(stand_in)


def test_memory(tmp_path):
    """Images are decoded as they are scored, at most two batches ahead of the one in work; the last is smaller."""
    taken, scored = [], []

    def paths():
        for i in range(31):
            path = tmp_path / f"{i}.png"
            Image.new("RGB", (7, 5), (8 * i, 0, 0)).save(path)
            taken.append(path)
            yield path

    def anomaly_map(images):
        assert len(images) == 2
        scored.extend(images)
        assert len(taken) <= len(scored) + 2 * 2
        return images[:, :1]

    scores = Detector(anomaly_map, view=square(4), batch_size=2).scores(paths())
    assert scores == pytest.approx((8 * np.arange(31) / 255 - 0.485) / 0.229, abs=1e-5)


def test_unreadable_picture(refused, tmp_path):
    """It ends the calibration, and nothing is written."""
    model = write_red_model(tmp_path / "model")
    for i in range(12):
        save_picture(tmp_path / f"more/{i:02}.png", np.random.default_rng(i))
    (tmp_path / "more/10.png").write_text("no picture")
    before = contents(model.parent)
    flags = ("--ckpt_path", model, "--category", "widget", "--image_path", tmp_path / "more")
    assert "more/10.png: not a readable image" in refused(calibrate_entry, *flags)
    assert contents(model.parent) == before
