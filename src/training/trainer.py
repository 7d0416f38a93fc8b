"""Training: SGD on the student, as in the paper, with Nesterov momentum, as in the model zoo."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn
from mindspore.train import Model

from ..backend import student_loss
from ..callbacks import AverageStatistics, EpochRecorder, EvaluateEveryN, SaveEveryEpoch, StopOnBadLoss, StopOnSignal
from ..checkpoint import load_student
from ..cpu.onednn import no_bfloat16_reason
from ..dataset import EpochBatches, training_pipeline
from ..loss import TeacherStudentLoss
from ..stpm import STPM
from ..utils import LOGGER, InputError
from .distributed import ALONE, Ranks, ShardedBatches, student_norm
from .run import TrainingRun
from .teacher import NormalisedTeacher, compute_teacher_features, prepare_teacher


class WeightedLoss(nn.Cell):
    """The loss of a rank's part of a batch, times the weight that ``ShardedBatches`` gives it: 0 if the rank has none.

    Inputs: the weight, float32 (), and the loss's own inputs.
    """

    def __init__(self, loss: nn.Cell):
        super().__init__()
        self.loss = loss

    def construct(self, weight: Tensor, *inputs: Tensor) -> Tensor:
        return weight * self.loss(*inputs)


def build_stpm(
    teacher_source: str,
    images: np.ndarray,
    *,
    num_class: int | None = None,
    init_from: Path | None = None,
    device_target: str = "CPU",
    ranks: Ranks = ALONE,
) -> STPM:
    """Build teacher and student: the teacher's weights from ``teacher_source``, the student's He-normal.

    Args:
        teacher_source: path of a ResNet-18 checkpoint, or "random": an untrained teacher, for trials without one.
        images: training images, uint8 (N, H, W, 3), on which a random teacher's batch-norm statistics are estimated.
        init_from: checkpoint of an earlier training with the same teacher, whose student this one starts as.
        ranks: all of them get the first one's weights.

    Raises:
        InputError: the checkpoint cannot be used.
    """
    stpm = STPM(student_norm=student_norm(ranks, device_target))
    prepare_teacher(stpm.model_t, teacher_source, images, num_class=num_class)
    if init_from:
        load_student(stpm, init_from)
        LOGGER.info("student: goes on from that of %s", init_from)
    ranks.broadcast_parameters(stpm)
    return stpm


def learning_rates(schedule: str, *, lr: float, steps: int) -> float | list[float]:
    """Return the constant learning rate, or a list with one for each step.

    Args:
        schedule: "constant", or "cosine": up to ``lr`` in a twentieth of the steps, then down along half a cosine that
            would reach 0 one step after the last (Loshchilov & Hutter 2017, equation 5, without restarts).
    """
    if schedule == "constant":
        return lr
    rising = -(-steps // 20)
    step = np.arange(steps)
    falling = (1 + np.cos(np.pi * (step - rising + 1) / (steps - rising + 1))) / 2
    return (lr * np.where(step < rising, (step + 1) / rising, falling)).tolist()


def build_optimiser(stpm: STPM, *, lr: float | list[float], momentum: float, weight_decay: float) -> nn.Optimizer:
    """Return SGD with Nesterov momentum over the student's parameters, as in the model zoo's train.py.

    As everywhere in MindSpore, weight decay leaves out batch norm's gamma and beta. For ``lr`` see ``learning_rates``.
    """
    nesterov = momentum > 0  # without momentum there is nothing to look ahead along, and MindSpore refuses it
    return nn.SGD(stpm.trainable_params(), lr, momentum, weight_decay=weight_decay, nesterov=nesterov)


def cached_features(stpm: STPM, images: np.ndarray, *, budget_bytes: int, spill_folder: Path) -> tuple[np.ndarray, ...]:
    """Compute the teacher's normalised features of all images once; see ``compute_teacher_features``."""
    started = time.perf_counter()
    teacher = NormalisedTeacher(stpm.model_t)
    features = compute_teacher_features(teacher, images, budget_bytes=budget_bytes, spill_folder=spill_folder)
    size = sum(level.nbytes for level in features)
    LOGGER.info("teacher features: %.2f GB in %.1f s", size / 1e9, time.perf_counter() - started)
    return features


def fit(
    run: TrainingRun,
    batches: EpochBatches,
    *,
    epochs: int,
    lr: float | list[float],
    device_target: str,
    amp_level: str = "O0",
    ranks: Ranks = ALONE,
    held_out_loss: Callable[[], float] | None = None,
    evaluate: Callable[[], dict] | None = None,
    eval_interval: int = 0,
) -> int | None:
    """Train from ``run.epoch`` to ``epochs``, saving after each epoch; return the signal that ended it early, or None.

    Args:
        batches: images, and the teacher's features where they are cached; not yet split among ranks.
        lr: the learning rate, or that of every step, quoted in an error message.
        ranks: the processes that train together; the first one writes.
        held_out_loss: computes the student's loss per held-out image, called after every epoch, for the record alone.
        evaluate: computes the metrics of the student as it is, called every ``eval_interval`` epochs.

    Raises:
        InputError: the loss is no longer finite, or a file cannot be written.
    """
    if run.epoch >= epochs:
        LOGGER.info("nothing to do: %d of %d epochs are trained", run.epoch, epochs)
        if ranks.is_first and not run.is_intact():
            LOGGER.warning("warning: %s is missing or damaged; it is written again", run.folder.checkpoint)
            run.save()
        return None
    stpm = run.stpm
    # on CPU mixed precision is the loss's own: what MindSpore would do is cast to float16, in graphs without kernels
    is_own = device_target == "CPU"
    network = student_loss(stpm.model_s, bfloat16=is_own and amp_level == "O2")
    if not batches.features:
        network = TeacherStudentLoss(NormalisedTeacher(stpm.model_t), network)
    # a data sink needs batches of equal shape; in most categories the last batch is smaller
    are_equal = len(batches.images) % batches.batch_size == 0 and batches.batch_size % ranks.count == 0
    use_sink = device_target != "CPU" and are_equal
    source = batches
    if ranks.count > 1:
        network, source = WeightedLoss(network), ShardedBatches(batches, ranks)
    model = Model(network, optimizer=run.optimiser, amp_level="O0" if is_own else amp_level)

    # in this order: statistics are averaged over ranks before they are evaluated, and an epoch is saved only if its
    # evaluation succeeded
    on_signal = StopOnSignal(ranks)
    recorder = EpochRecorder(run, images=len(batches.images), epochs=epochs, ranks=ranks, held_out_loss=held_out_loss)
    callbacks = [on_signal, StopOnBadLoss(lr), AverageStatistics(stpm.model_s, ranks), recorder]
    if evaluate and eval_interval:
        callbacks.append(EvaluateEveryN(run, evaluate, interval=eval_interval))
    if ranks.is_first:
        callbacks.append(SaveEveryEpoch(run))
    try:
        model.train(
            epochs,
            training_pipeline(source, source.columns),
            callbacks=callbacks,
            dataset_sink_mode=use_sink,
            initial_epoch=run.epoch,
        )
    finally:
        on_signal.restore()
    return on_signal.received


def check_amp_level(amp_level: str, device_target: str) -> None:
    """Refuse mixed precision that the device has no fast kernels for.

    Raises:
        InputError: the device is a CPU, and the level is neither O0 nor O2, or is O2 where bfloat16 is slow.
    """
    if device_target != "CPU" or amp_level == "O0":
        return
    if amp_level != "O2":
        raise InputError(f"--amp_level {amp_level}: needs an Ascend or GPU device; on CPU use O0 or O2")
    reason = no_bfloat16_reason()
    if reason:
        raise InputError(f"--amp_level {amp_level}: bfloat16 is not fast here: {reason}; use O0")
