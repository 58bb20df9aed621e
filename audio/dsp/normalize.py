"""Brings sources that play together to a peak or loudness, with one gain and one limiter for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from audio.dsp.gain import EnvelopeView, GainView
from audio.dsp.limiter import limit, measure_peaks
from audio.dsp.loudness import integrated_loudness, true_peak_db
from audio.dsp.mix import mix
from audio.types import AudioSource

NormalizeMode = Literal["none", "peak", "loudness"]

CEILING_DBTP = -1.0
"""True peak that `normalize` never exceeds (the ceiling of EBU R 128 and of streaming services)."""
DEFAULT_LUFS = -14.0

_TOLERANCE_LU = 0.1
_MAX_PASSES = 5
_MIN_SLOPE = 0.3
_MAX_MAKEUP_DB = 9.0  # of gain that makes up for what the limiter takes away


@dataclass(frozen=True, slots=True)
class Normalized:
    """Result of `normalize`.

    Args:
        sources: in the order given, computed on reading; the same objects if nothing was changed.
        gain_db: the common gain, None if nothing was changed.
        loudness_lufs: of the sum of the result; None unless it was measured, -inf for silence.
        limited_db: the largest gain reduction by the limiter at any moment, 0.0 if there was none.
    """

    sources: tuple[AudioSource, ...]
    gain_db: float | None = None
    loudness_lufs: float | None = None
    limited_db: float = 0.0


def normalize(
    sources: Sequence[AudioSource], mode: NormalizeMode, *, loudness_lufs: float = DEFAULT_LUFS
) -> Normalized:
    """Normalises sources that play together (a song, or its stems), from memory or disk, with one gain for all.

    `peak`: the highest true peak becomes -1 dBTP. `loudness`: the sum of the sources gets `loudness_lufs`
    (BS.1770-4); if that takes a true peak above -1 dBTP, one limiter holds all sources below it, and up to 9 dB of gain
    make up for what it takes away. Audio that consists almost only of peaks stays quieter; `loudness_lufs` of the
    result says how loud it is. Silence stays silence. Sources that do not play together are normalised one by one.
    """
    if mode == "none" or not sources:
        return Normalized(tuple(sources))
    return _normalize_peak(sources) if mode == "peak" else _normalize_loudness(sources, loudness_lufs)


def _normalize_peak(sources: Sequence[AudioSource]) -> Normalized:
    peak_db = max(true_peak_db(source) for source in sources)
    if math.isinf(peak_db):
        return Normalized(tuple(sources))
    gain_db = CEILING_DBTP - peak_db
    return Normalized(tuple(GainView(source, gain_db) for source in sources), gain_db)


def _normalize_loudness(sources: Sequence[AudioSource], target_lufs: float) -> Normalized:
    song = mix(sources)
    measured = integrated_loudness(song)
    if math.isinf(measured):
        return Normalized(tuple(sources), loudness_lufs=measured)
    peaks = measure_peaks(sources)
    gain_db = target_lufs - measured
    max_gain_db = gain_db + _MAX_MAKEUP_DB
    passes: list[tuple[float, float]] = []
    while True:
        limited = limit(sources, gain_db=gain_db, ceiling_dbtp=CEILING_DBTP, peaks=peaks)
        loudness = measured + gain_db
        if limited.envelope is not None:
            loudness = integrated_loudness(EnvelopeView(GainView(song, gain_db), limited.envelope))
        passes.append((gain_db, loudness))
        missing = target_lufs - loudness
        if abs(missing) <= _TOLERANCE_LU or len(passes) == _MAX_PASSES or gain_db >= max_gain_db:
            return Normalized(limited.sources, gain_db, loudness, limited.limited_db)
        gain_db = min(gain_db + missing / _slope(passes), max_gain_db)


def _slope(passes: Sequence[tuple[float, float]]) -> float:
    """Change of loudness in LU for each dB of gain over the last two passes (gain, loudness); 1 without a limiter."""
    if len(passes) < 2:
        return 1.0
    (gain_before, loudness_before), (gain, loudness) = passes[-2:]
    return min(max((loudness - loudness_before) / (gain - gain_before), _MIN_SLOPE), 1.0)
