"""Changes f0 contours: interpolation, transposition, autotune, quantization. f0 is in Hz, 0 = unvoiced."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from errors import ErrorCode, InvalidRequestError, sanitize
from models.f0.catalog import F0_MAX, F0_MIN
from models.f0.estimator import F0Contour

CHROMATIC = tuple(range(12))

_A4_HZ = 440.0
_A4_NOTE = 69
_F0_LEVELS = 255

_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)  # natural
_MODES = {"": _MAJOR, "M": _MAJOR, "maj": _MAJOR, "major": _MAJOR, "m": _MINOR, "min": _MINOR, "minor": _MINOR}
_TONICS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
_KEY = re.compile(r"\s*([A-Ga-g])([#♯b♭]?)\s*([A-Za-z]*)\s*")


def fill_gaps(f0: F0Contour) -> F0Contour:
    """Interpolates f0 through unvoiced frames, linearly in log frequency, and holds it at the ends.

    A contour without any voiced frame is returned as it is.
    """
    voiced = np.flatnonzero(f0 > 0)
    if len(voiced) in (0, len(f0)):
        return f0.copy()
    octaves = np.interp(np.arange(len(f0)), voiced, np.log2(f0[voiced].astype(np.float64)))
    return np.where(f0 > 0, f0, np.exp2(octaves)).astype(np.float32)


def transpose(f0: F0Contour, semitones: float) -> F0Contour:
    """`f0` higher by `semitones`, which may be fractional or negative."""
    return (f0.astype(np.float64) * 2 ** (semitones / 12)).astype(np.float32)


def autotune(f0: F0Contour, *, strength: float, key: str | None = None) -> F0Contour:
    """Moves f0 towards the nearest note of a key. Transpose before, not after.

    Args:
        f0: `[T]` in Hz; unvoiced frames stay unvoiced.
        strength: share of the distance in cents. 0 = unchanged, 1 = on the note.
        key: as in `parse_key`; notes are equal-tempered with A4 = 440 Hz.

    Raises:
        InvalidRequestError: `key` is not a key.
    """
    pitch_classes = parse_key(key)
    if strength == 0:
        return f0.copy()
    voiced = f0 > 0
    notes = _A4_NOTE + 12 * np.log2(np.where(voiced, f0, _A4_HZ).astype(np.float64) / _A4_HZ)
    notes += strength * (_nearest_note(notes, pitch_classes) - notes)
    return np.where(voiced, _A4_HZ * np.exp2((notes - _A4_NOTE) / 12), 0).astype(np.float32)


def _nearest_note(notes: NDArray[np.float64], pitch_classes: tuple[int, ...]) -> NDArray[np.float64]:
    """The nearest whole note number, of those in `pitch_classes`, to each fractional one."""
    candidates = np.array([pitch_classes[-1] - 12, *pitch_classes, pitch_classes[0] + 12], np.float64)
    boundaries = (candidates[1:] + candidates[:-1]) / 2
    octave = np.floor(notes / 12)
    return np.asarray(12 * octave + candidates[np.searchsorted(boundaries, notes - 12 * octave)])


def quantize_f0(f0: F0Contour) -> NDArray[np.int64]:
    """RVC's "coarse" f0, which its networks embed: levels 1 to 255, evenly spaced in mel from 50 to 1100 Hz.

    Unvoiced frames have level 1.
    """
    lowest, highest = _hz_to_mel(np.array([F0_MIN, F0_MAX]))
    level = (_hz_to_mel(f0.astype(np.float64)) - lowest) * (_F0_LEVELS - 1) / (highest - lowest) + 1
    return np.asarray(np.rint(np.clip(level, 1, _F0_LEVELS)), np.int64)


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1127 * np.log1p(hz / 700))


def parse_key(key: str | None) -> tuple[int, ...]:
    """The pitch classes of a key, 0 = C to 11 = B, ascending.

    Args:
        key: e.g. `C major`, `F# minor`, `Bb` (major) or `Am`. Case matters only for `M` and `m`. None or `chromatic`
            is all twelve.

    Raises:
        InvalidRequestError: `key` is none of these.
    """
    if key is None or key.strip().lower() == "chromatic":
        return CHROMATIC
    match = _KEY.fullmatch(key)
    mode = match[3] if match and len(match[3]) == 1 else match[3].lower() if match else None
    if match is None or mode not in _MODES:
        raise InvalidRequestError(
            f"'{sanitize(key)}' is not a key. Give a note from A to G, optionally with # or b, and 'major' or 'minor', "
            "such as 'C major', 'F# minor', 'Bb' or 'Am'; or 'chromatic' for all twelve notes.",
            code=ErrorCode.INVALID_REQUEST,
        )
    tonic = _TONICS[match[1].upper()] + _ACCIDENTALS[match[2]]
    return tuple(sorted((tonic + step) % 12 for step in _MODES[mode]))
