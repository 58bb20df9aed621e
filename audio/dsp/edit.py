"""Cutting, fading, and mono to stereo and back. Knows no files or requests."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from audio.types import Audio

_MARGIN_S: Final = 0.01


def trim_silence(audio: Audio, *, threshold_db: float = -60.0) -> Audio:
    """The sound without what lies before its first and after its last sample above `threshold_db` (dBFS).

    10 ms are kept on either side, so that no onset is cut hard. A sound that is silent throughout comes back whole.
    """
    loud = np.flatnonzero(np.abs(audio.waveform).max(axis=0, initial=0.0) > 10.0 ** (threshold_db / 20.0))
    if not len(loud):
        return audio
    margin = round(_MARGIN_S * audio.sample_rate)
    start, stop = max(int(loud[0]) - margin, 0), min(int(loud[-1]) + 1 + margin, audio.num_samples)
    if (start, stop) == (0, audio.num_samples):
        return audio
    return Audio(np.ascontiguousarray(audio.waveform[:, start:stop]), audio.sample_rate)


def fade_in(audio: Audio, seconds: float) -> Audio:
    """The sound rising from silence over its first `seconds` (at most all of it) along a raised cosine."""
    return _faded(audio, seconds, at_end=False)


def fade_out(audio: Audio, seconds: float) -> Audio:
    """The sound falling to silence over its last `seconds` (at most all of it) along a raised cosine."""
    return _faded(audio, seconds, at_end=True)


def _faded(audio: Audio, seconds: float, *, at_end: bool) -> Audio:
    length = min(round(seconds * audio.sample_rate), audio.num_samples)
    if length <= 0:
        return audio
    rise = (0.5 - 0.5 * np.cos(np.pi * np.arange(length) / length)).astype(np.float32)
    waveform = audio.waveform.copy()
    if at_end:
        waveform[:, -length:] *= rise[::-1]
    else:
        waveform[:, :length] *= rise
    return Audio(waveform, audio.sample_rate)


def to_channels(audio: Audio, channels: Literal[1, 2]) -> Audio:
    """Mono as the mean of both channels, stereo as the one channel twice; the same object where nothing changes."""
    if audio.channels == channels:
        return audio
    if channels == 1:
        return Audio(audio.waveform.mean(axis=0, keepdims=True, dtype=np.float32), audio.sample_rate)
    return Audio(np.repeat(audio.waveform, 2, axis=0), audio.sample_rate)
