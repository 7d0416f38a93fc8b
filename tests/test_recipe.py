"""--recipe: which flags it sets, and that what it sets is trained, resumed, distributed and swept like any other."""

import signal

import pytest

import train as train_entry
from src.sweep import __main__ as sweep
from tests.conftest import make_tree
from tests.test_distributed import train_ranks
from tests.test_training import arguments, assert_same_training, read, signal_at, train

RECOMMENDED = ("--recipe", "recommended", "--lr", 0.01)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), (100, 32, "constant")),
        (("--recipe", "published"), (100, 32, "constant")),
        (("--recipe", "recommended"), (80, 4, "cosine")),
        (("--recipe", "recommended", "--epoch", 3), (3, 4, "cosine")),
        (("--recipe", "recommended", "--steps", 7), (None, 4, "cosine")),
        (("--recipe", "recommended", "--batch_size", 16, "--lr_schedule", "constant"), (80, 16, "constant")),
    ],
)
def test_flags(flags, expected):
    """A flag that is given is worth more than the recipe."""
    args = train_entry.parse_args(arguments("data", "random", "out", *flags))
    assert (args.epoch, args.batch_size, args.lr_schedule) == expected


def test_sweep():
    """It goes on to the trainings as a word, and so does what is worth more."""
    words = ["--data_url", "data", "--pre_ckpt_path", "random", "--device_num", "1"]
    flags = ["--recipe", "recommended", "--lr_schedule", "constant"]
    assert sweep.parse_args([*words, *flags]).training_flags == flags
    assert sweep.parse_args(words).training_flags == []


@pytest.fixture(scope="module")
def eight_images(tmp_path_factory):
    """Two whole batches."""
    return make_tree(tmp_path_factory.mktemp("eight") / "data set", train=8)


def test_resume(eight_images, tmp_path):
    """Bit by bit the training without a break; the record says what was set, not by which word."""
    flags = (*RECOMMENDED, "--epoch", 4)
    with signal_at("epoch 2/4"):
        parts = train(eight_images, "random", tmp_path / "parts", *flags, size=32, status=128 + signal.SIGTERM)
    assert read(parts / "train.json")["epochs_trained"] == 2
    train(eight_images, "random", tmp_path / "parts", *flags, "--resume", size=32)
    whole = train(eight_images, "random", tmp_path / "whole", *flags, size=32)
    assert_same_training(parts, whole)
    config = read(whole / "widget_last.json")["config"]
    assert (config["batch_size"], config["lr_schedule"], config["epochs"]) == (4, "cosine", 4)
    assert "recipe" not in config


def test_ranks(eight_images, random_backbone, tmp_path):
    """Two ranks share the batches of 4, follow the same schedule, and learn."""
    flags = (*RECOMMENDED, "--epoch", 20, "--batch_size", 4)
    done = train_ranks(eight_images, random_backbone, tmp_path, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read(tmp_path / "widget/train.json")
    assert (record["config"]["ranks"], record["config"]["lr_schedule"], record["config"]["epochs"]) == (2, "cosine", 20)
    losses = [epoch["loss"] for epoch in record["epochs"]]
    assert len(losses) == 20
    assert losses[-1] < 0.7 * losses[0]
