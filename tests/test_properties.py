"""What must hold for any scores and any command line.

More of them: STPM_FUZZ_EXAMPLES=20000 bash scripts/run_tests.sh tests/test_properties.py
"""

import contextlib
import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from src.config import FLAGS, build_parser
from src.evaluation.metrics import PixelRanking, auroc, bootstrap_auroc, undefined_reason
from src.evaluation.threshold import best_f1_threshold, calibrate, confusion
from tests.conftest import examples

# ties, neighbours, zeros of both signs, the smallest and the largest: anything finite
SCORES = st.sampled_from(np.array([-3e38, -1, -0.0, 0, 1e-45, 1e-4, 1.0001e-4, 1, 3e38], np.float32).tolist())
MAP_SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


@st.composite
def scored_maps(draw):
    shape = draw(MAP_SHAPES)
    elements = draw(
        st.sampled_from([SCORES, st.just(0.25), st.floats(width=32, allow_nan=False, allow_infinity=False)])
    )
    return draw(arrays(np.float32, shape, elements=elements)), draw(arrays(np.bool_, shape))


def regions(mask):
    """8-connected regions as sets of places, by flooding."""
    left, found = {tuple(place) for place in np.argwhere(mask)}, []
    while left:
        front = [left.pop()]
        region = set(front)
        while front:
            y, x = front.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            region |= near
            front += near
        found.append(region)
    return found


def pro_by_definition(maps, masks, limit=0.3):
    """PRO at every threshold, then the area under the straight lines between these points, in exact steps."""
    places = [(image, region) for image, mask in enumerate(masks) for region in regions(mask)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        overlap = np.mean([np.mean([above[image, y, x] for y, x in region]) for image, region in places])
        points.append((np.count_nonzero(above & ~masks) / np.count_nonzero(~masks), overlap))
    fpr, pro = np.array(points).T
    inside = fpr <= limit
    steps = np.append(fpr[inside], limit)
    # of several points at one rate the last counts from there on, the first up to there
    at_limit = pro[inside][-1]
    if not inside.all():
        after = int(np.argmin(inside))
        share = (limit - fpr[after - 1]) / (fpr[after] - fpr[after - 1])
        at_limit = pro[after - 1] + share * (pro[after] - pro[after - 1])
    heights = np.append(pro[inside], at_limit)
    return float(np.sum(np.diff(steps) * (heights[1:] + heights[:-1]) / 2) / limit)


@examples(250)
@given(scored_maps())
def test_metrics(case):
    maps, masks = case
    ranking = PixelRanking(maps)
    found = ranking.auroc(masks), auroc(maps, masks), ranking.per_region_overlap(masks)
    if undefined_reason(masks):
        assert np.isnan(found).all()
        return
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert found == pytest.approx((expected, expected, pro_by_definition(maps, masks)), abs=1e-12)
    if len(np.unique(maps)) == 1:
        assert found[:2] == (0.5, 0.5)
    rows = np.arange(len(maps)) % 2 == 0
    assert ranking.auroc(masks, rows) == pytest.approx(auroc(maps[rows], masks[rows]), nan_ok=True)


@examples(60)
@given(scored_maps(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_metrics_of_nan(case, value):
    maps, masks = case
    maps.flat[-1] = value
    for compute in (PixelRanking, lambda bad: auroc(bad, masks), lambda bad: bootstrap_auroc(bad, masks)):
        with pytest.raises(ValueError, match="NaN or infinity"):
            compute(maps)


@examples(80)
@given(scored_maps())
def test_bootstrap(case):
    """Intervals are ordered, or nan where there is a reason."""
    maps, masks = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nan by accident comes with a RuntimeWarning
        low, high = bootstrap_auroc(maps, masks, draws=20)
    if undefined_reason(masks):
        assert np.isnan([low, high]).all()
    else:
        assert 0 <= low <= high <= 1


def test_bootstrap_of_nothing():
    assert np.isnan(bootstrap_auroc(np.zeros(0, np.float32), np.zeros(0, bool))).all()


@examples(100)
@given(
    arrays(np.float32, st.integers(0, 30), elements=st.floats(0, 2.0**100, width=32) | SCORES),
    st.floats(1e-3, 0.999),
)
def test_calibration(scores, target_fpr):
    """A threshold is finite, or refused with a reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            calibration = calibrate(scores, target_fpr=target_fpr)
        except ValueError as error:
            reason = str(error)
        else:
            reason = ""
    if reason:
        assert (len(scores) < 2) == ("expected at least 2" in reason)
        assert len(scores) < 2 or (scores > 0).all() == ("too far apart" in reason)
        if "too far apart" in reason:  # there is a threshold for any scores that are enough for a rank
            assert (len(scores) + 1) * target_fpr < 1
        return
    assert 0 < calibration.threshold < np.inf
    low, high = calibration.fpr_interval
    assert 0 <= low <= high <= 1
    json.dumps(calibration.to_json(), allow_nan=False)


@examples(80)
@given(st.lists(st.tuples(st.floats(0, 8, width=32), st.booleans()), max_size=20), st.floats(0, 8))
def test_confusion(pairs, threshold):
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs], bool)
    found = confusion(scores, labels, threshold)
    assert found["true_positives"] + found["false_negatives"] == labels.sum()
    assert found["false_positives"] + found["true_negatives"] == (~labels).sum()
    best = best_f1_threshold(scores, labels)
    assert (best is None) == (not labels.any())
    json.dumps([found, best], allow_nan=False)


FLAG_NAMES = tuple(FLAGS)
NUMBERS = ["0", "1", "-1", "16", "32", "33", "48", "256", "0.5", "1.0", "1e-9", "1e999", "nan", "-inf", "1_0", "٣"]
VALUES = st.sampled_from([*NUMBERS, "4294967295", "4294967296", "True", "false", "yes", ""]) | st.text(max_size=6)
WORDS = st.one_of(
    st.tuples(st.sampled_from(FLAG_NAMES), VALUES).map(lambda pair: [f"--{pair[0]}", pair[1]]),
    st.tuples(st.sampled_from(FLAG_NAMES), VALUES).map(lambda pair: [f"--{pair[0]}={pair[1]}"]),
    st.sampled_from([["--"], ["-"], ["stray"], ["--epo", "3"], ["--no_such_flag"], ["--save_sample"], ["--help"]]),
)
BOUNDS = {
    **dict.fromkeys(
        ("device_num", "num_class", "epoch", "steps", "batch_size", "eval_batch_size"), lambda value: value >= 1
    ),
    **dict.fromkeys(("momentum", "weight_decay", "cache_budget"), lambda value: 0 <= value < np.inf),
    **dict.fromkeys(("lr", "threshold"), lambda value: 0 < value < np.inf),
    **dict.fromkeys(("device_id", "eval_interval"), lambda value: value >= 0),
    "seed": lambda value: 0 <= value < 2**32,
    "image_size": lambda value: min(value) >= 32 and all(side % 16 == 0 for side in value),
    "val_split": lambda value: 0 <= value < 1,
    "target_fpr": lambda value: 0 < value < 1,
    "category": lambda value: value not in ("", ".", "..") and "/" not in value and "\0" not in value,
}


@examples(400)
@given(st.lists(WORDS, max_size=4))
def test_command_line(words):
    """Any gives values within bounds, or a message."""
    required = [name for name in FLAG_NAMES if FLAGS[name].get("required")]
    line = [word for name in required for word in (f"--{name}", "x")] + [word for group in words for word in group]
    stdout, stderr = io.StringIO(), io.StringIO()
    status = None
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            args = build_parser("About.", FLAG_NAMES).parse_args(line)
        except SystemExit as stop:
            status = stop.code
    if status is not None:
        assert status == 0 if "About." in stdout.getvalue() else status == 2
        assert status == 0 or ": error: " in stderr.getvalue()
        return
    for name, is_within in BOUNDS.items():
        value = getattr(args, name)
        assert value is None or is_within(value), name
    for name, declared in FLAGS.items():
        if "choices" in declared:
            assert getattr(args, name) in (*declared["choices"], declared.get("default"))
