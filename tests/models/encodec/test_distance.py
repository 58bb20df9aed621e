"""The distance of audio from its original: its formulas, and that blocks give what the whole gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from audio.types import Waveform
from models.encodec.distance import Distance, make_mel_bands
from testing.signals import make_noise

RATE = 24_000


def measure(original: Waveform, other: Waveform, *, block: int = 10**9) -> Distance:
    distance = Distance(RATE, original.shape[0])
    for start in range(0, original.shape[1], block):
        distance.add(original[:, start : start + block], other[:, start : start + block])
    return distance


@pytest.mark.parametrize("gain", [1.0, 0.1, -3.0])
@pytest.mark.parametrize("snr_db", [40.0, 0.0, -20.0])
def test_si_sdr_is_the_level_of_the_original_against_noise_whatever_the_gain(gain: float, snr_db: float) -> None:
    original, noise = make_noise(2, 50_000), make_noise(2, 50_000, seed=1)
    noise -= original * (original * noise).sum() / (original * original).sum()  # orthogonal
    level = math.sqrt((original * original).sum() / (noise * noise).sum()) * 10 ** (-snr_db / 20)
    noise *= np.float32(level)
    other = ((original + noise) * gain).astype(np.float32)
    assert measure(original, other).si_sdr_db == pytest.approx(snr_db, abs=1e-3)


def test_equal_audio_is_at_no_distance() -> None:
    original = make_noise(1, 30_000)
    distance = measure(original, original)
    assert distance.finish() == 0 and distance.si_sdr_db is not None and distance.si_sdr_db > 100


def test_a_gain_is_the_log_mel_distance_in_db() -> None:
    original = make_noise(2, 30_000)
    assert measure(original, original / np.float32(10)).finish() == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("silent", ["original", "other", "both"])
def test_silence_has_no_si_sdr(silent: str) -> None:
    noise, zeros = make_noise(1, 5000), np.zeros((1, 5000), np.float32)
    pairs = {"original": (zeros, noise), "other": (noise, zeros), "both": (zeros, zeros)}
    distance = measure(*pairs[silent])
    assert distance.si_sdr_db is None
    assert distance.finish() == 0 if silent == "both" else distance.finish() > 20


@pytest.mark.parametrize("samples", [1, 100, 1023, 1024, 1025, 5000])
def test_audio_of_any_length_has_a_distance(samples: int) -> None:
    distance = measure(make_noise(1, samples), make_noise(1, samples, seed=1))
    assert 0 < distance.finish() < 100 and distance.si_sdr_db is not None


def test_blocks_give_what_the_whole_gives() -> None:
    original, other = make_noise(2, 100_000), make_noise(2, 100_000, seed=1)
    whole, expected = measure(original, other), measure(original, other).finish()
    for block in (1000, 7777, 50_000):
        blocks = measure(original, other, block=block)
        assert blocks.si_sdr_db == pytest.approx(whole.si_sdr_db, rel=1e-9)
        assert blocks.finish() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 32_000, 48_000])
def test_every_mel_band_has_a_bin(rate: int) -> None:
    size = 2 ** round(math.log2(0.043 * rate))
    bands = make_mel_bands(rate, size)
    assert (bands.sum(axis=0) > 0).all()
