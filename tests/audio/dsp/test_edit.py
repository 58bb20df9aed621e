"""Trimming silence and fading."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio import Audio
from audio.dsp.edit import CutView, fade_in, fade_out, trim_silence
from testing.signals import make_tone


def pad_with_silence(before: int, after: int) -> Audio:
    waveform = make_tone(0.5).waveform
    return Audio(np.pad(waveform, ((0, 0), (before, after))), 44100)


def test_silence_is_trimmed_from_both_ends_except_10_ms() -> None:
    trimmed = trim_silence(pad_with_silence(20000, 30000))
    assert trimmed.num_samples == pytest.approx(22050 + 2 * 441, abs=5)
    assert trimmed.peak == make_tone(0.5).peak


def test_silence_in_the_middle_stays() -> None:
    waveform = make_tone(0.2).waveform
    audio = Audio(np.concatenate([waveform, np.zeros((2, 44100), np.float32), waveform], axis=1), 44100)
    assert trim_silence(audio).num_samples == audio.num_samples


def test_audio_that_is_silent_throughout_is_returned_unchanged() -> None:
    silence = Audio(np.full((2, 1000), 1e-5, np.float32), 44100)
    assert trim_silence(silence) is silence


def test_the_threshold_decides_what_is_silent() -> None:
    quiet = Audio(pad_with_silence(10000, 10000).waveform * np.float32(0.01), 44100)
    assert trim_silence(quiet, threshold_db=-20.0) is quiet
    assert trim_silence(quiet, threshold_db=-70.0).num_samples < quiet.num_samples


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 3000))
def test_trimming_keeps_every_loud_sample(before: int, after: int, length: int) -> None:
    audio = Audio(np.pad(np.ones((1, length), np.float32), ((0, 0), (before, after))), 44100)
    trimmed = trim_silence(audio)
    assert int(trimmed.waveform.sum()) == length
    assert trimmed.num_samples <= length + 2 * 441


@pytest.mark.parametrize("seconds", [0.25, 1.0, 5.0])
def test_fades_start_or_end_in_silence_and_keep_the_rest(seconds: float) -> None:
    audio = Audio(np.ones((2, 44100), np.float32), 44100)
    length = min(int(seconds * 44100), 44100)
    rising, falling = fade_in(audio, seconds).waveform[0], fade_out(audio, seconds).waveform[0]
    assert rising[0] == 0.0 and (np.diff(rising[:length]) >= 0).all() and (rising[length:] == 1.0).all()
    assert falling[-1] == 0.0 and (np.diff(falling[-length:]) <= 0).all() and (falling[:-length] == 1.0).all()
    assert rising[length // 2] == pytest.approx(0.5, abs=0.01)
    assert audio.peak == 1.0, "the input is not changed"


@given(st.integers(0, 200), st.integers(0, 250), st.integers(0, 250), st.integers(0, 250))
def test_a_cut_reads_like_a_slice(start: int, length: int, at: int, count: int) -> None:
    audio = Audio(np.arange(400, dtype=np.float32).reshape(2, 200), 8000)
    cut, expected = CutView(audio, start, start + length), audio.waveform[:, start : start + length]
    assert (cut.num_samples, cut.channels, cut.sample_rate) == (expected.shape[1], 2, 8000)
    np.testing.assert_array_equal(cut.read(at, count), expected[:, at : at + count])


def test_a_fade_of_0_s_returns_the_same_object() -> None:
    audio = make_tone(0.1)
    assert fade_in(audio, 0.0) is audio and fade_out(audio, 0.0) is audio
