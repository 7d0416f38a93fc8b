"""What a user sees first: run_demo.sh from start to end, again, and with a pretrained teacher.

Outside CI only when asked for, since it trains for minutes: bash scripts/run_tests.sh -m slow tests/test_demo.py
"""

import csv
import json
import re

import pytest

from tests.conftest import IN_CI
from tests.test_infer import program  # noqa: F401 - a fixture
from tests.test_scripts import run_script

pytestmark = [] if IN_CI else pytest.mark.slow
COUNTS = {"test": 48, "good": 16, "defective": 32, "in_pixel_metrics": 48}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with nothing in it, and a space in its name."""
    folder = tmp_path_factory.mktemp("demo") / "a folder"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def first(here, program):  # noqa: F811
    """What the first run printed; other tests, which may run beside it, use the same build."""
    return run_demo(here)


def run_demo(here, *arguments):
    done = run_script("run_demo.sh", *arguments, cwd=here, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def check_outputs(out, stdout):
    """All that the demo names is there, and the C++ program found what test.py did; return test.py's results."""
    named = dict(re.findall(r"^(data|model|training|results|picture|exported) +(\S.*)$", stdout, re.MULTILINE))
    assert named == {
        "data": str(out.parent / "data/washer"),
        "model": str(out / "washer/washer_last.ckpt"),
        "training": str(out / "washer/train.json"),
        "results": str(out / "washer/results.json"),
        "picture": str(out / "washer/samples.png"),
        "exported": str(out / "washer/washer.mindir"),
    }
    results = json.loads((out / "washer/results.json").read_text())
    native = json.loads((out / "washer/310_infer/results.json").read_text())
    assert results["images"] == native["images"] == COUNTS
    for name in ("pixel_auroc", "image_auroc", "pro"):
        assert native[name] == pytest.approx(results[name], abs=1e-4)
    names = ("inspected.csv", "predictions/scores.csv")
    rows = [list(csv.DictReader((out / "washer" / name).open())) for name in names]
    verdicts = [[(row["file"], row["verdict"], row["regions"]) for row in one] for one in rows]
    assert verdicts[0] == verdicts[1]
    assert len(rows[0]) == COUNTS["test"]
    assert {row["verdict"] for row in rows[0]} == {"good", "defective"}
    assert "\nverdicts and numbers of regions of both are the same\n" in stdout
    printed = re.findall(r"^Total (\w+)-level auc-roc score :  (\S+)$", stdout, re.MULTILINE)
    expected = [(f"{level}", repr(one[f"{level}_auroc"])) for one in (results, native) for level in ("pixel", "image")]
    assert printed == expected
    return results


def test_first_run(here, first):
    """It makes data, trains for 300 steps with a random teacher, and writes below ./demo only."""
    assert [path.name for path in here.iterdir()] == ["demo"]
    assert "The teacher was random" in first
    results = check_outputs(here / "demo/random-teacher", first)
    assert results["pixel_auroc"] > 0.93
    assert results["image_auroc"] > 0.85
    record = json.loads((here / "demo/random-teacher/washer/train.json").read_text())
    assert record["steps_per_epoch"] * record["epochs_trained"] >= 300


def test_second_run(here, first):
    """It trains no further and shows the same result."""
    out = here / "demo/random-teacher"
    before = (out / "washer/washer_last.ckpt").read_bytes(), (out / "washer/results.json").read_bytes()
    again = run_demo(here)
    assert re.search(r"^nothing to do: (\d+) of \1 epochs are trained$", again, re.MULTILINE)
    assert "loss" not in again
    check_outputs(out, again)
    assert before == ((out / "washer/washer_last.ckpt").read_bytes(), (out / "washer/results.json").read_bytes())


def test_pretrained_teacher(here, first, real_teacher):
    """It goes to a folder of its own, and finds more than a random one, in a fifth of the steps."""
    stdout = run_demo(here, "--pre_ckpt_path", real_teacher, "--steps", 60)
    assert "The teacher was random" not in stdout
    results = check_outputs(here / "demo/pretrained-teacher", stdout)
    assert results["pixel_auroc"] > 0.97
    assert results["image_auroc"] > 0.98
    record = json.loads((here / "demo/pretrained-teacher/washer/train.json").read_text())
    assert record["steps_per_epoch"] * record["epochs_trained"] == 60
