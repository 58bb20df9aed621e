"""Counts where audio is clipped: runs of samples at full scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio.types import AudioSource, iter_blocks

FULL_SCALE = 32767 / 32768  # the largest positive value of 16 bits
MIN_RUN = 3  # samples


@dataclass(frozen=True)
class Clipping:
    """Runs of at least three consecutive samples of one channel at or above full scale.

    Args:
        runs: how many there are, in all channels together.
        samples: in all of them together.
        longest: samples of the longest one.
    """

    runs: int
    samples: int
    longest: int


def find_clipping(source: AudioSource) -> Clipping:
    """Counts the clipped runs, block by block; a run may extend over several blocks."""
    lengths: list[NDArray[np.int64]] = []
    open_runs = np.zeros(source.channels, np.int64)  # samples of the run at the end of the last block
    for block in iter_blocks(source):
        is_clipped = np.abs(block) >= FULL_SCALE
        for channel, row in enumerate(is_clipped):
            edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False])).astype(np.int8)))
            runs = edges[1::2] - edges[::2]
            if row[0]:
                runs[0] += open_runs[channel]
            else:
                runs = np.concatenate((open_runs[channel : channel + 1], runs))
            open_runs[channel] = runs[-1] if row[-1] else 0
            lengths.append(runs[:-1] if row[-1] else runs)
    runs = np.concatenate([*lengths, open_runs])
    runs = runs[runs >= MIN_RUN]
    return Clipping(len(runs), int(runs.sum()), int(runs.max(initial=0)))
