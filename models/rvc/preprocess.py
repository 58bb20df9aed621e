"""Prepares a vocal for the networks: mono, 16 kHz, peak-limited and high-passed, block by block and without delay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio.dsp.resample import resample_blocks, resampled_length
from audio.types import BLOCK_FRAMES, AudioSource, Waveform, iter_blocks
from models.f0.catalog import SAMPLE_RATE
from models.runtime.progress import Progress

MAX_PEAK = 0.95
_CUTOFF_HZ = 48
_ORDER = 5
_EDGE = 3 * (_ORDER + 1)  # samples by which scipy's filtfilt extends each end


@dataclass(frozen=True, slots=True, eq=False)
class PreprocessedVocal:
    """A vocal as the networks take it.

    Args:
        waveform: `[T]` float32, mono, 16 kHz; sample i is the source's audio at i / 16000 s.
        duration: exact duration of the source in seconds.
    """

    waveform: Waveform
    duration: float


def preprocess(source: AudioSource, progress: Progress) -> PreprocessedVocal:
    """Downmixes, resamples, lowers the peak to at most 0.95 and removes what is below 48 Hz.

    This is RVC's own preparation: a Butterworth high-pass of order 5, run forwards and backwards.

    Args:
        source: of any length, sample rate and number of channels.
        progress: called with the fraction done before each block; what it raises ends the work.
    """
    length = resampled_length(source.num_samples, source.sample_rate, SAMPLE_RATE)
    extended = np.zeros(length + 2 * _EDGE, np.float32)
    waveform, position = extended[_EDGE : _EDGE + length], 0
    for block in resample_blocks(
        _iter_mono(source, progress), source.sample_rate, SAMPLE_RATE, num_samples=source.num_samples, length=length
    ):
        count = min(block.shape[1], length - position)
        waveform[position : position + count] = block[0, :count]
        position += count
    peak = max(float(waveform.max()), -float(waveform.min())) if length else 0.0
    if peak > MAX_PEAK:
        waveform *= MAX_PEAK / peak
    _high_pass(extended, waveform)
    return PreprocessedVocal(waveform, source.duration)


def _iter_mono(source: AudioSource, progress: Progress) -> Iterator[Waveform]:
    for number, block in enumerate(iter_blocks(source)):
        progress(number * BLOCK_FRAMES / source.num_samples)
        yield block.mean(axis=0, keepdims=True, dtype=np.float32)


def _high_pass(extended: Waveform, waveform: Waveform) -> None:
    """Runs scipy's `filtfilt` on `waveform` in place; `extended` has space for its odd extension at both ends."""
    from scipy.signal import butter, lfilter_zi

    if not (length := len(waveform)):
        return
    edge = min(_EDGE, length - 1)
    if edge:
        extended[_EDGE - edge : _EDGE] = 2 * waveform[0] - waveform[edge:0:-1]
        end = _EDGE + length
        extended[end : end + edge] = 2 * waveform[-1] - waveform[-2 : -edge - 2 : -1]
    used = extended[_EDGE - edge : _EDGE + length + edge]
    coefficients = butter(_ORDER, _CUTOFF_HZ, btype="high", fs=SAMPLE_RATE)
    initial_state = lfilter_zi(*coefficients)
    _filter(used, coefficients, initial_state)
    _filter(used[::-1], coefficients, initial_state)


def _filter(waveform: Waveform, coefficients: tuple[Any, Any], initial_state: NDArray[np.float64]) -> None:
    from scipy.signal import lfilter

    state = initial_state * float(waveform[0])
    for position in range(0, len(waveform), BLOCK_FRAMES):
        part = slice(position, position + BLOCK_FRAMES)
        waveform[part], state = lfilter(*coefficients, waveform[part].astype(np.float64), zi=state)
