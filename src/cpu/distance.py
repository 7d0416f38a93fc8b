"""The loss of one scale and its gradient, on numpy arrays, image by image, so that all of it stays in the cache."""

import numpy as np

from .parallel import parallel_for


def layer_loss(
    teacher: np.ndarray, student: np.ndarray, result: np.ndarray, *, eps: float, counted: np.ndarray | None = None
) -> np.ndarray:
    """Compute 0.5 / (w*h) * sum of (t - s / |s|)^2 of every image (paper, equations 1 and 2) and its gradient.

    With s_hat = s / |s| the gradient with respect to s is -(t - s_hat * (t . s_hat)) / (w*h * |s|).

    Args:
        teacher: t, normalised over channels, float32 (N, C, h, w).
        student: s, float32 (N, C, h, w).
        result: like ``student``, is written: the gradient of the sum of losses with respect to it.
        eps: is added to |s|^2.
        counted: 1 where a position counts, else 0, float32 (N, 1, h, w); None: all do.

    Returns:
        float32 (N,).
    """
    count, channels, height, width = student.shape
    positions = height * width
    losses = np.empty(count, np.float32)

    def compute(rows: slice) -> None:
        for i in range(rows.start, rows.stop):
            t, s, gradient = (array[i].reshape(channels, positions) for array in (teacher, student, result))
            inverse = 1 / np.sqrt(np.einsum("cp,cp->p", s, s) + np.float32(eps))  # (h*w,)
            s_hat = s * inverse
            np.subtract(t, s_hat, out=gradient)
            if counted is not None:
                gradient *= counted[i].reshape(positions)
                inverse *= counted[i].reshape(positions)
            losses[i] = np.vdot(gradient, gradient) * (0.5 / positions)
            s_hat *= np.einsum("cp,cp->p", t, s_hat)
            np.subtract(s_hat, t, out=gradient)
            gradient *= inverse / positions

    parallel_for(compute, count)
    return losses
