"""The gates of a vocal's parts, the lead's share of a vocal, and the automatic pitch, on their own."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audio.dsp.gain import GainView
from audio.types import Audio, AudioSource, iter_blocks
from models.runtime.progress import skip_check
from operations.generate_cover.conversion import choose_pitch_adjust
from operations.generate_cover.gates import (
    DifferenceView,
    apply_gains,
    compare_levels,
    find_active,
    limit_loss,
    measure_power,
)
from operations.generate_cover.lead_share import HOP_LENGTH, extract_lead

RATE = 8000
Waveform = NDArray[np.float32]


def make_noise(seed: int, num_samples: int = 4 * RATE, channels: int = 2) -> Audio:
    noise = np.random.default_rng(seed).standard_normal((channels, num_samples))
    return Audio((0.1 * noise).astype(np.float32), RATE)


class LongNoise(AudioSource):
    """Audio of any length that takes no memory."""

    def read(self, start: int, count: int) -> Waveform:
        positions = np.arange(start, max(min(start + count, self.num_samples), start))
        return np.sin(np.stack([positions * 0.3, positions * 0.7])).astype(np.float32)


def read_all(source: AudioSource, frames: int = 999) -> Waveform:
    return np.concatenate(list(iter_blocks(source, frames)), axis=1)


@settings(max_examples=25, deadline=None)
@given(gains=st.lists(st.floats(0, 1), min_size=8, max_size=8), frames=st.integers(1, 9000))
def test_a_gated_part_and_what_the_gate_took_sum_to_the_source(gains: list[float], frames: int) -> None:
    source = make_noise(1)
    part = apply_gains(source, np.array(gains))
    rest = DifferenceView(source, part)
    np.testing.assert_allclose(read_all(part, frames) + read_all(rest, frames), source.waveform, atol=1e-6)
    np.testing.assert_array_equal(read_all(part, frames), read_all(part))


def test_a_gate_fades_for_fifty_milliseconds_and_is_exact_elsewhere() -> None:
    source = Audio(np.ones((1, 4000), np.float32), 2000)
    gated = read_all(apply_gains(source, np.array([0.0, 1.0, 1.0, 0.25])))[0]
    assert np.all(gated[:950] == 0) and np.all(gated[1050:2950] == 1) and np.all(gated[3050:] == 0.25)
    assert np.all(np.diff(gated[950:1050]) > 0) and np.abs(np.diff(gated)).max() < 0.011


def test_gains_of_one_change_nothing_and_gains_of_zero_are_silence() -> None:
    source = make_noise(1)
    assert apply_gains(source, np.ones(8)) is source
    assert np.abs(read_all(apply_gains(source, np.zeros(8)))).max() == 0


@pytest.mark.parametrize("num_samples", [1, 800, 4000, 4001, 100_003])
def test_power_is_measured_in_windows_of_half_a_second(num_samples: int) -> None:
    source = make_noise(1, num_samples)
    windows = np.split(source.waveform, np.arange(4000, num_samples, 4000), axis=1)
    expected = [np.mean(window.astype(np.float64) ** 2) for window in windows]
    np.testing.assert_allclose(measure_power(source, skip_check), expected, rtol=1e-5)


def test_a_window_beside_a_loud_one_is_active() -> None:
    loud, quiet = 1e-2, 0.99e-6
    np.testing.assert_array_equal(
        find_active(np.array([quiet, quiet, loud, quiet, quiet])), [False, True, True, True, False]
    )


def test_levels_are_compared_over_active_windows_and_stay_finite() -> None:
    part, reference = np.array([1e-4, 1.0]), np.array([1e-2, 1.0])
    assert compare_levels(part, reference, np.array([True, False])) == pytest.approx(-20, abs=1e-3)
    assert compare_levels(np.zeros(2), reference, np.array([True, True])) == pytest.approx(-120, abs=4)
    assert compare_levels(part, reference, np.array([False, False])) is None


@settings(max_examples=200, deadline=None)
@given(
    dry=st.floats(0, 1), rest=st.floats(0, 1), correlation=st.floats(-1, 1), scale=st.sampled_from([1.0, 1e-3, 1e-6])
)
def test_a_dry_vocal_falls_at_most_twelve_decibels_below_the_vocal(
    dry: float, rest: float, correlation: float, scale: float
) -> None:
    dry_power, rest_power = np.array([dry * scale]), np.array([rest * scale])
    cross = correlation * np.sqrt(dry_power * rest_power)
    vocal = dry_power + rest_power + 2 * cross
    share = limit_loss(vocal, dry_power, rest_power)
    kept = dry_power + 2 * share * cross + share**2 * rest_power
    assert 0 <= share[0] <= 1
    assert kept[0] >= vocal[0] * 10 ** (-12 / 10) - 1e-9 * scale
    if dry_power[0] >= vocal[0] * 10 ** (-12 / 10):
        assert share[0] == 0


@pytest.mark.parametrize("num_samples", [1, 100, HOP_LENGTH, 300_001])
def test_without_backing_vocals_the_leads_share_is_the_vocal(num_samples: int) -> None:
    vocal, silence = make_noise(1, num_samples), Audio(np.zeros((2, num_samples), np.float32), RATE)
    for lead in (make_noise(2, num_samples), silence):
        extracted = np.concatenate(list(extract_lead(vocal, lead, silence, skip_check)), axis=1)
        np.testing.assert_allclose(extracted, vocal.waveform, atol=1e-5)


def test_the_share_separates_what_the_heads_separate() -> None:
    times = np.arange(4 * RATE) / RATE
    low, high = (np.tile(0.1 * np.sin(2 * np.pi * hertz * times), (2, 1)).astype(np.float32) for hertz in (300, 1900))
    both = np.asarray(low + high, np.float32)
    blocks = extract_lead(
        Audio(both, RATE), GainView(Audio(low, RATE), -6), GainView(Audio(high, RATE), -10), skip_check
    )
    extracted = np.concatenate(list(blocks), axis=1)
    assert np.abs(extracted - low)[:, 3000:-3000].max() < 1e-3


def test_the_memory_of_the_gates_and_the_share_does_not_grow_with_the_song() -> None:
    def measure_peak(seconds: int) -> int:
        song = LongNoise(RATE, 2, seconds * RATE)
        tracemalloc.start()
        try:
            for _ in extract_lead(song, song, song, skip_check):
                pass
            gains = np.tile([0.0, 1.0], seconds)
            measure_power(DifferenceView(song, apply_gains(song, gains)), skip_check)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    measure_peak(60)
    assert measure_peak(400) < 1.1 * measure_peak(60) + (1 << 20)


@pytest.mark.parametrize(
    ("vocal_hz", "voice_hz", "semitones"),
    [
        (220, 220, 0),
        (220, 440, 12),
        (220, 110, -12),
        (220, 261.6, 0),  # 3 semitones: within the voice's usual range, and in the song's key
        (220, 370, 12),  # 9 semitones: an octave is 3 semitones away
        (220, 293.7, 5),
        (220, 311.1, 6),
        (60, 1000, 24),
        (1000, 60, -24),
    ],
)
def test_whole_octaves_come_first_and_other_semitones_only_if_they_are_needed(
    vocal_hz: float, voice_hz: float, semitones: int
) -> None:
    f0 = np.array([0, vocal_hz, vocal_hz, 0, vocal_hz * 1.1, vocal_hz * 0.9], np.float32)
    assert choose_pitch_adjust(f0, voice_hz) == semitones


def test_a_vocal_without_pitch_is_not_transposed() -> None:
    assert choose_pitch_adjust(np.zeros(9, np.float32), 220.0) == 0
