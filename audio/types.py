"""Audio as every package passes it on: a common base class, audio in memory, and audio on disk."""

from __future__ import annotations

import os
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from audio.temporary import translate_disk_errors

BLOCK_FRAMES = 1 << 19
SAMPLE_BYTES = 4

Waveform = NDArray[np.float32]
Check = Callable[[], None]
"""Called again and again during long work; what it raises (the job was cancelled, its time is up) ends the work."""


def ignore_check() -> None:
    """The `check` of work that nobody ends."""


class AudioSource(ABC):
    """Audio of any length that is read block by block, from memory, from disk, or computed on reading.

    Args:
        sample_rate: in Hz.
        channels: 1 or 2 after decoding.
        num_samples: per channel.
    """

    def __init__(self, sample_rate: int, channels: int, num_samples: int) -> None:
        self.sample_rate = sample_rate
        self.channels = channels
        self.num_samples = num_samples
        self._peak: float | None = None

    @property
    def duration(self) -> float:
        """In seconds."""
        return self.num_samples / self.sample_rate

    @property
    def peak(self) -> float:
        """Largest absolute sample value; 0.0 without samples, NaN if any sample is NaN. Measured on first use."""
        if self._peak is None:
            self._peak = float(np.max([_block_peak(block) for block in iter_blocks(self)], initial=0.0))
        return self._peak

    @abstractmethod
    def read(self, start: int, count: int) -> Waveform:
        """Samples `start` to `start + count` as `[C, n]` float32; fewer at the end. The block may be a view."""


class Audio(AudioSource):
    """Audio in memory. The waveform must not be changed afterwards.

    Args:
        waveform: `[C, T]` float32; full scale is 1.0 and may be exceeded.
        sample_rate: in Hz.
    """

    def __init__(self, waveform: Waveform, sample_rate: int) -> None:
        assert waveform.ndim == 2 and waveform.dtype == np.float32, "waveform must be [C, T] float32"
        super().__init__(sample_rate, *waveform.shape)
        self.waveform = waveform

    def read(self, start: int, count: int) -> Waveform:
        return self.waveform[:, start : start + count]


class DiskAudio(AudioSource):
    """Audio in an unnamed temporary file of float32 samples, to which blocks are appended.

    Any block can be read in any order and from several threads; only one thread may append. The disk space is freed by
    `close`, by leaving the `with` block, or at the latest when the object is no longer referenced.

    Args:
        channels: number of channels.
        sample_rate: in Hz.

    Raises:
        DiskFullError: no temporary file can be made.
    """

    def __init__(self, channels: int, sample_rate: int) -> None:
        super().__init__(sample_rate, channels, 0)
        self._peak = 0.0
        with translate_disk_errors():
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed by the finalizer)
        self._finalizer = weakref.finalize(self, self._file.close)
        self._frame_bytes = channels * SAMPLE_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, block: Waveform) -> None:
        """Adds `[C, n]` samples at the end.

        Raises:
            DiskFullError: the temporary folder has no space left.
        """
        assert block.ndim == 2 and block.dtype == np.float32, "block must be [C, n] float32"
        assert block.shape[0] == self.channels, f"block must have {self.channels} channels, not {block.shape[0]}"
        if block.size == 0:
            return
        data = np.ascontiguousarray(block.T).data.cast("B")
        offset = self.num_samples * self._frame_bytes
        with translate_disk_errors():
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written
        self._peak = float(np.maximum(self.peak, _block_peak(block)))
        self.num_samples += block.shape[1]

    def read(self, start: int, count: int) -> Waveform:
        count = max(min(count, self.num_samples - start), 0)
        frames = np.empty((count, self.channels), np.float32)
        if not count:
            return frames.T
        view, offset = frames.data.cast("B"), start * self._frame_bytes
        while view:
            num_bytes = os.preadv(self._file.fileno(), [view], offset)
            assert num_bytes > 0, "the temporary file is shorter than the audio that was appended to it"
            view, offset = view[num_bytes:], offset + num_bytes
        return np.ascontiguousarray(frames.T)

    def close(self) -> None:
        """Frees the disk space; may be called repeatedly."""
        self._finalizer()


def iter_blocks(source: AudioSource, frames: int = BLOCK_FRAMES) -> Iterator[Waveform]:
    """All samples as consecutive `[C, n]` blocks of `frames` samples; the last may be shorter."""
    for start in range(0, source.num_samples, frames):
        yield source.read(start, frames)


def in_memory(source: AudioSource) -> Audio:
    """All samples as an `Audio`; the same object if it is one."""
    return source if isinstance(source, Audio) else Audio(source.read(0, source.num_samples), source.sample_rate)


def _block_peak(block: Waveform) -> float:
    """Largest absolute value, without a copy of the block."""
    return float(np.maximum(block.max(), -block.min())) if block.size else 0.0
