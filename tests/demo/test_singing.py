"""The singer that the demo voices are trained on: melodies that fit it, and lines whose truth is exact."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np
import pytest

from demo.training.compose import compose
from demo.training.singing import SAMPLE_RATE, SINGERS, TARGETS, SungLine, compose_melody, sing
from demo.training.singing.lexicon import (
    BREATH,
    CONSONANT_SECONDS,
    LINES,
    PHONEMES,
    SILENCE,
    SYLLABLES,
    UNVOICED,
    VOWELS,
)

SECONDS = 4.0
needs_espeak = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")


def test_every_line_is_made_of_known_syllables_with_one_vowel_each() -> None:
    assert {syllable for line in LINES for syllable in line} <= set(SYLLABLES)
    for phonemes in SYLLABLES.values():
        assert sum(phoneme in VOWELS for phoneme in phonemes) == 1
        assert set(phonemes) <= {*VOWELS, *CONSONANT_SECONDS}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_singers_sing_the_same_words_at_the_same_times_each_in_its_range(seed: int) -> None:
    melodies = {name: compose_melody(compose(seed), voice) for name, voice in SINGERS.items()}
    words = {tuple((note.start_s, note.duration_s, note.syllable) for note in notes) for notes in melodies.values()}
    assert len(words) == 1 and len(melodies["alto"]) > 15
    for name, notes in melodies.items():
        assert all(SINGERS[name].low <= note.pitch <= SINGERS[name].high for note in notes)
        assert all(left.start_s + left.duration_s <= right.start_s + 1e-9 for left, right in pairwise(notes))
    assert set(TARGETS) < set(SINGERS) and len(SINGERS) >= 5


@pytest.fixture(scope="module")
def line() -> SungLine:
    return sing(compose_melody(compose(3), SINGERS["alto"]), SINGERS["alto"], seed=0, seconds=SECONDS)


@needs_espeak
def test_a_line_has_the_pitch_that_its_truth_states(line: SungLine) -> None:
    import parselmouth

    found = parselmouth.Sound(line.audio.astype(np.float64), SAMPLE_RATE).to_pitch_ac(
        time_step=0.01, pitch_floor=75, pitch_ceiling=800
    )
    frames = np.round(found.xs() * 100).astype(int)
    hz, truth = found.selected_array["frequency"], line.f0[frames]
    voiced = (hz > 0) & (truth > 0)
    assert voiced.mean() > 0.5
    assert np.median(np.abs(1200 * np.log2(hz[voiced] / truth[voiced]))) < 10
    assert np.mean((hz > 0) == (truth > 0)) > 0.9


@needs_espeak
def test_the_cycles_of_a_line_advance_with_its_f0(line: SungLine) -> None:
    hop = SAMPLE_RATE // 100
    assert line.cycles.shape == line.audio.shape
    steady = np.flatnonzero((line.f0[:-1] > 0) & (line.f0[1:] > 0))
    advanced = line.cycles[(steady + 1) * hop] - line.cycles[steady * hop]
    assert np.allclose(advanced * 100, (line.f0[steady] + line.f0[steady + 1]) / 2, rtol=0.01)


@needs_espeak
def test_the_phonemes_of_a_line_fill_it_and_unvoiced_ones_have_no_pitch(line: SungLine) -> None:
    edges = [(phoneme.start_s, phoneme.end_s) for phoneme in line.phonemes]
    assert edges[0][0] == 0 and edges[-1][1] == pytest.approx(SECONDS)
    assert all(left[1] == pytest.approx(right[0]) for left, right in pairwise(edges))
    symbols = {phoneme.symbol for phoneme in line.phonemes}
    assert symbols <= set(PHONEMES) and SILENCE in symbols
    for phoneme in line.phonemes:
        inside = line.f0[int(np.ceil(phoneme.start_s * 100 - 1e-6)) : int(np.ceil(phoneme.end_s * 100 - 1e-6))]
        assert not (inside > 0).any() if phoneme.symbol in (*UNVOICED, SILENCE, BREATH) else (inside > 0).all()
    assert line.audio.shape == (round(SECONDS * SAMPLE_RATE),) and np.abs(line.audio).max() < 1


@needs_espeak
def test_the_same_line_is_sung_to_the_sample_again_and_another_singer_sounds_different(line: SungLine) -> None:
    notes = compose_melody(compose(3), SINGERS["alto"])
    again = sing(notes, SINGERS["alto"], seed=0, seconds=SECONDS)
    assert np.array_equal(again.audio, line.audio) and np.array_equal(again.f0, line.f0)
    other = sing(notes, SINGERS["mezzo"], seed=0, seconds=SECONDS)
    assert [part.symbol for part in other.phonemes] == [part.symbol for part in line.phonemes]
    spectra = [np.log(np.abs(np.fft.rfft(audio[: 2 * SAMPLE_RATE])) + 1e-3) for audio in (line.audio, other.audio)]
    assert np.abs(spectra[0] - spectra[1]).mean() > 0.5
