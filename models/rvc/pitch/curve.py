"""Pitch curves: gaps, transposition, tuning. (Minimal.)"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float32]


def fill_gaps(f0: Curve) -> Curve:
    """Unvoiced frames drawn through."""
    voiced = np.flatnonzero(f0)
    return np.interp(np.arange(len(f0)), voiced, f0[voiced]).astype(np.float32) if len(voiced) else f0


def transpose(f0: Curve, semitones: float) -> Curve:
    """By semitones."""
    return f0 * np.float32(2 ** (semitones / 12))


def autotune(f0: Curve, *, strength: float, key: str | None) -> Curve:
    """Towards the nearest semitone."""
    if key not in (None, "chromatic"):
        raise NotImplementedError
    tuned = f0.copy()
    notes = 12 * np.log2(f0[f0 > 0] / 440)
    tuned[f0 > 0] = 440 * 2 ** ((notes + strength * (np.round(notes) - notes)) / 12)
    return tuned
