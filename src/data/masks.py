"""A mask's decoded picture -> grey levels, 255 on the defect; and what in it is doubtful."""

import numpy as np
from PIL import Image, ImageChops

_HALF = 128  # the level from which a pixel is nearer to marked than to unmarked
_REACH = 4  # pixels that resampling smears an edge by, to either side
# share of grey pixels away from edges: resampled masks of MVTec AD have up to 0.02, the same as JPEGs 0.08 and more
_STRAY = 0.05


def two_valued(image: Image.Image) -> Image.Image | None:
    """Return a mask of exactly two values, one of them 0 (black), with 255 for the other one; None for others."""
    if image.mode == "L":  # nearly all of them
        levels = np.flatnonzero(image.histogram())
        if len(levels) != 2 or levels[0] != 0:
            return None
        return image if levels[1] == 255 else image.point(lambda level: 255 if level else 0)
    if not image.mode.startswith("I"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    is_marked = pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0
    values = pixels[is_marked]
    if is_marked.all() or not len(values) or (values != values[0]).any():
        return None
    return Image.fromarray(is_marked.astype(np.uint8) * np.uint8(255))


def brightest_channel(image: Image.Image) -> Image.Image:
    """Return the level of the brightest colour channel: red is as bright as white, grey is as it was."""
    red, green, blue = image.convert("RGB").split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def find_doubts(mask: np.ndarray) -> dict[str, str]:
    """Tell what is doubtful in a mask, uint8 (H, W): by kind of doubt, the sentence that says it."""
    doubts = {}
    is_marked = mask >= _HALF
    share = is_marked.mean()
    if share > 0.5:
        doubts["inverted"] = f"marks {share:.0%} of its picture: are black and white swapped?"
    is_grey = (mask > 0) & (mask < 255)
    if is_grey.any():
        at_edges = _grown(is_marked) & _grown(~is_marked)
        if (is_grey & ~at_edges).sum() > _STRAY * is_grey.sum():
            doubts["grey"] = (
                "is not two-valued: grey levels far from any edge, as JPEG or several labels in one mask give them, "
                "of which those from 128 on count as defective; expected 0 and 255, in a PNG"
            )
    return doubts


def _grown(area: np.ndarray) -> np.ndarray:
    """Widen an area, bool (H, W), by ``_REACH`` pixels to all sides."""
    for _ in range(2):  # along either axis
        wide = area.copy()
        for shift in range(1, _REACH + 1):
            wide[shift:] |= area[:-shift]
            wide[:-shift] |= area[shift:]
        area = wide.T
    return area
