"""The window of a repaint, and the caller's own samples around it."""

from __future__ import annotations

import numpy as np
import pytest

from audio import Audio
from audio.types import Waveform
from models.acestep.edit import Window, find_window_error, plan_window, splice
from models.acestep.request import Repainting
from testing.signals import make_noise

MODEL_RATE = 48_000
MARK = 7.0  # a sample that no source has: what was generated


def make_source(rate: int, channels: int, seconds: float) -> Audio:
    return Audio(0.1 * make_noise(channels, round(rate * seconds), seed=1), rate)


def make_generated(window: Window) -> Audio:
    """A whole result of the model's rate."""
    return Audio(np.full((2, round(window.duration * MODEL_RATE) + 1920), MARK, np.float32), MODEL_RATE)


def assert_generated(waveform: Waveform, rate: int) -> None:
    """But for the ringing of the resampler at the ends of the result."""
    margin = round(0.01 * rate)
    assert waveform[:, margin:-margin] == pytest.approx(MARK, abs=0.01)


def repaint(source: Audio, start: float, end: float | None, strength: float = 0.5) -> tuple[Audio, Window]:
    window = plan_window(source.duration, Repainting(start=start, end=end, strength=strength))
    return splice(source, make_generated(window), first_frame=0, window=window), window


@pytest.mark.parametrize(
    ("rate", "channels"), [(8_000, 1), (22_050, 2), (44_100, 1), (44_100, 2), (44_101, 2), (48_000, 2), (96_000, 2)]
)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_outside_the_window_every_sample_is_the_callers_own(rate: int, channels: int, strength: float) -> None:
    source = make_source(rate, channels, 8.03)
    result, window = repaint(source, 2.5, 5.0, strength)
    begin, end = round(2.5 * rate), round(5.0 * rate)
    assert (result.sample_rate, result.channels, result.num_samples) == (rate, channels, source.num_samples)
    assert np.array_equal(result.waveform[:, :begin], source.waveform[:, :begin])
    assert np.array_equal(result.waveform[:, end:], source.waveform[:, end:])
    fade = round(window.waveform_fade_s * rate)
    inside = result.waveform[:, begin + fade : end - fade]
    assert inside == pytest.approx(MARK, abs=1e-3)
    assert len(inside[0]) == end - begin - 2 * fade


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_the_fade_has_no_step(rate: int) -> None:
    silence = Audio(np.zeros((1, 4 * rate), np.float32), rate)
    result, _ = repaint(silence, 1.0, 3.0)
    steepest = np.abs(np.diff(result.waveform)).max()
    assert steepest < MARK * np.pi / 2 / (0.025 * rate) * 1.05


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (44_101, 1), (96_000, 2)])
def test_a_window_before_and_after_the_source_makes_the_result_longer(rate: int, channels: int) -> None:
    source = make_source(rate, channels, 6.0)
    result, window = repaint(source, -2.5, 1.0)
    left = round(2.5 * rate)
    assert result.num_samples == left + source.num_samples
    assert np.array_equal(result.waveform[:, left + rate :], source.waveform[:, rate:])
    assert_generated(result.waveform[:, : left + rate // 2], rate)
    assert window.duration == pytest.approx(8.5)
    result, _ = repaint(source, 5.0, 9.25)
    assert result.num_samples == source.num_samples + round(3.25 * rate)
    assert np.array_equal(result.waveform[:, : 5 * rate], source.waveform[:, : 5 * rate])
    assert_generated(result.waveform[:, round(5.5 * rate) :], rate)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_what_is_only_appended_or_prepended_fades_over_the_edge_of_the_source(strength: float) -> None:
    rate = 8_000
    source = make_source(rate, 1, 6.0)
    result, window = repaint(source, 6.0, 9.0, strength)
    fade = round(window.waveform_fade_s * rate)
    assert np.array_equal(result.waveform[:, : 6 * rate - fade], source.waveform[:, : 6 * rate - fade])
    assert not np.array_equal(result.waveform[:, : 6 * rate], source.waveform)
    assert_generated(result.waveform[:, 6 * rate :], rate)
    result, _ = repaint(source, -3.0, 0.0, strength)
    assert_generated(result.waveform[:, : 3 * rate], rate)
    assert np.array_equal(result.waveform[:, 3 * rate + fade :], source.waveform[:, fade:])


def test_a_window_of_all_and_more_is_generated_throughout() -> None:
    source = make_source(8_000, 1, 3.0)
    result, _ = repaint(source, 0.0, None)
    assert_generated(result.waveform, 8_000)
    result, window = repaint(source, -1.0, 4.0)
    assert (result.num_samples, window.left, window.right) == (40_000, 1.0, 1.0)
    assert_generated(result.waveform, 8_000)


def test_a_part_of_the_result_is_put_where_it_belongs() -> None:
    source = make_source(44_100, 2, 10.0)
    window = plan_window(10.0, Repainting(start=6.0, end=8.0))
    first, end = window.find_decoded_frames(250)
    assert 0 < first < 150 and 200 < end < 250
    ramp = np.arange(first * 1920, end * 1920, dtype=np.float32) / MODEL_RATE  # each sample is its time
    part = Audio(np.stack([ramp, ramp]), MODEL_RATE)
    result = splice(source, part, first_frame=first, window=window)
    middle = slice(round(6.1 * 44_100), round(7.9 * 44_100))
    expected = np.arange(middle.start, middle.stop) / 44_100
    assert np.abs(result.waveform[:, middle] - expected).max() < 1e-4


def test_frames_of_the_window_hold_all_of_it() -> None:
    window = plan_window(10.0, Repainting(start=2.03, end=4.99))
    assert (window.first_frame, window.end_frame) == (50, 125)
    window = plan_window(10.0, Repainting(start=2.0, end=5.0))
    assert (window.first_frame, window.end_frame) == (50, 125)


def test_the_strength_decides_how_far_the_source_is_held() -> None:
    def resolve(strength: float) -> tuple[int, int, float]:
        window = plan_window(10.0, Repainting(start=2.0, end=5.0, strength=strength))
        return window.count_injected_steps(8), window.latent_fade_frames, window.waveform_fade_s

    assert resolve(0.0) == (8, 25, 0.05)
    assert resolve(0.5) == (4, 12, 0.025)
    assert resolve(1.0) == (0, 0, 0.01)  # a seam without any fade could click


@pytest.mark.parametrize(
    ("start", "end", "part"),
    [
        (5.0, 5.0, "after its start"),
        (5.0, 4.0, "after its start"),
        (5.0, 5.03, "by 0.04 s at least"),
        (10.5, 12.0, "must touch the source"),
        (-3.0, -1.0, "must touch the source"),
        (10.5, None, "after its start"),
        (-300.0, 400.0, "would last 700.00 s, and at most 600 s"),
        (0.0, 601.0, "would last 601.00 s"),
    ],
)
def test_a_window_that_cannot_be_repainted_is_named(start: float, end: float | None, part: str) -> None:
    error = find_window_error(10.0, Repainting(start=start, end=end))
    assert error is not None and part in error and "10.00 s long" in error


@pytest.mark.parametrize(("start", "end"), [(0.0, None), (10.0, 12.0), (-2.0, 0.0), (5.0, 5.04), (0.0, 600.0)])
def test_windows_at_the_limits_are_accepted(start: float, end: float | None) -> None:
    assert find_window_error(10.0, Repainting(start=start, end=end)) is None
