"""Sliding windows over a clip that is longer than the model's window, and the loudness that drifts over them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from audio import Audio
from models.musicgen.request import MAX_DRIFT_DB

MAX_GAIN_DB = 12.0  # a window that has faded to nothing is not amplified without limit
SILENCE_DB = -70.0


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """The model sees frames `start` to `end`; those from `known` on are generated, the others are its prompt."""

    start: int
    known: int
    end: int


def plan_sliding_windows(*, prompt: int, total: int, window: int, stride: int) -> list[SlidingWindow]:
    """Windows that move on by the stride once the first one is full; each sees the last frames made before it.

    Args:
        prompt: known frames; less than `window`.
        total: frames, prompt included.
        window: frames that the model sees.
        stride: frames; 0 < stride < window.
    """
    assert 0 < stride < window, f"a stride of {stride} frames in a window of {window}"
    assert prompt < window, f"a prompt of {prompt} frames fills the window of {window}"
    windows, start, known = [], 0, prompt
    while known < total:
        start = max(start, known - (window - stride)) if known - start >= window else start
        end = min(total, start + window)
        windows.append(SlidingWindow(start, known, end))
        start, known = start + stride, end
    return windows


def measure_loudness_db(waveform: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """RMS of `[C, T]` in dBFS, over the parts that are not silent: those within 20 dB of the whole."""
    power = np.square(waveform, dtype=np.float64).mean(axis=0)
    blocks = power[: len(power) // 1024 * 1024].reshape(-1, 1024).mean(axis=1) if len(power) >= 1024 else power
    threshold = blocks.mean() / 100 if len(blocks) else 0.0
    loud = blocks[blocks > threshold]
    return 10 * math.log10(loud.mean()) if len(loud) and loud.mean() > 0 else -math.inf


def level_windows(clip: Audio, starts: list[float]) -> tuple[Audio, list[float]]:
    """Holds the loudness of a long clip, which the model lets drift from window to window.

    A window that is more than `MAX_DRIFT_DB` off the first one is brought back to that limit. The gain moves in a
    straight line (in dB) between the middles of the windows, so that there is no step.

    Args:
        starts: seconds, where each window's new audio begins, ascending.

    Returns:
        The clip, and each window's loudness before that, dBFS.
    """
    edges = [round(start * clip.sample_rate) for start in starts] + [clip.num_samples]
    spans = [(first, last) for first, last in zip(edges, edges[1:], strict=False) if last > first]
    levels = [measure_loudness_db(clip.waveform[:, first:last]) for first, last in spans]
    gains = [_gain_db(level, levels[0]) for level in levels]
    if not any(gains):
        return clip, levels
    middles = [(first + last) / 2 for first, last in spans]
    curve = np.interp(np.arange(clip.num_samples), middles, gains)
    waveform = clip.waveform * (10 ** (curve / 20)).astype(np.float32)
    return Audio(waveform, clip.sample_rate), levels


def _gain_db(level: float, first: float) -> float:
    if level < SILENCE_DB or first < SILENCE_DB:
        return 0.0
    difference = first - level
    beyond = math.copysign(max(abs(difference) - MAX_DRIFT_DB, 0.0), difference)
    return max(-MAX_GAIN_DB, min(MAX_GAIN_DB, beyond))
