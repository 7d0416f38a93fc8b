"""Two ranks on the CPU against one process that does the same by hand, and what ranks may and may not do."""

import os
import re
import shutil
import signal
from dataclasses import dataclass

import numpy as np
import pytest

import train as train_entry
from src.data.view import square
from src.dataset import EpochBatches
from src.training.distributed import (
    ALONE,
    Ranks,
    ShardedBatches,
    shard_of,
    student_norm,
)
from tests.conftest import make_tree, train_arguments
from tests.test_chain import arrays, assert_same_weights, read
from tests.test_scripts import run_script, wait_for

# With shards this small a rounding error grows: 3e-7 in one weight moves single gradients by percents within 20 steps,
# in one process too (ReLU and pooling switch). A small learning rate keeps weights comparable.
# 5 images: batches of 2, 2 and 1, the last of which leaves rank 1 nothing. All shards are of one image: MindSpore
# compiles the network anew for those of another size.
BATCH, EPOCHS, LR, SEED = 2, 7, 2e-4, 1
FLAGS = ("--image_size", "64", "--batch_size", str(BATCH), "--lr", str(LR), "--device_target", "CPU")


def train_ranks(data, backbone, out, *flags, ranks=2, **environment):
    arguments = (data, backbone, "widget", ranks, *FLAGS, *flags)
    return run_script("run_distribute_train.sh", *arguments, cwd=out, **({"STPM_FOREGROUND": "1"} | environment))


@pytest.fixture(scope="module")
def five_images(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("five") / "data set", train=5)


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory, five_images, random_backbone):
    """The output folder of a training of two ranks over 3 steps."""
    out = tmp_path_factory.mktemp("one epoch")
    done = train_ranks(five_images, random_backbone, out, "--epoch", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, five_images, random_backbone):
    """The output folder of a training of two ranks over 21 steps, with its stdout."""
    out = tmp_path_factory.mktemp("two ranks")
    done = train_ranks(five_images, random_backbone, out, "--epoch", EPOCHS)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


class HandMadeRank:
    """Student, optimiser and loss of one of two ranks, in this process."""

    def __init__(self, backbone, images):
        import mindspore as ms

        from src.backend import student_loss
        from src.device import set_seed
        from src.loss import TeacherStudentLoss
        from src.training import trainer
        from src.training.teacher import NormalisedTeacher

        set_seed(SEED)
        stpm = trainer.build_stpm(str(backbone), images)
        self.student, self.images = stpm.model_s, images
        self.optimiser = trainer.build_optimiser(stpm, lr=LR, momentum=0.9, weight_decay=1e-4)
        network = TeacherStudentLoss(NormalisedTeacher(stpm.model_t), student_loss(self.student))
        network.set_train()
        stpm.model_t.set_train(False)
        self.loss_and_gradients = ms.value_and_grad(network, None, self.optimiser.parameters)

    def compute(self, rows):
        """Return loss and gradients of a shard."""
        import mindspore as ms

        from src.data.images import to_network_input

        loss, gradients = self.loss_and_gradients(ms.Tensor(to_network_input(self.images[rows])))
        return float(loss.asnumpy()), [gradient.asnumpy().copy() for gradient in gradients]

    def update(self, gradients):
        import mindspore as ms

        self.optimiser(tuple(ms.Tensor(gradient) for gradient in gradients))


def reference(data, backbone):
    """Train in this process as two ranks do: sum the gradients of the shards, each normalised by itself.

    The statistics of both are never set, but averaged when they are returned, which gives the same: they are linear in
    what they were. Returns the student's arrays before and after each epoch, and each epoch's mean loss per batch.
    """
    from src.checkpoint import named_arrays
    from src.data.arrays import decode_images
    from src.data.samples import list_train
    from src.dataset import epoch_order

    images = decode_images(list_train(data, "widget"), view=square(64))
    ranks = [HandMadeRank(backbone, images) for _ in range(2)]
    students, epoch_losses = [named_arrays(ranks[0].student)], []
    for epoch in range(1, EPOCHS + 1):
        order = epoch_order(5, seed=SEED, epoch=epoch)
        losses = []
        for start in range(0, 5, BATCH):
            rows = order[start : start + BATCH]
            half = (len(rows) + 1) // 2
            loss, gradients = ranks[0].compute(rows[:half])
            other_loss, other_gradients = ranks[1].compute(rows[half:] if len(rows) > 1 else rows)
            if len(rows) > 1:  # else rank 1 has nothing of this batch
                loss += other_loss
                gradients = [a + b for a, b in zip(gradients, other_gradients, strict=True)]
            for rank in ranks:
                rank.update(gradients)
            losses.append(loss)
        first, second = (named_arrays(rank.student) for rank in ranks)
        students.append({name: (first[name] + second[name]) / 2 for name in first})
        epoch_losses.append(sum(losses) / len(losses))
    return students, epoch_losses


def test_two_ranks(one_epoch, two_ranks, five_images, random_backbone):
    """They follow a process that normalises each half by itself.

    After 3 steps by the change that training made; after 21 by the size of the weights and statistics.
    """
    students, losses = reference(five_images, random_backbone)
    record = read(two_ranks[0] / "widget/train.json")
    assert [epoch["loss"] for epoch in record["epochs"]] == pytest.approx(losses, rel=1e-3)
    assert losses[-1] < losses[0]

    early, late = (arrays(out / "widget/widget_last.ckpt") for out in (one_epoch, two_ranks[0]))
    of_change, of_size = {}, {}
    for name, initial in students[0].items():
        rounding = 2 * np.spacing(np.abs(initial).max())  # so small a step is near float32's resolution
        difference = max(0, np.abs(early[f"model_s.{name}"] - students[1][name]).max() - rounding)
        of_change[name] = difference / np.abs(students[1][name] - initial).max()
        # beta, which starts at 0, is added to what has unit variance
        size = 1 if name.endswith("beta") else np.abs(students[-1][name]).max()
        of_size[name] = np.abs(late[f"model_s.{name}"] - students[-1][name]).max() / size
    print("of the change, 3 steps:", max(of_change.values()), "of the size, 21 steps:", max(of_size.values()))
    assert max(of_change.values()) < 1e-3, of_change
    assert max(of_size.values()) < 1e-3, of_size


def test_output_of_ranks(two_ranks):
    """The first one alone writes and reports."""
    out, stdout = two_ranks
    names = {"widget_last.ckpt", "widget_last.json", "widget_resume.ckpt", "train.json", "train.log", "msrun"}
    names.add(".train.lock")
    assert {path.name for path in (out / "widget").iterdir()} == names
    record = read(out / "widget/train.json")
    assert record["config"]["ranks"] == 2
    assert record["epochs_trained"] == EPOCHS
    for epoch in range(1, EPOCHS + 1):
        assert len(re.findall(f"^epoch {epoch}/{EPOCHS}  loss ", stdout, re.MULTILINE)) == 1
    assert stdout.count("trained 7 epochs") == 1
    assert "epoch" not in (out / "widget/msrun/worker_1.log").read_text()
    assert (out / "widget/train.log").read_text() == stdout


def test_resume(one_epoch, two_ranks, five_images, random_backbone, tmp_path):
    """Equals a training without a break."""
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    done = train_ranks(five_images, random_backbone, tmp_path, "--epoch", EPOCHS, "--resume", "True")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "epoch 1/7" not in done.stdout
    assert_same_weights(tmp_path / "widget/widget_last.ckpt", two_ranks[0] / "widget/widget_last.ckpt")
    losses = [[e["loss"] for e in read(out / "widget/train.json")["epochs"]] for out in (tmp_path, two_ranks[0])]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("count", "ranks", "sizes"), [(32, 2, [16, 16]), (17, 2, [9, 8]), (1, 2, [1, 0]), (2, 4, [1, 1, 0, 0]), (7, 1, [7])]
)
def test_shards(count, ranks, sizes):
    """Contiguous, and as equal as possible."""
    rows = np.random.default_rng(0).permutation(count)
    shards = [shard_of(rows, Ranks(rank, ranks)) for rank in range(ranks)]
    assert [len(shard) if weight else 0 for shard, weight in shards] == sizes
    assert np.array_equal(np.concatenate([shard for shard, weight in shards if weight]), rows)
    for shard, weight in shards:
        assert weight.dtype == np.float32
        assert weight == 1 or np.array_equal(shard, rows[:1])


def test_order_of_shards():
    """That of the whole batches."""
    images = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    numbers = np.arange(9)

    def batches():
        return EpochBatches(images, (numbers,), batch_size=4, seed=5, first_epoch=2)

    whole = [number for _, numbers in batches() for number in numbers]
    shards = [ShardedBatches(batches(), Ranks(rank, 2)) for rank in range(2)]
    assert [len(shard) for shard in shards] == [3, 3]
    assert shards[0].columns == ("weight", "images", "teacher_0")
    together = []
    for parts in zip(*shards, strict=True):
        together += [number for weight, _, numbers in parts if weight for number in numbers]
    assert together == whole


@dataclass(frozen=True)
class WithAnother(Ranks):
    """One of two ranks, and what the other one gives to each sum: this one's array times ten, plus one."""

    count: int = 2

    def sum(self, array):
        return array + (10 * array + 1 if self.is_first else np.arange(array.size, dtype=np.float32))


def test_averaged_statistics(device):
    """The moving ones alone."""
    from src.checkpoint import named_arrays
    from src.resnet import batch_norm

    cell = batch_norm(4)
    cell.moving_mean.set_data(cell.moving_mean + 3)
    WithAnother().average_statistics(cell)
    found = named_arrays(cell)
    assert np.array_equal(found["moving_mean"], [17.5] * 4)  # 3 / 2, ten times that, and one
    assert np.array_equal(found["moving_variance"], [6.5] * 4)
    assert np.array_equal(found["gamma"], [1] * 4)
    assert np.array_equal(found["beta"], [0] * 4)


def test_broadcast(device):
    """Of what is not the first rank's own nothing stays; every parameter gets its part, in its shape."""
    from src.checkpoint import named_arrays
    from src.resnet import batch_norm

    cell = batch_norm(2)
    WithAnother(rank=1).broadcast_parameters(cell)
    assert sorted(number for array in named_arrays(cell).values() for number in array) == list(range(8))
    assert all(array[1] - array[0] == 1 for array in named_arrays(cell).values())
    before = named_arrays(cell)
    ALONE.broadcast_parameters(cell)
    assert all(np.array_equal(array, before[name]) for name, array in named_arrays(cell).items())


def test_weighted_loss(device):
    """A rank for which nothing of a batch is left gives neither loss nor gradient."""
    import mindspore as ms

    from src.training.trainer import WeightedLoss

    dense = ms.nn.Dense(3, 1, weight_init="ones", has_bias=False)
    step = ms.value_and_grad(WeightedLoss(dense), None, dense.trainable_params())
    for weight in (0, 1):
        loss, (gradient,) = step(ms.Tensor(np.float32(weight)), ms.Tensor(np.array([[1, 2, 3]], np.float32)))
        assert loss.asnumpy() == 6 * weight
        assert np.array_equal(gradient.asnumpy(), [[weight, 2 * weight, 3 * weight]])


def test_student_norm(device):
    """Over the batches of all ranks where MindSpore can."""
    from mindspore import nn

    like = nn.BatchNorm2d(8, eps=1e-5, momentum=0.9)
    two = Ranks(0, 2)
    for ranks, target, kind in (
        (two, "Ascend", nn.SyncBatchNorm),
        (two, "CPU", nn.BatchNorm2d),
        (ALONE, "Ascend", nn.BatchNorm2d),
    ):
        norm = student_norm(ranks, target)(8)
        assert type(norm) is kind
        assert (norm.eps, norm.momentum) == (like.eps, like.momentum)


def test_alone():
    """An ordinary training."""
    assert np.array_equal(ALONE.sum(np.arange(3)), np.arange(3))


def test_without_msrun(refused, session_tree, random_backbone, tmp_path, monkeypatch):
    arguments = train_arguments(session_tree, random_backbone, tmp_path, epoch=1)
    for name, value in (("", ""), ("MS_ROLE", "MS_WORKER"), ("MS_WORKER_NUM", "2"), ("MS_SCHED_HOST", "127.0.0.1")):
        if name:
            monkeypatch.setenv(name, value)
        message = refused(train_entry, *arguments, "--distributed", "True")
        assert "--distributed True: this process was not started by msrun" in message
    message = refused(train_entry, *arguments, "--distributed", "True", "--modelarts", "True")
    assert "not with --modelarts True" in message
    assert not list(tmp_path.iterdir())


def test_failure_of_ranks(session_tree, random_backbone, tmp_path):
    """They say what is wrong, and the script fails."""
    done = train_ranks(session_tree, random_backbone, tmp_path, "--resume", MS_NODE_TIMEOUT="5")
    assert done.returncode != 0
    assert "error: --distributed True" not in done.stdout
    assert "widget_resume.ckpt does not exist; start without --resume" in (tmp_path / "widget/train.log").read_text()


def test_signal_to_ranks(five_images, random_backbone, tmp_path):
    """All end after the epoch."""
    started = train_ranks(five_images, random_backbone, tmp_path, "--epoch", 500, STPM_FOREGROUND="0")
    assert started.returncode == 0, started.stderr
    log, workers = tmp_path / "widget/train.log", tmp_path / "widget/msrun"
    wait_for(lambda: log.exists() and "epoch 2/500" in log.read_text(), log)
    os.kill(int(re.search(r"pid (\d+)", started.stdout)[1]), signal.SIGTERM)
    wait_for(lambda: "stopped by signal 15" in (workers / "worker_0.log").read_text(), "rank 0 to stop")
    epochs = read(tmp_path / "widget/train.json")["epochs_trained"]
    assert f"stopped by signal 15 after {epochs} whole epochs" in (workers / "worker_0.log").read_text()
