"""The limiter's ceiling holds for every input, and audio that needs no limiting is not changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audio import Audio
from audio.dsp.limiter import LOOK_AHEAD_S, limit
from audio.dsp.loudness import BLOCK_FRAMES, true_peak_db
from audio.types import DiskAudio, in_memory
from testing.signals import make_tone

RATE = 44100
ROUNDING_DB = 1e-3


def make_audio(waveform: NDArray[np.floating], sample_rate: int = RATE) -> Audio:
    return Audio(np.atleast_2d(waveform).astype(np.float32), sample_rate)


def make_adversarial_waveforms() -> dict[str, NDArray[np.floating]]:
    generator, times = np.random.default_rng(5), np.arange(RATE * 2) / RATE
    alternating = np.where(np.arange(RATE) % 2, 1.0, -1.0)
    return {
        "noise": generator.standard_normal((2, RATE)) * 3,
        "quarter of the rate between samples": 1.6 * np.sin(2 * np.pi * 0.25 * np.arange(RATE) + np.pi / 4),
        "alternating at Nyquist": 1.5 * alternating,
        "alternating with phase jumps": 1.5 * alternating * np.sign(np.sin(np.arange(RATE) / 700)),
        "square": np.sign(np.sin(2 * np.pi * 997 * times)),
        "single clicks": np.where(generator.random((2, RATE)) < 1e-3, 4.0, 0.01),
        "click at each end": np.concatenate([[5.0], np.zeros(3000), [5.0]]),
        "drums": np.sin(2 * np.pi * 60 * times) * np.exp(-((4 * times) % 1) * 8) * 4
        + generator.normal(0, 0.2, RATE * 2),
        "a thousand times too loud": generator.standard_normal((2, RATE)) * 1000,
        "one sample": np.array([7.0]),
        "two samples": np.array([[7.0, -3.0], [0.1, 0.2]]),
        "constant": np.full(5000, 2.0),
    }


@pytest.mark.parametrize("name", make_adversarial_waveforms())
@pytest.mark.parametrize("ceiling", [-1.0, 0.0, -12.0])
def test_no_adversarial_waveform_exceeds_the_ceiling(name: str, ceiling: float) -> None:
    audio = make_audio(make_adversarial_waveforms()[name])
    limited = limit([audio], ceiling_dbtp=ceiling)
    assert true_peak_db(limited.sources[0]) <= ceiling + ROUNDING_DB
    assert in_memory(limited.sources[0]).waveform.shape == audio.waveform.shape
    assert limited.limited_db > 0


def make_noises(kind: str, num_samples: int, generator: np.random.Generator) -> NDArray[np.floating]:
    noise = generator.standard_normal((2, num_samples))
    if kind == "sparse":
        return np.asarray(np.where(generator.random((2, num_samples)) < 0.01, noise, 0.0))
    if kind == "bursts":
        return np.asarray(noise * ((generator.random(num_samples) < 0.01).cumsum() % 2))
    if kind == "tone":
        hertz, phase = generator.uniform(0.01, 3.1), generator.uniform(0, 6.2)
        return np.asarray(np.sin(np.arange(num_samples) * hertz + phase))
    return noise


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 30_000),
    st.floats(-20.0, 40.0),
    st.sampled_from([8000, 44100, 48000, 96000]),
    st.sampled_from(["noise", "sparse", "bursts", "make_tone"]),
)
def test_no_noise_or_tone_exceeds_the_ceiling(
    seed: int, num_samples: int, level_db: float, sample_rate: int, kind: str
) -> None:
    result = make_noises(kind, num_samples, np.random.default_rng(seed))
    audio = make_audio(result * 10 ** (level_db / 20), sample_rate)
    (limited,) = limit([audio]).sources
    assert in_memory(limited).waveform.shape == audio.waveform.shape
    assert true_peak_db(limited) <= -1.0 + ROUNDING_DB
    if true_peak_db(audio) <= -1.0:
        assert limited is audio


def test_audio_below_the_ceiling_is_returned_as_the_same_object() -> None:
    audio = make_tone(1.0, level=0.5)
    assert limit([audio]).sources[0] is audio
    assert limit([audio]).limited_db == 0.0


def test_samples_far_from_a_peak_keep_every_bit() -> None:
    waveform = make_tone(6.0, level=0.3).waveform.copy()
    waveform[:, 3 * RATE] = 3.0
    limited = in_memory(limit([Audio(waveform, RATE)]).sources[0])
    reach = 2 * int(LOOK_AHEAD_S * RATE)
    np.testing.assert_array_equal(limited.waveform[:, : 3 * RATE - reach], waveform[:, : 3 * RATE - reach])
    np.testing.assert_array_equal(limited.waveform[:, 4 * RATE :], waveform[:, 4 * RATE :])
    assert (limited.waveform[:, 3 * RATE - 20 : 3 * RATE + 20] != waveform[:, 3 * RATE - 20 : 3 * RATE + 20]).any()


def test_the_gain_is_the_same_for_all_channels_and_sources() -> None:
    left = np.where(np.arange(RATE) % 9000 == 4000, 3.0, 0.25)
    stereo = make_audio(np.stack([left, np.full(RATE, 0.25)]))
    other = make_audio(np.full(RATE // 2, 0.125))
    first, second = (in_memory(source) for source in limit([stereo, other]).sources)
    gain = first.waveform[1] / np.float32(0.25)
    assert gain.min() < 0.4
    np.testing.assert_allclose(first.waveform[0] / left, gain, rtol=1e-5)
    np.testing.assert_allclose(second.waveform[0] / np.float32(0.125), gain[: RATE // 2], rtol=1e-5)


def test_the_gain_changes_smoothly() -> None:
    """A jump in gain is a click: over 5 ms even a reduction of 12 dB changes the gain by less than 1 % per sample."""
    constant = np.full(RATE, 0.2)
    spiky = constant.copy()
    spiky[RATE // 2] = 3.5
    (limited,) = limit([make_audio(np.stack([spiky, constant]))]).sources
    gain = in_memory(limited).waveform[1] / np.float32(0.2)
    assert np.abs(np.diff(gain)).max() < 0.01
    assert gain[RATE // 2 + 2 * RATE // 10] > gain[RATE // 2 + RATE // 100]


def test_blocks_join_without_a_seam() -> None:
    """Longer than two blocks of the limiter, with a peak exactly on the border and reduction across it."""
    border = 2 * BLOCK_FRAMES
    waveform = make_tone((border + RATE) / RATE, level=0.5, channels=1).waveform.copy()
    waveform[0, border - 100 : border + 100 : 50] = 2.5
    waveform[0, border] = -3.0
    limited = in_memory(limit([Audio(waveform, RATE)]).sources[0])
    assert true_peak_db(limited) <= -1.0 + ROUNDING_DB
    audible = np.abs(waveform[0]) > 0.05
    gain = limited.waveform[0, audible] / waveform[0, audible]
    shifted, lead = np.concatenate([np.zeros((1, 5000), np.float32), waveform], axis=1), 5000
    elsewhere = in_memory(limit([Audio(shifted, RATE)]).sources[0])
    np.testing.assert_allclose(elsewhere.waveform[0, lead:][audible] / waveform[0, audible], gain, atol=2e-4)


def test_sources_of_different_lengths_are_limited_together() -> None:
    short, long = make_audio(np.full((1, 3000), 2.0)), make_audio(np.full((2, 2 * RATE), 0.1))
    limited = limit([short, long])
    assert [source.num_samples for source in limited.sources] == [3000, 2 * RATE]
    assert true_peak_db(limited.sources[0]) <= -1.0 + ROUNDING_DB
    np.testing.assert_array_equal(limited.sources[1].read(RATE, RATE), long.read(RATE, RATE))


def test_the_gain_before_the_limiter_is_applied_to_all_sources() -> None:
    audio = make_tone(1.0, level=0.2)
    (louder,) = limit([audio], gain_db=6.0).sources
    np.testing.assert_allclose(in_memory(louder).waveform, audio.waveform * 10 ** (6 / 20), rtol=1e-6)
    assert true_peak_db(limit([audio], gain_db=40.0).sources[0]) <= -1.0 + ROUNDING_DB


def test_an_envelope_on_disk_gives_the_same_samples_as_one_in_memory() -> None:
    sources = [make_tone(14.0, level=2.0), make_tone(9.0, level=0.5, channels=1)]
    expected, on_disk = limit(sources), limit(sources, memory_bytes=0)
    assert isinstance(expected.envelope, Audio) and isinstance(on_disk.envelope, DiskAudio)
    assert on_disk.limited_db == expected.limited_db > 0
    for source, other in zip(expected.sources, on_disk.sources, strict=True):
        np.testing.assert_array_equal(in_memory(source).waveform, in_memory(other).waveform)
