"""What is done to a curve of f0 before a voice sings it. f0 in Hz, 0 = unvoiced, which stays so but in `fill_gaps`."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.f0.catalog import F0_MAX, F0_MIN
from models.f0.keys import parse_key
from models.f0.tracker import Curve

_A4_HZ: Final = 440.0
_A4_NOTE: Final = 69
_COARSE_LEVELS: Final = 255


def fill_gaps(f0: Curve) -> Curve:
    """`f0` without unvoiced frames: straight lines in pitch between voiced ones, level at the ends.

    A curve without any voiced frame stays as it is.
    """
    voiced = np.flatnonzero(f0 > 0)
    if len(voiced) in (0, len(f0)):
        return f0.copy()
    pitch = np.interp(np.arange(len(f0)), voiced, np.log2(f0[voiced].astype(np.float64)))
    return np.where(f0 > 0, f0, np.exp2(pitch)).astype(np.float32)


def transpose(f0: Curve, semitones: float) -> Curve:
    """`f0` higher by `semitones`, which may be a fraction or negative."""
    return (f0.astype(np.float64) * 2 ** (semitones / 12)).astype(np.float32)


def autotune(f0: Curve, *, strength: float, key: str | None = None) -> Curve:
    """`f0` moved towards the nearest note of a key. What is to be transposed is transposed before.

    Args:
        f0: `[T]`.
        strength: how much of the way in cents, 0..1.
        key: as `parse_key` takes it; notes are those of equal temperament with A4 = 440 Hz.

    Raises:
        InvalidRequestError: there is no such key.
    """
    scale = parse_key(key)
    if strength == 0:
        return f0.copy()
    voiced = f0 > 0
    pitch = _A4_NOTE + 12 * np.log2(np.where(voiced, f0, _A4_HZ).astype(np.float64) / _A4_HZ)
    tuned = pitch + strength * (_nearest_note(pitch, scale) - pitch)
    return np.where(voiced, _A4_HZ * np.exp2((tuned - _A4_NOTE) / 12), 0).astype(np.float32)


def _nearest_note(pitch: NDArray[np.float64], scale: tuple[int, ...]) -> NDArray[np.float64]:
    """The note number next to each pitch (in note numbers) of those whose pitch class is in `scale`."""
    within_octaves = np.array([scale[-1] - 12, *scale, scale[0] + 12], np.float64)
    boundaries = (within_octaves[1:] + within_octaves[:-1]) / 2
    octave = np.floor(pitch / 12)
    return np.asarray(12 * octave + within_octaves[np.searchsorted(boundaries, pitch - 12 * octave)])


def coarse(f0: Curve) -> NDArray[np.int64]:
    """`f0` as the levels 1..255 that RVC's networks embed: even steps in mel from 50 to 1100 Hz; unvoiced is 1."""
    lowest, highest = _mel(np.array([F0_MIN, F0_MAX]))
    level = (_mel(f0.astype(np.float64)) - lowest) * (_COARSE_LEVELS - 1) / (highest - lowest) + 1
    return np.asarray(np.rint(np.clip(level, 1, _COARSE_LEVELS)), np.int64)


def _mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1127 * np.log1p(hz / 700))
