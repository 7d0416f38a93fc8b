"""Where a teacher comes from, and its features, computed once."""

from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from ..backend import batch_statistics, teacher_features
from ..checkpoint import load_checked, load_teacher, named_arrays, named_parameters
from ..data.arrays import allocate, full_batches
from ..data.images import to_network_input
from ..loss import normalise
from ..resnet import CHANNELS, STRIDES, ResNet18Trunk
from ..utils import LOGGER, RANDOM_TEACHER

_BATCH_SIZE = 8  # as fast as larger ones on CPU, in less memory
_BATCH_PIXELS = _BATCH_SIZE * 256 * 256  # what such a batch takes is in proportion to its pixels


class NormalisedTeacher(nn.Cell):
    """A teacher with the weights that it has now, and the normalisation of its features.

    Inputs: images, float32 (N, 3, H, W). Outputs: three float32 (N, C, h, w).
    """

    def __init__(self, trunk: ResNet18Trunk):
        super().__init__()
        self.features = teacher_features(trunk)

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f1, f2, f3 = self.features(images)
        return normalise(f1), normalise(f2), normalise(f3)


def estimate_batch_statistics(trunk: ResNet18Trunk, images: np.ndarray) -> None:
    """Estimate the batch-norm statistics of a He-initialised trunk on the training images, in one pass over them.

    Random convolutions see structure, but only with activations of unit scale; this is the teacher for when no
    pretrained weights are at hand, such as the demo.

    Args:
        images: uint8 (N, H, W, 3).
    """
    statistics_of = batch_statistics(trunk)
    collected: dict[str, list[np.ndarray]] = {}
    for rows, _ in full_batches(len(images), _BATCH_SIZE):
        for name, array in statistics_of(to_network_input(images[rows])).items():
            collected.setdefault(name, []).append(array)
    statistics = {name: np.mean(arrays, axis=0) for name, arrays in collected.items()}
    load_checked(named_parameters(trunk), named_arrays(trunk) | statistics, source="random teacher")


def prepare_teacher(trunk: ResNet18Trunk, source: str, images: np.ndarray, *, num_class: int | None = None) -> None:
    """Fill a teacher trunk from a checkpoint, or from nothing but the training images.

    Args:
        source: path of a ResNet-18 checkpoint, or "random" for a He-initialised one with estimated statistics.
        images: training images, uint8 (N, H, W, 3).

    Raises:
        InputError: the checkpoint cannot be used.
    """
    if source == RANDOM_TEACHER:
        estimate_batch_statistics(trunk, images)
        LOGGER.info(
            "teacher: random weights, batch-norm statistics estimated on the %d training images; "
            "a pretrained one finds defects better",
            len(images),
        )
    else:
        load_teacher(trunk, Path(source), num_class=num_class)


def compute_teacher_features(
    teacher: NormalisedTeacher, images: np.ndarray, *, budget_bytes: int, spill_folder: Path
) -> tuple[np.ndarray, ...]:
    """Compute the normalised teacher features of all images once: three float32 (N, C, h, w).

    Args:
        images: uint8 (N, H, W, 3).
        budget_bytes: what all three may take of memory; beyond it they are memory-mapped in ``spill_folder``.
    """
    count, height, width = images.shape[:3]
    shapes = [(count, c, height // s, width // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]
    total = sum(int(np.prod(shape)) for shape in shapes)
    # each level gets its share of the budget, so that either all fit in memory or none
    features = tuple(
        allocate(shape, np.float32, budget_bytes * int(np.prod(shape)) // total, spill_folder) for shape in shapes
    )
    teacher.set_train(False)
    batch_size = min(_BATCH_SIZE, max(1, _BATCH_PIXELS // (height * width)))
    for rows, new in full_batches(count, batch_size):
        for array, level in zip(features, teacher(Tensor(to_network_input(images[rows]))), strict=True):
            array[rows[:new]] = level.asnumpy()[:new]
    return features
