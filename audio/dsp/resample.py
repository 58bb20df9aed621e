"""Sample rate conversion by soxr: very high quality, linear phase, no delay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from audio.disk import materialize_one
from audio.dsp.mix import Silence, fit_length
from audio.types import SAMPLE_BYTES, Audio, AudioSource, Waveform, iter_blocks

_MEMORY_BYTES = 128 << 20  # larger results are stored on disk


def resampled_length(num_samples: int, sample_rate: int, new_sample_rate: int) -> int:
    """`num_samples * new_sample_rate / sample_rate`, rounded half up."""
    return (2 * num_samples * new_sample_rate + sample_rate) // (2 * sample_rate)


def resample(audio: Audio, sample_rate: int) -> Audio:
    """The audio at another rate, with exactly `resampled_length` samples; the same object at the same rate.

    Filtering may raise peaks a little, also above full scale.
    """
    if sample_rate == audio.sample_rate:
        return audio
    import soxr

    length = resampled_length(audio.num_samples, audio.sample_rate, sample_rate)
    waveform = np.zeros((audio.channels, length), np.float32)
    for channel, row in zip(audio.waveform, waveform, strict=True):
        converted = soxr.resample(np.ascontiguousarray(channel), audio.sample_rate, sample_rate, quality="VHQ")[:length]
        row[: len(converted)] = converted
    return Audio(waveform, sample_rate)


def resample_source(source: AudioSource, sample_rate: int, stack: ExitStack) -> AudioSource:
    """`resample` for audio of any length; a large result is stored on disk until `stack` closes.

    Raises:
        DiskFullError: the temporary folder has no space left.
    """
    if sample_rate == source.sample_rate:
        return source
    length = resampled_length(source.num_samples, source.sample_rate, sample_rate)
    if isinstance(source, Audio) and source.channels * length * SAMPLE_BYTES <= _MEMORY_BYTES:
        return resample(source, sample_rate)
    blocks = resample_blocks(
        iter_blocks(source), source.sample_rate, sample_rate, num_samples=source.num_samples, length=length
    )
    shape = Silence(sample_rate, source.channels, length)
    return materialize_one(blocks, like=shape, memory_bytes=_MEMORY_BYTES, stack=stack)


def resample_blocks(
    blocks: Iterable[Waveform], sample_rate: int, new_sample_rate: int, *, num_samples: int, length: int
) -> Iterator[Waveform]:
    """`resample` in one pass over consecutive `[C, n]` blocks, of which there is at least one.

    Args:
        num_samples: of all blocks together.
        length: samples of the result, which is cut or padded with silence to it: `resampled_length` of `num_samples`,
            or the length that the audio had before an earlier conversion.
    """
    if sample_rate == new_sample_rate:
        yield from blocks
        return
    yield from fit_length(_convert(blocks, sample_rate, new_sample_rate, num_samples), num_samples=length)


def _convert(
    blocks: Iterable[Waveform], sample_rate: int, new_sample_rate: int, num_samples: int
) -> Iterator[Waveform]:
    import soxr

    stream: Any = None
    remaining = num_samples
    for block in blocks:
        stream = stream or soxr.ResampleStream(
            sample_rate, new_sample_rate, block.shape[0], dtype="float32", quality="VHQ"
        )
        remaining -= block.shape[1]
        converted = stream.resample_chunk(np.ascontiguousarray(block.T), last=remaining <= 0)
        yield np.ascontiguousarray(converted.T)
