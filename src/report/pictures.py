"""Pictures of anomaly maps, all on one colour scale."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.samples import GOOD, Sample
from ..files import atomic_path

_CAPTION_HEIGHT = 28
_GAP = 6
_PANEL, _LARGEST_PANEL = 256, 1024  # pixels
# The colour scale ends at twice its unit, so that what is just above 1 is told from what is far above.
_SCALE_END = 2.0


def scale_unit(scores: np.ndarray, is_good: np.ndarray) -> float:
    """Return the score that all pictures call 1: the highest of a good image, or of any where none is good."""
    return max(float(scores[is_good].max() if is_good.any() else scores.max()), float(np.finfo(np.float32).tiny))


def panel_size(width: float, height: float, *, longest: int = _PANEL) -> tuple[int, int]:
    """Return width and height scaled to a longer side."""
    scale = longest / max(height, width)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def colour_map(anomaly_map: np.ndarray, unit: float) -> np.ndarray:
    """Colour a map, float32 (H, W), by its value in units of ``unit``, 0 to 2: uint8 RGB (H, W, 3)."""
    scaled = np.clip(anomaly_map / unit / _SCALE_END, 0, 1)
    # inferno is perceptually uniform: equal steps of the value look equal
    return cv2.cvtColor(
        cv2.applyColorMap((scaled * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
    )


def scale_legend(unit_name: str) -> str:
    """Return the words that explain the colours: what 1 is."""
    return f"anomaly map: black 0, brightest {_SCALE_END:.0f} and above; 1 is {unit_name}"


def defect_overlay(image: np.ndarray, anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """Outline on the image what reaches the threshold: uint8 RGB, of a panel's size or the image's if that is larger.

    Args:
        image: uint8 RGB (H, W, 3).
        anomaly_map: float32 (H, W).
    """
    longest = max(_PANEL, *image.shape[:2])
    size = panel_size(image.shape[1], image.shape[0], longest=longest)
    outlined = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    anomaly_map = cv2.resize(anomaly_map, size, interpolation=cv2.INTER_LINEAR)
    contours = _contours(anomaly_map, threshold, cv2.CHAIN_APPROX_NONE)
    # dark below bright, to be seen on any product
    cv2.drawContours(outlined, contours, -1, (0, 0, 0), 3)
    cv2.drawContours(outlined, contours, -1, (255, 230, 0), 1)
    return outlined


def _contours(anomaly_map: np.ndarray, threshold: float, points: int) -> Sequence[np.ndarray]:
    """Return the outer contours of what reaches the threshold: int32 (points, 1, 2), x and y."""
    reached = (anomaly_map >= threshold).astype(np.uint8)
    return cv2.findContours(reached, cv2.RETR_EXTERNAL, points)[0]


def outline_path(anomaly_map: np.ndarray, threshold: float) -> str:
    """Return the outline of what reaches the threshold as an SVG path, through the middle of pixels of the map.

    Args:
        anomaly_map: float32 (H, W).
    """
    return "".join(
        "M" + " ".join(f"{x}.5 {y}.5" for x, y in contour.reshape(-1, 2)) + "Z"
        for contour in _contours(anomaly_map, threshold, cv2.CHAIN_APPROX_SIMPLE)
    )


def save_panels(
    path: Path, panels: list[np.ndarray], *, caption: str, legend: str, shape: tuple[int, int] | None = None
) -> None:
    """Write panels, uint8 RGB (H, W, 3), side by side, a line above and one below.

    Args:
        shape: width and height of what they show, whose aspect ratio they get; None: the panels' own.

    Raises:
        InputError: the file cannot be written.
    """
    height, width = panels[0].shape[:2]
    # small defects in large images are to be seen, too
    longest = min(max(_PANEL, height, width), _LARGEST_PANEL)
    panel_width, panel_height = panel_size(*(shape or (width, height)), longest=longest)
    sheet_width = max(len(panels) * (panel_width + _GAP), 3 * (_PANEL + _GAP)) + _GAP
    sheet = Image.new("RGB", (sheet_width, panel_height + 2 * _CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 6), caption, fill="black", font=ImageFont.load_default(size=14))
    draw.text((_GAP, panel_height + _CAPTION_HEIGHT + 6), legend, fill="black", font=ImageFont.load_default(size=12))
    for column, panel in enumerate(panels):
        picture = Image.fromarray(panel).resize((panel_width, panel_height), Image.Resampling.BILINEAR)
        sheet.paste(picture, (_GAP + column * (panel_width + _GAP), _CAPTION_HEIGHT))
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def typical_rows(samples: list[Sample], scores: np.ndarray) -> list[int]:
    """Return the row of the median score of each defect type, good first."""
    types = sorted({sample.defect for sample in samples}, key=lambda defect: (defect != GOOD, defect))
    chosen = []
    for defect in types:
        rows = [i for i, sample in enumerate(samples) if sample.defect == defect]
        chosen.append(sorted(rows, key=lambda i: scores[i])[len(rows) // 2])
    return chosen


def save_sample_sheet(
    path: Path,
    samples: list[Sample],
    images: np.ndarray,
    masks: np.ndarray,
    maps: np.ndarray,
    *,
    scores: np.ndarray,
    threshold: float | None = None,
) -> None:
    """Write image, mask and anomaly map side by side, one row for the median image of each defect type.

    Args:
        images: uint8 (N, H, W, 3).
        masks: resized grey masks, uint8 (N, H, W).
        maps: float32 (N, H, W).
        scores: of the images, float32 (N,).
        threshold: unit of the colour scale; None: the highest score of a good image.

    Raises:
        InputError: the file cannot be written.
    """
    unit = threshold or scale_unit(scores, np.array([not sample.is_defective for sample in samples]))
    unit_name = "the threshold" if threshold else "the highest score of a good image"
    rows = typical_rows(samples, scores)
    panel_width, panel_height = panel_size(images.shape[2], images.shape[1])
    row_height = panel_height + _CAPTION_HEIGHT
    sheet = Image.new("RGB", (3 * _PANEL + 4 * _GAP, len(rows) * (row_height + _GAP) + 2 * _CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    for number, row in enumerate(rows):
        top = number * (row_height + _GAP)
        sample = samples[row]
        caption = f"{sample.defect}/{sample.path.name}   score {scores[row] / unit:.2f}"
        draw.text((_GAP, top + 6), caption, fill="black", font=font)
        panels = (images[row], np.repeat(masks[row][..., None], 3, axis=2), colour_map(maps[row], unit))
        for column, panel in enumerate(panels):
            panel_image = Image.fromarray(panel).resize((panel_width, panel_height), Image.Resampling.NEAREST)
            sheet.paste(panel_image, (_GAP + column * (panel_width + _GAP), top + _CAPTION_HEIGHT))
    note = "image | mask | " + scale_legend(unit_name).replace("; ", ";\n")
    draw.text((_GAP, len(rows) * (row_height + _GAP)), note, fill="black", font=font)
    with atomic_path(path) as temporary:
        sheet.save(temporary)
