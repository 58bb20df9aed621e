"""Windows that slide over a piece longer than a model sees, and the loudness that may drift over them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from audio import Audio
from models.musicgen.request import MAX_DRIFT_DB

MOST_DB = 12.0  # gain at most: what faded to nothing is not dug out
SILENCE_DB = -70.0


@dataclass(frozen=True)
class Sight:
    """Frames `start` to `end` are seen, those from `known` on are to be made."""

    start: int
    known: int
    end: int


def sights(*, prompt: int, total: int, window: int, stride: int) -> list[Sight]:
    """Windows that slide by the stride once the first is full; each sees the end of what was made before it.

    Args:
        prompt: frames that are known; less than `window`.
        total: frames, prompt included.
        window: frames that a model sees.
        stride: 0 < stride < window.
    """
    assert 0 < stride < window and prompt < window
    made, start, known = [], 0, prompt
    while known < total:
        start = max(start, known - (window - stride)) if known - start >= window else start
        end = min(total, start + window)
        made.append(Sight(start, known, end))
        start, known = start + stride, end
    return made


def loudness_db(waveform: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """Level of `[C, T]`: RMS in dBFS of the parts that sound, those within 20 dB of the whole."""
    power = np.square(waveform, dtype=np.float64).mean(axis=0)
    blocks = power[: len(power) // 1024 * 1024].reshape(-1, 1024).mean(axis=1) if len(power) >= 1024 else power
    floor = blocks.mean() / 100 if len(blocks) else 0.0
    heard = blocks[blocks > floor]
    return 10 * math.log10(heard.mean()) if len(heard) and heard.mean() > 0 else -math.inf


def steadied(audio: Audio, bounds: list[float]) -> tuple[Audio, list[float]]:
    """Holds the loudness of a long piece where its model lets it drift from window to window.

    A window more than `MAX_DRIFT_DB` off the first one is brought back to that, by a gain that moves in a straight line
    (in dB) between the windows' middles, so that nothing steps.

    Args:
        bounds: s, where each window's new sound begins, ascending from where the measure begins.

    Returns:
        The piece, and each window's loudness as it came, dBFS.
    """
    edges = [round(bound * audio.sample_rate) for bound in bounds] + [audio.num_samples]
    spans = [(first, last) for first, last in zip(edges, edges[1:], strict=False) if last > first]
    levels = [loudness_db(audio.waveform[:, first:last]) for first, last in spans]
    gains = [_gain_db(level, levels[0]) for level in levels]
    if not any(gains):
        return audio, levels
    middles = [(first + last) / 2 for first, last in spans]
    curve = np.interp(np.arange(audio.num_samples), middles, gains)
    waveform = audio.waveform * (10 ** (curve / 20)).astype(np.float32)
    return Audio(waveform, audio.sample_rate), levels


def _gain_db(level: float, wanted: float) -> float:
    if level < SILENCE_DB or wanted < SILENCE_DB:
        return 0.0
    off = wanted - level
    beyond = math.copysign(max(abs(off) - MAX_DRIFT_DB, 0.0), off)
    return max(-MOST_DB, min(MOST_DB, beyond))
