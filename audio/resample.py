"""One sample rate to another, by soxr."""

from __future__ import annotations

import numpy as np

from audio.sound import Audio


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
