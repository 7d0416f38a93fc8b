"""What the losses of a training's epochs say: the loss per image, and whether it was still falling at the end.

No mindspore here. Nothing is chosen by it, no epoch and no weights.
"""

import math
from collections.abc import Sequence

import numpy as np

# By how much of itself a loss must still fall from quarter to quarter. One that falls as a power of the epochs and just
# does so is lower by a tenth after twice as many.
MARGIN = 0.05
MIN_EPOCHS = 3  # in a quarter: of fewer, one epoch that stands out would be half of it


def falling_share(losses: Sequence[float | None]) -> float | None:
    """Return by how much of itself a loss fell from the third quarter of the epochs to the last one.

    Of each quarter, of at least ``MIN_EPOCHS`` epochs, the median counts: at a constant rate the loss of single epochs
    is off by a tenth, sometimes by a multiple, so that means, or shorter parts, would say what chance has it.

    Args:
        losses: of every epoch, in order; None where it is not known.

    Returns:
        0.02 for a fall by 2 %, below 0 for a rise; None where the two quarters are not there, or not known.
    """
    count = max(MIN_EPOCHS, len(losses) // 4)
    known = [loss for loss in losses[-2 * count :] if loss is not None and math.isfinite(loss)]
    if len(known) < 2 * count:
        return None
    before, last = np.median(known[:count]), np.median(known[count:])
    return float(1 - last / before) if before > 0 else None


def trend(losses: Sequence[float | None], *, schedule: str | None) -> str | None:
    """Say in a sentence whether the loss on held-out images was still falling, and what to do; None without one.

    Args:
        losses: of every epoch, in order; None where it is not known.
        schedule: of the learning rate; None: constant.
    """
    if not losses or losses[-1] is None:
        return None
    text = f"held-out loss {losses[-1]:.4f} per image"
    if schedule is not None:
        return (
            f"{text}; the end of a {schedule} is always flat: whether more epochs would help is told by a run of twice "
            "as many"
        )
    fall = falling_share(losses)
    if fall is None:
        return f"{text}; {len(losses)} epochs are too few to tell whether it is still falling"
    if fall > MARGIN:
        return (
            f"{text}; it was still falling, by {fall:.1%} in the last quarter of the epochs: train on (train.py "
            f"--resume --epoch {2 * len(losses)})"
        )
    return (
        f"{text}; it was no longer falling ({-fall:+.1%} in the last quarter of the epochs; a fall by more than "
        f"{MARGIN:.0%} would count)"
    )
