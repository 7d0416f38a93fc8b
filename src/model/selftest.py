"""What a model must compute of an image that is made by a formula, to try a device with. No mindspore here.

The values stand in an exported model's JSON; ``stpm_infer --selftest`` makes the same image and compares.
"""

import numpy as np

from ..data.images import formula_image
from ..data.view import ImageSize
from .maps import Network, predict_maps
from .sidecar import SelfTest

INPUT = "pattern-1"  # ``formula_image``
_GRID = 8


def make_selftest(network: Network, *, size: ImageSize) -> SelfTest:
    """Return score and some values of the map of ``formula_image``: on a grid, and the maximum itself.

    Args:
        network: computes in float32.
    """
    (one,) = predict_maps(network, formula_image(size)[None], batch_size=1)
    rows, columns = ([(2 * i + 1) * side // (2 * _GRID) for i in range(_GRID)] for side in size)
    highest = np.unravel_index(np.argmax(one), one.shape)
    places = [*((y, x) for y in rows for x in columns), (int(highest[0]), int(highest[1]))]
    pixels = [[y, x, float(one[y, x])] for y, x in places]
    return {"input": INPUT, "image_size": size.to_json(), "score": float(one.max()), "map": pixels}
