"""What is wrong with weights or data ends the entry points with a message that names it and a non-zero exit status."""

import shutil

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

import test as test_entry
import train as train_entry
from src.stpm import read_checkpoint
from tests.conftest import train_arguments

pytestmark = pytest.mark.usefixtures("device")


def without(name):
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def changed(name, array):
    return lambda arrays: arrays | {name: array}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("layer3.0.conv1.weight"), "layer3.0.conv1.weight is missing"),
        (changed("bn1.gamma", np.ones(32, np.float32)), "bn1.gamma has shape (32,), expected (64,)"),
        (changed("bn1.gamma", np.full(64, np.nan, np.float32)), "bn1.gamma holds NaN or infinity"),
    ],
)
def test_training_refuses_an_incomplete_teacher(refused, session_tree, random_backbone, tmp_path, damage, message):
    entries = [{"name": name, "data": Tensor(a)} for name, a in damage(read_checkpoint(random_backbone)).items()]
    ms.save_checkpoint(entries, str(tmp_path / "bad.ckpt"))
    error = refused(train_entry, *train_arguments(session_tree, tmp_path / "bad.ckpt", tmp_path / "out", epoch=1))
    assert "bad.ckpt" in error
    assert message in error


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "bad.ckpt: is empty"), (b"\xff\xfehello" * 100, "bad.ckpt: not a readable MindSpore checkpoint")],
)
def test_both_entry_points_refuse_a_damaged_checkpoint(refused, session_tree, tmp_path, content, message):
    (tmp_path / "bad.ckpt").write_bytes(content)
    training = train_arguments(session_tree, tmp_path / "bad.ckpt", tmp_path / "out", epoch=1)
    assert message in refused(train_entry, *training)
    evaluation = ("--eval_url", session_tree, "--ckpt_path", tmp_path / "bad.ckpt", "--category", "widget")
    assert message in refused(test_entry, *evaluation, "--out_dir", tmp_path / "out")


def remove(*parts):
    return lambda folder: [shutil.rmtree(p) if p.is_dir() else p.unlink() for p in [folder.joinpath(*parts)]]


def empty(*parts):
    return lambda folder: [path.unlink() for path in folder.joinpath(*parts).iterdir()]


def copy(source, target):
    return lambda folder: (shutil.copytree if (folder / source).is_dir() else shutil.copy)(
        folder / source, folder / target
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("test"), "widget/test: no such folder"),
        (empty("test", "hole"), "test/hole: holds no image"),
        (remove("ground_truth", "hole", "001_mask.png"), "ground_truth/hole: no mask for"),
        (copy("ground_truth/hole/000_mask.png", "ground_truth/hole/007_mask.png"), "007_mask.png: extra mask"),
        (copy("ground_truth/hole/000_mask.png", "ground_truth/hole/000.png"), "second mask for one image"),
        (copy("ground_truth/hole", "ground_truth/crack"), "ground_truth/crack: extra masks"),
        (copy("ground_truth/hole", "ground_truth/good"), "ground_truth/good: good images have no masks"),
        (copy("test/hole/000.png", "test/hole/000.bmp"), "000.png: has the same stem as 000.bmp"),
        (lambda folder: (folder / "test/stain/001.png").write_text("x"), "test/stain/001.png: not a readable image"),
        (
            lambda folder: (folder / "ground_truth/stain/001_mask.png").write_text("x"),
            "ground_truth/stain/001_mask.png: not a readable image",
        ),
    ],
)
def test_evaluation_refuses_a_damaged_category(refused, tree, trained, tmp_path, damage, message):
    damage(tree / "widget")
    flags = ("--eval_url", tree, "--ckpt_path", trained[0] / "widget/widget_last.ckpt", "--category", "widget")
    assert message in refused(test_entry, *flags, "--out_dir", tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_training_refuses_an_empty_category(refused, tree, random_backbone, tmp_path):
    empty("train", "good")(tree / "widget")
    error = refused(train_entry, *train_arguments(tree, random_backbone, tmp_path / "out", epoch=1))
    assert "widget/train/good: holds no image" in error
