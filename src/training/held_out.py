"""The loss on good images that are not trained on: is a student trained enough? No defective image is needed to say."""

import math

import numpy as np

from ..backend import EvaluationLoss
from ..data.images import to_network_input
from ..stpm import STPM
from ..utils import InputError
from .distributed import ALONE, Ranks

_BATCH_SIZE = 8  # as of the teacher's features


class HeldOutLoss:
    """A function that returns the loss per image of a student as it is, in evaluation.

    Args:
        images: uint8 (N, H, W, 3), whole ones or pieces.
        features: the teacher's normalised features of these images, three float32 (N, C, h, w).
        counted: which of their positions count, three float32 (N, 1, h, w); nothing: all do.
        ranks: those that each hold a share of the images and call this together; all get the same number.
        share: 0 where this rank's images are in another's share, else 1 (``shard_of``).
    """

    def __init__(
        self,
        stpm: STPM,
        images: np.ndarray,
        features: tuple[np.ndarray, ...],
        counted: tuple[np.ndarray, ...] = (),
        *,
        ranks: Ranks = ALONE,
        share: float = 1.0,
    ):
        self._images, self._columns = images, (*features, *counted)
        self._ranks, self._share = ranks, share
        self._loss = EvaluationLoss(stpm)

    def __call__(self) -> float:
        """Compute it: the sum over scales of the layer losses of ``src.loss``, as a mean over images or pieces.

        Raises:
            InputError: it is not finite.
        """
        self._loss.refresh_weights()
        total = 0.0
        for start in range(0, len(self._images), _BATCH_SIZE):
            rows = slice(start, start + _BATCH_SIZE)
            total += self._loss(to_network_input(self._images[rows]), *(one[rows] for one in self._columns))
        sums = self._share * np.array([total, len(self._images)], np.float32)
        total, count = self._ranks.sum(sums.astype(np.float32)).tolist()
        if not math.isfinite(total):
            raise InputError(
                f"the loss on held-out images is {total}: training diverged; try a smaller --lr of train.py. The "
                "checkpoint of the epoch before is kept"
            )
        return total / count
