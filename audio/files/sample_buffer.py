"""Blocks of samples into one waveform, in little more memory than the waveform itself takes. Knows no files."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.types import Waveform
from errors import AudioError, ErrorCode

_BLOCK_FRAMES: Final = 1 << 18
_TRUSTED_BYTES: Final = 1 << 30
_LOUDEST: Final = 1e12  # 240 dB above full scale; 32-bit integers written as floats reach 2e9


@dataclass(frozen=True, slots=True)
class Stream:
    """Sound on its way from a decoder.

    Args:
        sample_rate: in Hz.
        channels: as in the file, ordered as its container orders them.
        blocks: `[n, C]` float32 each, valid until the next; `AudioError` from the middle of it where the file breaks.
        expected: samples per channel, None where the file does not say.
    """

    sample_rate: int
    channels: int
    blocks: Iterator[NDArray[np.float32]]
    expected: int | None = None


class SampleBuffer:
    """Takes `[n, C]` blocks, gives `[C, T]`.

    Samples go into one array of the length that the header promised, which the system backs with memory only as far as
    it is written. What exceeds the promise goes into blocks of their own mapping, each returned to the system as soon
    as it is copied: growing by copying an array would take twice the memory, and so would a last concatenation.
    """

    def __init__(self, channels: int, expected: int | None = None) -> None:
        self._channels = channels
        trusted = expected is not None and 0 < expected * channels * 4 <= _TRUSTED_BYTES
        self._blocks = [_mapped(channels, expected if trusted and expected else _BLOCK_FRAMES)]
        self._filled = 0  # of the last block
        self.num_samples = 0

    def add(self, block: NDArray[np.float32]) -> None:
        """Appends `[n, C]` samples; `AudioError` (`nan_audio`) where one is no finite number."""
        check_finite(block)
        while len(block):
            last = self._blocks[-1]
            room = last.shape[1] - self._filled
            if room == 0:
                self._blocks.append(_mapped(self._channels, _BLOCK_FRAMES))
                self._filled = 0
                continue
            part = block[:room]
            last[:, self._filled : self._filled + len(part)] = part.T
            self._filled += len(part)
            self.num_samples += len(part)
            block = block[room:]

    def finish(self) -> Waveform:
        """All samples, `[C, T]`; the gatherer is empty afterwards."""
        blocks, self._blocks = self._blocks, []
        if len(blocks) == 1:
            return _shortened(blocks[0], self.num_samples)
        waveform = np.empty((self._channels, self.num_samples), np.float32)
        blocks.reverse()
        start = 0
        while blocks:
            block = blocks.pop()
            stop = min(start + block.shape[1], self.num_samples)
            waveform[:, start:stop] = block[:, : stop - start]
            start = stop
        return waveform


def check_finite(block: NDArray[np.float32]) -> None:
    """Raises `AudioError` (`nan_audio`) where a sample is no finite number, or as good as infinite."""
    if block.size and not (block.max() < _LOUDEST and block.min() > -_LOUDEST):
        raise AudioError(
            "The audio carries samples that are no finite numbers (NaN or infinite). Export it again.",
            code=ErrorCode.NAN_AUDIO,
        )


def _mapped(channels: int, frames: int) -> Waveform:
    memory = mmap.mmap(-1, channels * frames * 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, np.float32).reshape(channels, frames)


def _shortened(waveform: Waveform, length: int) -> Waveform:
    """The first `length` samples of each row, moved together in place."""
    channels, capacity = waveform.shape
    flat = waveform.reshape(-1)
    for row in range(1, channels if length < capacity else 0):
        for start in range(0, length, _BLOCK_FRAMES):
            size = min(_BLOCK_FRAMES, length - start)
            source = row * capacity + start
            flat[row * length + start :][:size] = flat[source : source + size]
    return flat[: channels * length].reshape(channels, length)
