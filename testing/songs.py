"""A small band whose tempo, bars, key and chords are known: drums, bass and chords, without any file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audio import Audio

SAMPLE_RATE = 22_050
TRIADS = {"": (0, 4, 7), "m": (0, 3, 7)}
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def make_song(  # noqa: PLR0913  (options by keyword)
    chords: Sequence[str],
    *,
    bpm: float = 110.0,
    beats_per_bar: int = 4,
    bars: int = 8,
    start: float = 0.3,
    tuning: float = 0.0,
) -> Audio:
    """A mono song with one chord a bar.

    Args:
        chords: such as `C` or `F#m`, repeated.
        bars: of the whole song.
        start: of the first bar, in s; silence before.
        tuning: semitones above A4 = 440 Hz.
    """
    beat = 60 / bpm
    total = int((start + bars * beats_per_bar * beat) * SAMPLE_RATE) + SAMPLE_RATE // 2
    song, noise = np.zeros(total), np.random.default_rng(0).standard_normal(SAMPLE_RATE)

    def add(time: float, sound: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        first = int(time * SAMPLE_RATE)
        song[first : first + len(sound)] += sound[: total - first]

    for number in range(bars * beats_per_bar):
        bar, place = divmod(number, beats_per_bar)
        time = start + number * beat
        name = chords[bar % len(chords)]
        root = NOTES.index(name.removesuffix("m"))
        if place == 0:
            pitches = [36 + root, *(60 + (root + step) % 12 for step in TRIADS["m" if name.endswith("m") else ""])]
            for pitch in pitches:
                add(time, 0.1 * _make_note(440 * 2 ** ((pitch + tuning - 69) / 12), beats_per_bar * beat))
            add(time, 0.6 * _make_kick())
        elif place % 2 == 1 or beats_per_bar == 3:
            add(time, 0.1 * _make_noise(noise, 0.08))
        add(time, 0.03 * _make_noise(noise, 0.02))
        add(time + beat / 2, 0.02 * _make_noise(noise, 0.02))
    return Audio((0.5 * song[None]).astype(np.float32), SAMPLE_RATE)


def _make_note(hertz: float, seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    partials = sum(0.7**k * np.sin(2 * np.pi * hertz * (k + 1) * times) for k in range(6))
    return np.asarray(partials * np.exp(-times) * np.minimum(1, (seconds - times) * 50))


def _make_kick() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    times = np.arange(SAMPLE_RATE // 5) / SAMPLE_RATE
    return np.asarray(np.sin(2 * np.pi * 55 * times) * np.exp(-20 * times))


def _make_noise(
    noise: np.ndarray[tuple[int], np.dtype[np.float64]], decay_s: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    times = np.arange(int(4 * decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    return np.asarray(noise[: len(times)] * np.exp(-times / decay_s))
