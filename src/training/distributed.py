"""Data-parallel training: the one place that knows about ranks, the processes that ``msrun`` starts.

Every rank holds the whole model and computes its shard of each batch. MindSpore sums the gradients over ranks; the
loss is a sum over the batch, so that the sum over shards is the gradient of the whole batch.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..dataset import EpochBatches
from ..utils import LOGGER, InputError, end_with_parent

if TYPE_CHECKING:
    from mindspore import Parameter, nn

# What msrun tells the processes that it starts, and init() needs.
_MSRUN_VARIABLES = ("MS_ROLE", "MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT")


@dataclass(frozen=True)
class Ranks:
    """This process, ``rank``, among the ``count`` that train together; by default it is alone."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Tell whether this is the rank that writes and reports."""
        return self.rank == 0

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Sum float32 arrays of one shape over all ranks, each of which must call this; the same on all of them.

        On CPU a rank that waits for another gives up after 30 s, so that all must take about as long between calls.
        """
        if self.count == 1:
            return array
        from mindspore import Tensor, ops

        return ops.AllReduce(ops.ReduceOp.SUM)(Tensor(array)).asnumpy().copy()

    def broadcast_parameters(self, cell: "nn.Cell") -> None:
        """Give all ranks the first one's parameters."""
        self._reduce(dict(cell.parameters_and_names()), weight=float(self.is_first))

    def average_statistics(self, cell: "nn.Cell") -> None:
        """Give all ranks the mean of their moving batch-norm statistics, which each has collected from its shards."""
        moving = {name: parameter for name, parameter in cell.parameters_and_names() if "moving_" in name}
        self._reduce(moving, weight=1 / self.count)

    def _reduce(self, parameters: dict[str, "Parameter"], *, weight: float) -> None:
        """Replace float32 parameters by their sum over ranks, each times its rank's ``weight``; in one call."""
        if self.count == 1:
            return
        from mindspore import Tensor

        arrays = [parameter.asnumpy() for parameter in parameters.values()]
        flat = np.concatenate([array.ravel() for array in arrays]) * np.float32(weight)
        parts = np.split(self.sum(flat), np.cumsum([array.size for array in arrays])[:-1])
        for parameter, part in zip(parameters.values(), parts, strict=True):
            parameter.set_data(Tensor(part.reshape(parameter.shape)))


ALONE = Ranks()


def check_launcher() -> None:
    """Check that msrun started this process, and leave all reports but errors to the first rank.

    Raises:
        InputError: msrun did not, or a variable that it sets has been changed.
    """
    if any(name not in os.environ for name in _MSRUN_VARIABLES):
        raise InputError(
            "--distributed True: this process was not started by msrun; use scripts/run_distribute_train.sh"
        )
    for name in ("MS_WORKER_NUM", "MS_SCHED_PORT", "RANK_ID"):
        value = os.environ.get(name, "0")
        if not value.isdecimal():
            raise InputError(f"{name} {value!r}: expected a whole number; scripts/run_distribute_train.sh sets it")
    _leave_reports_to_first(int(os.environ.get("RANK_ID", "0")))


def start() -> Ranks:
    """Join the other ranks; the device must be set. In msrun's scheduler process this does not return."""
    import mindspore as ms
    from mindspore.communication import get_group_size, get_rank, init

    # msrun does not pass SIGTERM on: have it from the system when msrun ends
    end_with_parent(signal.SIGTERM)
    init()
    ranks = Ranks(get_rank(), get_group_size())
    _leave_reports_to_first(ranks.rank)
    if ranks.count > 1:
        ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=False)
    LOGGER.info("ranks: %d", ranks.count)
    return ranks


def _leave_reports_to_first(rank: int) -> None:
    if rank:
        LOGGER.setLevel(logging.ERROR)


def shard_of(rows: np.ndarray, ranks: Ranks) -> tuple[np.ndarray, np.float32]:
    """Return a rank's part of a batch and the weight of its loss.

    The parts are contiguous and as equal as possible, the larger ones first. A rank for which nothing is left has to
    take part in the sum of the gradients all the same: it gets the first row, with weight 0.
    """
    shard = np.array_split(rows, ranks.count)[ranks.rank]
    return (shard, np.float32(1)) if len(shard) else (rows[:1], np.float32(0))


class ShardedBatches:
    """Iterable of one rank's shards of an epoch's batches; the order is that of the whole batches.

    Yields the weight of the loss, float32 (), and the columns of ``batches``.
    """

    def __init__(self, batches: EpochBatches, ranks: Ranks):
        self.batches, self.ranks = batches, ranks
        self.columns = ("weight", *batches.columns)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        for rows in self.batches.next_rows():
            shard, weight = shard_of(rows, self.ranks)
            yield np.asarray(weight), *self.batches.load(shard)


def student_norm(ranks: Ranks, device_target: str) -> Callable[[int], "nn.Cell"]:
    """Return what normalises the student: batch norm over all ranks where MindSpore has it, which is on Ascend."""
    from ..resnet import batch_norm, sync_batch_norm

    return sync_batch_norm if ranks.count > 1 and device_target == "Ascend" else batch_norm
