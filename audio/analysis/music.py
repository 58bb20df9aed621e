"""Tempo, beats, bars, chords and key of audio of any length, in one pass over its samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio.analysis.bars import Bars, describe_tracked_bars, find_bars
from audio.analysis.chords import Chord, find_chords
from audio.analysis.frames import ANALYSIS_RATE, Progress, iter_mono
from audio.analysis.key import Key, find_key
from audio.analysis.notes import NoteSpectrogram, average_spans, correct_tuning, explain_notes, measure_tuning
from audio.analysis.onsets import OnsetDetector, normalize_onsets
from audio.analysis.rhythm import NO_RHYTHM, Tempo, TrackedBeats, describe_tracked, find_rhythm
from audio.types import AudioSource

MIN_DURATION_S = 1.0  # shorter audio has no key and no beat
_SPAN_S = 0.5  # of the spans in which chords are looked for when there is no beat
_READING_SHARE, _RHYTHM_SHARE = 0.5, 0.4  # of the progress


@dataclass(frozen=True)
class Music:
    """What is heard.

    Args:
        tempo: None if nothing repeats.
        beats: in s; empty without a tempo.
        bars: of the beats; None without a tempo.
        chords: without gaps, from the start to the end; the chord of a span may be none.
        keys: the key and the runner-up; None without any chord.
        tuning: semitones above A4 = 440 Hz, -0.5 to 0.5.
    """

    tempo: Tempo | None
    beats: NDArray[np.float64]
    bars: Bars | None
    chords: list[Chord]
    keys: tuple[Key, Key] | None
    tuning: float

    @property
    def downbeats(self) -> NDArray[np.float64]:
        """In s."""
        return self.beats[self.bars.is_downbeat] if self.bars is not None else self.beats[:0]


NO_MUSIC = Music(None, NO_RHYTHM.beats, None, [], None, 0.0)


def analyze_music(source: AudioSource, progress: Progress, *, tracked: TrackedBeats | None = None) -> Music:
    """Analyses audio with at least one sample; nothing is found in silence and in less than a second.

    Args:
        source: of any length; an hour takes about 250 MB.
        progress: called at every block with the fraction that is done.
        tracked: beats that a model has found; None: they are found here.
    """
    if source.peak == 0.0 or source.duration < MIN_DURATION_S:
        return NO_MUSIC
    detector, spectrogram_maker = OnsetDetector(source.peak), NoteSpectrogram(source.peak)
    for block in iter_mono(source, ANALYSIS_RATE, lambda done: progress(_READING_SHARE * done)):
        detector.push(block)
        spectrogram_maker.push(block)
    onsets, spectrogram = normalize_onsets(detector.finish()), spectrogram_maker.finish()
    tuning = measure_tuning(spectrogram)
    spectrogram = correct_tuning(spectrogram, tuning)
    if tracked is None:
        rhythm = find_rhythm(onsets, spectrogram, lambda done: progress(_READING_SHARE + _RHYTHM_SHARE * done))
    else:
        rhythm = describe_tracked(tracked)
    has_beats = rhythm.tempo is not None
    inner = rhythm.beats if has_beats else np.arange(_SPAN_S, source.duration, _SPAN_S)
    edges = np.concatenate(([0.0], inner, [source.duration]))
    notes, unexplained = explain_notes(average_spans(spectrogram, edges))
    bars = describe_tracked_bars(tracked.beats, tracked.downbeats) if has_beats and tracked is not None else None
    if has_beats and bars is None:
        bars = find_bars(onsets, notes, rhythm.beats)
    is_downbeat = np.concatenate(([False], bars.is_downbeat)) if bars is not None else np.zeros(len(notes), bool)
    chords = find_chords(notes, unexplained, edges, is_downbeat)
    keys = find_key(notes, edges, chords)
    progress(1.0)
    return Music(rhythm.tempo, rhythm.beats, bars, chords, keys, tuning)
