"""Loudness and true peak against the cases of EBU Tech 3341 (synthesised), theory, and ffmpeg's meter."""

from __future__ import annotations

import math
import re
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import Audio
from audio.dsp.loudness import (
    BLOCK_FRAMES,
    integrated_loudness,
    k_weighting,
    measure_loudness,
    oversample,
    true_peak_db,
)
from audio.files.formats import Encoding
from audio.types import iter_blocks
from testing.signals import encode_file, needs_ffmpeg


def make_sines(
    *parts: tuple[float, float], sample_rate: int = 48000, channels: int = 2, hertz: float = 1000.0
) -> Audio:
    """A sine through (peak level in dBFS, seconds) steps, the same in all channels."""
    levels = np.concatenate([np.full(round(seconds * sample_rate), 10 ** (level / 20)) for level, seconds in parts])
    wave = levels * np.sin(2 * np.pi * hertz * np.arange(len(levels)) / sample_rate)
    return Audio(np.tile(wave, (channels, 1)).astype(np.float32), sample_rate)


# Tech 3341 (2016) table 1, cases 1 to 5: steps and expected LUFS, tolerance 0.1.
EBU_CASES = [
    (((-23.0, 20.0),), -23.0),
    (((-33.0, 20.0),), -33.0),
    (((-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0)), -23.0),
    (((-72.0, 10.0), (-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0), (-72.0, 10.0)), -23.0),
    (((-26.0, 20.0), (-20.0, 20.1), (-26.0, 20.0)), -23.0),
]


@pytest.mark.parametrize("sample_rate", [48000, 44100, 32000, 11025])
@pytest.mark.parametrize(("steps", "expected"), EBU_CASES)
def test_the_cases_of_ebu_tech_3341(steps: tuple[tuple[float, float], ...], expected: float, sample_rate: int) -> None:
    assert integrated_loudness(make_sines(*steps, sample_rate=sample_rate)) == pytest.approx(expected, abs=0.1)


# Tech 3342 (2016) table 1, cases 1 to 4: steps of 20 s and the expected range in LU, tolerance 1.
@pytest.mark.parametrize(
    ("levels", "expected"),
    [((-20, -30), 10), ((-20, -15), 5), ((-40, -20), 20), ((-50, -35, -20, -35, -50), 15)],
)
def test_the_cases_of_ebu_tech_3342(levels: tuple[float, ...], expected: float) -> None:
    loudness = measure_loudness(make_sines(*((level, 20.0) for level in levels), sample_rate=11025))
    assert loudness.range == pytest.approx(expected, abs=1)


def test_the_range_of_silence_and_of_short_audio_is_0() -> None:
    assert measure_loudness(make_sines((-20.0, 2.9))).range == 0
    assert measure_loudness(make_sines((-100.0, 5.0))).range == 0


def test_the_filters_at_48_khz_are_those_in_the_standard() -> None:
    high_shelf, high_pass = k_weighting(48000)
    np.testing.assert_allclose(high_shelf[:3], [1.53512485958697, -2.69169618940638, 1.19839281085285], rtol=1e-9)
    np.testing.assert_allclose(high_shelf[4:], [-1.69065929318241, 0.73248077421585], rtol=1e-9)
    np.testing.assert_allclose(high_pass[4:], [-1.99004745483398, 0.99007225036621], rtol=1e-9)


def test_one_channel_is_3_db_below_two() -> None:
    one, two = (integrated_loudness(make_sines((-20.0, 5.0), channels=channels)) for channels in (1, 2))
    assert two - one == pytest.approx(3.01, abs=0.01)


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.3, 0.39, 0.4, 0.41, 0.5, 1.0])
def test_audio_shorter_than_a_gating_block_is_measured_as_one_block(seconds: float) -> None:
    assert integrated_loudness(make_sines((-23.0, seconds))) == pytest.approx(-23.0, abs=0.6)


@pytest.mark.parametrize("num_samples", [0, 1, 100, 48000])
def test_silence_has_no_loudness_and_no_peak(num_samples: int) -> None:
    silence = Audio(np.zeros((2, num_samples), np.float32), 48000)
    assert integrated_loudness(silence) == -math.inf
    assert true_peak_db(silence) == -math.inf


def measure_with_ffmpeg(audio: Audio) -> tuple[float, float]:
    """Integrated LUFS and true peak by ffmpeg's ebur128 filter."""
    command = ["ffmpeg", "-hide_banner", "-nostats", "-i", "pipe:0", "-af", "ebur128=peak=true", "-f", "null", "-"]
    output = subprocess.run(
        command, input=encode_file(audio, Encoding("wav", 32)), capture_output=True, check=True
    ).stderr
    summary = output.decode().rsplit("Summary:", 1)[1]
    loudness, peak = re.search(r"I:\s+(\S+) LUFS", summary), re.search(r"Peak:\s+(\S+) dBFS", summary)
    assert loudness and peak
    return float(loudness[1]), float(peak[1])


@needs_ffmpeg
@pytest.mark.parametrize("sample_rate", [48000, 44100, 22050])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ffmpeg_measures_the_same_loudness_and_peak(sample_rate: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    smooth = np.convolve(generator.standard_normal(sample_rate * 12), np.hanning(12), "same")
    swell = np.repeat(generator.uniform(0.0, 0.3, 24), sample_rate // 2)
    waveform = np.stack([smooth * swell, np.roll(smooth, 5) * swell[::-1]]) / np.abs(smooth).max()
    audio = Audio((waveform * 3).astype(np.float32), sample_rate)
    loudness, peak = measure_with_ffmpeg(audio)
    assert integrated_loudness(audio) == pytest.approx(loudness, abs=0.11)  # ffmpeg prints one decimal
    assert true_peak_db(audio) == pytest.approx(peak, abs=0.15)


def test_a_peak_between_samples_is_found() -> None:
    """A sine of a quarter of the rate sampled at 45 degrees: samples at 0.707, the wave at 1."""
    wave = np.sin(2 * np.pi * 0.25 * np.arange(48000) + np.pi / 4) * np.hanning(48000) ** 0.1
    audio = Audio(wave[None].astype(np.float32), 48000)
    assert 20 * np.log10(audio.peak) == pytest.approx(-3.01, abs=0.01)
    assert true_peak_db(audio) == pytest.approx(0.0, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 600_000), st.integers(1, 2))
def test_oversampling_gives_4_times_the_samples_at_the_same_instants(num_samples: int, channels: int) -> None:
    slow = np.sin(np.arange(num_samples) * 0.05)[None].repeat(channels, 0).astype(np.float32)
    blocks = list(oversample(Audio(slow, 44_100)))
    assert [4 * block.shape[1] for block in iter_blocks(Audio(slow, 44_100), BLOCK_FRAMES)] == [
        block.shape[1] for block in blocks
    ]
    fine = np.concatenate(blocks, axis=1)
    assert fine.shape == (channels, 4 * num_samples)
    if num_samples > 2000:
        np.testing.assert_allclose(fine[:, ::4][:, 500:-500], slow[:, 500:-500], atol=1e-4)
