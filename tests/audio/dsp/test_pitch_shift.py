"""Pitch shift keeps length, timing, level and stereo image, also across chunks, and hits the pitch."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from audio import Audio
from audio.dsp.pitch_shift import shift_pitch, stretch_time, stretched_length
from audio.types import Waveform

RATE = 44_100


def shift(waveform: NDArray[np.floating], semitones: float, chunk_s: float = 20.0, rate: int = RATE) -> Waveform:
    audio = Audio(np.atleast_2d(waveform).astype(np.float32), rate)
    return np.concatenate(list(shift_pitch(audio, semitones, lambda fraction: None, chunk_s=chunk_s)), axis=1)


def make_clicks(seconds: float, rate: int = RATE) -> tuple[Waveform, NDArray[np.intp]]:
    """Clicks of 0.4 ms at changing positions within the engine's frames, and their positions."""
    waveform, width = np.zeros(round(seconds * rate), np.float32), rate // 5000
    positions = np.arange(rate // 2, len(waveform) - rate // 4, int(0.237 * rate))
    for place in positions:
        waveform[place - width : place + width + 1] = np.hanning(2 * width + 3)[1:-1]
    return waveform, positions


def measure_delays(waveform: Waveform, positions: NDArray[np.intp], rate: int = RATE) -> NDArray[np.float64]:
    """Delay in samples of the energy around each position."""
    reach = rate // 10
    late = []
    for place in positions:
        energy = np.square(waveform[place - reach : place + reach], dtype=np.float64)
        late.append(energy @ np.arange(-reach, reach) / energy.sum())
    return np.array(late)


@pytest.mark.parametrize("semitones", [-12, -3.5, 4])
def test_timing_is_kept_to_a_third_of_a_millisecond_on_average(semitones: float) -> None:
    waveform, positions = make_clicks(8.0)
    late = measure_delays(shift(waveform, semitones)[0], positions)
    drift_per_s = np.polyfit(positions / RATE, late, 1)[0]
    assert abs(late.mean()) < RATE / 3000
    assert abs(drift_per_s) < 5
    assert np.abs(late).max() < 0.003 * RATE


@pytest.mark.parametrize("rate", [48_000, 96_000])
def test_timing_is_kept_at_other_sample_rates(rate: int) -> None:
    waveform, positions = make_clicks(4.0, rate)
    late = measure_delays(shift(waveform, -2, rate=rate)[0], positions, rate)
    assert abs(late.mean()) < rate / 2000


def test_timing_is_kept_across_chunks() -> None:
    waveform, positions = make_clicks(8.0)
    late = measure_delays(shift(waveform, 3, chunk_s=2.0)[0], positions)
    assert abs(late.mean()) < RATE / 3000 and np.abs(late).max() < 0.003 * RATE


@pytest.mark.parametrize("semitones", [-12, -0.5, 7])
def test_the_pitch_is_right_to_a_tenth_of_a_cent_and_the_level_stays(semitones: float) -> None:
    times = np.arange(4 * RATE) / RATE
    sine = 0.3 * np.sin(2 * np.pi * 440 * times)
    result = shift(sine, semitones)[0, RATE : 3 * RATE].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result)), 1 << 21))
    peak = int(spectrum.argmax())
    before, at, after = np.log(spectrum[peak - 1 : peak + 2])
    hertz = (peak + 0.5 * (before - after) / (before - 2 * at + after)) * RATE / (1 << 21)
    assert abs(1200 * np.log2(hertz / (440 * 2 ** (semitones / 12)))) < 0.1
    assert np.sqrt(np.mean(result**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize("chunk_s", [2.0, 2.7])
def test_crossfades_are_inaudible_in_a_tone(chunk_s: float) -> None:
    times = np.arange(7 * RATE) / RATE
    result = shift(0.3 * np.sin(2 * np.pi * 330 * times), -3, chunk_s)[0, RATE // 2 : -RATE // 2]
    level = np.sqrt(np.convolve(np.square(result, dtype=np.float64), np.ones(882) / 882, "valid"))
    assert level.min() > 0.85 * np.median(level) and level.max() < 1.15 * np.median(level)
    assert np.abs(np.diff(result)).max() < 1.3 * 0.3 * 2 * np.pi * 330 / RATE


@pytest.mark.parametrize("num_samples", [1, 882, 88_201, 110_000])
@pytest.mark.parametrize("semitones", [-3, 2])
def test_the_length_and_the_channels_are_kept(num_samples: int, semitones: float) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, num_samples))
    result = shift(noise, semitones, chunk_s=2.0)
    assert result.shape == noise.shape and result.dtype == np.float32 and np.isfinite(result).all()


def test_the_stereo_image_is_kept() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE)
    same = shift(np.stack([noise, noise]), 2)
    np.testing.assert_array_equal(same[0], same[1])
    left, right = shift(np.stack([noise, noise / 4]), 2)
    assert 20 * np.log10(np.std(left) / np.std(right)) == pytest.approx(20 * np.log10(4), abs=0.2)
    assert np.corrcoef(left, right)[0, 1] > 0.98
    assert np.std(shift(np.stack([noise, 0 * noise]), 2)[1]) < 0.05 * np.std(left)  # 26 dB apart


def test_silence_stays_silent_and_zero_semitones_change_nothing() -> None:
    assert np.abs(shift(np.zeros((2, RATE)), 3)).max() < 1e-6
    noise = np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)
    np.testing.assert_array_equal(shift(noise, 0), noise)


def test_the_result_is_deterministic() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 3 * RATE))
    np.testing.assert_array_equal(shift(noise, 1, 1.5), shift(noise, 1, 1.5))


def test_an_exception_from_progress_ends_the_work() -> None:
    def stop(fraction: float) -> None:
        if fraction > 0.3:
            raise InterruptedError

    audio = Audio(np.zeros((1, 8 * RATE), np.float32), RATE)
    with pytest.raises(InterruptedError):
        list(shift_pitch(audio, 1, stop, chunk_s=2.0))


@pytest.mark.parametrize(("tempo", "semitones"), [(0.5, 0), (0.8, -3), (1.25, 0), (2.0, 7)])
def test_stretched_audio_is_in_time_across_chunks_to_half_a_millisecond_on_average(
    tempo: float, semitones: float
) -> None:
    clicks, positions = make_clicks(8.0)
    audio = Audio(clicks[None], RATE)
    stretched = np.concatenate(list(stretch_time(audio, tempo, semitones, lambda fraction: None, chunk_s=3.0)), axis=1)
    assert stretched.shape == (1, stretched_length(len(clicks), tempo)) == (1, round(len(clicks) / tempo))
    delays = measure_delays(stretched[0], np.round(positions / tempo).astype(int)[1:-1])
    assert abs(delays).max() < 0.0025 * RATE and abs(delays.mean()) < 0.0005 * RATE
