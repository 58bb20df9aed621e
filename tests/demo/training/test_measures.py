"""The measures of the demo models, on clips whose tempo and spectrum are known."""

import numpy as np
import pytest

from demo.training import measures
from demo.training.measures import Clip
from demo.training.render import SAMPLE_RATE


def make_clicks(bpm: float, seconds: float, *, stumble_s: float = 0.0) -> Clip:
    """Short bursts of noise on every beat; in the second half the beats come `stumble_s` later."""
    rng = np.random.default_rng(0)
    clip = rng.normal(0, 1e-4, round(seconds * SAMPLE_RATE)).astype(np.float32)
    burst = rng.normal(0, 0.3, 1600) * np.exp(-np.arange(1600) / 300)
    for time in np.arange(0.1, seconds - 0.2 - stumble_s, 60 / bpm):
        start = round((time + stumble_s * (time > seconds / 2)) * SAMPLE_RATE)
        clip[start : start + len(burst)] += burst.astype(np.float32)
    return clip


@pytest.mark.parametrize(
    ("tempo", "follows"), [(120.0, True), (62.0, True), (249.0, True), (126.0, False), (80.0, False)]
)
def test_tempo_may_be_four_percent_off_or_an_octave_away(tempo: float, follows: bool) -> None:
    assert measures.follows_tempo(tempo, 120) is follows


def test_each_ten_seconds_are_measured_alone() -> None:
    clip = np.concatenate([make_clicks(120, 10), make_clicks(90, 10)])
    first, second = measures.estimate_tempo_of_parts(clip)
    assert measures.follows_tempo(first, 120) and measures.follows_tempo(second, 90)
    assert not measures.follows_tempo(second, 120)


def test_silence_has_no_tempo() -> None:
    assert measures.estimate_tempo(np.zeros(SAMPLE_RATE * 3, np.float32)) == 0.0


def test_coherence_is_high_on_one_grid_and_falls_when_the_beat_stumbles() -> None:
    steady = measures.measure_beat_coherence(make_clicks(100, 40), 100)
    stumbling = measures.measure_beat_coherence(make_clicks(100, 40, stumble_s=0.25), 100)
    assert steady > 0.97
    assert stumbling < 0.85


def test_clicks_are_onsets() -> None:
    assert measures.measure_onset_rate(make_clicks(120, 10)) == pytest.approx(2.0, abs=0.2)


def test_spectral_distance_is_nothing_for_the_same_clips_and_grows_when_gaps_are_filled() -> None:
    clips = [make_clicks(bpm, 3) for bpm in (90, 120)]
    noise = np.random.default_rng(1).normal(0, 0.02, len(clips[0])).astype(np.float32)
    assert measures.compare_spectra(clips, clips) == 0.0
    assert measures.compare_spectra([0.3 * clip for clip in clips], clips) < 0.1, "the level does not count"
    assert measures.compare_spectra([clip + noise for clip in clips], clips) > 5.0


def test_noise_is_flat_and_a_tone_is_not() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    tone = np.sin(np.arange(SAMPLE_RATE) * 0.1).astype(np.float32)
    assert measures.measure_flatness(noise) > 0.4 > 0.01 > measures.measure_flatness(tone)
