"""One gain for sounds that belong together; loudness and peak where they were asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import Audio
from audio.dsp.gain import bring_below_full_scale, from_db, normalize, to_db, with_gain
from audio.dsp.loudness import integrated_loudness, mixed, true_peak_db
from testing.signals import tone


def stems() -> list[Audio]:
    return [tone(3.0, level=0.2), tone(2.0, level=0.05, channels=1), with_gain(tone(3.0), -30.0)]


def drums(seconds: float = 4.0) -> Audio:
    times = np.arange(int(44100 * seconds)) / 44100
    hits = np.sin(2 * np.pi * 80 * times) * np.exp(-((4 * times) % 1) * 12)
    return Audio(np.tile(hits, (2, 1)).astype(np.float32), 44100)


@given(st.floats(-120.0, 60.0))
def test_decibels_there_and_back(level_db: float) -> None:
    assert to_db(from_db(level_db)) == pytest.approx(level_db, abs=1e-9)


def test_no_ratio_has_no_level() -> None:
    assert to_db(0.0) == -np.inf


def test_sounds_within_full_scale_are_left_alone() -> None:
    sounds = [tone(0.1), Audio(np.ones((1, 10), np.float32), 44100)]
    brought, gain_db = bring_below_full_scale(sounds)
    assert gain_db is None
    assert all(a is b for a, b in zip(brought, sounds, strict=True))


def test_one_loud_sound_lowers_all_by_the_same() -> None:
    sounds = [Audio(tone(0.2).waveform * 8, 44100), tone(0.3)]
    brought, gain_db = bring_below_full_scale(sounds)
    assert gain_db is not None and gain_db < 0
    assert 0.999 < max(sound.peak for sound in brought) <= 1.0
    for before, after in zip(sounds, brought, strict=True):
        np.testing.assert_allclose(after.waveform, before.waveform * from_db(gain_db), rtol=1e-5)


@given(st.floats(1.0001, 1e9))
def test_no_peak_is_left_above_full_scale(peak: float) -> None:
    (brought,), _ = bring_below_full_scale([Audio(np.full((1, 3), peak, np.float32), 44100)])
    assert 0.999 < brought.peak <= 1.0


def test_none_changes_nothing() -> None:
    sounds = stems()
    done = normalize(sounds, "none")
    assert done.gain_db is None and all(a is b for a, b in zip(done.sounds, sounds, strict=True))


def test_peak_puts_the_highest_true_peak_at_minus_1() -> None:
    sounds = stems()
    done = normalize(sounds, "peak")
    assert max(true_peak_db(sound) for sound in done.sounds) == pytest.approx(-1.0, abs=0.01)
    assert done.gain_db is not None
    for before, after in zip(sounds, done.sounds, strict=True):
        np.testing.assert_allclose(after.waveform, before.waveform * from_db(done.gain_db), rtol=1e-5)


@pytest.mark.parametrize("target", [-30.0, -23.0, -16.0])
def test_loudness_without_limiting_is_met_by_one_gain(target: float) -> None:
    sounds = stems()
    done = normalize(sounds, "loudness", loudness_lufs=target)
    assert integrated_loudness(mixed(done.sounds)) == pytest.approx(target, abs=0.05)
    assert done.limited_db == 0.0 and done.gain_db is not None
    for before, after in zip(sounds, done.sounds, strict=True):
        np.testing.assert_allclose(after.waveform, before.waveform * from_db(done.gain_db), rtol=1e-5)


@pytest.mark.parametrize("target", [-12.0, -10.0])
def test_loudness_with_limiting_is_met_below_the_ceiling(target: float) -> None:
    song = mixed([drums(), tone(4.0, level=0.2)])
    done = normalize([song], "loudness", loudness_lufs=target)
    assert integrated_loudness(done.sounds[0]) == pytest.approx(target, abs=0.15)
    assert true_peak_db(done.sounds[0]) <= -0.95
    assert done.limited_db > 0.0


def test_what_is_nearly_all_peaks_is_not_crushed_and_the_result_says_how_loud_it_is() -> None:
    done = normalize([drums()], "loudness", loudness_lufs=-9.0)
    assert done.gain_db == pytest.approx(-9.0 - integrated_loudness(drums()) + 9.0, abs=0.01)
    assert done.loudness_lufs == pytest.approx(integrated_loudness(done.sounds[0]), abs=0.01)
    assert done.loudness_lufs is not None and done.loudness_lufs < -10.0
    assert true_peak_db(done.sounds[0]) <= -0.95


def test_stems_limited_together_keep_their_balance_at_every_moment() -> None:
    sounds = [drums(), tone(4.0, level=0.1)]
    done = normalize(sounds, "loudness", loudness_lufs=-12.0)
    assert done.limited_db > 0.0
    assert all(true_peak_db(sound) <= -0.95 for sound in done.sounds)
    loud = (np.abs(sounds[0].waveform) > 0.01) & (np.abs(sounds[1].waveform) > 0.01)
    gains = [after.waveform[loud] / before.waveform[loud] for before, after in zip(sounds, done.sounds, strict=True)]
    np.testing.assert_allclose(gains[0], gains[1], rtol=1e-3)


@pytest.mark.parametrize("mode", ["peak", "loudness"])
def test_silence_stays_silence(mode: str) -> None:
    silence = Audio(np.zeros((2, 44100), np.float32), 44100)
    done = normalize([silence], mode)  # type: ignore[arg-type]
    assert done.gain_db is None and done.sounds[0] is silence


def test_one_silent_stem_among_others_stays_silent() -> None:
    silence = Audio(np.zeros((2, 44100), np.float32), 44100)
    done = normalize([silence, tone(1.0)], "loudness")
    assert done.sounds[0].peak == 0.0 and done.sounds[1].peak > 0.0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.floats(-60.0, 30.0), st.floats(-40.0, -6.0), st.integers(1, 60_000), st.integers(1, 2))
def test_whatever_the_target_the_ceiling_holds(
    seed: int, level_db: float, target: float, num_samples: int, channels: int
) -> None:
    noise = np.random.default_rng(seed).standard_normal((channels, num_samples)) * from_db(level_db)
    (sound,) = normalize([Audio(noise.astype(np.float32), 44100)], "loudness", loudness_lufs=target).sounds
    assert true_peak_db(sound) <= -0.95
    assert sound.waveform.shape == (channels, num_samples)
