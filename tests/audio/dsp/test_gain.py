"""Decibels, and one gain that brings audio below full scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio import Audio
from audio.dsp.gain import EnvelopeView, GainView, bring_below_full_scale, from_db, to_db
from audio.types import in_memory
from testing.signals import copy_to_disk, make_noise, make_tone


@given(st.floats(-120.0, 60.0))
def test_decibels_convert_both_ways(level_db: float) -> None:
    assert to_db(from_db(level_db)) == pytest.approx(level_db, abs=1e-9)


def test_a_ratio_of_zero_is_minus_infinity() -> None:
    assert to_db(0.0) == -np.inf


def test_audio_within_full_scale_is_not_changed() -> None:
    sources = [make_tone(0.1), Audio(np.ones((1, 10), np.float32), 44100)]
    brought, gain_db = bring_below_full_scale(sources)
    assert gain_db is None
    assert all(a is b for a, b in zip(brought, sources, strict=True))


def test_one_loud_source_lowers_all_by_the_same_gain() -> None:
    sources = [Audio(make_tone(0.2).waveform * 8, 44100), make_tone(0.3)]
    brought, gain_db = bring_below_full_scale(sources)
    assert gain_db is not None and gain_db < 0
    assert 0.999 < max(source.peak for source in brought) <= 1.0
    for before, after in zip(sources, brought, strict=True):
        np.testing.assert_allclose(in_memory(after).waveform, before.waveform * from_db(gain_db), rtol=1e-5)


@given(st.floats(1.0001, 1e9))
def test_no_peak_stays_above_full_scale(peak: float) -> None:
    (brought,), _ = bring_below_full_scale([Audio(np.full((1, 3), peak, np.float32), 44100)])
    assert 0.999 < brought.peak <= 1.0


def test_a_gain_view_multiplies_on_reading() -> None:
    audio = make_tone(0.2)
    view = GainView(audio, -6.0)
    np.testing.assert_allclose(view.read(100, 50), audio.read(100, 50) * from_db(-6.0), rtol=1e-6)
    assert (view.sample_rate, view.channels, view.num_samples) == (44100, 2, audio.num_samples)
    assert view.peak == pytest.approx(audio.peak * from_db(-6.0))


def test_an_envelope_multiplies_all_channels_on_reading() -> None:
    audio = make_tone(0.2)
    envelope = Audio(np.linspace(0, 1, audio.num_samples, dtype=np.float32)[None], 44100)
    view = EnvelopeView(audio, envelope)
    np.testing.assert_array_equal(in_memory(view).waveform, audio.waveform * envelope.waveform)
    assert view.peak == np.abs(audio.waveform * envelope.waveform).max()
    with pytest.raises(AssertionError, match="one channel"):
        EnvelopeView(audio, audio)


def test_sources_on_disk_are_lowered_by_one_gain_too() -> None:
    quiet, loud = Audio(make_noise(2, 10_000), 44_100), Audio(make_noise(2, 10_000, 1, level=0.5), 44_100)
    with copy_to_disk(quiet) as first, copy_to_disk(loud) as second:
        (a, b), gain_db = bring_below_full_scale([first, second])
        assert gain_db is not None and gain_db < 0 and b.peak == pytest.approx(0.9999)
        np.testing.assert_allclose(a.read(0, 10_000) / b.read(0, 10_000), quiet.waveform / loud.waveform, rtol=1e-4)
        assert bring_below_full_scale([first]) == ((first,), None)
