"""What every tracker offers, and the windows that long audio is gone through in. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.f0.catalog import HOP_LENGTH

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


def windows(num_frames: int, *, longest: int, context: int, multiple: int = 1) -> Iterator[Window]:
    """The fewest windows of at most `longest` frames that cover `num_frames`, all of one length.

    Args:
        num_frames: a multiple of `multiple`, as is all else.
        longest: more than twice `context`.
        context: frames between each window's inner end and the frames of it that are believed.
        multiple: of frames, that windows start and end at.
    """
    count = max(-(-(num_frames - 2 * context) // (longest - 2 * context)), 1)
    steps = -(-(num_frames + 2 * context * (count - 1)) // (count * multiple))
    length = min(steps * multiple, num_frames)
    done = 0
    for index in range(count):
        start = min(index * (length - 2 * context), num_frames - length)
        stop = start + length
        keep_stop = stop if index == count - 1 else stop - context
        yield Window(start, stop, done, keep_stop)
        done = keep_stop


def reflected(waveform: Waveform, start: int, stop: int) -> Waveform:
    """Samples `start` to `stop`, the waveform mirrored at both its ends (without repeating the end sample)."""
    if start >= 0 and stop <= len(waveform):
        return waveform[start:stop]
    last = len(waveform) - 1
    if last <= 0:
        return np.repeat(waveform[:1], stop - start)
    mirrored: Waveform = waveform[last - np.abs(last - np.arange(start, stop) % (2 * last))]
    return mirrored


def silenced(waveform: Waveform, start: int, stop: int) -> Waveform:
    """Samples `start` to `stop`, with silence where there are none."""
    inside = waveform[max(start, 0) : max(stop, 0)]
    before = min(max(-start, 0), stop - start)
    return np.pad(inside, (before, stop - start - before - len(inside)))


def num_frames(waveform: Waveform) -> int:
    """How many frames the result has."""
    return len(waveform) // HOP_LENGTH
