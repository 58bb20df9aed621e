"""Tempo, beats, bars, chords and key of songs in which they are known; noise and silence have none."""

from __future__ import annotations

import numpy as np
import pytest

from audio import Audio
from audio.analysis.chords import Chord
from audio.analysis.key import Key, name_chord
from audio.analysis.music import Music, analyze_music
from audio.dsp.resample import resample
from testing.signals import copy_to_disk, make_noise
from testing.songs import make_song


def analyze(audio: Audio) -> Music:
    return analyze_music(audio, lambda _: None)


def name_chords(music: Music) -> list[str]:
    assert music.keys is not None
    return [name for chord in music.chords if (name := name_chord(chord, music.keys[0])) != "N"]


@pytest.mark.parametrize("bpm", [75.0, 92.0, 110.0, 140.0])
def test_tempo_and_beats_are_found(bpm: float) -> None:
    music = analyze(make_song(["C", "G", "Am", "F"], bpm=bpm, bars=6))
    assert music.tempo is not None and music.tempo.bpm == pytest.approx(bpm, rel=0.005)
    expected = 0.3 + np.arange(24) * 60 / bpm
    nearest = np.abs(expected[:, None] - music.beats).min(axis=1)
    assert nearest.max() < 0.03
    assert len(music.beats) <= len(expected) + 2
    assert music.tempo.confidence > 0.8 > music.tempo.alternative_confidence
    assert music.tempo.alternative == pytest.approx(music.tempo.bpm * (2 if bpm < 100 else 0.5))


@pytest.mark.parametrize(("beats_per_bar", "bars"), [(3, 12), (4, 9)])
def test_downbeats_and_beats_per_bar_are_found(beats_per_bar: int, bars: int) -> None:
    music = analyze(make_song(["C", "Am", "F", "G"], bpm=132, beats_per_bar=beats_per_bar, bars=bars))
    assert music.bars is not None and music.bars.beats_per_bar == beats_per_bar
    expected = 0.3 + np.arange(bars) * beats_per_bar * 60 / 132
    assert np.abs(expected[:, None] - music.downbeats).min(axis=1).max() < 0.03


@pytest.mark.parametrize(
    ("chords", "key"),
    [(["C", "G", "Am", "F"], "C major"), (["F#m", "D", "A", "E"], "F# minor"), (["Em", "C", "D", "Em"], "E minor")],
)
def test_chords_and_key_are_found(chords: list[str], key: str) -> None:
    music = analyze(make_song(chords, bars=8))
    assert music.keys is not None and music.keys[0].name == key
    expected = [chord for number, chord in enumerate(chords * 2) if number == 0 or chord != (chords * 2)[number - 1]]
    assert name_chords(music) == expected
    edges = [(chord.start, chord.end) for chord in music.chords]
    assert edges[0][0] == 0 and all(a[1] == b[0] for a, b in zip(edges[:-1], edges[1:], strict=True))
    assert 0 < music.keys[1].confidence < music.keys[0].confidence < 1


@pytest.mark.parametrize("tuning", [-0.4, 0.3])
def test_music_that_is_not_tuned_to_440_hz_has_the_same_chords(tuning: float) -> None:
    music = analyze(make_song(["D", "G", "A", "Bm"], tuning=tuning))
    assert music.tuning == pytest.approx(tuning, abs=0.05)
    assert name_chords(music) == ["D", "G", "A", "Bm"] * 2


def test_level_rate_channels_and_place_of_storage_do_not_matter() -> None:
    song = make_song(["C", "G", "Am", "F"], bars=6)
    quiet = resample(Audio(np.repeat(song.waveform, 2, axis=0) * np.float32(0.01), song.sample_rate), 48_000)
    with copy_to_disk(quiet) as stored:
        first, second = analyze(song), analyze_music(stored, lambda _: None)
    assert np.abs(first.beats - second.beats).max() < 0.02
    assert name_chords(first) == name_chords(second)


def test_beats_follow_a_change_of_tempo() -> None:
    slow, fast = (make_song(["C", "G", "Am", "F"], bpm=bpm, bars=bars) for bpm, bars in ((84, 11), (126, 16)))
    music = analyze(Audio(np.concatenate((slow.waveform, fast.waveform), axis=1), slow.sample_rate))
    assert music.tempo is not None
    assert music.tempo.lowest == pytest.approx(84, rel=0.02) and music.tempo.highest == pytest.approx(126, rel=0.02)
    expected = np.concatenate((0.3 + np.arange(44) * 60 / 84, slow.duration + 0.3 + np.arange(64) * 60 / 126))
    assert (np.abs(expected[:, None] - music.beats).min(axis=1) < 0.07).mean() > 0.9


def test_there_are_no_beats_in_long_silence() -> None:
    song = make_song(["C", "G", "Am", "F"], bars=6)
    silence = np.zeros((1, 20 * song.sample_rate), np.float32)
    music = analyze(Audio(np.concatenate((silence, song.waveform, silence), axis=1), song.sample_rate))
    assert music.beats.min() > 17.5 and music.beats.max() < 20 + song.duration + 2.5
    assert (music.chords[0].root, music.chords[-1].root) == (None, None)


@pytest.mark.parametrize("sample_rate", [8000, 44_100])
@pytest.mark.parametrize("seconds", [1.0, 3.0, 10.0])
def test_noise_has_no_beat_and_no_key(sample_rate: int, seconds: float) -> None:
    music = analyze(Audio(make_noise(1, int(seconds * sample_rate)), sample_rate))
    assert music.tempo is None and music.keys is None and not len(music.beats) and music.bars is None
    assert [chord.root for chord in music.chords] == [None]


@pytest.mark.parametrize("num_samples", [1, 100, 4410, 44_099])
def test_less_than_a_second_is_too_short(num_samples: int) -> None:
    music = analyze(Audio(make_noise(2, num_samples), 44_100))
    assert (music.tempo, music.keys, music.chords) == (None, None, [])


def test_silence_has_nothing() -> None:
    music = analyze(Audio(np.zeros((2, 100_000), np.float32), 44_100))
    assert (music.tempo, music.keys, music.chords, len(music.downbeats)) == (None, None, [], 0)


def test_progress_rises_to_one_and_ends_the_work_when_it_raises() -> None:
    song, fractions = make_song(["C", "G"], bars=4), list[float]()
    analyze_music(song, fractions.append)
    assert fractions == sorted(fractions) and fractions[-1] == 1.0

    class EndedError(Exception):
        pass

    def end(fraction: float) -> None:
        if fraction > 0.5:
            raise EndedError

    with pytest.raises(EndedError):
        analyze_music(song, end)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        (Key(5, "major", 1.0), ["Bb", "Gm7", "Ddim", "N"]),
        (Key(6, "minor", 1.0), ["A#", "Gm7", "Ddim", "N"]),
        (None, ["A#", "Gm7", "Ddim", "N"]),
    ],
)
def test_chords_are_spelt_as_in_their_key(key: Key | None, names: list[str]) -> None:
    chords = [Chord(0, 1, 10, "major"), Chord(1, 2, 7, "m7"), Chord(2, 3, 2, "diminished"), Chord(3, 4, None, "")]
    assert [name_chord(chord, key) for chord in chords] == names


def test_keys_have_their_usual_names() -> None:
    keys = [Key(3, "major", 1), Key(3, "minor", 1), Key(6, "major", 1), Key(1, "minor", 1)]
    assert [key.name for key in keys] == ["Eb major", "Eb minor", "F# major", "C# minor"]
