"""Sound too long for memory: samples in a nameless temporary file, read and written by blocks. Knows no containers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import numpy as np

from audio.types import Audio, AudioSource, DiskAudio, Waveform
from errors import AudioError, ErrorCode

BLOCK_FRAMES: Final = 1 << 19
_SAMPLE_BYTES: Final = 4
_DISK_RESERVE_BYTES: Final = 256 << 20


def disk_audio_bytes(channels: int, num_samples: int) -> int:
    """Disk space that a `DiskAudio` of that size takes."""
    return channels * num_samples * _SAMPLE_BYTES


def require_disk_space(needed_bytes: int) -> None:
    """Raises `AudioError` (`disk_full`) where the temporary folder has no room for recordings of that size."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if needed_bytes + _DISK_RESERVE_BYTES > free:
        raise AudioError(
            f"This work needs {needed_bytes / 1e9:.1f} GB of temporary disk space and {free / 1e9:.1f} GB are free. "
            "Send shorter audio, ask for fewer stems, or give the container more disk.",
            code=ErrorCode.DISK_FULL,
            details={"needed_bytes": needed_bytes, "free_bytes": free},
        )


def materialize(
    parts: Iterable[Mapping[str, Waveform]],
    names: Sequence[str],
    *,
    like: AudioSource,
    memory_bytes: int,
    stack: ExitStack,
) -> dict[str, AudioSource]:
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
    needed = len(names) * disk_audio_bytes(like.channels, like.num_samples)
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
    parts: Iterable[Mapping[str, Waveform]],
    names: Sequence[str],
    like: AudioSource,
    needed_bytes: int,
    stack: ExitStack,
) -> dict[str, AudioSource]:
    require_disk_space(needed_bytes)
    with ExitStack() as opened:
        recordings = {
            name: opened.enter_context(DiskAudio(like.channels, like.sample_rate)) for name in dict.fromkeys(names)
        }
        for part in parts:
            for name, recording in recordings.items():
                recording.append(part[name])
        assert all(recording.num_samples == like.num_samples for recording in recordings.values())
        stack.push(opened.pop_all())
    return dict(recordings)
