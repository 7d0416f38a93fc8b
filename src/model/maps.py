"""Anomaly maps of decoded images."""

from collections.abc import Callable

import numpy as np

from ..data.images import to_network_input

# Images in, float32 (N, 3, S, S); maps out, float32 (N, 1, S, S).
Detector = Callable[[np.ndarray], np.ndarray]


def predict_maps(anomaly_map: Detector, images: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Compute the anomaly maps of decoded images in batches of one size (the last is filled up, the filling dropped).

    Args:
        images: uint8 (N, S, S, 3).

    Returns:
        float32 (N, S, S).
    """
    count = len(images)
    maps = np.empty(images.shape[:3], np.float32)
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size) % count
        kept = min(batch_size, count - start)
        maps[start : start + kept] = anomaly_map(to_network_input(images[rows]))[:kept, 0]
    return maps
