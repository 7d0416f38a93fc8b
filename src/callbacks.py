"""What happens during training: progress, evaluation, stopping and checkpoints."""

import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from mindspore import nn
from mindspore.train import Callback, RunContext
from tqdm import tqdm

from .utils import LOGGER, InputError

if TYPE_CHECKING:
    from .training.distributed import Ranks
    from .training.run import TrainingRun


def is_whole_epoch(run_context: RunContext) -> bool:
    """Tell whether the epoch that ends was trained to its last step."""
    params = run_context.original_args()
    return params.cur_step_num % params.batch_num == 0


def step_loss(run_context: RunContext) -> float:
    """Return the loss of the step that ended; with loss scaling it comes in a tuple with the scale."""
    outputs = run_context.original_args().net_outputs
    loss = outputs[0] if isinstance(outputs, tuple | list) else outputs
    return float(loss.asnumpy())


class StopOnSignal(Callback):
    """On SIGINT or SIGTERM, ends the training after the step (or sink) under way.

    Several ranks end together: after the epoch in which one of them received it.
    ``received`` is the signal's number afterwards, or None.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, ranks: "Ranks"):
        super().__init__()
        self.ranks = ranks
        self.received: int | None = None
        self._previous: dict[int, object] = {}

    def on_train_step_begin(self, run_context: RunContext) -> None:
        self._listen()

    def on_train_epoch_end(self, run_context: RunContext) -> None:
        self._listen()
        if self.ranks.count > 1:
            counts = self.ranks.sum(np.array([self.received == number for number in self._SIGNALS], np.float32))
            if counts.any():
                self.received = self._SIGNALS[int(counts.argmax())]
                run_context.request_stop()

    def _listen(self) -> None:
        # again and again, since MindSpore's data pipeline takes SIGINT over whenever it starts an epoch
        for number in self._SIGNALS:
            previous = signal.signal(number, self._remember)
            self._previous.setdefault(number, previous)

    def _remember(self, number: int, _frame: object) -> None:
        self.received = number
        end = "step" if self.ranks.count == 1 else "epoch"
        print(f"{signal.Signals(number).name}: stopping after this {end}", file=sys.stderr, flush=True)

    def on_train_step_end(self, run_context: RunContext) -> None:
        if self.received is not None and self.ranks.count == 1:
            run_context.request_stop()

    def restore(self) -> None:
        """Give the signals back to whom they were for, also after an error, which MindSpore tells no callback of."""
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


class EpochRecorder(Callback):
    """Records each whole epoch's loss and time in the run, and shows progress: a line each, and a bar on a terminal.

    The loss of an epoch is the mean over its batches, each summed over ranks; with a dataset sink, where only the last
    step's loss comes back, it is that one. The time is that of the training steps.

    Args:
        held_out_loss: computes the loss per held-out image, on all ranks together; None where none are held out.
    """

    def __init__(
        self,
        run: "TrainingRun",
        *,
        images: int,
        epochs: int,
        ranks: "Ranks",
        held_out_loss: Callable[[], float] | None = None,
    ):
        super().__init__()
        self.run, self.images, self.epochs, self.ranks = run, images, epochs, ranks
        self.held_out_loss = held_out_loss
        self.losses: list[float] = []
        self.shown: dict[str, str] = {}  # beside the bar
        self.started = 0.0
        self.bar: tqdm | None = None

    def on_train_begin(self, run_context: RunContext) -> None:
        if sys.stderr.isatty() and self.ranks.is_first:
            total = self.epochs * self.images
            done = self.run.epoch * self.images
            self.bar = tqdm(total=total, initial=done, unit="img", dynamic_ncols=True, smoothing=0.1)

    def on_train_epoch_begin(self, run_context: RunContext) -> None:
        self.losses, self.started = [], time.perf_counter()

    def on_train_step_end(self, run_context: RunContext) -> None:
        params = run_context.original_args()
        loss = step_loss(run_context)
        self.losses.append(loss)
        if self.bar:
            step = (params.cur_step_num - 1) % params.batch_num + 1
            self.bar.n = (params.cur_epoch_num - 1) * self.images + self.images * step // params.batch_num
            self.bar.set_description(f"epoch {params.cur_epoch_num}/{self.epochs}", refresh=False)
            self.bar.set_postfix(self.shown | {"loss": f"{loss:.3f}"})

    def on_train_epoch_end(self, run_context: RunContext) -> None:
        if not is_whole_epoch(run_context):
            return
        params = run_context.original_args()
        seconds = time.perf_counter() - self.started
        if self.ranks.count > 1:
            self.losses = self.ranks.sum(np.array(self.losses, np.float32)).tolist()
        loss = sum(self.losses) / len(self.losses)
        held_out = self.held_out_loss() if self.held_out_loss else None
        self.run.record_epoch(
            params.cur_epoch_num, loss=loss, last_loss=self.losses[-1], seconds=seconds, held_out_loss=held_out
        )
        left = (time.perf_counter() - self.started) * (self.epochs - params.cur_epoch_num)
        if held_out is not None:
            self.shown["held-out"] = f"{held_out:.4f}"
        if self.bar:
            self.bar.clear()
        LOGGER.info(
            "epoch %d/%d  loss %.4f  %s%.1f s (%.2f s per step)  %.1f images/s  ETA %s",
            params.cur_epoch_num,
            self.epochs,
            loss,
            "" if held_out is None else f"held-out {held_out:.4f} per image  ",
            seconds,
            seconds / params.batch_num,
            self.images / seconds,
            tqdm.format_interval(left),
        )

    def on_train_end(self, run_context: RunContext) -> None:
        if self.bar:
            self.bar.close()


class AverageStatistics(Callback):
    """Gives all ranks the same batch-norm statistics after each epoch, so that the first one's files stand for all."""

    def __init__(self, student: nn.Cell, ranks: "Ranks"):
        super().__init__()
        self.student, self.ranks = student, ranks

    def on_train_epoch_end(self, run_context: RunContext) -> None:
        self.ranks.average_statistics(self.student)


class EvaluateEveryN(Callback):
    """Evaluates every ``interval`` epochs on the test images, for information: no checkpoint is chosen by it."""

    def __init__(self, run: "TrainingRun", evaluate: Callable[[], dict], *, interval: int):
        super().__init__()
        self.run, self.evaluate, self.interval = run, evaluate, interval

    def on_train_epoch_end(self, run_context: RunContext) -> None:
        epoch = run_context.original_args().cur_epoch_num
        if epoch % self.interval or not is_whole_epoch(run_context):
            return
        results = self.evaluate()
        metrics = {name: results[name] for name in ("pixel_auroc", "image_auroc", "pro")}
        self.run.record_evaluation(epoch, metrics)
        LOGGER.info(
            "epoch %d  test images, for information: %s",
            epoch,
            "  ".join(f"{name} {value}" for name, value in metrics.items()),
        )


class SaveEveryEpoch(Callback):
    """Writes checkpoint, configuration, resume state and train.json after each whole epoch."""

    def __init__(self, run: "TrainingRun"):
        super().__init__()
        self.run = run

    def on_train_begin(self, run_context: RunContext) -> None:
        self.run.remove_leftovers()

    def on_train_epoch_end(self, run_context: RunContext) -> None:
        if is_whole_epoch(run_context):
            self.run.save()


class StopOnBadLoss(Callback):
    """Stops with an error where the loss is no longer finite, so that the last good checkpoint stays.

    Args:
        lr: learning rate, or that of every step; for the message.
    """

    def __init__(self, lr: float | list[float]):
        super().__init__()
        self.lr = lr

    def on_train_step_end(self, run_context: RunContext) -> None:
        params = run_context.original_args()
        loss = step_loss(run_context)
        if not abs(loss) < float("inf"):
            step = params.cur_step_num
            rate = self.lr[step - 1] if isinstance(self.lr, list) else self.lr
            raise InputError(
                f"loss is {loss} at step {step} (epoch {params.cur_epoch_num}) with learning rate {rate:g}: training "
                "diverged; try a smaller --lr of train.py. The checkpoint of the last whole epoch is kept"
            )
