"""Audio in memory and on disk: what they hold, and that no temporary file is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import Audio
from audio.types import DiskAudio, in_memory, iter_blocks
from errors import DiskFullError
from testing.signals import copy_to_disk, make_noise

RATE = 44_100


@settings(deadline=None, max_examples=40)
@given(
    channels=st.integers(1, 2),
    sizes=st.lists(st.integers(0, 5000), max_size=6),
    start=st.integers(0, 9000),
    count=st.integers(0, 9000),
)
def test_appended_blocks_are_read_back_from_any_position(
    channels: int, sizes: list[int], start: int, count: int
) -> None:
    parts = [make_noise(channels, size, seed) for seed, size in enumerate(sizes)]
    whole = np.concatenate([np.zeros((channels, 0), np.float32), *parts], axis=1)
    with DiskAudio(channels, 8000) as audio:
        for part in parts:
            audio.append(part)
        np.testing.assert_array_equal(audio.read(start, count), whole[:, start : start + count])
        assert audio.num_samples == whole.shape[1]
        assert audio.peak == pytest.approx(float(np.abs(whole).max(initial=0)))
        assert audio.duration == whole.shape[1] / 8000


def test_the_temporary_file_has_no_name_and_its_space_is_freed(no_files_left: Path) -> None:
    with copy_to_disk(Audio(make_noise(2, 50_000), RATE)):
        assert list(no_files_left.iterdir()) == []


def test_the_temporary_file_is_closed_when_the_audio_is_no_longer_referenced(no_files_left: Path) -> None:
    audio = copy_to_disk(Audio(make_noise(2, 50_000), RATE))
    assert audio.num_samples == 50_000
    del audio


def test_blocks_are_consecutive() -> None:
    waveform = make_noise(2, 10_000)
    with copy_to_disk(Audio(waveform, RATE)) as stored:
        for audio in (stored, Audio(waveform, RATE)):
            parts = list(iter_blocks(audio, 3000))
            assert [part.shape[1] for part in parts] == [3000, 3000, 3000, 1000]
            np.testing.assert_array_equal(np.concatenate(parts, axis=1), waveform)
        np.testing.assert_array_equal(in_memory(stored).waveform, waveform)


def test_a_full_disk_is_reported_as_such() -> None:
    with DiskAudio(1, 8000) as audio, open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), audio._file.fileno())
        with pytest.raises(DiskFullError, match="disk is full") as caught:
            audio.append(make_noise(1, 1000))
        assert caught.value.error_code == "disk_full"
        assert audio.num_samples == 0


@pytest.mark.parametrize("at", [0, 30_000, 1 << 20])
def test_the_peak_is_nan_if_any_sample_is(at: int) -> None:
    waveform = make_noise(1, (1 << 20) + 1)
    waveform[0, at] = np.nan
    assert np.isnan(Audio(waveform, RATE).peak)
    with DiskAudio(1, RATE) as stored:
        for start in range(0, waveform.shape[1], 100_000):
            stored.append(waveform[:, start : start + 100_000])
        assert np.isnan(stored.peak)


def test_a_wrong_shape_or_type_is_an_error_of_ours() -> None:
    with pytest.raises(AssertionError, match=r"\[C, T\] float32"):
        Audio(np.zeros(5, np.float32), RATE)
    with pytest.raises(AssertionError, match="2 channels, not 1"), DiskAudio(2, RATE) as audio:
        audio.append(make_noise(1, 5))
