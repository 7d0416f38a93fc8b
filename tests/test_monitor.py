"""The scores of a line against those of the calibration: what is told, and what must not be taken for a drift."""

import json
import math

import numpy as np
import pytest

from src import monitor
from src.data.view import square
from src.evaluation.drift import State, compare, expected_share, judge, needed_scores
from src.evaluation.threshold import calibrate
from src.files import file_sha256
from src.model.sidecar import new_sidecar, sidecar_path
from tests.test_scripts import run_script

HEADS = {
    "predict": "file,score,verdict,regions,error",
    "postprocess": "source,score,verdict,milliseconds",
    "C++": "input,score,milliseconds,verdict",
}


def good_scores(count, seed, factor=1.0):
    return factor * np.exp(np.random.default_rng(seed).normal(0, 0.3, count))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model's file, which nobody loads, and its JSON with a threshold set by 60 good images."""
    path = tmp_path_factory.mktemp("model") / "widget_last.ckpt"
    path.write_bytes(b"weights")
    scores = good_scores(60, 1)
    content = new_sidecar(category="widget", view=square(64), config=None).to_json()
    about = calibrate(scores, target_fpr=0.02).to_json()
    content["calibration"] = about | {"scores": {f"{i}.png": float(score) for i, score in enumerate(scores)}}
    content["threshold"] = about["threshold"]
    content["checkpoint"] = {"file": path.name, "sha256": file_sha256(path)}
    sidecar_path(path).write_text(json.dumps(content))
    return path


def threshold_of(model):
    return json.loads(sidecar_path(model).read_text())["threshold"]


def write(path, scores, *, head="file,score", row="{i}.png,{score:.9g}", more=()):
    rows = [row.format(i=i, score=score) for i, score in enumerate(scores)]
    path.write_text("\n".join([head, *rows, *more]) + "\n")
    return path


@pytest.fixture
def look(model, capsys):
    """Run the program on files; return its exit status and what it prints."""

    def run(*files, flags=()):
        words = [word for file in files for word in ("--scores", str(file))]
        status = monitor.main(monitor.parse_args([*words, "--ckpt_path", str(model), *map(str, flags)]))
        return status, capsys.readouterr().out

    return run


@pytest.mark.parametrize("program", HEADS)
def test_unchanged(program, look, model, tmp_path):
    """As every program writes them, with defective products and unreadable pictures among them."""
    threshold = threshold_of(model)
    scores = np.concatenate([good_scores(380, 2), [2 * threshold] * 20])
    rows = {
        "predict": "{i}.png,{score!r},,0,",
        "postprocess": "a/{i}.png,{score!r},,1.5",
        "C++": "{i}.bin,{score:.9g},1.5,",
    }
    more = ["x.png,,,0,x.png: not a readable image"] if program == "predict" else []
    path = write(tmp_path / "scores.csv", map(float, scores), head=HEADS[program], row=rows[program], more=more)
    status, out = look(path)
    assert status == State.AS_CALIBRATED == 0
    assert out.splitlines()[-1] == "as calibrated"
    assert out.startswith("400 scores beside 60 of good images that set the threshold")
    assert ("; 1 unreadable pictures left out" in out) == bool(more)
    found = int((scores >= threshold).sum())
    assert f"called defective: {found}, {found / 400:.2%} (95 % interval " in out
    assert "taken for granted" in out


@pytest.mark.parametrize(
    ("factor", "count", "words"),
    [
        (1.5, 300, "are higher: more good products will be called defective"),
        (0.6, 300, "are lower: defects may be missed"),
        (50, 40, "more products are called defective than --defect_rate and false alarms explain"),
    ],
)
def test_drift(look, tmp_path, factor, count, words):
    status, out = look(write(tmp_path / "scores.csv", good_scores(count, 3, factor)))
    assert status == State.DRIFTING == 3
    assert words in out
    assert out.splitlines()[-1] == "drifting"
    assert "calibrate by recent good images" in out


def test_many_defects(look, model, tmp_path):
    """They are no drift as long as they are expected, and always worth a look."""
    scores = np.concatenate([good_scores(300, 4), np.full(150, 3 * threshold_of(model))])
    path = write(tmp_path / "scores.csv", scores)
    status, out = look(path)
    assert status == State.DRIFTING
    assert "the scores below the threshold" not in out
    status, out = look(path, flags=("--defect_rate", 0.4))
    assert status == State.AS_CALIBRATED
    assert "more than false alarms: defective products, or a drift" in out


def test_too_few(look, tmp_path):
    """It says how many are needed; what differs entirely is told even so."""
    needed = needed_scores(60, 0.001 / 2)
    path = write(tmp_path / "scores.csv", good_scores(needed - 5, 5))
    status, out = look(path)
    assert status == State.TOO_FEW == 4
    assert f"; {needed} are needed" in out
    assert out.splitlines()[-1] == "too few"
    assert look(write(tmp_path / "none.csv", []))[0] == State.TOO_FEW
    assert look(write(tmp_path / "low.csv", good_scores(needed - 5, 5, 0.2)))[0] == State.DRIFTING


def test_over_time(look, tmp_path):
    """The last tenth has risen, in whatever order the rows are; alone all of them together would not show it."""
    scores = np.concatenate([good_scores(900, 6), good_scores(100, 7, 1.6)])
    order = np.random.default_rng(0).permutation(1000)
    lines = [f"{i}.png,{scores[i]:.9g},{1767225600 + 60 * i}" for i in order]
    whole = tmp_path / "whole.csv"
    whole.write_text("\n".join(["file,score", *(line.rpartition(",")[0] for line in lines)]) + "\n")
    assert look(whole)[0] == State.AS_CALIBRATED
    parts = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, rows in zip(parts, (lines[:500], lines[500:]), strict=True):
        path.write_text("\n".join(["file,score,time", *rows]) + "\n")
    status, out = look(*parts)
    assert status == State.DRIFTING
    periods = [line for line in out.splitlines() if " to 17" in line]
    assert len(periods) == 10
    assert [line.endswith("  differs") for line in periods] == [False] * 9 + [True]
    assert periods[-1].startswith(f"{1767225600 + 60 * 900} to {1767225600 + 60 * 999}: 100 scores, ")


def test_files_as_periods(look, tmp_path):
    """Files without times are one each."""
    files = [
        write(tmp_path / f"{name}.csv", good_scores(150, i, f)) for i, (name, f) in enumerate({"a": 1, "b": 2}.items())
    ]
    status, out = look(*files)
    assert status == State.DRIFTING
    assert f"{files[0]}: 150 scores, " in out
    assert [line.endswith("  differs") for line in out.splitlines() if line.startswith(str(tmp_path))] == [False, True]


def test_other_verdicts(look, tmp_path, caplog):
    """Of another threshold or model: a warning."""
    row = "{i}.png,{score:.9g},defective,1"
    look(write(tmp_path / "scores.csv", good_scores(100, 8, 0.1), head="file,score,verdict,regions", row=row))
    assert "warning: 100 of 100 verdicts are not those of the threshold" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,points\na,1\n", "expected a scores.csv, with a column score; found file, points"),
        ("", "expected a scores.csv, with a column score; found none"),
        ("score,score\n1,1\n", "expected a scores.csv, with a column score; found score, score"),
        ("file,score\na,x\n", "scores.csv, line 2: score 'x', expected a number of at least 0"),
        ("file,score\na,1\nb,nan\n", "line 3: score 'nan'"),
        ("file,score\na,-1\n", "line 2: score '-1'"),
        ("file,score,error\na,,\n", "line 2: score ''"),
        ("file,score\na\n", "line 2: score ''"),
        ("file,score,time\na,1,yesterday\n", "line 2: time 'yesterday', expected such as 2026-05-01T06:30:00"),
        ("file,score,time\na,1\n", "line 2: time ''"),
    ],
)
def test_bad_files(refused, model, tmp_path, text, message):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    assert message in refused(monitor, "--scores", path, "--ckpt_path", model)


def test_bad_usage(refused, model, tmp_path):
    """A model without a threshold, or without the scores behind it; mixed files; none."""
    path = write(tmp_path / "scores.csv", [1.0])
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"weights")
    assert "other.json: is missing; the threshold and its scores stand in it" in refused(
        monitor, "--scores", path, "--ckpt_path", other
    )
    content = json.loads(sidecar_path(model).read_text())
    for change, message in (
        ({"threshold": None, "calibration": None}, "other.ckpt: has no threshold to compare with; calibrate it"),
        ({"calibration": None}, "does not hold the scores that the threshold was set by"),
        ({"calibration": content["calibration"] | {"scores": {"a": "x"}}}, "does not hold the scores"),
        ({"calibration": {"scores": {"a": 1.0}}}, "calibration has no fpr_interval"),
    ):
        sidecar_path(other).write_text(json.dumps(content | change))
        assert message in refused(monitor, "--scores", path, "--ckpt_path", other)
    dated = write(tmp_path / "dated.csv", [1.0], head="file,score,time", row="{i},{score},2026-05-01")
    assert f"{path}: has no column time, others have" in refused(
        monitor, "--scores", dated, "--scores", path, "--ckpt_path", model
    )
    assert "--scores is required" in refused(monitor, "--ckpt_path", model)
    assert "nowhere.csv: cannot be read" in refused(monitor, "--scores", tmp_path / "nowhere.csv", "--ckpt_path", model)


def test_script(model, tmp_path):
    """It hands on files, flags and the exit status, from any folder."""
    write(tmp_path / "a b.csv", good_scores(100, 3))
    write(tmp_path / "c.csv", good_scores(100, 3, 3.0))
    for more, status in (((), State.AS_CALIBRATED), (("--scores", "c.csv", "--defect_rate", "0.9"), State.DRIFTING)):
        done = run_script("run_monitor.sh", "a b.csv", model, *more, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (status, "")
        assert done.stdout.splitlines()[-1] == str(status)


def test_times():
    """With and without an offset, or as a number."""
    expected = 1777617000.0
    for text in (
        "2026-05-01T06:30:00",
        "2026-05-01 06:30",
        "2026-05-01T08:30:00+02:00",
        "2026-05-01T06:30Z",
        "1777617000",
    ):
        assert monitor._seconds(text) == expected
    assert monitor._seconds("inf") is monitor._seconds("") is None


def test_distance():
    """By hand: of three scores below the threshold two lie above all of the calibration's four."""
    found = compare(np.array([1.0, 5, 6, 30]), np.array([1.0, 2, 3, 4, 40]), threshold=10.0, largest_share=0.1)
    assert (found.scores, found.defective, found.below) == (4, 1, 3)
    assert found.distance == pytest.approx(2 / 3)
    assert (found.median, found.median_before) == (0.5, 0.25)
    assert found.share_p_value == pytest.approx(1 - 0.9**4)
    assert found.interval == pytest.approx((0.0063, 0.8059), abs=1e-4)  # Clopper and Pearson's of 1 of 4
    assert expected_share(0.1, 0.2) == pytest.approx(0.28)


def test_needed():
    """A distance of a half is at the critical one, and not below it with one score less."""
    for calibrated, level in ((20, 0.0005), (1000, 0.05)):
        count = needed_scores(calibrated, level)
        critical = [math.sqrt(-math.log(level / 2) / 2 * (1 / calibrated + 1 / n)) for n in (count - 1, count)]
        assert critical[1] <= 0.5 < critical[0]
    assert needed_scores(10, 0.0005) is None
    few = judge(
        compare(good_scores(900, 1), good_scores(10, 2), threshold=9.0, largest_share=0.1),
        [],
        calibrated=10,
        false_alarm_rate=0.001,
    )
    assert few.state == State.TOO_FEW
    assert few.reasons[0].startswith("10 scores behind the threshold are too few to notice a drift by; at least 17 are")


def test_rate_of_false_alarms():
    """Where nothing changes but defective products come and go, a look says "drifting" no more often than asked for."""
    rng, rate, drifting = np.random.default_rng(11), 0.2, 0
    for _ in range(50):
        scores, recent = (np.exp(rng.normal(0, 0.3, count)) for count in (60, 300))
        set_by = calibrate(scores, target_fpr=0.02)
        recent[: int(rng.integers(0, 25))] *= 5
        share = expected_share(0.1, set_by.fpr_interval[1])
        parts = [recent, *np.array_split(recent[rng.permutation(300)], 3)]
        whole, *periods = (compare(part, scores, threshold=set_by.threshold, largest_share=share) for part in parts)
        drifting += judge(whole, periods, calibrated=60, false_alarm_rate=rate).state == State.DRIFTING
    assert drifting <= 50 * rate
