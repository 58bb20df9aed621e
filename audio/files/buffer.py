"""Collects a decoder's blocks: in memory, using little more than the waveform takes, or on disk if it is large."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from audio.temporary import require_disk_space
from audio.types import BLOCK_FRAMES, SAMPLE_BYTES, Audio, DiskAudio, Waveform
from errors import AudioError, ErrorCode

_CHUNK_FRAMES = 1 << 18
_MAX_TRUSTED_BYTES = 1 << 30
_MAX_SAMPLE = 1e12  # 240 dB above full scale; 32-bit integers written as floats reach 2e9


@dataclass(frozen=True, slots=True)
class DecoderStream:
    """The output of a decoder.

    Args:
        sample_rate: in Hz.
        channels: as in the file, in the order of its container.
        blocks: `[n, C]` float32, each valid until the next is requested; raises `AudioError` if the file is damaged.
        expected: samples per channel according to the file, None if it does not say.
    """

    sample_rate: int
    channels: int
    blocks: Iterator[NDArray[np.float32]]
    expected: int | None = None


class SampleBuffer:
    """Collects `[n, C]` blocks into `[C, T]` in memory.

    Samples go into one array of the length that the file's header states; the system provides memory only for what is
    written. Samples beyond that length go into chunks with a mapping of their own, and each mapping is released as soon
    as it is copied: growing an array by copying, or concatenating at the end, would take twice the memory.
    """

    def __init__(self, channels: int, expected: int | None = None) -> None:
        self._channels = channels
        trusted = expected is not None and 0 < expected * channels * SAMPLE_BYTES <= _MAX_TRUSTED_BYTES
        self._chunks = [_map_memory(channels, expected if trusted and expected else _CHUNK_FRAMES)]
        self._filled = 0  # samples in the last chunk
        self.num_samples = 0

    def add(self, block: NDArray[np.float32]) -> None:
        """Appends `[n, C]` samples."""
        while len(block):
            chunk = self._chunks[-1]
            free = chunk.shape[1] - self._filled
            if free == 0:
                self._chunks.append(_map_memory(self._channels, _CHUNK_FRAMES))
                self._filled = 0
                continue
            part = block[:free]
            chunk[:, self._filled : self._filled + len(part)] = part.T
            self._filled += len(part)
            self.num_samples += len(part)
            block = block[free:]

    def finish(self) -> Waveform:
        """All samples, `[C, T]`; the buffer is empty afterwards."""
        chunks, self._chunks = self._chunks, []
        if len(chunks) == 1:
            return _shorten(chunks[0], self.num_samples)
        waveform = np.empty((self._channels, self.num_samples), np.float32)
        chunks.reverse()
        start = 0
        while chunks:
            chunk = chunks.pop()
            stop = min(start + chunk.shape[1], self.num_samples)
            waveform[:, start:stop] = chunk[:, : stop - start]
            start = stop
        return waveform


class SpillBuffer:
    """Collects `[n, C]` blocks into an `Audio`, or into a `DiskAudio` as soon as they exceed `memory_bytes`.

    A context manager: on leaving, everything not yet finished is dropped. Raises `DiskFullError`, at once if the length
    is known and there is not enough space.

    Args:
        channels: of the blocks.
        sample_rate: in Hz.
        expected: samples per channel, if the file states them.
        memory_bytes: the most to hold in memory; None: no limit.
    """

    def __init__(self, channels: int, sample_rate: int, expected: int | None, memory_bytes: int | None) -> None:
        self._sample_rate = sample_rate
        self._channels = channels
        self._memory_bytes = memory_bytes
        self._buffer: SampleBuffer | None = None
        self._disk: DiskAudio | None = None
        if self._exceeds_memory(expected or 0):
            require_disk_space((expected or 0) * channels * SAMPLE_BYTES)
            self._disk = DiskAudio(channels, sample_rate)
        else:
            self._buffer = SampleBuffer(channels, expected)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._disk is not None:
            self._disk.close()

    @property
    def num_samples(self) -> int:
        """Samples per channel so far."""
        storage = self._disk or self._buffer
        return storage.num_samples if storage is not None else 0

    def add(self, block: NDArray[np.float32]) -> None:
        """Appends `[n, C]` samples; `AudioError` (`nan_audio`) if one is not finite, or practically infinite."""
        if block.size and not (block.max() < _MAX_SAMPLE and block.min() > -_MAX_SAMPLE):
            raise AudioError(
                "The audio contains samples that are not finite numbers (NaN or infinity). Export it again.",
                code=ErrorCode.NAN_AUDIO,
            )
        if self._buffer is not None:
            self._buffer.add(block)
            if self._exceeds_memory(self._buffer.num_samples):
                self._move_to_disk(self._buffer)
        elif self._disk is not None:
            self._disk.append(np.ascontiguousarray(block.T))

    def finish(self) -> Audio | DiskAudio:
        """All samples; the caller closes a `DiskAudio`."""
        if self._disk is not None:
            disk, self._disk = self._disk, None
            return disk
        assert self._buffer is not None, "finish() may be called only once"
        return Audio(self._buffer.finish(), self._sample_rate)

    def _exceeds_memory(self, num_samples: int) -> bool:
        return self._memory_bytes is not None and num_samples * self._channels * SAMPLE_BYTES > self._memory_bytes

    def _move_to_disk(self, buffer: SampleBuffer) -> None:
        self._buffer = None
        self._disk = DiskAudio(self._channels, self._sample_rate)
        waveform = buffer.finish()
        for start in range(0, waveform.shape[1], BLOCK_FRAMES):
            self._disk.append(waveform[:, start : start + BLOCK_FRAMES])


def _map_memory(channels: int, frames: int) -> Waveform:
    memory = mmap.mmap(-1, channels * frames * SAMPLE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, np.float32).reshape(channels, frames)


def _shorten(waveform: Waveform, length: int) -> Waveform:
    """The first `length` samples of each row, moved together in place."""
    channels, capacity = waveform.shape
    flat = waveform.reshape(-1)
    for row in range(1, channels if length < capacity else 0):
        for start in range(0, length, _CHUNK_FRAMES):
            size = min(_CHUNK_FRAMES, length - start)
            source = row * capacity + start
            flat[row * length + start :][:size] = flat[source : source + size]
    return flat[: channels * length].reshape(channels, length)
