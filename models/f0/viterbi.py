"""CREPE's smoothing: the likeliest path through pitch bins when a step of d bins has the probability of a triangle."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

REACH: Final = 11  # the longest step, in bins
_STEP: Final = np.log((REACH + 1 - np.abs(np.arange(-REACH, REACH + 1))) / (REACH + 1) ** 2)


def best_path(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The path of the highest sum of scores and log-probabilities of steps.

    torchcrepe takes the log of a softmax over the network's probabilities as score, which is those probabilities
    themselves but for a constant a frame; and its transition matrix is this triangle for all bins between 50 and
    1100 Hz.

    Args:
        scores: `[T, N]`.

    Returns:
        `[T]` bins, 0..N-1.
    """
    count, bins = scores.shape
    came_from = np.empty((count, bins), np.int8)
    padded = np.full(bins + 2 * REACH, -np.inf)
    value = padded[REACH:-REACH]
    value[:] = scores[0]
    candidates = sliding_window_view(padded, 2 * REACH + 1)
    for frame in range(1, count):
        reached = candidates + _STEP
        step = reached.argmax(axis=1)
        came_from[frame] = step
        value[:] = np.take_along_axis(reached, step[:, None], axis=1)[:, 0] + scores[frame]
    return _traced(came_from, int(value.argmax()))


def _traced(came_from: NDArray[np.int8], last: int) -> NDArray[np.int64]:
    path = np.empty(len(came_from), np.int64)
    path[-1] = last
    for frame in range(len(came_from) - 1, 0, -1):
        path[frame - 1] = path[frame] + came_from[frame, path[frame]] - REACH
    return path
