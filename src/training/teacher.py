"""Where a teacher comes from, and its features, computed once."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from ..backend import FrozenFeatures, is_fast_on_cpu
from ..checkpoint import load_checked, load_teacher, named_arrays, named_parameters
from ..cpu.trunk import TrainingPass
from ..data.arrays import allocate
from ..data.images import to_network_input
from ..loss import normalise
from ..resnet import BN_EPS, CHANNELS, STRIDES, ResNet18Trunk
from ..utils import LOGGER, RANDOM_TEACHER

_BATCH_SIZE = 8  # as fast as larger ones on CPU, in less memory


class NormalisedTeacher(nn.Cell):
    """A teacher with the weights that it has now, and the normalisation of its features.

    Inputs: images, float32 (N, 3, S, S). Outputs: three float32 (N, C, h, w).
    """

    def __init__(self, trunk: ResNet18Trunk):
        super().__init__()
        self.features = FrozenFeatures(trunk) if is_fast_on_cpu() else trunk

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f1, f2, f3 = self.features(images)
        return normalise(f1), normalise(f2), normalise(f3)


def _full_batches(count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield row numbers in batches of one size, so that one compilation serves all, and how many of them are new."""
    for start in range(0, count, _BATCH_SIZE):
        yield np.arange(start, start + _BATCH_SIZE) % count, min(_BATCH_SIZE, count - start)


def estimate_batch_statistics(trunk: ResNet18Trunk, images: np.ndarray) -> None:
    """Give a He-initialised trunk the batch-norm statistics of the training images, in one pass over them.

    Random convolutions see structure, but only with activations of unit scale; this is the teacher for when no
    pretrained weights are at hand, such as the demo.

    Args:
        images: uint8 (N, S, S, 3).
    """
    batch_statistics = _fast_batch_statistics(trunk) if is_fast_on_cpu() else _batch_statistics(trunk)
    collected: dict[str, list[np.ndarray]] = {}
    for rows, _ in _full_batches(len(images)):
        for name, array in batch_statistics(to_network_input(images[rows])).items():
            collected.setdefault(name, []).append(array)
    statistics = {name: np.mean(arrays, axis=0) for name, arrays in collected.items()}
    load_checked(named_parameters(trunk), named_arrays(trunk) | statistics, source="random teacher")


def _fast_batch_statistics(trunk: ResNet18Trunk) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from images to the statistics of every batch norm, by the names of the moving ones."""
    weights = named_arrays(trunk)

    def compute(images: np.ndarray) -> dict[str, np.ndarray]:
        training = TrainingPass(weights, eps=BN_EPS)
        training.forward(images)
        return training.statistics

    return compute


def _batch_statistics(trunk: ResNet18Trunk) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return the same by MindSpore's operators."""
    weights = {name: array for name, array in named_arrays(trunk).items() if name.endswith("weight")}
    # momentum 0: after a batch the stored statistics are that batch's own
    probe = ResNet18Trunk(norm=partial(nn.BatchNorm2d, eps=BN_EPS, momentum=0.0))
    load_checked(named_parameters(probe), named_arrays(probe) | weights, source="random teacher")
    probe.set_train(True)

    def compute(images: np.ndarray) -> dict[str, np.ndarray]:
        probe(Tensor(images))
        return {name: array for name, array in named_arrays(probe).items() if "moving_" in name}

    return compute


def prepare_teacher(trunk: ResNet18Trunk, source: str, images: np.ndarray, *, num_class: int | None = None) -> None:
    """Fill a teacher trunk from a checkpoint, or from nothing but the training images.

    Args:
        source: path of a ResNet-18 checkpoint, or "random" for the calibrated random teacher.
        images: training images, uint8 (N, S, S, 3).

    Raises:
        InputError: the checkpoint cannot be used.
    """
    if source == RANDOM_TEACHER:
        estimate_batch_statistics(trunk, images)
        LOGGER.info(
            "teacher: random weights, batch norm calibrated on the %d training images; "
            "a pretrained one finds defects better",
            len(images),
        )
    else:
        load_teacher(trunk, Path(source), num_class=num_class)


def fingerprint(trunk: ResNet18Trunk) -> str:
    """Return the SHA-256 over a teacher's parameters."""
    digest = hashlib.sha256()
    for name, array in sorted(named_arrays(trunk).items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def compute_teacher_features(
    teacher: NormalisedTeacher, images: np.ndarray, *, budget_bytes: int, spill_folder: Path
) -> tuple[np.ndarray, ...]:
    """Compute the normalised teacher features of all images once: three float32 (N, C, h, w).

    Args:
        images: uint8 (N, S, S, 3).
        budget_bytes: what all three may take of memory; beyond it they are memory-mapped in ``spill_folder``.
    """
    count, image_size = images.shape[:2]
    shapes = [(count, c, image_size // s, image_size // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]
    total = sum(int(np.prod(shape)) for shape in shapes)
    # each level gets its share of the budget, so that either all fit in memory or none
    features = tuple(
        allocate(shape, np.float32, budget_bytes * int(np.prod(shape)) // total, spill_folder) for shape in shapes
    )
    teacher.set_train(False)
    for rows, kept in _full_batches(count):
        for array, level in zip(features, teacher(Tensor(to_network_input(images[rows]))), strict=True):
            array[rows[:kept]] = level.asnumpy()[:kept]
    return features
