"""The training as a user starts it: against PyTorch, what it may see, what it keeps, and its defaults."""

import contextlib
import json
import logging
import os
import re
import shutil
import signal

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor
from PIL import Image
from torch.nn import functional

import train as train_entry
from src.calibrate import parse_args as parse_calibration
from src.checkpoint import arrays_sha256, load_stpm, named_arrays, named_parameters, read_checkpoint
from src.config import MAX_BATCH_SIZE
from src.data.arrays import decode_images
from src.data.samples import Sample, hold_out, list_train
from src.data.view import square
from src.device import set_seed
from src.model.record import TrainingFolder
from src.stpm import STPM
from src.training import trainer
from src.training.run import TrainingRun
from src.utils import LOGGER, InputError
from tests import torch_reference as reference
from tests.conftest import run_python, save_picture, train_arguments
from tests.test_held_out import expected_loss

SIZE, SEED = 64, 5
# rows of five images in epochs 1 and 2 with that seed; written down, since one version resumes what another began
ORDERS = ([2, 0, 4, 3, 1], [0, 3, 4, 1, 2])

pytestmark = pytest.mark.usefixtures("device")


def read(path):
    return json.loads(path.read_text())


def arguments(data, backbone, out, *flags, size=SIZE):
    words = ["--data_url", data, "--category", "widget", "--pre_ckpt_path", backbone, "--train_url", out]
    words += ["--image_size", size, "--device_target", "CPU", *flags]
    return [str(word) for word in words]


def train(*words, status=0, **options):
    """Train in this process; return the category's output folder."""
    args = train_entry.parse_args(arguments(*words, **options))
    assert train_entry.main(args) == status
    return words[2] / "widget"


def split(checkpoint):
    """The arrays of teacher and student in a checkpoint."""
    arrays = read_checkpoint(checkpoint)
    return tuple(
        {name.removeprefix(net): array for name, array in arrays.items() if name.startswith(net)}
        for net in ("model_t.", "model_s.")
    )


def assert_same_training(*folders):
    """Bit by bit."""
    arrays = [read_checkpoint(folder / "widget_last.ckpt") for folder in folders]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        assert np.array_equal(array, arrays[1][name]), name
    epochs = [read(folder / "train.json")["epochs"] for folder in folders]
    assert [epoch["epoch"] for epoch in epochs[0]] == list(range(1, len(epochs[1]) + 1))
    for name in ("loss", "last_batch_loss"):
        assert [epoch[name] for epoch in epochs[0]] == [epoch[name] for epoch in epochs[1]]


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """A category of five training images, of the size that the network takes."""
    root, rng = tmp_path_factory.mktemp("five"), np.random.default_rng(5)
    for i in range(5):
        save_picture(root / "widget/train/good" / f"{i}.png", rng, size=(SIZE, SIZE))
    return root


@pytest.mark.parametrize(
    ("library", "momentum", "batch_size", "schedule", "rates"),
    [
        (True, 0.9, 3, "constant", [0.005] * 4),
        (True, 0.0, 5, "cosine", [0.005, 0.0025]),  # half of the way down
        (False, 0.9, 5, "constant", [0.005] * 2),
    ],
    ids=["momentum", "no momentum", "MindSpore's operators"],
)
def test_steps(five, random_backbone, tmp_path, request, library, momentum, batch_size, schedule, rates):
    """Losses, weights and statistics of two epochs equal PyTorch's, and the teacher stays as it was."""
    if not library:
        request.getfixturevalue("without_onednn")
    flags = ("--momentum", momentum, "--weight_decay", 0.5, "--lr", 0.005, "--lr_schedule", schedule)
    flags += ("--seed", SEED, "--epoch", 2, "--batch_size", batch_size, "--cache_teacher", "on" if library else "off")
    folder = train(five, random_backbone, tmp_path, *flags)

    backbone = read_checkpoint(random_backbone)
    set_seed(SEED)
    start = named_arrays(STPM().model_s)
    student = reference.resnet_of(start)
    images = np.stack([np.asarray(Image.open(five / "widget/train/good" / f"{i}.png")) for i in range(5)])
    losses = reference.train(
        reference.resnet_of(backbone), student, reference.network_input(images), orders=ORDERS,
        batch_size=batch_size, rates=rates, momentum=momentum, weight_decay=0.5,
    )  # fmt: skip

    epochs = read(folder / "train.json")["epochs"]
    assert [epoch["loss"] for epoch in epochs] == pytest.approx([np.mean(each) for each in losses], rel=1e-4)
    assert [epoch["last_batch_loss"] for epoch in epochs] == pytest.approx([each[-1] for each in losses], rel=1e-4)
    teacher, found = split(folder / "widget_last.ckpt")
    assert teacher.keys() == found.keys() == backbone.keys()
    for name, array in teacher.items():
        assert np.array_equal(array, backbone[name]), f"the frozen teacher's {name} moved"
    state = student.state_dict()
    for name, array in found.items():
        # compared is the change, which weights hide, by its norm: single values differ by more where a number next
        # to ReLU's zero has the other sign
        expected = state[reference.torch_name(name)].numpy() - start[name]
        assert np.linalg.norm(array - start[name] - expected) / np.linalg.norm(expected) < 2e-2, name


class SignalAtLine(logging.Handler):
    """Sends this process SIGTERM when such a line is reported."""

    def __init__(self, start):
        super().__init__()
        self.start = start

    def emit(self, record):
        if record.getMessage().startswith(self.start):
            os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def signal_at(start):
    handler, before = SignalAtLine(start), signal.getsignal(signal.SIGTERM)
    LOGGER.addHandler(handler)
    level = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    try:
        yield
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


HELD_OUT = ("--val_split", 0.4, "--batch_size", 1, "--lr", 0.01)


@pytest.fixture(scope="module")
def with_held_out(tmp_path_factory, five):
    """The output folder of a training that held two of five images out, and got a signal in its last step."""
    out = tmp_path_factory.mktemp("held out")
    with signal_at("epoch 1/1"):
        return train(five, "random", out, *HELD_OUT, "--epoch", 1, size=32)


def test_held_out(five, with_held_out, tmp_path):
    """Training never sees them: it is the training on the others alone, bit by bit, that of a random teacher, too."""
    calibration = read(with_held_out / "widget_last.json")["calibration"]
    held = set(calibration["scores"])
    assert len(held) == calibration["images"] == 2
    names = {f"{i}.png" for i in range(5)}
    assert held < names
    data = tmp_path / "the others"
    (data / "widget/train/good").mkdir(parents=True)
    for name in names - held:
        shutil.copy(five / "widget/train/good" / name, data / "widget/train/good" / name)
    alone = train(data, "random", tmp_path, *HELD_OUT[2:], "--epoch", 1, size=32)
    assert_same_training(with_held_out, alone)
    records = [read(folder / "train.json") for folder in (with_held_out, alone)]
    assert [record["train_images"] for record in records] == [3, 3]
    assert [record["steps_per_epoch"] for record in records] == [3, 3]
    loss = expected_loss(load_stpm(STPM(), with_held_out / "widget_last.ckpt"), decoded(five, sorted(held)))
    assert records[0]["epochs"][0].pop("held_out_loss") == pytest.approx(loss, rel=1e-4)
    assert records[0]["epochs"][0].keys() == records[1]["epochs"][0].keys()
    assert records[0]["config"].pop("val_split") == 0.4
    assert records[0]["config"] == records[1]["config"]  # with the fingerprint of the images and that of the teacher


def decoded(data, names):
    """Images of the category, resized."""
    return decode_images([Sample(data / "widget/train/good" / name, "good") for name in names], view=square(32))


def test_hold_out(five):
    """Names, written down: a resumed training must hold out the same images."""
    kept, held = hold_out(list_train(five, "widget"), 0.35, seed=1)  # 1.75 of them
    assert [sample.path.name for sample in kept] == ["0.png", "2.png", "4.png"]
    assert [sample.path.name for sample in held] == ["1.png", "3.png"]


def changed(path):
    image = np.asarray(Image.open(path)).copy()
    image[0, 0] ^= 1
    Image.fromarray(image).save(path)


@pytest.mark.parametrize("change", ["content", "name", "one more", "one less"])
def test_resume_changed_images(five, with_held_out, refused, tmp_path, change):
    shutil.copytree(with_held_out, tmp_path / "out/widget")
    folder = shutil.copytree(five, tmp_path / "data") / "widget/train/good"
    if change == "content":
        for path in folder.iterdir():  # those that are held out, too
            changed(path)
    elif change == "name":
        (folder / "4.png").rename(folder / "5.png")
        (folder / "3.png").rename(folder / "4.png")
        (folder / "2.png").rename(folder / "3.png")
    elif change == "one more":
        shutil.copy(folder / "0.png", folder / "5.png")
    else:
        (folder / "4.png").unlink()
    words = arguments(tmp_path / "data", "random", tmp_path / "out", *HELD_OUT, size=32)
    message = refused(train_entry, *words, "--epoch", 2, "--resume")
    assert "belongs to another configuration" in message
    assert "train_images_sha256 was" in message
    assert read(tmp_path / "out/widget/train.json") == read(with_held_out / "train.json")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--batch_size", 2), "batch_size was 1, is 2"),
        (("--lr", 0.1), "lr was 0.01, is 0.1"),
        (("--momentum", 0.8), "momentum was 0.9, is 0.8"),
        (("--weight_decay", 0), "weight_decay was 0.0001, is 0.0"),
        (("--seed", 2), "seed was 1, is 2"),
        (("--cache_teacher", "off"), "cache_teacher was True, is False"),
        (("--val_split", 0.3), "val_split was 0.4, is 0.3"),
        (("--lr_schedule", "cosine"), "lr_schedule was None, is 'cosine'"),
        (("--image_size", 48), "image_size was 32, is 48"),
    ],
)
def test_resume_other_configuration(five, with_held_out, refused, flags, message):
    """Everything that the result depends on is part of it."""
    words = arguments(five, "random", with_held_out.parent, *HELD_OUT, size=32)
    found = refused(train_entry, *words, "--epoch", 2, "--resume", *flags)
    assert "belongs to another configuration" in found
    assert message in found


def test_resume_without_state(five, refused, tmp_path):
    message = refused(train_entry, *arguments(five, "random", tmp_path, *HELD_OUT, size=32), "--resume")
    assert "widget_resume.ckpt does not exist; start without --resume" in message


def test_resume_damaged_state(five, with_held_out, refused, tmp_path):
    """One weight of the resume state is not the one that was written."""
    shutil.copytree(with_held_out, tmp_path / "widget")
    path = tmp_path / "widget/widget_resume.ckpt"
    arrays = read_checkpoint(path)
    arrays["student.bn1.gamma"] = arrays["student.bn1.gamma"] + np.eye(64, dtype=np.float32)[7] / 1024
    path.unlink()
    ms.save_checkpoint([{"name": name, "data": Tensor(array)} for name, array in arrays.items()], str(path))
    words = arguments(five, "random", tmp_path, *HELD_OUT, size=32)
    message = refused(train_entry, *words, "--epoch", 2, "--resume")
    assert "widget_resume.ckpt: damaged resume state: not the numbers that were written" in message


def test_resume_other_teacher(five, with_held_out, refused, random_backbone):
    words = arguments(five, random_backbone, with_held_out.parent, *HELD_OUT, size=32)
    assert "teacher_sha256 was" in refused(train_entry, *words, "--epoch", 2, "--resume")


def test_late_signal(with_held_out):
    """It came too late to stop anything: the status was 0, and the threshold is set."""
    assert read(with_held_out / "train.json")["epochs_trained"] == 1
    assert read(with_held_out / "widget_last.json")["threshold"] > 0


def test_signal_and_resume(five, refused, tmp_path, caplog):
    """The epoch under way, of three steps, is lost; a resumed run goes on as if there had been no break."""

    def words(out, *flags):
        return five, "random", tmp_path / out, *HELD_OUT, "--lr_schedule", "cosine", *flags

    with signal_at("epoch 2/4"):
        parts = train(*words("parts", "--epoch", 4), size=32, status=128 + signal.SIGTERM)
    assert [epoch["epoch"] for epoch in read(parts / "train.json")["epochs"]] == [1, 2]
    assert read(parts / "widget_last.json")["threshold"] is None
    message = refused(train_entry, *arguments(*words("parts", "--epoch", 5, "--resume"), size=32))
    assert "epochs was 4, is 5" in message
    train(*words("parts", "--epoch", 4, "--resume"), size=32)
    with caplog.at_level(logging.INFO, "stpm"):
        whole = train(*words("whole", "--epoch", 4), size=32)
    assert_same_training(parts, whole)
    held_out = [
        [epoch["held_out_loss"] for epoch in read(folder / "train.json")["epochs"]] for folder in (parts, whole)
    ]
    assert held_out[0] == held_out[1]
    for number, loss in enumerate(held_out[1], start=1):
        line = rf"epoch {number}/4  loss \S+  held-out {loss:.4f} per image  \S+ s "
        assert [message for message in caplog.messages if re.match(line, message)]
    assert f"held-out loss {held_out[1][-1]:.4f} per image; the end of a cosine is always flat" in caplog.text


def student_of(folder):
    return split(folder / "widget_last.ckpt")[1]


def test_init_from(five, with_held_out, tmp_path, caplog):
    """The student starts as the earlier one, in a run of its own that can be resumed, and knows no threshold."""
    earlier = with_held_out / "widget_last.ckpt"
    before = earlier.read_bytes()

    def words(out, *more):  # the teacher, too, is the earlier model's; and of a rate at which statistics alone move
        flags = ("--init_from", earlier, "--batch_size", 5, "--lr", 1e-30, "--momentum", 0, "--weight_decay", 0)
        return five, earlier, tmp_path / out, *flags, *more

    parts = train(*words("parts", "--epoch", 1), size=48)
    start = student_of(with_held_out)
    for name, array in student_of(parts).items():
        assert ("moving_" in name) != np.array_equal(array, start[name]), name
    record = read(parts / "train.json")
    assert record["config"]["init_sha256"] == arrays_sha256(start)
    assert record["init_from"] == str(earlier)
    assert read(parts / "widget_last.json")["threshold"] is None
    assert earlier.read_bytes() == before
    with caplog.at_level(logging.WARNING, "stpm"):
        train(*words("parts", "--epoch", 2, "--resume"), size=48)
    assert "optimiser steps; below" not in caplog.text  # it does not begin at the beginning
    assert_same_training(parts, train(*words("whole", "--epoch", 2), size=48))


def test_init_from_refused(five, with_held_out, refused, random_backbone, tmp_path, caplog):
    """Another teacher's student, what is no student, the model that the run would replace, a resumed other run."""
    earlier = shutil.copytree(with_held_out, tmp_path / "earlier") / "widget_last.ckpt"

    def refusal(init_from, *flags, out=tmp_path / "new", teacher=earlier):
        return refused(train_entry, *arguments(five, teacher, out, "--init_from", init_from, *flags, size=32))

    assert "learnt from another teacher than that of --pre_ckpt_path; --pre_ckpt_path " in refusal(
        earlier, teacher=random_backbone
    )
    assert "holds no student" in refusal(random_backbone, teacher=random_backbone)
    assert "expected a MindSpore checkpoint" in refusal("a.mindir")
    shutil.copytree(with_held_out, tmp_path / "there/widget")
    assert "this run would replace it; give another --train_url" in refusal(
        tmp_path / "there/widget/widget_last.ckpt", out=tmp_path / "there"
    )
    assert "init_sha256 was None, is '" in refusal(
        earlier, *HELD_OUT, "--epoch", 2, "--resume", out=tmp_path / "there", teacher="random"
    )
    with caplog.at_level(logging.WARNING, "stpm"):
        sidecar = read(earlier.with_suffix(".json"))
        earlier.with_suffix(".json").write_text(json.dumps(sidecar | {"category": "gadget"}))
        refusal(earlier, "--val_split", 0.4, teacher=random_backbone)
    assert "was trained on 'gadget'" in caplog.text
    assert "--val_split with --init_from: of the images held out the earlier model must have" in caplog.text
    earlier.write_bytes(earlier.read_bytes()[:-1] + b"x")
    assert "is damaged, or is not the checkpoint that widget_last.json describes" in refusal(earlier)


@pytest.mark.parametrize("library", [True, False], ids=["oneDNN", "MindSpore's operators"])
def test_cached_features(random_backbone, tmp_path, request, library):
    """Of more images than are computed at a time, each in its row; beyond the budget in a file."""
    if not library:
        request.getfixturevalue("without_onednn")
    images = np.random.default_rng(2).integers(0, 255, (11, 32, 32, 3), np.uint8)
    stpm = trainer.build_stpm(str(random_backbone), images)
    features = trainer.cached_features(stpm, images, budget_bytes=10**9, spill_folder=tmp_path)
    with torch.no_grad():
        expected = reference.resnet_of(read_checkpoint(random_backbone))(reference.network_input(images))
    for found, level in zip(features, expected, strict=True):
        assert found.dtype == np.float32
        assert np.allclose(found, functional.normalize(level).numpy(), atol=1e-5)


def test_cache_budget(random_backbone, tmp_path, caplog):
    """It is for the features of all three scales together: all of them are in memory or none."""
    images = np.zeros((8, 32, 32, 3), np.uint8)
    stpm = trainer.build_stpm(str(random_backbone), images)
    size = 4 * 8 * (64 * 8 * 8 + 128 * 4 * 4 + 256 * 2 * 2)
    for budget, mapped in ((size, 0), (size - 1, 3)):
        caplog.clear()
        with caplog.at_level(logging.INFO, "stpm"):
            trainer.cached_features(stpm, images, budget_bytes=budget, spill_folder=tmp_path)
        assert caplog.text.count("memory-mapped") == mapped


def test_bad_weights(tmp_path):
    """They are not saved, and the files of before stay: a loss need not show them."""
    stpm = STPM()
    optimiser = trainer.build_optimiser(stpm, lr=0.4, momentum=0.9, weight_decay=0)
    folder, config = TrainingFolder(tmp_path, "widget"), {"image_size": 32, "lr": 0.4}
    run = TrainingRun(folder, stpm, optimiser, view=square(32), config=config, circumstances={})
    run.record_epoch(1, loss=1, last_loss=1, seconds=1)
    run.save()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    weight = named_parameters(stpm.model_s)["layer3.1.bn2.gamma"]
    array = weight.asnumpy().copy()
    array[7] = np.nan
    weight.set_data(Tensor(array))
    run.record_epoch(2, loss=1, last_loss=1, seconds=1)
    with pytest.raises(
        InputError, match=r"layer3\.1\.bn2\.gamma is NaN or infinite after epoch 2.*smaller --lr of train.py than 0\.4"
    ):
        run.save()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_defaults(five, refused, tmp_path, caplog):
    """Those of the paper and the model zoo, and of the README's tables."""
    words = ["--data_url", str(five), "--category", "widget", "--pre_ckpt_path", "random"]
    args = vars(train_entry.parse_args(words))
    expected = {
        "lr": 0.4, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 32, "image_size": (256, 256), "seed": 1,
        "lr_schedule": "constant", "amp_level": "O0", "cache_teacher": "auto", "cache_budget": 2.0, "val_split": 0.0,
        "target_fpr": 0.01, "eval_interval": 0, "eval_batch_size": 8, "mask_rule": "half", "resume": False,
        "device_target": "auto", "device_id": 0, "distributed": False, "modelarts": False, "train_url": ".",
        "eval_url": str(five),
    }  # fmt: skip
    assert {name: args[name] for name in expected} == expected
    words += ["--train_url", str(tmp_path)]
    with caplog.at_level(logging.WARNING, "stpm"):  # 100 epochs, of one step each
        assert "sees no such device" in refused(train_entry, *words, "--device_target", "Ascend")
    assert "100 optimiser steps; below 300" in caplog.text
    flags = ("--ckpt_path", "a.ckpt", "--category", "widget", "--image_path", "b")
    assert parse_calibration(flags).target_fpr == 0.01


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        (("--steps", "7", "--batch_size", "2"), 9),  # three an epoch
        (("--steps", "6", "--batch_size", "2"), 6),
        (("--epoch", "7", "--batch_size", "2"), 21),
        (("--steps", "299", "--batch_size", "5"), 299),
        (("--steps", "300", "--batch_size", "5"), None),
    ],
)
def test_length(five, refused, tmp_path, caplog, flags, steps):
    words = ("--data_url", five, "--category", "widget", "--pre_ckpt_path", "random", "--train_url", tmp_path)
    with caplog.at_level(logging.WARNING, "stpm"):
        refused(train_entry, *words, *flags, "--device_target", "Ascend")
    assert ("below 300" in caplog.text) == (steps is not None)
    assert steps is None or f"{steps} optimiser steps" in caplog.text


@pytest.mark.parametrize(
    ("flag", "accepted", "refused_ones"),
    [
        ("--seed", ("0", str(2**31 - 1)), ("-1", str(2**31), "1.5")),
        ("--lr", ("1e-9",), ("0", "-1", "inf", "nan")),
        ("--momentum", ("0",), ("-0.1",)),
        ("--val_split", ("0", "0.99"), ("1", "-0.1")),
        ("--target_fpr", ("0.001", "0.999"), ("0", "1")),
        ("--batch_size", ("1", str(MAX_BATCH_SIZE)), ("0", str(MAX_BATCH_SIZE + 1))),
        ("--image_size", ("32", "272"), ("16", "100", "250")),
        ("--epoch", ("1",), ("0", "2.0")),
        ("--resume", ("true", "False"), ("yes", "1")),
        ("--category", ("a b", "..."), ("", ".", "..", "a/b")),
        ("--data_url", (" ",), ("",)),
    ],
)
def test_bounds(five, capsys, flag, accepted, refused_ones):
    """The last value that is taken and the first that is not."""
    words = {"--data_url": str(five), "--category": "widget", "--pre_ckpt_path": "random"}
    for value in accepted:
        train_entry.parse_args([word for pair in (words | {flag: value}).items() for word in pair])
    for value in refused_ones:
        with pytest.raises(SystemExit):
            train_entry.parse_args([word for pair in (words | {flag: value}).items() for word in pair])
        assert f"argument {flag}: expected" in capsys.readouterr().err


def test_abbreviations(five, capsys):
    with pytest.raises(SystemExit):
        train_entry.parse_args(["--data_url", str(five), "--category", "widget", "--pre_ckpt", "random"])
    assert "unrecognized arguments: --pre_ckpt random" in capsys.readouterr().err


def test_resume_first(tree, tmp_path):
    """That there is nothing to resume is told before a picture is read, with an exit status of its own."""
    (tree / "widget/train/good/000.png").write_bytes(b"no picture")
    done = run_python("train.py", *train_arguments(tree, "random", tmp_path, epoch=1), "--resume")
    assert done.returncode == 3
    assert done.stderr.endswith("widget_resume.ckpt does not exist; start without --resume\n")
