"""The two values that every package hands around: audio in memory and audio on disk, behind one protocol."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from errors import AudioError, ErrorCode

BLOCK_FRAMES: Final = 1 << 19
_SAMPLE_BYTES: Final = 4

Waveform = NDArray[np.float32]


class AudioSource(Protocol):
    """What `Audio` (in memory) and `DiskAudio` (on disk) have in common: enough to measure, resample and encode."""

    @property
    def sample_rate(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def num_samples(self) -> int: ...

    @property
    def duration(self) -> float: ...

    @property
    def peak(self) -> float: ...

    def read(self, start: int, count: int) -> Waveform:
        """Samples `start` to `start + count`, `[C, n]`; fewer at the end."""


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


class DiskAudio:
    """Float32 samples in a temporary file that has no name from the start, so that none is ever left behind.

    Append, then read: any block, in any order. Holds no sound in memory. Not for two writers at once.

    Args:
        channels: samples per frame.
        sample_rate: in Hz.
        directory: where the file lies; the system's temporary folder by default.
    """

    def __init__(self, channels: int, sample_rate: int, *, directory: str | None = None) -> None:
        self._file = tempfile.TemporaryFile(buffering=0, dir=directory)  # noqa: SIM115  (closed by close())
        self._channels = channels
        self._sample_rate = sample_rate
        self._num_samples = 0
        self._peak = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self._sample_rate

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def num_samples(self) -> int:
        """Samples per channel, so far."""
        return self._num_samples

    @property
    def duration(self) -> float:
        """In seconds."""
        return self._num_samples / self._sample_rate

    @property
    def peak(self) -> float:
        """Largest absolute sample, so far."""
        return self._peak

    def append(self, block: Waveform) -> None:
        """Adds `[C, n]` samples at the end.

        Raises:
            AudioError: `disk_full`, where the temporary folder has no room.
        """
        assert block.ndim == 2 and block.shape[0] == self._channels and block.dtype == np.float32
        if block.size == 0:
            return
        self._peak = max(self._peak, float(np.max(np.abs(block))))
        data = np.ascontiguousarray(block.T).data.cast("B")
        offset = self._num_samples * self._frame_bytes
        try:
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise disk_full_error() from error
        self._num_samples += block.shape[1]

    def read(self, start: int, count: int) -> Waveform:
        """Samples `start` to `start + count`, `[C, n]`; fewer at the end. Safe from several threads."""
        count = max(min(count, self._num_samples - start), 0)
        frames = np.empty((count, self._channels), np.float32)
        if not count:
            return frames.T
        view, offset = frames.data.cast("B"), start * self._frame_bytes
        while view:
            got = os.preadv(self._file.fileno(), [view], offset)
            assert got > 0, "the file holds what was appended"
            view, offset = view[got:], offset + got
        return np.ascontiguousarray(frames.T)

    def close(self) -> None:
        """Gives the disk space back; harmless when repeated."""
        self._file.close()

    @property
    def _frame_bytes(self) -> int:
        return self._channels * _SAMPLE_BYTES


def iter_blocks(sound: AudioSource, frames: int = BLOCK_FRAMES) -> Iterator[Waveform]:
    """The whole sound as consecutive `[C, n]` blocks of at most `frames` samples."""
    for start in range(0, sound.num_samples, frames):
        yield sound.read(start, frames)


def in_memory(sound: AudioSource) -> Audio:
    """The whole sound as `Audio`."""
    return sound if isinstance(sound, Audio) else Audio(sound.read(0, sound.num_samples), sound.sample_rate)


def disk_full_error() -> AudioError:
    return AudioError(
        "The temporary disk is full. Send shorter audio, ask for fewer stems, or give the container more disk.",
        code=ErrorCode.DISK_FULL,
    )
