"""The demo's second product: a woven web under a line-scan camera, with defects of a few pixels."""

from collections.abc import Callable

import cv2
import numpy as np

HEIGHT, WIDTH = 800, 1280  # lines and pixels of a line; lengths below are in pixels of this picture
_PITCH = 8.0  # from thread to thread, in both directions
_ROLLER = 52.0  # grey value of what shows where there is no thread
_MARGIN = 20  # defects lie at least this far from the picture's edges
# A defect's opacity from which a pixel counts as changed.
_VISIBLE = 0.1
# (picture float32 (H, W), random generator) -> the new picture and the defect's opacity (H, W)
Defect = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def _smooth_noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Return noise (H, W) of mean 0 and deviation 1 with structures of about ``sigma`` pixels."""
    step = max(int(sigma / 3), 1)  # what is smooth is drawn small
    noise = rng.standard_normal((-(-HEIGHT // step), -(-WIDTH // step))).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigma / step)
    if step > 1:
        noise = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return (noise - noise.mean()) / noise.std()


def _plain_weave(rng: np.random.Generator) -> np.ndarray:
    """Return the web, float32 (H, W): each thread passes over one and under the next, no two are equally bright."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    phase, skew = rng.uniform(0, 2 * _PITCH, 2), rng.uniform(-0.006, 0.006, 2)
    across_warp = (columns + skew[0] * rows + 1.5 * _smooth_noise(rng, 50) + phase[0]) / _PITCH + 4
    across_weft = (rows + skew[1] * columns + 1.5 * _smooth_noise(rng, 50) + phase[1]) / _PITCH + 4
    shades = rng.normal(0, 4, (2, 256)).astype(np.float32)
    warp, weft = across_warp.astype(np.int32), across_weft.astype(np.int32)
    of_warp, of_weft = (np.cos(np.pi * (one % 1 - 0.5)) for one in (across_warp, across_weft))  # 1 in the middle
    is_warp_above = (warp + weft) % 2 == 0
    # a thread is round, and bent where it dives below its neighbours
    above = np.where(is_warp_above, of_warp * (0.7 + 0.3 * of_weft), of_weft * (0.7 + 0.3 * of_warp))
    shade = np.where(is_warp_above, shades[0, warp % 256] + 5, shades[1, weft % 256] - 5)
    return 92 + 62 * above + shade + 4 * _smooth_noise(rng, 0.8) + 3 * _smooth_noise(rng, 30)


def _expose(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply the lamp's profile along the line, each pixel's own gain, the drift from line to line, noise: uint8."""
    along = np.linspace(-1, 1, WIDTH)
    line = (1 - 0.08 * along**2 + rng.uniform(-0.03, 0.03) * along) * (1 + rng.normal(0, 0.004, WIDTH))
    drift = 1 + 0.01 * np.sin(np.linspace(0, rng.uniform(2, 9), HEIGHT) + rng.uniform(0, 2 * np.pi))
    light = rng.uniform(0.95, 1.05) * drift[:, None] * line
    noisy = picture * light + rng.normal(0, 2, picture.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def _place(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return, for a random point, every pixel's distance from it to the right and downwards: two of (H, W)."""
    x, y = rng.uniform(_MARGIN, WIDTH - _MARGIN), rng.uniform(_MARGIN, HEIGHT - _MARGIN)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    return columns - np.float32(x), rows - np.float32(y)


def _turned(dx: np.ndarray, dy: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances along and across a direction."""
    return dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)


def _break(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A weft thread broken over 9 to 12 pixels: a dull gap, 4 to 5 pixels high."""
    dx, dy = _place(rng)
    length, height = rng.uniform(9, 12), rng.uniform(4, 5)
    inside = np.clip(length / 2 + 0.5 - np.abs(dx), 0, 1) * np.clip(height / 2 + 0.5 - np.abs(dy), 0, 1)
    opacity = 0.75 * inside
    ground = 88 + 3 * _smooth_noise(rng, 0.8)
    return picture * (1 - opacity) + ground * opacity, opacity


def _fibre(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dark fibre of something else, woven in: 9 to 12 pixels long, about 2 wide, bent."""
    along, across = _turned(*_place(rng), rng.uniform(0, np.pi))
    length, bend = rng.uniform(9, 12), rng.uniform(-0.06, 0.06)
    distance = np.abs(across - bend * (along**2 - length**2 / 12))
    opacity = 0.55 * np.clip(1.6 - distance, 0, 1) * np.clip(length / 2 + 0.5 - np.abs(along), 0, 1)
    return picture * (1 - opacity) + 40 * opacity, opacity


def _hole(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A pinhole, 4 to 6 pixels wide, through which the roller shows."""
    along, across = _turned(*_place(rng), rng.uniform(0, np.pi))
    radius = rng.uniform(2, 3)
    opacity = 0.7 * np.clip(radius + 0.5 - np.hypot(along, across * rng.uniform(1, 1.3)), 0, 1)
    return picture * (1 - opacity) + _ROLLER * opacity, opacity


def _knot(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A knot in a thread, 6 to 9 pixels by 5 to 6: bright, with its shadow below."""
    dx, dy = _place(rng)
    width, height = rng.uniform(6, 9), rng.uniform(5, 6)
    bump = np.clip(1.2 - np.hypot(dx / (width / 2), dy / (height / 2)), 0, 0.6) / 0.6
    shadow = np.roll(bump, 2, 0) * (1 - bump)
    return picture + 34 * bump - 30 * shadow, np.maximum(bump, shadow)


def _stain(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A drop of oil, 8 to 12 pixels wide: a fifth darker, the threads show through."""
    dx, dy = _place(rng)
    distance = np.hypot(dx, dy) + 0.6 * _smooth_noise(rng, 2)
    opacity = np.clip((rng.uniform(4, 6) + 0.5 - distance) / 2, 0, 1)
    return picture * (1 - 0.22 * opacity), opacity


DEFECTS: dict[str, Defect] = {"break": _break, "fibre": _fibre, "hole": _hole, "knot": _knot, "stain": _stain}


def draw(defect: str | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a stretch of the web, good (None) or with a defect.

    Returns:
        The picture, uint8 (H, W), and the mask, uint8 (H, W), 0 or 255.
    """
    picture = _plain_weave(rng)
    opacity = np.zeros((HEIGHT, WIDTH), np.float32)
    if defect:
        picture, opacity = DEFECTS[defect](picture, rng)
    return _expose(picture, rng), np.where(opacity > _VISIBLE, 255, 0).astype(np.uint8)
