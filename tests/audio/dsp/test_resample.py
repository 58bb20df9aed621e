"""Sample rate conversion: exact lengths, no delay, the same result by blocks as at once."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import Audio
from audio.dsp.gain import GainView
from audio.dsp.resample import resample, resample_blocks, resample_source, resampled_length
from testing.signals import copy_to_disk, make_noise, make_tone


@given(st.integers(1, 200_000), st.integers(1000, 192_000), st.integers(1000, 192_000))
def test_the_resampled_length_is_the_exact_one_rounded(num_samples: int, rate: int, new_rate: int) -> None:
    assert abs(resampled_length(num_samples, rate, new_rate) - num_samples * new_rate / rate) <= 0.5


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20_000),
    st.sampled_from([8000, 11025, 16000, 24000, 32000, 44100, 48000, 96000]),
    st.sampled_from([16000, 32000, 40000, 44100, 48000]),
)
def test_resampling_gives_that_length(num_samples: int, rate: int, new_rate: int) -> None:
    audio = Audio(np.ones((2, num_samples), np.float32), rate)
    result = resample(audio, new_rate)
    assert result.num_samples == resampled_length(num_samples, rate, new_rate)
    assert result.sample_rate == new_rate


@pytest.mark.parametrize(("rate", "new_rate"), [(44100, 48000), (48000, 16000), (32000, 44100)])
def test_resampling_does_not_delay_a_tone(rate: int, new_rate: int) -> None:
    def sine(at: int) -> Audio:
        return Audio(np.sin(2 * np.pi * 1000 * np.arange(at) / at)[None].astype(np.float32), at)

    result, expected = resample(sine(rate), new_rate), sine(new_rate)
    inner = slice(new_rate // 10, -new_rate // 10)
    np.testing.assert_allclose(result.waveform[:, inner], expected.waveform[:, inner], atol=1e-5)


def test_the_same_rate_returns_the_same_object() -> None:
    audio = make_tone(0.1)
    assert resample(audio, 44100) is audio


@pytest.mark.parametrize("rates", [(48_000, 44_100), (44_100, 48_000), (8000, 44_100), (192_000, 44_100)])
@pytest.mark.parametrize("size", [777, 65_536])
def test_resampling_by_blocks_equals_resampling_at_once(rates: tuple[int, int], size: int) -> None:
    waveform = make_noise(2, 30_000)
    whole = resample(Audio(waveform, rates[0]), rates[1]).waveform
    blocks = (waveform[:, start : start + size] for start in range(0, 30_000, size))
    converted = list(resample_blocks(blocks, *rates, num_samples=30_000, length=whole.shape[1]))
    np.testing.assert_allclose(np.concatenate(converted, axis=1), whole, atol=1e-5)


def test_a_source_of_any_storage_is_resampled_like_audio_in_memory() -> None:
    audio = Audio(make_noise(2, 300_000), 44_100)
    expected = resample(audio, 48_000).waveform
    with copy_to_disk(audio) as stored, ExitStack() as stack:
        assert resample_source(stored, 44_100, stack) is stored
        for source in (audio, stored, GainView(audio, 0.0)):
            np.testing.assert_allclose(resample_source(source, 48_000, stack).read(0, 1 << 20), expected, atol=1e-5)
