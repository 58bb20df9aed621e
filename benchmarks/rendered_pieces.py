"""Pieces whose tempo, beats, key and chords are known because we composed them, and how an analysis compares.

They are rendered by FluidSynth with the FluidR3 GM soundfont, as for the training of the demo model (demo/music.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audio import Audio
from demo.training.compose import BEATS_PER_BAR, compose, list_chords
from demo.training.render import SAMPLE_RATE, SOUNDFONT, render

DURATION_S = 30.0
MAX_OFFSET_S = 2.0  # of the beginning that is cut off, so that bars do not start with the file
TOLERANCE_S = 0.07  # of a beat
TEMPO_TOLERANCE = 0.04

# Start (s), end (s), pitch class of the root, triad (`major`, `minor`, `diminished`); None: no chord.
TimedChord = tuple[float, float, int | None, str]


@dataclass(frozen=True)
class KnownPiece:
    """A rendered piece and the truth about it.

    Args:
        arrangement: what plays; `drums` have no key and no chords.
        key: tonic (C = 0) and mode.
    """

    audio: Audio
    arrangement: str
    bpm: float
    beats: NDArray[np.float64]
    downbeats: NDArray[np.float64]
    key: tuple[int, str]
    chords: list[TimedChord]

    @property
    def has_chords(self) -> bool:
        return self.arrangement != "drums"


@dataclass(frozen=True)
class Estimate:
    """What an analysis says about a piece; None for what it does not find."""

    bpm: float | None
    beats: Sequence[float]
    downbeats: Sequence[float]
    key: tuple[int, str] | None
    chords: Sequence[TimedChord]


@dataclass(frozen=True)
class Score:
    """How an estimate compares with the truth.

    Args:
        tempo: `right` (within 4 %), `octave` (half or double) or `wrong`.
        beats, downbeats: F-measures with 70 ms.
        key: `right`, `fifth`, `relative`, `parallel` or `wrong`; None without a key.
        roots, triads: shares of the time in which the chord's root, and root and triad, are right; None without chords.
    """

    arrangement: str
    tempo: str
    beats: float
    downbeats: float
    key: str | None
    roots: float | None
    triads: float | None


def can_render() -> bool:
    return shutil.which("fluidsynth") is not None and Path(SOUNDFONT).exists()


def make_piece(seed: int) -> KnownPiece:
    """The piece of `seed`: 30 s of it, from a random moment in its first 2 s."""
    piece = compose(seed)
    skipped = int(np.random.default_rng(seed).uniform(0, MAX_OFFSET_S) * SAMPLE_RATE)
    samples = render(seed)[skipped : skipped + int(DURATION_S * SAMPLE_RATE)]
    audio = Audio((samples[None] / 32767).astype(np.float32), SAMPLE_RATE)
    beat_s, start = 60 / piece.bpm, skipped / SAMPLE_RATE
    beats = np.arange(float(piece.bars * BEATS_PER_BAR)) * beat_s - start
    downbeats = beats[::BEATS_PER_BAR]
    chords: list[TimedChord] = [
        (max(float(downbeat), 0.0), min(float(downbeat) + BEATS_PER_BAR * beat_s, audio.duration), *chord)
        for downbeat, chord in zip(downbeats, list_chords(piece), strict=True)
    ]

    def inside(times: NDArray[np.float64]) -> NDArray[np.float64]:
        return times[(times >= 0) & (times < audio.duration)]

    return KnownPiece(
        audio=audio,
        arrangement=piece.arrangement,
        bpm=piece.bpm,
        beats=inside(beats),
        downbeats=inside(downbeats),
        key=(piece.tonic, piece.mode),
        chords=[chord for chord in chords if chord[1] > chord[0]],
    )


def score(piece: KnownPiece, estimate: Estimate) -> Score:
    """Compares an estimate with the truth."""
    roots, triads = measure_overlap(piece.chords, estimate.chords) if piece.has_chords else (None, None)
    return Score(
        arrangement=piece.arrangement,
        tempo=judge_tempo(estimate.bpm, piece.bpm),
        beats=measure_f(piece.beats, estimate.beats),
        downbeats=measure_f(piece.downbeats, estimate.downbeats),
        key=judge_key(estimate.key, piece.key) if piece.has_chords else None,
        roots=roots,
        triads=triads,
    )


def judge_tempo(bpm: float | None, truth: float) -> str:
    for name, factors in (("right", (1.0,)), ("octave", (0.5, 2.0))):
        if bpm is not None and any(abs(bpm / truth / factor - 1) <= TEMPO_TOLERANCE for factor in factors):
            return name
    return "wrong"


def judge_key(key: tuple[int, str] | None, truth: tuple[int, str]) -> str:
    if key is None:
        return "wrong"
    if key == truth:
        return "right"
    interval = (key[0] - truth[0]) % 12
    if key[1] == truth[1]:
        return "fifth" if interval in (5, 7) else "wrong"
    if interval == (9 if truth[1] == "major" else 3):
        return "relative"
    return "parallel" if interval == 0 else "wrong"


def measure_f(truth: Sequence[float] | NDArray[np.float64], estimate: Sequence[float]) -> float:
    """F-measure of times (s) that count as equal within 70 ms, each at most once."""
    hits = position = 0
    for time in truth:
        while position < len(estimate) and estimate[position] < time - TOLERANCE_S:
            position += 1
        if position < len(estimate) and estimate[position] <= time + TOLERANCE_S:
            hits += 1
            position += 1
    return 2 * hits / (len(truth) + len(estimate)) if len(truth) + len(estimate) else 1.0


def measure_overlap(truth: Sequence[TimedChord], estimate: Sequence[TimedChord]) -> tuple[float, float]:
    """Shares of the time of `truth` in which the root, and root and triad, are right."""
    total = roots = triads = 0.0
    for start, end, root, triad in truth:
        total += end - start
        for other_start, other_end, other_root, other_triad in estimate:
            shared = min(end, other_end) - max(start, other_start)
            if shared > 0 and other_root == root:
                roots += shared
                triads += shared * (other_triad == triad)
    return roots / total, triads / total
