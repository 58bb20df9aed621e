"""The mean and standard deviation by which a mix is normalized before a network gets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np

from audio.types import Waveform

_MIN_STD = 1e-8


@dataclass(frozen=True, slots=True)
class NormalizationStats:
    """The networks get `(mix - mean) / std`, and their stems are scaled back."""

    mean: float
    std: float


def measure_normalization(blocks: Iterator[Waveform]) -> NormalizationStats:
    """Mean and standard deviation of the mono mix, as demucs.api normalizes it.

    Args:
        blocks: consecutive blocks of the mix, `[C, n]`. They are read once and summed in float64.
    """
    count, mean, squares = 0, 0.0, 0.0
    for block in blocks:
        mono = block.mean(axis=0, dtype=np.float32)
        block_count, block_mean = len(mono), float(mono.mean(dtype=np.float64))
        difference = block_mean - mean
        mono -= np.float32(block_mean)
        squares += float(np.square(mono, out=mono).sum(dtype=np.float64))
        squares += difference**2 * count * block_count / (count + block_count)
        count += block_count
        mean += difference * block_count / count
    return NormalizationStats(mean, sqrt(squares / max(count - 1, 1)) + _MIN_STD)
