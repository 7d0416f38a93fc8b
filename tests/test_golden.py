"""A short training on real data with the real teacher, through the command lines of a user: floors, not records."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.images import to_network_input
from src.sweep.job import Job
from tests import torch_reference
from tests.conftest import load_image, read_csv, run_python
from tests.test_infer import program  # noqa: F401 - a fixture
from tests.test_scripts import run_script

SIZE = 96
STEPS = 240
# Mean, standard deviation and three values, at these channels, rows and columns, of the teacher's features of
# bottle/test/good/000.png at this size, by torch_reference.py and Pillow alone.
PLACES = ((0, 5, 5), (31, 2, 4), (-1, -1, -1))
PINNED = (
    (0.5192, 0.54296, 0.5936, 0.11066, 2.46972),
    (0.21125, 0.38296, 0.0, 1.5126, 0.0),
    (0.16226, 0.30609, 0.09901, 1.22281, 0.94028),
)


@pytest.fixture(scope="module")
def bottle(shared, real_teacher, program, tmp_path_factory):  # noqa: F811
    """The folder in which a user trained, evaluated, exported and ran the category bottle."""
    here = tmp_path_factory.mktemp("golden")
    data = shared / "data/mvtec"
    flags = ("--image_size", SIZE, "--recipe", "recommended", "--steps", STEPS, "--val_split", 0.2, "--seed", 1)
    for name, arguments in (
        ("run_standalone_train.sh", (data, real_teacher, "bottle", 0, *flags)),
        ("run_eval.sh", (data, "bottle/bottle_last.ckpt", "bottle", 0)),
    ):
        done = run_script(name, *arguments, cwd=here, STPM_FOREGROUND="1")
        assert done.returncode == 0, done.stdout + done.stderr
    done = run_python("export.py", "--category", "bottle", "--ckpt_file", here / "bottle/bottle_last.ckpt", cwd=here)
    assert done.returncode == 0, done.stderr
    done = run_script("run_310_infer.sh", "bottle.mindir", data, "y", 0, "bottle", "CPU", cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    return here


def read(path):
    return json.loads(path.read_text())


def test_teacher_features(shared, real_teacher, device):
    """Of one picture, against PyTorch on the same weights, and against what PyTorch gave when this was written."""
    from mindspore import Tensor

    from src.checkpoint import load_teacher
    from src.resnet import ResNet18Trunk

    picture = shared / "data/mvtec/bottle/test/good/000.png"
    trunk = ResNet18Trunk()
    load_teacher(trunk, real_teacher)
    trunk.set_train(False)
    found = trunk(Tensor(to_network_input(load_image(picture, SIZE)[None])))

    net = torch_reference.ResNet18()
    net.load_state_dict(torch.load(shared / "weights/resnet18_imagenet_trunk.pth", weights_only=True))
    pixels = Image.open(picture).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = net.eval()((x - mean) / std)
    for ours, theirs, pinned in zip(found, expected, PINNED, strict=True):
        ours, theirs = ours.asnumpy(), theirs.numpy()
        assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
        figures = [ours.mean(), ours.std(), *(ours[0][place] for place in PLACES)]
        assert figures == pytest.approx(pinned, rel=1e-3, abs=1e-4)


def test_accuracy(bottle):
    """Floors that a student reaches after 252 steps; one that learned nothing is far below them."""
    results = read(bottle / "bottle/results.json")
    print({name: results[name] for name in ("pixel_auroc", "image_auroc", "pro")})
    assert results["pixel_auroc"] > 0.96
    assert results["image_auroc"] > 0.96
    assert results["pro"] > 0.84
    assert results["images"] == {"test": 83, "good": 20, "defective": 63, "in_pixel_metrics": 83}


def test_threshold(bottle):
    """Set by the 42 of 209 images that were held out, it finds most defects and calls few good images defective."""
    record, sidecar = read(bottle / "bottle/train.json"), read(bottle / "bottle/bottle_last.json")
    assert record["train_images"] == 167
    assert sidecar["calibration"]["images"] == len(sidecar["calibration"]["scores"]) == 42
    decision = read(bottle / "bottle/results.json")["decision"]
    assert decision["threshold"] == sidecar["threshold"]
    assert decision["true_positives"] >= 0.85 * 63
    assert decision["false_positives"] <= 3


def test_loss(bottle):
    """It falls to a fifth, in as many whole epochs as hold the steps that were asked for."""
    record = read(bottle / "bottle/train.json")
    losses = [epoch["loss"] for epoch in record["epochs"]]
    assert (record["steps_per_epoch"], len(losses)) == (42, 6)
    assert losses[-1] < 0.2 * losses[0]
    assert losses[-1] == min(losses)


def test_progress(bottle):
    """The sweep reads the log that a real training wrote."""
    job = Job("bottle", bottle, bottle, "random", "random", flags=[], device_target="CPU")
    last = read(bottle / "bottle/train.json")["epochs"][-1]
    assert job.progress() == ("6/6", f"{last['loss']:.4f}", "00:00")


def test_cpp_program(bottle):
    """It gives the metrics, scores and verdicts of the evaluation in Python."""
    results, native = read(bottle / "bottle/results.json"), read(bottle / "bottle/310_infer/results.json")
    for metric in ("pixel_auroc", "image_auroc", "pro"):
        assert native[metric] == pytest.approx(results[metric], abs=1e-4)
    assert native["decision"]["threshold"] == results["decision"]["threshold"]
    rows = read_csv(bottle / "bottle/310_infer/maps/scores.csv")
    expected = results["scores"]
    assert [row["input"] for row in rows] == [
        f"{i:05}_{entry['file'].replace('/', '_').removesuffix('.png')}.bin" for i, entry in enumerate(expected)
    ]
    assert [float(row["score"]) for row in rows] == pytest.approx([entry["score"] for entry in expected], rel=1e-4)
    is_clear = [abs(entry["score"] / results["decision"]["threshold"] - 1) > 1e-3 for entry in expected]
    assert sum(is_clear) > 70
    for row, entry, clear in zip(rows, expected, is_clear, strict=True):
        assert not clear or row["verdict"] == entry["verdict"]
    assert (bottle / "acc.log").read_text().splitlines()[0] == "category:  bottle"
