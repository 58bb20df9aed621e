"""Sliding windows, and the loudness that is levelled over them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import Audio
from models.musicgen.request import MAX_DRIFT_DB
from models.musicgen.windows import level_windows, measure_loudness_db, plan_sliding_windows

RATE = 8_000


@settings(deadline=None)
@given(
    size=st.integers(2, 1500),
    stride=st.integers(1, 1499),
    prompt=st.integers(0, 1499),
    new=st.integers(1, 30_000),
)
def test_windows_generate_every_frame_once_and_are_no_longer_than_the_models(
    size: int, stride: int, prompt: int, new: int
) -> None:
    stride, prompt = min(stride, size - 1), min(prompt, size - 1)
    windows = plan_sliding_windows(prompt=prompt, total=prompt + new, window=size, stride=stride)
    assert windows[0].known == prompt and windows[-1].end == prompt + new
    for window in windows:
        assert 0 <= window.start <= window.known < window.end <= window.start + size
    for before, after in zip(windows, windows[1:], strict=False):
        assert after.known == before.end and before.start < after.start < after.known


def test_ten_minutes_are_one_window_and_then_one_for_each_stride() -> None:
    windows = plan_sliding_windows(prompt=0, total=30_000, window=1500, stride=900)
    assert len(windows) == 1 + -(-(30_000 - 1500) // 900)
    assert all(window.known - window.start == 600 for window in windows[1:])


def make_noise(levels_db: list[float], seconds: float = 2.0) -> Audio:
    generator = np.random.default_rng(0)
    parts = [generator.standard_normal(int(seconds * RATE)) * 10 ** (level / 20) for level in levels_db]
    return Audio(np.concatenate(parts)[None].astype(np.float32), RATE)


def test_a_clip_that_fades_over_its_windows_is_kept_near_its_first_level() -> None:
    clip = make_noise([-20.0, -24.0, -28.0, -32.0])
    levelled, levels = level_windows(clip, [0.0, 2.0, 4.0, 6.0])
    assert levels == pytest.approx([-20, -24, -28, -32], abs=0.3)
    middles = [
        measure_loudness_db(levelled.waveform[:, int(t * RATE) : int((t + 0.2) * RATE)]) for t in (0.9, 2.9, 4.9, 6.9)
    ]
    assert max(middles) - min(middles) < MAX_DRIFT_DB + 0.5
    assert levelled.num_samples == clip.num_samples


def test_dynamics_within_the_limit_and_silence_are_not_changed() -> None:
    for clip in (make_noise([-20.0, -22.0, -18.5]), make_noise([-20.0, -200.0, -20.0])):
        levelled, _ = level_windows(clip, [0.0, 2.0, 4.0])
        np.testing.assert_array_equal(levelled.waveform, clip.waveform)
