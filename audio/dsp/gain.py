"""Loudness and peak of one sound, or of several that belong together, set by one common gain. Knows no requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from audio.dsp.limiter import limit
from audio.dsp.loudness import integrated_loudness, mixed, true_peak_db
from audio.types import Audio

NormalizeMode = Literal["none", "peak", "loudness"]

CEILING_DBTP: Final = -1.0
"""True peak that `normalize` never exceeds (the ceiling of EBU R 128 and of streaming services)."""

_BELOW_FULL_SCALE: Final = 0.9999  # a fraction of a 16-bit step above this is left for dither
_LOUDNESS_TOLERANCE: Final = 0.1
_MOST_PASSES: Final = 5
_LEAST_SLOPE: Final = 0.3
_MOST_PUSH_DB: Final = 9.0  # of gain to make up for what the limiter takes away


@dataclass(frozen=True, slots=True)
class Normalized:
    """What `normalize` did.

    Args:
        sounds: in the order given.
        gain_db: the common gain, None where nothing was changed.
        loudness_lufs: of the result's sum, None unless it was measured, -inf for silence.
        limited_db: the most that the limiter took away at any moment, 0.0 where it was idle.
    """

    sounds: tuple[Audio, ...]
    gain_db: float | None = None
    loudness_lufs: float | None = None
    limited_db: float = 0.0


def to_db(ratio: float) -> float:
    """Amplitude ratio in dB; -inf for 0."""
    return 20.0 * math.log10(ratio) if ratio > 0.0 else -math.inf


def from_db(level_db: float) -> float:
    """dB as an amplitude ratio."""
    return float(10.0 ** (level_db / 20.0))


def with_gain(audio: Audio, gain_db: float) -> Audio:
    """The sound, `gain_db` louder; may exceed full scale."""
    return Audio(audio.waveform * np.float32(from_db(gain_db)), audio.sample_rate)


def bring_below_full_scale(sounds: Sequence[Audio]) -> tuple[tuple[Audio, ...], float | None]:
    """All sounds, lowered by one common gain where any sample exceeds full scale, so that their balance stays.

    Returns:
        The sounds (the same objects where nothing had to be done) and the gain in dB, None where there was none.
    """
    peak = max((sound.peak for sound in sounds), default=0.0)
    if peak <= 1.0:
        return tuple(sounds), None
    gain_db = to_db(_BELOW_FULL_SCALE / peak)
    return tuple(with_gain(sound, gain_db) for sound in sounds), gain_db


def normalize(sounds: Sequence[Audio], mode: NormalizeMode, *, loudness_lufs: float = -14.0) -> Normalized:
    """Sounds that are heard together (a song, or the stems of one), normalised with one gain for all.

    `peak`: the highest true peak becomes -1 dBTP. `loudness`: the sum of the sounds gets `loudness_lufs` (BS.1770-4);
    where that drives a true peak above -1 dBTP, a limiter that all sounds share holds it, and what it takes away is
    made up for in a few passes, by 9 dB at most: what is nearly all peaks stays quieter (`loudness_lufs` says how
    loud). Silence stays silence. Sounds that share no time (several pieces)
    are to be given one by one.
    """
    if mode == "none" or not sounds:
        return Normalized(tuple(sounds))
    return _to_peak(sounds) if mode == "peak" else _to_loudness(sounds, loudness_lufs)


def _to_peak(sounds: Sequence[Audio]) -> Normalized:
    peak_db = max(true_peak_db(sound) for sound in sounds)
    if math.isinf(peak_db):
        return Normalized(tuple(sounds))
    gain_db = CEILING_DBTP - peak_db
    return Normalized(tuple(with_gain(sound, gain_db) for sound in sounds), gain_db)


def _to_loudness(sounds: Sequence[Audio], target_lufs: float) -> Normalized:
    measured = integrated_loudness(mixed(sounds))
    if math.isinf(measured):
        return Normalized(tuple(sounds), loudness_lufs=measured)
    gain_db = target_lufs - measured
    most_db = gain_db + _MOST_PUSH_DB
    passes: list[tuple[float, float]] = []
    while True:
        held = limit([with_gain(sound, gain_db) for sound in sounds], ceiling_dbtp=CEILING_DBTP)
        reached = integrated_loudness(mixed(held.sounds)) if held.limited_db else measured + gain_db
        passes.append((gain_db, reached))
        missing = target_lufs - reached
        if abs(missing) <= _LOUDNESS_TOLERANCE or len(passes) == _MOST_PASSES or gain_db >= most_db:
            break
        gain_db = min(gain_db + missing / _slope(passes), most_db)
    return Normalized(held.sounds, gain_db, reached, held.limited_db)


def _slope(passes: Sequence[tuple[float, float]]) -> float:
    """LU gained for a dB of gain, by the last two (gain, loudness); 1 is what there is without a limiter."""
    if len(passes) < 2:
        return 1.0
    (gain_before, loudness_before), (gain, loudness) = passes[-2:]
    return min(max((loudness - loudness_before) / (gain - gain_before), _LEAST_SLOPE), 1.0)
