"""Level changes: decibels, constant gain, a gain that varies over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from audio.types import AudioSource, Waveform

_BELOW_FULL_SCALE = 0.9999  # a fraction of a 16-bit step remains for dither


def to_db(ratio: float) -> float:
    """Amplitude ratio in dB; -inf for 0."""
    return 20.0 * math.log10(ratio) if ratio > 0.0 else -math.inf


def from_db(level_db: float) -> float:
    """dB as an amplitude ratio."""
    return float(10.0 ** (level_db / 20.0))


class GainView(AudioSource):
    """A source at another level, computed on reading; may exceed full scale."""

    def __init__(self, source: AudioSource, gain_db: float) -> None:
        super().__init__(source.sample_rate, source.channels, source.num_samples)
        self._source, self._factor = source, from_db(gain_db)

    @property
    def peak(self) -> float:
        return self._source.peak * self._factor

    def read(self, start: int, count: int) -> Waveform:
        return self._source.read(start, count) * np.float32(self._factor)


class EnvelopeView(AudioSource):
    """A source multiplied by a gain that varies over time, computed on reading.

    Args:
        source: at most as long as the envelope.
        envelope: one channel of factors, one for each sample.
    """

    def __init__(self, source: AudioSource, envelope: AudioSource) -> None:
        assert envelope.channels == 1, "an envelope has one channel"
        assert envelope.num_samples >= source.num_samples, "an envelope is at least as long as its source"
        super().__init__(source.sample_rate, source.channels, source.num_samples)
        self._source, self._envelope = source, envelope

    def read(self, start: int, count: int) -> Waveform:
        block = self._source.read(start, count)
        return block * self._envelope.read(start, block.shape[1])


def bring_below_full_scale(sources: Sequence[AudioSource]) -> tuple[tuple[AudioSource, ...], float | None]:
    """Lowers all sources by one common gain if any sample exceeds full scale, so that their balance stays.

    Returns:
        The sources (the same objects if none exceeds full scale) and the gain in dB, None if there was none.
    """
    peak = max((source.peak for source in sources), default=0.0)
    if peak <= 1.0:
        return tuple(sources), None
    gain_db = to_db(_BELOW_FULL_SCALE / peak)
    return tuple(GainView(source, gain_db) for source in sources), gain_db
