"""Slaney's mel scale, as librosa has it: linear below 1 kHz and logarithmic above. Imports numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_HZ_PER_MEL = 200 / 3  # below 1 kHz; above it, 27 mels for a factor of 6.4
_KNEE_MEL = 1000 / _HZ_PER_MEL
_LOG_MELS = 27 / np.log(6.4)


def hz_to_slaney_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Converts frequencies in Hz to mels."""
    above = _KNEE_MEL + _LOG_MELS * np.log(np.maximum(hz, 1000) / 1000)
    return np.where(hz < 1000, hz / _HZ_PER_MEL, above)


def slaney_mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Converts mels to frequencies in Hz."""
    above = 1000 * np.exp((np.maximum(mel, _KNEE_MEL) - _KNEE_MEL) / _LOG_MELS)
    return np.where(mel < _KNEE_MEL, mel * _HZ_PER_MEL, above)
