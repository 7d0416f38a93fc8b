"""A training's batches, epoch by epoch, and their MindSpore pipeline; as a program, the check of a data set.

    python -m src.dataset --check DATASET_PATH

Folders are listed in ``src.data.samples``, pictures decoded in ``src.data.images`` and ``src.data.arrays``.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .config import build_parser
from .data.images import to_network_input
from .utils import run_entry_point

if TYPE_CHECKING:
    import mindspore.dataset as ds


def epoch_order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return the order of the training images in an epoch (from 1): a function of seed and epoch, nothing else."""
    return np.random.default_rng((seed, epoch)).permutation(count)


class EpochBatches:
    """Iterable of a training epoch's batches; each new iteration is the next epoch.

    Yields images, float32 (B, 3, H, W), and their rows of ``features`` and ``weights``; the last batch may be smaller.

    Args:
        images: uint8 (N, H, W, 3), whole ones or pieces.
        features: the teacher's, where they are cached: arrays with N rows.
        weights: of the features' positions, where some do not count: arrays with N rows.
        first_epoch: number of the first epoch that is iterated, from 1.
    """

    def __init__(
        self,
        images: np.ndarray,
        features: tuple[np.ndarray, ...],
        weights: tuple[np.ndarray, ...] = (),
        *,
        batch_size: int,
        seed: int,
        first_epoch: int,
    ):
        self.images, self.features, self.weights = images, features, weights
        self.batch_size, self.seed = batch_size, seed
        self.next_epoch = first_epoch
        of_teacher, of_weights = ([f"{name}_{i}" for i in range(3)] for name in ("teacher", "weight"))
        self.columns = ("images", *of_teacher[: len(features)], *of_weights[: len(weights)])

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        for rows in self.next_rows():
            yield self.load(rows)

    def next_rows(self) -> Iterator[np.ndarray]:
        """Yield the row numbers of the batches of the next epoch: int64 (B,)."""
        order = epoch_order(len(self.images), seed=self.seed, epoch=self.next_epoch)
        self.next_epoch += 1
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def load(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return images, float32 (B, 3, H, W), and their rows of ``features`` and ``weights``."""
        return to_network_input(self.images[rows]), *(array[rows] for array in (*self.features, *self.weights))


def training_pipeline(batches: Iterable[tuple[np.ndarray, ...]], columns: tuple[str, ...]) -> "ds.GeneratorDataset":
    """Wrap batches with the named columns in a ``mindspore.dataset`` pipeline, one thread ahead of the training."""
    import mindspore.dataset as ds

    ds.config.set_prefetch_size(1)  # a batch with its teacher features is 85 MB at the default sizes
    return ds.GeneratorDataset(
        batches, list(columns), shuffle=False, num_parallel_workers=1, python_multiprocessing=False
    )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of ``python -m src.dataset``."""
    parser = build_parser("Check a data set in MVTec AD's layout.")
    parser.add_argument("--check", type=Path, required=True, metavar="DATASET_PATH", help="data set folder")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    """Check every category; return 0, or 1 where something is wrong."""
    from .data.check import check_dataset

    return 1 if check_dataset(args.check) else 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
