"""The loss on held-out good images: against PyTorch, over ranks, and what is said of it at the end and in reports."""

import json
import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.checkpoint import named_arrays, named_parameters
from src.evaluation.progress import falling_share, trend
from src.model.record import read_record
from src.report.page import _training
from src.stpm import STPM
from src.training.distributed import Ranks
from src.training.held_out import HeldOutLoss
from src.training.trainer import cached_features
from tests import torch_reference as reference

pytestmark = pytest.mark.usefixtures("device")


def expected_loss(stpm, images):
    """By PyTorch, in evaluation: the mean over images of the paper's equations 1 to 3."""
    pictures = reference.network_input(images)
    with torch.no_grad():
        teacher, student = (reference.resnet_of(named_arrays(net))(pictures) for net in (stpm.model_t, stpm.model_s))
        pairs = [[functional.normalize(level) for level in pair] for pair in zip(teacher, student, strict=True)]
        return sum(float(0.5 * ((t - s) ** 2).sum(1).mean((1, 2)).mean()) for t, s in pairs)


@pytest.fixture
def pair():
    """An STPM whose two networks differ, and eleven images: more than are computed at a time."""
    stpm = STPM()
    stpm.set_train(True)  # as during training
    images = np.random.default_rng(4).integers(0, 255, (11, 32, 32, 3), np.uint8)
    return stpm, images


@pytest.mark.parametrize("library", [True, False], ids=["oneDNN", "MindSpore's operators"])
def test_loss(pair, tmp_path, request, library):
    """That of the student as it is at the time, of which nothing changes."""
    if not library:
        request.getfixturevalue("without_onednn")
    stpm, images = pair
    features = cached_features(stpm, images, budget_bytes=10**9, spill_folder=tmp_path)
    held_out_loss = HeldOutLoss(stpm, images, features)
    before = named_arrays(stpm)
    assert held_out_loss() == pytest.approx(expected_loss(stpm, images), rel=1e-4)
    weight = named_parameters(stpm.model_s)["layer1.0.conv1.weight"]
    weight.set_data(weight * 0.5 + 0.01)
    before["model_s.layer1.0.conv1.weight"] = weight.asnumpy().copy()
    assert held_out_loss() == pytest.approx(expected_loss(stpm, images), rel=1e-4)
    assert all(np.array_equal(array, before[name]) for name, array in named_arrays(stpm).items())
    assert stpm.model_s.training


def test_ranks(pair, tmp_path):
    """Each gives the sum over its share and its size, and one that has no share nothing."""

    class Recorder(Ranks):
        def sum(self, array):
            given.append(array)
            return array if array[1] else array + 1

    stpm, images = pair
    features = cached_features(stpm, images, budget_bytes=10**9, spill_folder=tmp_path)
    given = []
    for rows, weight in ((slice(0, 6), 1), (slice(6, 11), 1), (slice(0, 1), np.float32(0))):
        share = tuple(level[rows] for level in features)
        HeldOutLoss(stpm, images[rows], share, ranks=Recorder(0, 3), share=weight)()
    total, count = np.sum(given, axis=0)
    assert [array[1] for array in given] == [6, 5, 0]
    assert all(array.dtype == np.float32 for array in given)
    assert total / count == pytest.approx(HeldOutLoss(stpm, images, features)(), rel=1e-6)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([5] * 30 + [1] * 5 + [0.9] * 5, 0.81),  # 5, then halfway between 1 and 0.9
        ([9] * 20 + [2] * 10 + [1.5] * 10, 0.25),
        ([9] * 20 + [2] * 10 + [1.5] * 6 + [90] * 4, 0.25),  # single epochs that stand out
        ([2, 2, 2, 1, 1, 1], 0.5),
        ([1, 1, 1, 2, 2, 2], -1),
        ([2, 2, 1, 1, 1], None),
        ([None, None, 2, 2, 2, 1, 1, 1], 0.5),  # begun before there was such a loss
        ([None, 2, 2, 1, 1, 1], None),
        ([], None),
    ],
)
def test_falling(losses, expected):
    assert falling_share(losses) == (None if expected is None else pytest.approx(expected))


def test_trend():
    """What is said, and what to do."""
    falling, flat = [2.0] * 15 + [1.8] * 5, [2.0] * 15 + [1.97] * 5
    assert trend(falling, schedule=None) == (
        "held-out loss 1.8000 per image; it was still falling, by 10.0% in the last quarter of the epochs: train on "
        "(train.py --resume --epoch 40)"
    )
    assert "no longer falling (-1.5% in the last quarter of the epochs; a fall by more than 5% would" in trend(
        flat, schedule=None
    )
    assert "no longer falling (+5.3% in" in trend([1.9] * 3 + [2.0] * 3, schedule=None)
    assert "the end of a cosine is always flat: whether more epochs would help" in trend(falling, schedule="cosine")
    assert "5 epochs are too few to tell" in trend([1.0] * 5, schedule=None)
    assert trend([None] * 9, schedule=None) is trend([], schedule=None) is None


def record(**changes):
    epochs = [{"epoch": i, "loss": 24.0 / i, "held_out_loss": 3.0 / i} for i in range(1, 13)]
    return {"train_images": 20, "steps_per_epoch": 3, "config": {}, "config_hash": "a", "epochs": epochs} | changes


def curves(section):
    """The heights of the two lines in the drawing, from the top, as far as they are there."""
    paths = re.findall(r'<path d="([^"]+)" clip-path[^>]+ style="fill: none; stroke: #(1f5fa8|2b7a3d)', section)
    return {colour: [float(y) for _, y in re.findall(r"[ML] (\S+) (\S+)", path)] for path, colour in paths}


def test_section():
    """Both losses by epoch on one scale, a logarithmic one where they are far apart."""
    section = _training(record())
    assert "<h2>Training</h2>" in section
    assert "it was still falling, by" in section
    found = curves(section)
    trained, held_out = found["1f5fa8"], found["2b7a3d"]  # 24 * 3 / 20 = 3.6 and 3 per image
    steps = np.diff(trained) / np.diff(np.log(np.arange(1, 13)))
    assert steps == pytest.approx([steps[0]] * 11, rel=1e-3)
    assert np.subtract(held_out, trained) == pytest.approx([steps[0] * np.log(3.6 / 3)] * 12, rel=1e-2)
    narrow = record(epochs=[{"epoch": i, "loss": 10.0 - i} for i in range(3)])
    found = curves(_training(narrow))
    assert found.keys() == {"1f5fa8"}
    assert np.diff(found["1f5fa8"], 2) == pytest.approx([0], abs=1e-3)
    assert _training(record(epochs=[])) == ""


def test_read_record(tmp_path, caplog):
    """Of the same training alone; one that is damaged costs the report its curve, and nothing else."""
    model, path = tmp_path / "widget_last.ckpt", tmp_path / "train.json"
    assert read_record(model, "a") is None
    path.write_text(json.dumps(record()))
    assert read_record(model, "a") == record()
    assert read_record(model, "b") is read_record(model, None) is None
    assert not caplog.records
    damaged = [{"train_images": 0}, {"epochs": [{"epoch": 1}]}, {"epochs": [{"epoch": 1, "loss": "x"}]}, {"config": 3}]
    for text in ("{", *(json.dumps(record(**change)) for change in damaged)):
        path.write_text(text)
        caplog.clear()
        assert read_record(model, "a") is None
        assert f"warning: {path}: damaged record, left out" in caplog.text
