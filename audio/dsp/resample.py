"""One sample rate to another, by soxr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from audio.types import Audio, Waveform


def resampled_length(num_samples: int, sample_rate: int, new_sample_rate: int) -> int:
    """`num_samples * new_sample_rate / sample_rate`, rounded half up."""
    return (2 * num_samples * new_sample_rate + sample_rate) // (2 * sample_rate)


def resample(audio: Audio, sample_rate: int) -> Audio:
    """The same sound at another rate: very high quality, linear phase, no delay.

    The result has exactly `resampled_length` samples. At the same rate the very same object comes back. Filtering may
    raise peaks a little, also above full scale.
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


def resample_blocks(
    blocks: Iterable[Waveform], sample_rate: int, new_sample_rate: int, *, num_samples: int, length: int
) -> Iterator[Waveform]:
    """`resample`, block by block: `[C, n]` blocks at one rate into blocks at another, in one pass.

    Args:
        num_samples: of all blocks together.
        length: of the result, which is cut or filled up with silence to it; `resampled_length` of `num_samples`, or
            what the blocks had before they came to this rate.
    """
    if sample_rate == new_sample_rate:
        yield from blocks
        return
    import soxr

    left_in, left_out = num_samples, length
    stream: Any = None
    for block in blocks:
        channels = block.shape[0]
        stream = stream or soxr.ResampleStream(sample_rate, new_sample_rate, channels, dtype="float32", quality="VHQ")
        left_in -= block.shape[1]
        made = stream.resample_chunk(np.ascontiguousarray(block.T), last=left_in <= 0)[:left_out]
        left_out -= len(made)
        if len(made):
            yield np.ascontiguousarray(made.T)
    if left_out > 0 and stream is not None:
        yield np.zeros((channels, left_out), np.float32)
