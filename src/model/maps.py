"""Anomaly maps of decoded images."""

from collections.abc import Callable

import numpy as np

from ..data.arrays import full_batches
from ..data.images import to_network_input

# A loaded model: a function from images, float32 (N, 3, H, W), to their anomaly maps, float32 (N, 1, H, W).
Network = Callable[[np.ndarray], np.ndarray]


def predict_maps(network: Network, images: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Compute the anomaly maps of decoded images in batches of one size.

    Args:
        images: uint8 (N, H, W, 3).

    Returns:
        float32 (N, H, W).
    """
    maps = np.empty(images.shape[:3], np.float32)
    for rows, new in full_batches(len(images), batch_size):
        maps[rows[:new]] = network(to_network_input(images[rows]))[:new, 0]
    return maps
