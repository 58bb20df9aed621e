"""Collects audio that is computed block by block: in memory if it is small, else in temporary files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from audio.temporary import require_disk_space
from audio.types import SAMPLE_BYTES, Audio, AudioSource, DiskAudio, Waveform


def materialize(
    parts: Iterable[Mapping[str, Waveform]],
    names: Sequence[str],
    *,
    like: AudioSource,
    memory_bytes: int,
    stack: ExitStack,
) -> dict[str, AudioSource]:
    """Collects several sources of one shape that are computed together.

    Args:
        parts: consecutive `[C, n]` blocks by name.
        names: names of the sources.
        like: a source with their sample rate, channels and length; it is not read.
        memory_bytes: the most that all of them together may take in memory; beyond, all are stored on disk.
        stack: closes those on disk; after an error that happens at once.

    Raises:
        DiskFullError: before anything is computed if the space needed is known to be missing.
    """
    needed_bytes = len(names) * like.channels * like.num_samples * SAMPLE_BYTES
    if needed_bytes > memory_bytes:
        return _collect_on_disk(parts, names, like, needed_bytes, stack)
    waveforms = {name: np.empty((like.channels, like.num_samples), np.float32) for name in names}
    position = 0
    for part in parts:
        count = part[names[0]].shape[1]
        if count == like.num_samples:
            return {name: Audio(np.ascontiguousarray(part[name]), like.sample_rate) for name in names}
        for name in names:
            waveforms[name][:, position : position + count] = part[name]
        position += count
    assert position == like.num_samples, f"the blocks have {position} samples in total, not {like.num_samples}"
    return {name: Audio(waveform, like.sample_rate) for name, waveform in waveforms.items()}


def materialize_one(
    blocks: Iterable[Waveform], *, like: AudioSource, memory_bytes: int, stack: ExitStack | None = None
) -> AudioSource:
    """`materialize` for a single source; without a `stack` its disk space is freed when it is no longer referenced."""
    parts = ({"": block} for block in blocks)
    return materialize(parts, ("",), like=like, memory_bytes=memory_bytes, stack=stack or ExitStack())[""]


def _collect_on_disk(
    parts: Iterable[Mapping[str, Waveform]],
    names: Sequence[str],
    like: AudioSource,
    needed_bytes: int,
    stack: ExitStack,
) -> dict[str, AudioSource]:
    require_disk_space(needed_bytes)
    with ExitStack() as opened:
        sources = {
            name: opened.enter_context(DiskAudio(like.channels, like.sample_rate)) for name in dict.fromkeys(names)
        }
        for part in parts:
            for name, source in sources.items():
                source.append(part[name])
        assert all(source.num_samples == like.num_samples for source in sources.values())
        stack.push(opened.pop_all())
    return dict(sources)
