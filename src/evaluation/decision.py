"""The decision on an image: from its anomaly map to score and verdict. No mindspore, scipy or sklearn here."""

from dataclasses import dataclass

import cv2
import numpy as np

GOOD, REVIEW, DEFECTIVE = "good", "review", "defective"


def image_scores(maps: np.ndarray) -> np.ndarray:
    """Return the anomaly score of each image, the maximum of its map: (N, H, W) -> (N,)."""
    return maps.max(axis=(1, 2))


def is_anomalous(scores: np.ndarray | float, threshold: float) -> np.ndarray | np.bool_:
    """Tell which scores are those of defective images; compares float32 numbers, as the C++ program does."""
    return np.asarray(scores, np.float32) >= np.float32(threshold)


@dataclass(frozen=True)
class DecisionRule:
    """How anomaly maps become scores and verdicts.

    Attributes:
        threshold: score from which an image is defective, a float32 number; None: there are no verdicts.
        min_area: pixels of an anomaly map; smaller regions make no image defective.
        review: share of the threshold from which a person is to look at an image; None: nobody is.
        source: where the threshold comes from, in words.
    """

    threshold: float | None = None
    min_area: int = 1
    review: float | None = None
    source: str = ""

    def scores(self, maps: np.ndarray) -> np.ndarray:
        """Return the anomaly score of each image: float32 (N, H, W) -> (N,).

        It is the highest level at which a region of ``min_area`` is left of the map: with an area of 1 pixel its
        maximum, which is the paper's score. So a region of that area reaches the threshold exactly if the score does.
        """
        if self.min_area == 1:
            return image_scores(maps)
        return np.array([region_level(one, self.min_area) for one in maps], np.float32)

    def relative(self, score: float) -> float:
        """Return a score as a share of the threshold, which there must be; a float32 number, as in the C++ program."""
        return float(np.float32(score) / np.float32(self.threshold))

    def verdict(self, score: float) -> str | None:
        """Return what to call an image of this score; None without a threshold."""
        if self.threshold is None:
            return None
        if is_anomalous(score, self.threshold):
            return DEFECTIVE
        return REVIEW if self.is_doubtful(score) else GOOD

    def is_doubtful(self, scores: np.ndarray | float) -> np.ndarray | np.bool_:
        """Tell which scores are for review: not those of defective images, and from the share of the threshold on."""
        if self.threshold is None or self.review is None:
            return np.zeros(np.shape(scores), bool)
        relative = np.asarray(scores, np.float32) / np.float32(self.threshold)
        return (relative >= np.float32(self.review)) & ~is_anomalous(scores, self.threshold)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """All that images may be called, from good to bad."""
        if self.threshold is None:
            return ()
        return (GOOD, DEFECTIVE) if self.review is None else (GOOD, REVIEW, DEFECTIVE)


def find_components(anomaly_map: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the 8-connected parts of a map, float32 (H, W), that reach a level.

    Returns:
        Of each pixel the number of its part, 0 for none of them, int32 (H, W); of each number left and upper edge,
        width, height and area, int32 (parts + 1, 5).
    """
    reached = (anomaly_map >= level).astype(np.uint8)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(reached, connectivity=8)
    return labels, boxes


def region_level(anomaly_map: np.ndarray, min_area: int) -> float:
    """Return the highest level that an 8-connected region of at least so many pixels reaches: float32 (H, W).

    This is the maximum of the map's area opening (Vincent, "Grayscale area openings and closings", 1993).
    """
    levels = np.sort(anomaly_map, axis=None)[::-1]

    def is_reached(rank: int) -> bool:
        _, boxes = find_components(anomaly_map, levels[rank])
        return boxes[1:, cv2.CC_STAT_AREA].max() >= min_area

    # no fewer pixels will do; a compact region needs hardly more, a scattered one any number
    low = high = min_area - 1
    step = min_area
    while not is_reached(high):
        low, high, step = high + 1, min(high + step, levels.size - 1), 2 * step
    while low < high:
        middle = (low + high) // 2
        if is_reached(middle):
            high = middle
        else:
            low = middle + 1
    return float(levels[high])
