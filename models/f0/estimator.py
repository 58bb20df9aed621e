"""The interface of all f0 estimators, and what several of them need. Importable without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.f0.catalog import HOP_LENGTH, SAMPLE_RATE
from models.runtime.progress import Progress, ignore_progress

Waveform = NDArray[np.float32]
F0Contour = NDArray[np.float32]

# RMVPE and CREPE classify f0 into 360 bins of 20 cents and take the weighted mean of the bins around the best one.
CENTS_OF_BIN_0 = 1997.3794084376191  # above 10 Hz
CENTS_PER_BIN = 20
BIN_REACH = 4  # bins on each side of the best one that take part in the mean


class F0Estimator(ABC):
    """A loaded f0 method.

    Attributes:
        memory_bytes: bytes of its weights.
    """

    memory_bytes: int = 0

    @classmethod
    def load(cls, *, device: str, weights: Path | None = None) -> Self:
        """Loads the method.

        Args:
            device: torch device name; methods without weights run on the CPU.
            weights: file of the weights; None if they come with the method's package, or it has none.

        Raises:
            ModelError: the weights cannot be read, or there is no such device.
        """
        return cls()

    def warm_up(self) -> None:
        """Estimates the f0 of a second of a tone."""
        tone = np.sin(2 * np.pi * 220 / SAMPLE_RATE * np.arange(SAMPLE_RATE)).astype(np.float32)
        self.estimate(tone, hop_length=HOP_LENGTH, filter_radius=3, progress=ignore_progress)

    @abstractmethod
    def estimate(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> F0Contour:
        """Estimates the f0 of a voice.

        Args:
            waveform: `[T]` mono at 16 kHz, float32, of any length.
            hop_length: samples between estimates; only mangio-crepe uses it.
            filter_radius: from 3 on, f0 goes through a median of three frames; only harvest uses it.
            progress: called with the fraction done; what it raises ends the work.

        Returns:
            `[T // 160]` float32 in Hz, 0 = unvoiced; frame i is the f0 at sample 160 i.
        """


def zero_pad(waveform: Waveform, start: int, stop: int) -> Waveform:
    """`waveform[start:stop]` of `[T]`, with silence beyond its ends."""
    inside = waveform[max(start, 0) : max(stop, 0)]
    before = min(max(-start, 0), stop - start)
    return np.pad(inside, (before, stop - start - before - len(inside)))


def count_frames(waveform: Waveform) -> int:
    """Number of frames of the f0 contour."""
    return len(waveform) // HOP_LENGTH
