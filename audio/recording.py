"""Sound too long for memory: samples in a nameless temporary file, read and written by blocks. Knows no containers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np

from audio.sound import Audio, Waveform
from errors import AudioError

BLOCK_FRAMES: Final = 1 << 19
_SAMPLE_BYTES: Final = 4
_DISK_RESERVE_BYTES: Final = 256 << 20


class Sound(Protocol):
    """What `Audio` (in memory) and `Recording` (on disk) have in common: enough to measure, resample and encode."""

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


class Recording:
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
            raise _disk_full() from error
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


def blocks(sound: Sound, frames: int = BLOCK_FRAMES) -> Iterator[Waveform]:
    """The whole sound as consecutive `[C, n]` blocks of at most `frames` samples."""
    for start in range(0, sound.num_samples, frames):
        yield sound.read(start, frames)


def recording_bytes(channels: int, num_samples: int) -> int:
    """Disk space that a `Recording` of that size takes."""
    return channels * num_samples * _SAMPLE_BYTES


def demand_disk(needed_bytes: int) -> None:
    """Raises `AudioError` (`disk_full`) where the temporary folder has no room for recordings of that size."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if needed_bytes + _DISK_RESERVE_BYTES > free:
        raise AudioError(
            f"This work needs {needed_bytes / 1e9:.1f} GB of temporary disk space and {free / 1e9:.1f} GB are free. "
            "Send shorter audio, ask for fewer stems, or give the container more disk.",
            code="disk_full",
            details={"needed_bytes": needed_bytes, "free_bytes": free},
        )


def keep(
    parts: Iterable[Mapping[str, Waveform]], names: Sequence[str], *, like: Sound, memory_bytes: int, stack: ExitStack
) -> dict[str, Sound]:
    """Keeps sounds that come in step, block by block: in memory, or on disk where that would take too much.

    Args:
        parts: consecutive `[C, n]` blocks by name.
        names: of the sounds.
        like: a sound of their rate, channels and length.
        memory_bytes: the most that all of them may take in memory.
        stack: closes what lies on disk; on an error that is done at once.

    Raises:
        AudioError: `disk_full`, before any work where it can be known.
    """
    needed = len(names) * recording_bytes(like.channels, like.num_samples)
    if needed > memory_bytes:
        return _kept_on_disk(parts, names, like, needed, stack)
    waveforms: dict[str, Waveform] = {}
    position = 0
    for part in parts:
        count = part[names[0]].shape[1]
        if count == like.num_samples:
            return {name: Audio(np.ascontiguousarray(part[name]), like.sample_rate) for name in names}
        if not waveforms:
            waveforms = {name: np.empty((like.channels, like.num_samples), np.float32) for name in names}
        for name in names:
            waveforms[name][:, position : position + count] = part[name]
        position += count
    assert position == like.num_samples, "every sound is as long as the one it came from"
    return {name: Audio(waveform, like.sample_rate) for name, waveform in waveforms.items()}


def _kept_on_disk(
    parts: Iterable[Mapping[str, Waveform]], names: Sequence[str], like: Sound, needed_bytes: int, stack: ExitStack
) -> dict[str, Sound]:
    demand_disk(needed_bytes)
    with ExitStack() as opened:
        recordings = {
            name: opened.enter_context(Recording(like.channels, like.sample_rate)) for name in dict.fromkeys(names)
        }
        for part in parts:
            for name, recording in recordings.items():
                recording.append(part[name])
        assert all(recording.num_samples == like.num_samples for recording in recordings.values())
        stack.push(opened.pop_all())
    return dict(recordings)


def in_memory(sound: Sound) -> Audio:
    """The whole sound as `Audio`."""
    return sound if isinstance(sound, Audio) else Audio(sound.read(0, sound.num_samples), sound.sample_rate)


def _disk_full() -> AudioError:
    return AudioError(
        "The temporary disk is full. Send shorter audio, ask for fewer stems, or give the container more disk.",
        code="disk_full",
    )
