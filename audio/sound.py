"""The one value that crosses every room's wall: a waveform and its sample rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Sound in memory.

    Args:
        waveform: `[C, T]` float32, C = 1 or 2 once past the decoder; full scale is 1.0 and may be exceeded.
        sample_rate: in Hz.
    """

    waveform: Waveform
    sample_rate: int

    def __post_init__(self) -> None:
        assert self.waveform.ndim == 2 and self.waveform.dtype == np.float32, "waveform is [C, T] float32"

    @property
    def channels(self) -> int:
        return int(self.waveform.shape[0])

    @property
    def num_samples(self) -> int:
        """Samples per channel."""
        return int(self.waveform.shape[1])

    @property
    def duration(self) -> float:
        """In seconds."""
        return self.num_samples / self.sample_rate

    @property
    def peak(self) -> float:
        """Largest absolute sample; 0.0 where there is none."""
        return max(float(self.waveform.max()), -float(self.waveform.min())) if self.waveform.size else 0.0

    def read(self, start: int, count: int) -> Waveform:
        """Samples `start` to `start + count`, `[C, n]`, as a view; fewer at the end."""
        return self.waveform[:, start : start + count]
