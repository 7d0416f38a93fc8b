"""Where on the picture a defect is: connected regions of the anomaly map that reach the threshold."""

from dataclasses import dataclass

import cv2
import numpy as np

from ..data.view import Box
from .decision import DecisionRule, find_components


@dataclass(frozen=True)
class Region:
    """One region, in pixels of the original picture as it is shown upright.

    Attributes:
        x, y: left and upper edge of its box.
        width, height: of its box.
        area: of the region itself.
        score: its highest anomaly value.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    score: float


def find_regions(anomaly_map: np.ndarray, rule: DecisionRule, *, box: Box) -> list[Region]:
    """Return the 8-connected regions that make an image defective by a rule with a threshold, the highest first.

    Args:
        anomaly_map: float32 (H, W), of the resized picture or its region of interest.
        box: the part of the picture that the map is of.
    """
    assert rule.threshold is not None
    labels, boxes = find_components(anomaly_map, rule.threshold)
    rows, columns = anomaly_map.shape
    regions = []
    for i in range(1, len(boxes)):  # 0 is the background
        left, top, width, height, area = (int(value) for value in boxes[i])
        if area < rule.min_area:
            continue
        # from edge to edge, so that boxes of whole pixels cover what they stand for; in whole numbers, since a rounded
        # scale would put edges beyond the picture's
        x, y = left * box.width // columns, top * box.height // rows
        right, bottom = -(-(left + width) * box.width // columns), -(-(top + height) * box.height // rows)
        inside = np.s_[top : top + height, left : left + width]
        score = float(anomaly_map[inside][labels[inside] == i].max())
        pixels = round(area * box.width * box.height / anomaly_map.size)
        regions.append(Region(box.x + x, box.y + y, right - x, bottom - y, pixels, score))
    # of equal ones from the top, as in the C++ program: OpenCV numbers regions in an order of its own
    return sorted(regions, key=lambda region: (-region.score, region.y, region.x))


def without_small_regions(anomaly_map: np.ndarray, rule: DecisionRule) -> np.ndarray:
    """Return a map, float32 (H, W), with 0 where it reaches the threshold in regions that are too small to count."""
    if rule.min_area == 1:
        return anomaly_map
    assert rule.threshold is not None
    labels, boxes = find_components(anomaly_map, rule.threshold)
    is_small = boxes[:, cv2.CC_STAT_AREA] < rule.min_area
    is_small[0] = False  # the background
    return np.where(is_small[labels], np.float32(0), anomaly_map)
