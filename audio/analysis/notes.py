"""Which notes sound: a spectrogram with three bins a semitone, and what notes explain it.

After Mauch and Dixon, "Approximate note transcription for the improved identification of difficult chords" (ISMIR
2010): the logarithmic spectrum is whitened, and each spectrum is explained as a sum of notes with decaying harmonics.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audio.analysis.frames import ANALYSIS_RATE, Floats, Spectra

FRAME_LENGTH = 8192
HOP_LENGTH = 2048
FRAME_RATE = ANALYSIS_RATE / HOP_LENGTH  # frames per second
LOWEST_NOTE, HIGHEST_NOTE = 28, 99  # MIDI numbers: E1 to D#7

_BINS_PER_NOTE = 3
_NUM_NOTES = HIGHEST_NOTE + 1 - LOWEST_NOTE
_NUM_BINS = _NUM_NOTES * _BINS_PER_NOTE
_COMPRESSION = 50 * FRAME_LENGTH / 8
_FRAMES_AT_ONCE = 4096
_ROWS_AT_ONCE = 256
_WHITENING_BINS = 18 * _BINS_PER_NOTE + 1
_HARMONICS = 10
_HARMONIC_DECAY = 0.7  # of the amplitude of each harmonic relative to the one below it
_ITERATIONS = 60
_TREBLE_CENTRE, _TREBLE_WIDTH, _TREBLE_LOWEST, _TREBLE_BELOW = 62, 12.0, 43, 0.3
_BASS_CENTRE, _BASS_WIDTH = 42, 8.0


class NoteSpectrogram:
    """Measures a note spectrogram of a stream of samples at 22.05 kHz.

    Args:
        peak: largest absolute sample of the audio; the result does not depend on its level.
    """

    def __init__(self, peak: float) -> None:
        self._gain = np.float32(_COMPRESSION / max(peak, 1e-9))
        self._spectra = Spectra(FRAME_LENGTH, HOP_LENGTH)
        self._weights = _bin_weights()
        self._parts: list[NDArray[np.float16]] = []

    def push(self, block: Floats) -> None:
        """Takes the next samples `[n]`."""
        for spectra in self._spectra.push(block):
            self._add(spectra)

    def finish(self) -> NDArray[np.float16]:
        """Logarithmic levels `[T, bins]` of the whole stream; half precision, because it may be hours long."""
        for spectra in self._spectra.finish():
            self._add(spectra)
        return np.concatenate(self._parts)

    def _add(self, spectra: Floats) -> None:
        used = self._weights.shape[1]
        self._parts.append(np.log1p(self._gain * (spectra[:, :used] @ self._weights.T)).astype(np.float16))


def _bin_weights() -> Floats:
    """`[bins, frequencies]` weights that average the spectrum around each third of a semitone, up to the last bin."""
    hz = np.fft.rfftfreq(FRAME_LENGTH, 1 / ANALYSIS_RATE)
    centres = 440 * 2 ** ((LOWEST_NOTE + np.arange(_NUM_BINS) / _BINS_PER_NOTE - 69) / 12)
    reach = np.maximum(centres * (2 ** (1 / 12 / _BINS_PER_NOTE) - 1), ANALYSIS_RATE / FRAME_LENGTH)
    weights = np.clip(1 - np.abs(hz - centres[:, None]) / reach[:, None], 0, None)
    used = int(np.flatnonzero(weights.any(axis=0))[-1]) + 1
    return np.asarray((weights / weights.sum(axis=1, keepdims=True))[:, :used], np.float32)


def measure_tuning(spectrogram: NDArray[np.float16]) -> float:
    """How far the notes are above A4 = 440 Hz, in semitones from -0.5 to 0.5."""
    levels = np.concatenate([part.mean(axis=0, keepdims=True, dtype=np.float32) for part in _split(spectrogram)])
    mean = _normalize_levels(levels.mean(axis=0, keepdims=True))[0]
    turns = np.exp(-2j * np.pi * np.arange(_NUM_BINS) / _BINS_PER_NOTE)
    return float(-np.angle((mean * turns).sum()) / (2 * np.pi))


def _split(spectrogram: NDArray[np.float16]) -> list[NDArray[np.float16]]:
    return np.array_split(spectrogram, len(spectrogram) // _FRAMES_AT_ONCE + 1)


def correct_tuning(spectrogram: NDArray[np.float16], semitones: float) -> NDArray[np.float16]:
    """The spectrogram of the same notes at A4 = 440 Hz, when they are `semitones` above it."""
    shift = semitones * _BINS_PER_NOTE
    below = int(np.floor(shift))
    share = np.float16(shift - below)
    lower = np.clip(np.arange(_NUM_BINS) + below, 0, _NUM_BINS - 1)
    upper = np.clip(lower + 1, 0, _NUM_BINS - 1)
    return np.concatenate([part[:, lower] * (1 - share) + part[:, upper] * share for part in _split(spectrogram)])


def average_spans(spectrogram: NDArray[np.float16], edges: NDArray[np.float64]) -> Floats:
    """The median spectrum between each two neighbouring `edges` (seconds), whitened: `[spans, bins]`.

    The median leaves out drums, which sound in few of the frames.
    """
    bounds = np.clip(np.round(edges * FRAME_RATE).astype(int), 0, len(spectrogram) - 1)
    medians = np.empty((len(edges) - 1, spectrogram.shape[1]), np.float32)
    for row, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        medians[row] = np.median(spectrogram[start : max(stop, start + 1)].astype(np.float32), axis=0)
    parts = np.split(medians, range(_ROWS_AT_ONCE, len(medians), _ROWS_AT_ONCE))
    return np.concatenate([_normalize_levels(part) for part in parts])


def _normalize_levels(levels: Floats) -> Floats:
    """Each bin's level above the mean of its surroundings, in standard deviations of them; 0 below the mean."""
    kernel = np.hanning(_WHITENING_BINS + 2)[1:-1].astype(np.float32)
    kernel /= kernel.sum()
    reach = _WHITENING_BINS // 2
    padded = np.pad(levels, ((0, 0), (reach, reach)), mode="reflect")
    mean = _convolve_rows(padded, kernel)
    variance = _convolve_rows(padded**2, kernel) - mean**2
    above = np.maximum(levels - mean, 0)
    return np.asarray(above / (np.sqrt(np.maximum(variance, 0)) + 1e-3), np.float32)


def _convolve_rows(rows: Floats, kernel: Floats) -> Floats:
    return np.lib.stride_tricks.sliding_window_view(rows, len(kernel), axis=1) @ kernel


def explain_notes(spectra: Floats) -> tuple[Floats, Floats]:
    """How strongly each note `LOWEST_NOTE..HIGHEST_NOTE` sounds in each whitened spectrum.

    Returns:
        Strengths `[spans, notes]`, and the share of each spectrum that no notes explain, `[spans]`, 0 to 1: about 0.5
        for instruments, 0.7 for drums, 1 for silence.

    The non-negative least-squares solution, by multiplicative updates (Lee and Seung 2001).
    """
    dictionary = _harmonic_dictionary()
    products, gram = spectra @ dictionary.T, dictionary @ dictionary.T
    notes = np.maximum(products, 1e-6)
    for _ in range(_ITERATIONS):
        notes *= (products + 1e-9) / (notes @ gram + 1e-9)
    rest = np.linalg.norm(spectra - notes @ dictionary, axis=1)
    lengths = np.linalg.norm(spectra, axis=1)
    return notes, np.where(lengths > 0, rest / np.maximum(lengths, 1e-9), 1.0).astype(np.float32)


def _harmonic_dictionary() -> Floats:
    """The whitened spectrum of each note alone, `[notes, bins]`, of length 1."""
    offsets = _BINS_PER_NOTE * 12 * np.log2(np.arange(1, _HARMONICS + 1))
    bins = np.arange(_NUM_BINS)
    spectra = np.zeros((_NUM_NOTES, _NUM_BINS))
    for number, offset in enumerate(offsets):
        positions = _BINS_PER_NOTE * np.arange(_NUM_NOTES)[:, None] + offset
        spectra += _HARMONIC_DECAY**number * np.clip(1 - np.abs(bins - positions) / 1.5, 0, None)
    return np.asarray(spectra / np.linalg.norm(spectra, axis=1, keepdims=True), np.float32)


def fold_treble(notes: Floats) -> Floats:
    """Strengths of the 12 pitch classes (C first) in the middle range: `[spans, 12]`."""
    midi = np.arange(LOWEST_NOTE, HIGHEST_NOTE + 1)
    weights = np.exp(-0.5 * ((midi - _TREBLE_CENTRE) / _TREBLE_WIDTH) ** 2)
    weights[midi < _TREBLE_LOWEST] *= _TREBLE_BELOW
    return _fold(notes, weights)


def fold_bass(notes: Floats) -> Floats:
    """Strengths of the 12 pitch classes (C first) in the bass: `[spans, 12]`."""
    midi = np.arange(LOWEST_NOTE, HIGHEST_NOTE + 1)
    return _fold(notes, np.exp(-0.5 * ((midi - _BASS_CENTRE) / _BASS_WIDTH) ** 2))


def _fold(notes: Floats, weights: NDArray[np.float64]) -> Floats:
    classes = np.eye(12, dtype=np.float32)[np.arange(LOWEST_NOTE, HIGHEST_NOTE + 1) % 12]
    return (notes * weights.astype(np.float32)) @ classes


def scale_rows(rows: Floats) -> Floats:
    """Each row at length 1; a row that is much weaker than the strongest stays weak."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 0.02 * lengths.max(initial=0.0) + 1e-9), np.float32)
