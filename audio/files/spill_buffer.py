"""Where a decoder's samples go: into memory, or on disk where they turn out to be too many. Knows no files."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from audio.files.sample_buffer import SampleBuffer, check_finite
from audio.types import BLOCK_FRAMES, Audio, DiskAudio

_SAMPLE_BYTES = 4


class SpillBuffer:
    """Takes `[n, C]` blocks, gives an `Audio` or a `DiskAudio`. Use as a context: what is not finished is dropped.

    Args:
        channels: of the blocks.
        sample_rate: in Hz.
        expected: samples per channel, where the file says.
        memory_bytes: the most to be held in memory; None: no limit.
    """

    def __init__(self, channels: int, sample_rate: int, expected: int | None, memory_bytes: int | None) -> None:
        self._sample_rate = sample_rate
        self._channels = channels
        self._limit = memory_bytes
        self._gatherer: SampleBuffer | None = None
        self._recording: DiskAudio | None = None
        if self._exceeds(expected or 0):
            self._recording = DiskAudio(channels, sample_rate)
        else:
            self._gatherer = SampleBuffer(channels, expected)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._recording is not None:
            self._recording.close()

    @property
    def num_samples(self) -> int:
        """Samples per channel, so far."""
        store = self._gatherer if self._recording is None else self._recording
        return store.num_samples if store is not None else 0

    def add(self, block: NDArray[np.float32]) -> None:
        """Appends `[n, C]` samples; `AudioError` (`nan_audio`) where one is no finite number."""
        if self._gatherer is not None:
            self._gatherer.add(block)
            if self._exceeds(self._gatherer.num_samples):
                self._move_to_disk(self._gatherer)
        elif self._recording is not None:
            check_finite(block)
            self._recording.append(np.ascontiguousarray(block.T))

    def finish(self) -> Audio | DiskAudio:
        """All samples; a `DiskAudio` is the caller's from here on."""
        if self._recording is not None:
            recording, self._recording = self._recording, None
            return recording
        assert self._gatherer is not None
        return Audio(self._gatherer.finish(), self._sample_rate)

    def _exceeds(self, num_samples: int) -> bool:
        return self._limit is not None and num_samples * self._channels * _SAMPLE_BYTES > self._limit

    def _move_to_disk(self, gatherer: SampleBuffer) -> None:
        self._gatherer = None
        self._recording = DiskAudio(self._channels, self._sample_rate)
        waveform = gatherer.finish()
        for start in range(0, waveform.shape[1], BLOCK_FRAMES):
            self._recording.append(waveform[:, start : start + BLOCK_FRAMES])
