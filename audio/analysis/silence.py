"""Finds silence with pydub, in pieces, so that hours of audio need little memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audio.types import AudioSource

_PIECE_S = 10
_STEP_MS = 10  # precision of the spans


def find_silence(source: AudioSource, *, threshold_db: float, min_silence: float) -> list[tuple[float, float]]:
    """Start and end (s) of every span whose level stays below a threshold.

    Args:
        source: with at least one sample.
        threshold_db: RMS level of any `min_silence` seconds of the span, all channels together, relative to full scale.
        min_silence: the shortest span in s, in steps of 10 ms; audio that is shorter may be silent as a whole.
    """
    from pydub import AudioSegment
    from pydub.silence import detect_silence

    if source.duration < 0.001:  # pydub counts whole milliseconds
        return [(0.0, source.duration)] if source.peak <= 10 ** (threshold_db / 20) else []
    window_ms = max(round(min_silence * 1000 / _STEP_MS), 1) * _STEP_MS
    window_ms = min(window_ms, int(source.duration * 1000))
    window = window_ms * source.sample_rate // 1000
    spans: list[tuple[int, int]] = []
    for start in range(0, math.ceil(source.duration), _PIECE_S):
        waveform = source.read(start * source.sample_rate, _PIECE_S * source.sample_rate + window)
        if not _may_be_silent(waveform, source.sample_rate, window, threshold_db):
            continue
        segment = AudioSegment(
            _to_int16(waveform), sample_width=2, frame_rate=source.sample_rate, channels=source.channels
        )
        found = detect_silence(segment, min_silence_len=window_ms, silence_thresh=threshold_db, seek_step=_STEP_MS)
        for first, last in found:
            begin, end = first + 1000 * start, last + 1000 * start
            if spans and begin <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((begin, end))
    return [(begin / 1000, min(end / 1000, source.duration)) for begin, end in spans]


def _may_be_silent(waveform: NDArray[np.float32], sample_rate: int, window: int, threshold_db: float) -> bool:
    """Whether pydub may find silence: measured in steps of 10 ms, with 3 dB to spare. Most of a song is passed over."""
    step = max(sample_rate * _STEP_MS // 1000, 1)
    steps_per_window = window // step - 1  # so many lie within any window
    num_steps = waveform.shape[1] // step
    if steps_per_window < 1 or num_steps <= steps_per_window:
        return True
    steps = waveform[:, : num_steps * step].reshape(len(waveform), num_steps, step)
    energies = np.einsum("cst,cst->s", steps, steps, dtype=np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(energies, steps_per_window).sum(axis=1)
    quietest = float(windows.min()) / (len(waveform) * window)
    return quietest < 2 * 10 ** (threshold_db / 10)


def _to_int16(waveform: NDArray[np.float32]) -> bytes:
    """Interleaved 16-bit samples; what exceeds full scale is far from silent anyway."""
    scaled = np.clip(np.round(waveform.T * 32768), -32768, 32767)
    return np.ascontiguousarray(scaled).astype("<i2").tobytes()
