"""What every tracker offers, and the windows that long audio is gone through in. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.rvc.pitch.catalog import HOP_LENGTH

Waveform = NDArray[np.float32]
Curve = NDArray[np.float32]
Progress = Callable[[float], object]


class Tracker(Protocol):
    """A loaded f0 method.

    Attributes:
        memory_bytes: what it holds on its device.
    """

    memory_bytes: int

    def track(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> Curve:
        """f0 of a voice.

        Args:
            waveform: `[T]` mono at 16 kHz, float32, any length.
            hop_length: samples at 16 kHz from one estimate to the next; mangio-crepe's alone.
            filter_radius: above 2, harvest's curve goes through a median of three; harvest's alone.
            progress: called with the fraction done; what it raises ends the work.

        Returns:
            `[T // 160]` float32, Hz, 0 = unvoiced; frame i stands for the time of sample 160 i.
        """


def ignore_progress(fraction: float) -> None:
    """The progress of a caller who does not ask."""


@dataclass(frozen=True, slots=True)
class Window:
    """Frames `start` to `stop` of a file, computed together, of which `keep_start` to `keep_stop` are believed.

    What lies before and after those is context.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def inside(self) -> slice:
        """The believed frames, counted from `start`."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)

    @property
    def kept(self) -> slice:
        """The believed frames, counted from the file's first."""
        return slice(self.keep_start, self.keep_stop)


def windows(num_frames: int, *, length: int, context: int) -> Iterator[Window]:
    """Windows of `length` frames that cover `num_frames`, at multiples of `length - 2 context`; the last ends the file.

    All are of the same length, but for the one window of a file that is shorter.
    """
    stride = length - 2 * context
    last_start = max(num_frames - length, 0)
    done = 0
    for start in range(0, last_start + stride, stride):
        start = min(start, last_start)
        stop = min(start + length, num_frames)
        keep_stop = stop if start == last_start else stop - context
        yield Window(start, stop, done, keep_stop)
        done = keep_stop


def reflected(waveform: Waveform, start: int, stop: int) -> Waveform:
    """Samples `start` to `stop`, the waveform mirrored at both its ends (without repeating the end sample)."""
    if 0 <= start and stop <= len(waveform):
        return waveform[start:stop]
    last = len(waveform) - 1
    if last <= 0:
        return np.repeat(waveform[:1], stop - start)
    return waveform[last - np.abs(last - np.arange(start, stop) % (2 * last))]


def silenced(waveform: Waveform, start: int, stop: int) -> Waveform:
    """Samples `start` to `stop`, with silence where there are none."""
    inside = waveform[max(start, 0) : max(stop, 0)]
    return np.pad(inside, (max(-start, 0), stop - max(start, 0) - len(inside)))


def num_frames(waveform: Waveform) -> int:
    """How many frames the result has."""
    return len(waveform) // HOP_LENGTH
