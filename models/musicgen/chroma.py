"""The filter bank that turns a power spectrum into chroma."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_A0_HZ = 27.5
_CENTRE_OCTAVE, _OCTAVE_WIDTH = 5.0, 2.0  # above A0; notes far from it weigh less


def make_chroma_filters(sample_rate: int, fft_size: int, num_chroma: int = 12) -> NDArray[np.float32]:
    """The weights of every frequency in every chroma class, those of `librosa.filters.chroma` with `tuning=0`.

    A frequency belongs to the classes near it by a Gaussian that is as wide as the distance to the next frequency of
    the spectrum, but at least one class (D. Ellis, "Chroma feature analysis and synthesis", 2007).

    Args:
        sample_rate: of the spectrum's signal, in Hz.
        fft_size: samples that one spectrum is computed from.
        num_chroma: classes per octave; the first is C.

    Returns:
        `[num_chroma, fft_size // 2 + 1]`.
    """
    frequencies = np.arange(1, fft_size // 2 + 2) * (sample_rate / fft_size)  # one beyond the last, for its width
    notes = num_chroma * np.log2(frequencies / _A0_HZ)
    notes = np.concatenate(([notes[0] - 1.5 * num_chroma], notes))  # 0 Hz has no note: far below the first
    widths, notes = np.maximum(np.diff(notes), 1.0), notes[:-1]
    half = round(num_chroma / 2)
    distances = np.remainder(notes - np.arange(num_chroma)[:, None] + half, num_chroma) - half
    weights = np.exp(-0.5 * (2 * distances / widths) ** 2)
    weights /= np.linalg.norm(weights, axis=0)
    weights *= np.exp(-0.5 * ((notes / num_chroma - _CENTRE_OCTAVE) / _OCTAVE_WIDTH) ** 2)
    return np.roll(weights, -3 * (num_chroma // 12), axis=0).astype(np.float32)  # C is three semitones above A
