"""Beats and tempo, from the onset strengths and the note spectrogram of audio of any length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio.analysis.frames import Floats, Progress
from audio.analysis.hypotheses import MIN_BEATS, Hypothesis, list_hypotheses
from audio.analysis.notes import FRAME_RATE as NOTE_FRAME_RATE
from audio.analysis.onsets import FRAME_RATE, TOTAL, smooth_onsets
from audio.analysis.tempo import track_beats

SECTION_S = 30.0  # the tempo is chosen anew in each section
_TEMPO_CHANGE_COST = 4.0  # of a change by 10 % from one section to the next, in units of a hypothesis's score
_LARGEST_COST = 3.0
_HYPOTHESIS_WEIGHT = 3.0  # of the chosen beats beside the onsets, which have a root mean square of 1
_DELAY_S = 0.006  # from the start of a note to the middle of the frames in which its onset is strongest
_SILENT_S = 2.0  # beats that are further from any onset are left out
_AUDIBLE = 0.1
_START_TOLERANCE = 0.1  # of a beat by which the first beat may seem to be before the start
_EDGE = 8  # beats whose distance goes on beyond the first and the last
_NEAR = 0.1
_SPAN = 32  # beats over which the reported tempo is measured


@dataclass(frozen=True)
class Tempo:
    """Beats per minute.

    Args:
        bpm: the median over the whole audio.
        confidence: 0 to 1: how clearly people would tap this tempo and no other.
        alternative: half or double, whichever is more likely.
        alternative_confidence: 0 to 1.
        lowest, highest: of the sections of 30 s, in bpm.
    """

    bpm: float
    confidence: float
    alternative: float
    alternative_confidence: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Rhythm:
    """Tempo and beats.

    Args:
        tempo: None if nothing repeats.
        beats: in s; empty without a tempo.
    """

    tempo: Tempo | None
    beats: NDArray[np.float64]


NO_RHYTHM = Rhythm(None, np.zeros(0))


@dataclass(frozen=True)
class TrackedBeats:
    """Beats that a model has found, in s; every downbeat is one of the beats."""

    beats: NDArray[np.float64]
    downbeats: NDArray[np.float64]


def describe_tracked(tracked: TrackedBeats) -> Rhythm:
    """The tempo of beats that a model has found; without a tempo if they are too few.

    The confidence is the share of beats whose distance is within 10 % of the median, or of its half or double.
    """
    distances = np.diff(tracked.beats)
    if len(distances) < MIN_BEATS:
        return NO_RHYTHM
    middle = float(np.median(distances))
    shares = {factor: _share_near(distances, middle / factor) for factor in (1.0, 0.5, 2.0)}
    factor = max((0.5, 2.0), key=lambda one: (shares[one], -abs(math.log2(60 / middle * one / 120))))
    edges = np.arange(tracked.beats[0], tracked.beats[-1] + SECTION_S, SECTION_S)
    sections = np.split(distances, np.searchsorted(tracked.beats[:-1], edges[1:-1]))
    tempi = [60 / float(np.median(section)) for section in sections if len(section) >= MIN_BEATS]
    bpm = 60 / middle
    return Rhythm(
        Tempo(
            _measure_bpm(tracked.beats),
            shares[1.0],
            bpm * factor,
            shares[factor],
            min(tempi, default=bpm),
            max(tempi, default=bpm),
        ),
        tracked.beats,
    )


def _share_near(distances: NDArray[np.float64], distance: float) -> float:
    return float((np.abs(distances / distance - 1) < _NEAR).mean())


def _measure_bpm(times: NDArray[np.float64]) -> float:
    """The tempo of beats (s): from the median over many beats at once, whose times are rounded to frames."""
    span = min(_SPAN, len(times) - 1)
    return 60 * span / float(np.median(times[span:] - times[:-span]))


def find_rhythm(onsets: Floats, spectrogram: NDArray[np.float16], progress: Progress) -> Rhythm:
    """The beats of audio.

    Args:
        onsets: `[3, T]`, normalised.
        spectrogram: `[T', bins]` from `NoteSpectrogram`.
        progress: called for each section of 30 s.
    """
    strength = smooth_onsets(onsets[TOTAL])
    sections = _split(onsets.shape[1])
    hypotheses: list[list[Hypothesis]] = []
    for number, (start, stop) in enumerate(sections):
        progress(number / len(sections))
        first, last = (round(frame / FRAME_RATE * NOTE_FRAME_RATE) for frame in (start, stop))
        part = spectrogram[first : max(last, first + 1)]
        hypotheses.append(list(list_hypotheses(onsets[:, start:stop], strength[start:stop], part)))
    chosen = _choose(hypotheses, sections)
    if not any(chosen):
        return NO_RHYTHM
    beats = _join(strength, sections, chosen)
    beats = _leave_out_silence(_extend(beats, len(strength)), onsets[TOTAL])
    if len(beats) < MIN_BEATS:
        return NO_RHYTHM
    tempo = _describe_tempo(beats, hypotheses, chosen)
    return Rhythm(tempo, np.maximum(beats / FRAME_RATE - _DELAY_S, 0.0))


def _split(total: int) -> list[tuple[int, int]]:
    """Sections of about 30 s, as first and last frame."""
    count = max(round(total / FRAME_RATE / SECTION_S), 1)
    edges = np.linspace(0, total, count + 1).round().astype(int)
    return [(int(start), int(stop)) for start, stop in zip(edges[:-1], edges[1:], strict=True)]


def _choose(hypotheses: Sequence[Sequence[Hypothesis]], sections: Sequence[tuple[int, int]]) -> list[Hypothesis | None]:
    """The most likely sequence of hypotheses, one a section (Viterbi); None for a section without any."""
    filled = [number for number, section in enumerate(hypotheses) if section]
    chosen: list[Hypothesis | None] = [None] * len(hypotheses)
    if not filled:
        return chosen
    scores = np.array([hypothesis.score for hypothesis in hypotheses[filled[0]]])
    back = []
    for before, after in zip(filled[:-1], filled[1:], strict=True):
        offset = sections[after][0] - sections[before][0]
        costs = np.array([[_cost(a, b, offset) for b in hypotheses[after]] for a in hypotheses[before]])
        paths = scores[:, None] - costs
        back.append(paths.argmax(axis=0))
        scores = paths.max(axis=0) + [hypothesis.score for hypothesis in hypotheses[after]]
    best = int(scores.argmax())
    for number, previous in zip(reversed(filled), [*reversed(back), None], strict=True):
        chosen[number] = hypotheses[number][best]
        best = int(previous[best]) if previous is not None else best
    return chosen


def _cost(before: Hypothesis, after: Hypothesis, offset: int) -> float:
    """How unlikely `after` follows `before`: another tempo, or beats between the beats.

    Args:
        offset: frames from the start of the section of `before` to that of `after`.
    """
    change = abs(math.log(after.period / before.period)) / math.log(1.1)
    elapsed = (offset + int(after.beats[0]) - int(before.beats[-1])) / before.period
    misplaced = abs(elapsed - round(elapsed)) * 2
    return min(_TEMPO_CHANGE_COST * change + misplaced, _LARGEST_COST)


def _join(
    strength: Floats, sections: Sequence[tuple[int, int]], chosen: Sequence[Hypothesis | None]
) -> NDArray[np.int64]:
    """The beats of the whole audio, near the beats of the chosen hypotheses; their tempo goes on in other sections."""
    periods = np.zeros(len(strength))
    supported = strength.copy()
    period = next(hypothesis.period for hypothesis in chosen if hypothesis is not None)
    for (start, stop), hypothesis in zip(sections, chosen, strict=True):
        if hypothesis is not None:
            period = hypothesis.period
            for offset, weight in ((-1, 0.6), (0, 1.0), (1, 0.6)):
                frames = np.clip(start + hypothesis.beats + offset, start, stop - 1)
                supported[frames] += weight * _HYPOTHESIS_WEIGHT
        periods[start:stop] = period
    return track_beats(supported, periods)


def _extend(beats: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """The beats, continued to the start and the end: a beat at the very start has no onset."""
    if len(beats) < MIN_BEATS:
        return beats
    first, last = (float(np.median(np.diff(part))) for part in (beats[:_EDGE], beats[-_EDGE:]))
    before = np.arange(beats[0] - first, -_START_TOLERANCE * first, -first)[::-1]
    after = np.arange(beats[-1] + last, total - 1, last)
    return np.concatenate((np.maximum(before.round(), 0), beats, after.round())).astype(np.int64)


def _leave_out_silence(beats: NDArray[np.int64], strength: Floats) -> NDArray[np.int64]:
    """The beats that have an onset within 2 s."""
    audible = np.flatnonzero(strength > _AUDIBLE)
    if not len(audible):
        return beats[:0]
    after = np.searchsorted(audible, beats)
    distances = np.minimum(
        np.abs(audible[np.minimum(after, len(audible) - 1)] - beats), np.abs(beats - audible[np.maximum(after - 1, 0)])
    )
    return np.asarray(beats[distances <= _SILENT_S * FRAME_RATE])


def _describe_tempo(
    beats: NDArray[np.int64], hypotheses: Sequence[Sequence[Hypothesis]], chosen: Sequence[Hypothesis | None]
) -> Tempo:
    bpm = _measure_bpm(beats / FRAME_RATE)
    shares: dict[float, list[float]] = {1.0: [], 0.5: [], 2.0: []}
    for section, choice in zip(hypotheses, chosen, strict=True):
        if choice is not None:
            weights = np.exp([hypothesis.score - max(h.score for h in section) for hypothesis in section])
            for factor, found in shares.items():
                is_near = [abs(np.log2(h.bpm / choice.bpm / factor)) < 0.06 for h in section]
                found.append(float(weights[is_near].sum() / weights.sum()))
    confidences = {factor: float(np.mean(found)) for factor, found in shares.items()}
    if confidences[0.5] == confidences[2.0]:  # neither was tried
        factor = 0.5 if bpm > 120 else 2.0
    else:
        factor = max((0.5, 2.0), key=lambda one: confidences[one])
    tempi = [choice.bpm for choice in chosen if choice is not None]
    return Tempo(bpm, confidences[1.0], bpm * factor, confidences[factor], float(min(tempi)), float(max(tempi)))
