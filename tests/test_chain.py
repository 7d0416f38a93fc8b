"""Training and evaluation through the command lines, on a tiny category."""

import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import test as test_entry
import train as train_entry
from src.training.trainer import learning_rates
from src.utils import InputError
from tests.conftest import ROOT, call, run_python, train_arguments


def read(path):
    return json.loads(path.read_text())


def arrays(path):
    import mindspore as ms

    return {name: parameter.asnumpy().copy() for name, parameter in ms.load_checkpoint(str(path)).items()}


def assert_same_weights(a, b):
    a, b = arrays(a), arrays(b)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_training_output(trained):
    """Checkpoint, configuration, record, and a line an epoch."""
    out, stdout = trained
    folder = out / "widget"
    names = {"widget_last.ckpt", "widget_last.json", "widget_resume.ckpt", "train.json", ".train.lock"}
    assert {path.name for path in folder.iterdir()} == names  # and no temporary file
    record = read(folder / "train.json")
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2, 3]
    assert record["epochs"][2]["loss"] < record["epochs"][0]["loss"]
    assert record["epochs_trained"] == 3
    assert record["steps_per_epoch"] == 2  # 6 images, batches of 3
    assert record["config"]["seed"] == 1
    assert record["versions"]["mindspore"]
    assert record["training_seconds"] > 0
    sidecar = read(folder / "widget_last.json")
    assert sidecar["category"] == "widget"
    assert sidecar["image_size"] == 64
    assert sidecar["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert sidecar["config_hash"] == record["config_hash"]
    assert not {"ranks", "val_split", "lr_schedule", "epochs"} & record["config"].keys()  # of other trainings
    assert "6 optimiser steps; below 300" in stdout
    lines = re.findall(
        r"^epoch (\d)/3  loss (\S+)  (\S+) s \((\S+) s per step\)  (\S+) images/s  ETA (\d+):(\d\d)$",
        stdout,
        re.MULTILINE,
    )
    for epoch, line in zip(record["epochs"], lines, strict=True):
        number, loss, seconds, per_step, rate, *left = map(float, line)
        assert number == epoch["epoch"]
        assert loss == pytest.approx(epoch["loss"], abs=1e-4)
        assert seconds == pytest.approx(epoch["seconds"], abs=0.051)
        assert per_step == pytest.approx(epoch["seconds"] / 2, abs=0.0051)
        assert rate == pytest.approx(6 / epoch["seconds"], rel=0.02, abs=0.06)
        assert left[0] * 60 + left[1] == pytest.approx((3 - number) * epoch["seconds"], abs=1)
    checkpoint = arrays(folder / "widget_last.ckpt")
    assert len(checkpoint) == 150
    assert {name.split(".")[0] for name in checkpoint} == {"model_t", "model_s"}
    assert "model_s.layer2.0.down_sample_layer.1.gamma" in checkpoint


def test_evaluation(trained, session_tree, tmp_path):
    checkpoint = trained[0] / "widget/widget_last.ckpt"
    done = run_python(
        *("test.py", "--data_url", session_tree, "--ckpt_url", checkpoint, "--category", "widget"),
        *("--eval_batch_size", 4, "--save_sample", "True"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    results = read(tmp_path / "widget/results.json")
    assert done.stdout.splitlines()[-3:] == [
        "category:  widget",
        f"Total pixel-level auc-roc score :  {results['pixel_auroc']!r}",
        f"Total image-level auc-roc score :  {results['image_auroc']!r}",
    ]
    assert 0 <= results["pro"] <= 1
    assert results["image_size"] == 64  # from the checkpoint's own configuration
    assert set(results["by_defect"]) == {"hole", "stain"}
    assert [entry["file"] for entry in results["scores"]][2] == "hole/000.png"
    assert "seconds" not in json.dumps(results)
    assert read(tmp_path / "widget/timing.json")["inference_seconds"] > 0
    with Image.open(tmp_path / "widget/samples.png") as sheet:
        assert min(sheet.size) > 200
        assert np.asarray(sheet.convert("L")).std() > 20
    flags = ("--eval_url", session_tree, "--ckpt_path", checkpoint, "--category", "widget")
    assert call(test_entry, *flags, "--out_dir", tmp_path / "again") == 0
    for ours, theirs in zip(read(tmp_path / "again/widget/results.json")["scores"], results["scores"], strict=True):
        assert ours["file"] == theirs["file"]
        assert ours["score"] == pytest.approx(theirs["score"], rel=1e-5)  # another batch size


def train(caplog, *words):
    """Train in this process; return what it reports."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "stpm"):
        assert train_entry.main(train_entry.parse_args([str(word) for word in words])) == 0
    return caplog.text


@pytest.mark.usefixtures("device")
def test_same_seed(trained, session_tree, random_backbone, tmp_path, caplog):
    """The same weights in another process, and what is done to resume a training that is at its end."""
    arguments = train_arguments(session_tree, random_backbone, tmp_path, epoch=3)
    done = run_python("train.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert_same_weights(tmp_path / "widget/widget_last.ckpt", trained[0] / "widget/widget_last.ckpt")
    losses = [
        [epoch["loss"] for epoch in read(folder / "widget/train.json")["epochs"]] for folder in (tmp_path, trained[0])
    ]
    assert losses[0] == losses[1]
    (tmp_path / "widget/widget_last.ckpt").unlink()
    report = train(caplog, *arguments, "--resume", "True")
    assert "nothing to do: 3 of 3 epochs are trained" in report
    assert "widget_last.ckpt is missing or damaged; it is written again" in report
    assert_same_weights(tmp_path / "widget/widget_last.ckpt", trained[0] / "widget/widget_last.ckpt")


def train_until(line_start, arguments, *, number):
    """Start a training, send it a signal after such a line; return its status, the rest of its stdout, its stderr."""
    command = [sys.executable, "-u", str(ROOT / "train.py"), *(str(a) for a in arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith(line_start):
                break
        time.sleep(0.05)
        process.send_signal(number)
        rest, stderr = process.communicate(timeout=120)
    return process.returncode, rest, stderr


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal(number, session_tree, random_backbone, tmp_path, caplog):
    """It costs no more than the epoch under way."""
    arguments = train_arguments(session_tree, random_backbone, tmp_path, epoch=1000)
    status, rest, stderr = train_until("epoch 2/", arguments, number=number)
    assert status == 128 + number, stderr
    assert f"stopped by signal {int(number)}" in rest
    epochs = read(tmp_path / "widget/train.json")["epochs_trained"]
    assert epochs >= 2
    assert f"after {epochs} whole epochs" in rest
    train(caplog, *train_arguments(session_tree, random_backbone, tmp_path, epoch=epochs + 1), "--resume")
    assert read(tmp_path / "widget/train.json")["epochs_trained"] == epochs + 1


@pytest.mark.usefixtures("device")
def test_divergence_in_the_maps(refused, session_tree, random_backbone, tmp_path):
    """The loss alone does not show it."""
    arguments = train_arguments(session_tree, random_backbone, tmp_path, epoch=2)
    message = refused(train_entry, *arguments, "--lr", 1e6, "--eval_interval", 1)
    assert "training diverged; try a smaller --lr than 1e+06" in message


@pytest.mark.usefixtures("device")
def test_evaluation_during_training(session_tree, tmp_path, caplog):
    """Every second epoch, and what test.py makes of the same weights; with a random teacher, and caches in a file."""
    arguments = train_arguments(session_tree, "random", tmp_path, epoch=1)[:-4]  # without --epoch, --device_target
    report = train(caplog, *arguments, "--steps", 5, "--eval_interval", 2, "--cache_budget", 0)
    assert "device: CPU (found automatically)" in report
    assert "random weights, batch-norm statistics estimated on the 6 training images" in report
    assert "memory-mapped" in report
    record = read(tmp_path / "widget/train.json")
    assert record["epochs_trained"] == 3  # 5 steps of 2 an epoch, rounded up
    assert [entry["epoch"] for entry in record["evaluations"]] == [2]
    train(caplog, *arguments, "--steps", 8, "--eval_interval", 2, "--cache_budget", 0, "--resume")
    record = read(tmp_path / "widget/train.json")
    assert [entry["epoch"] for entry in record["evaluations"]] == [2, 4]
    checkpoint = tmp_path / "widget/widget_last.ckpt"
    words = ("--eval_url", session_tree, "--ckpt_path", checkpoint, "--category", "widget", "--out_dir", tmp_path)
    assert test_entry.main(test_entry.parse_args([str(word) for word in words])) == 0
    results = read(tmp_path / "widget/results.json")
    for name in ("pixel_auroc", "image_auroc", "pro"):
        assert record["evaluations"][1][name] == pytest.approx(results[name], abs=1e-3)


@pytest.mark.usefixtures("device")
def test_without_cache(trained, session_tree, random_backbone, tmp_path, caplog):
    """The teacher sees every batch, and the losses are the same."""
    arguments = train_arguments(session_tree, random_backbone, tmp_path, epoch=2)
    assert "teacher features" not in train(caplog, *arguments, "--cache_teacher", "off")
    assert "teacher features" in trained[1]
    ours, cached = (read(folder / "widget/train.json")["epochs"] for folder in (tmp_path, trained[0]))
    assert [epoch["loss"] for epoch in ours] == pytest.approx([epoch["loss"] for epoch in cached[:2]], rel=1e-4)


@pytest.mark.usefixtures("device")
def test_divergence(trained, refused, session_tree, random_backbone, tmp_path):
    """It stops the training, and the last good checkpoint stays."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "widget/widget_last.ckpt").read_bytes()
    arguments = train_arguments(session_tree, random_backbone, tmp_path, epoch=20)
    message = refused(train_entry, *arguments, "--lr", "3e38")
    assert "training diverged; try a smaller --lr of train.py than 3e+38" in message
    assert (tmp_path / "widget/widget_last.ckpt").read_bytes() == before


def test_learning_rates():
    assert learning_rates("constant", lr=0.4, steps=100) == 0.4
    rates = learning_rates("cosine", lr=0.4, steps=100)
    assert len(rates) == 100
    assert rates[:5] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])
    assert np.all(np.diff(rates[4:]) < 0)
    assert 0 < rates[-1] < 1e-3
    assert learning_rates("cosine", lr=0.4, steps=1) == [0.4]


def test_bad_loss():
    """One that is not finite stops the training, with the rate of its step."""
    from mindspore import Tensor

    from src.callbacks import StopOnBadLoss

    for value, lr in ((np.nan, 0.4), (np.inf, [0.1] * 6 + [0.4]), (-np.inf, 0.4)):
        params = SimpleNamespace(net_outputs=Tensor(np.float32(value)), cur_step_num=7, cur_epoch_num=3)
        with pytest.raises(InputError, match=r"loss is -?(nan|inf) at step 7 \(epoch 3\) with learning rate 0.4"):
            StopOnBadLoss(lr).on_train_step_end(SimpleNamespace(original_args=lambda params=params: params))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--epoch", "0"), "argument --epoch: expected a whole number of at least 1, got '0'"),
        (("--epoch", "2", "--steps", "9"), "give --epoch or --steps, not both"),
        (("--lr", "nan"), "argument --lr: expected a number above 0, got 'nan'"),
        (
            ("--image_size", "100"),
            "argument --image_size: expected sides from 32 to 4096 pixels that are multiples of 16",
        ),
        (("--resume", "maybe"), "expected True or False, got 'maybe'"),
        (("--device_target", "TPU"), "invalid choice: 'TPU'"),
        (("--epochs", "2"), "unrecognized arguments: --epochs 2"),
        (("--device_target", "Ascend"), "device Ascend: MindSpore"),
        (("--amp_level", "O1"), "--amp_level O1: needs an Ascend or GPU device; on CPU use O0 or O2"),
        (("--category", "gizmo"), "no category 'gizmo'; found: widget"),
        (("--data_url", "/nowhere"), "/nowhere: no such data set folder"),
        (("--pre_ckpt_path", "/nowhere/a.ckpt"), "/nowhere/a.ckpt: no such checkpoint file"),
        (("--pre_ckpt_path", "/nowhere/a.pth"), "convert it first"),
        (("--train_url", "/proc/none"), "/proc/none/widget: cannot be created as output folder"),
    ],
)
def test_training_refuses(refused, session_tree, random_backbone, tmp_path, flags, message):
    arguments = ["--data_url", session_tree, "--category", "widget", "--pre_ckpt_path", random_backbone]
    assert message in refused(train_entry, *arguments, "--train_url", tmp_path, *flags)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_unreadable_image(refused, tree, random_backbone, tmp_path):
    (tree / "widget/train/good/002.png").write_bytes(b"no picture")
    arguments = train_arguments(tree, random_backbone, tmp_path / "out", epoch=1)
    assert "train/good/002.png: not a readable image" in refused(train_entry, *arguments)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--ckpt_path", "/nowhere/a.ckpt"), "/nowhere/a.ckpt: no such checkpoint file"),
        (("--category", "gizmo"), "was trained on 'widget'"),
        (("--eval_url", "/nowhere"), "/nowhere: no such data set folder"),
        (("--mask_rule", "any"), "invalid choice: 'any'"),
        (("--out_dir", "/proc/none"), "cannot be created as output folder"),
    ],
)
def test_evaluation_refuses(refused, trained, session_tree, flags, message):
    checkpoint = trained[0] / "widget/widget_last.ckpt"
    arguments = ["--eval_url", session_tree, "--ckpt_path", checkpoint, "--category", "widget"]
    assert message in refused(test_entry, *arguments, *flags)


def test_twin_flags(refused, session_tree):
    data = ("--data_url", session_tree, "--category", "widget")
    assert "--ckpt_path is required" in refused(test_entry, *data)
    assert "--eval_url is required" in refused(test_entry, "--ckpt_path", "a", "--category", "widget")
    assert "--pre_ckpt_path is required" in refused(train_entry, *data)
    both = ("--ckpt_path", "a.ckpt", "--ckpt_url", "b.ckpt")
    assert "--ckpt_path and --ckpt_url are the same flag" in refused(test_entry, *data, *both)
    same = test_entry.parse_args(["--ckpt_url", "a", "--data_url", "d", "--train_url", "o", "--category", "c"])
    assert (same.ckpt_path, same.eval_url, same.out_dir) == ("a", "d", "o")
    assert train_entry.parse_args(["--ckpt_url", "a", "--data_url", "d", "--category", "c"]).pre_ckpt_path == "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected a JSON object"),
        ('{"format": 99}', "format 99, this program reads format 1"),
        ('{"format": 1, "image_size": 100}', "image_size 100, expected a multiple of 16"),
    ],
)
def test_damaged_sidecar(refused, session_tree, random_backbone, tmp_path, content, message):
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.write_bytes(random_backbone.read_bytes())
    (tmp_path / "model.json").write_text(content)
    error = refused(test_entry, "--eval_url", session_tree, "--ckpt_path", checkpoint, "--category", "widget")
    assert "model.json" in error
    assert message in error
