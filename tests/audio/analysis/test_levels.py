"""Silence, clipping and spectrum: against pydub on the whole audio, counts by hand, and theory."""

from __future__ import annotations

import numpy as np
import pytest
from pydub import AudioSegment
from pydub.silence import detect_silence

from audio import Audio
from audio.analysis.clipping import Clipping, find_clipping
from audio.analysis.silence import find_silence
from audio.analysis.spectral import measure_spectrum
from audio.types import BLOCK_FRAMES
from testing.signals import copy_to_disk, make_noise, make_tone


def make_gaps(spans: list[tuple[float, float]], *, seconds: float, sample_rate: int, channels: int = 2) -> Audio:
    """Noise that is silent in the spans."""
    waveform = make_noise(channels, int(seconds * sample_rate), level=0.05)
    for start, end in spans:
        waveform[:, int(start * sample_rate) : int(end * sample_rate)] = 0
    return Audio(waveform, sample_rate)


@pytest.mark.parametrize("sample_rate", [8000, 11_025, 44_100])
def test_silence_is_what_pydub_finds_in_the_whole_audio(sample_rate: int) -> None:
    audio = make_gaps([(0, 1.2), (8.9, 10.3), (19.5, 20.0), (24.2, 26)], seconds=26.04, sample_rate=sample_rate)
    frames = np.round(audio.waveform.T * 32768).astype("<i2").tobytes()
    segment = AudioSegment(frames, sample_width=2, frame_rate=sample_rate, channels=2)
    expected = detect_silence(segment, min_silence_len=500, silence_thresh=-60, seek_step=10)
    found = find_silence(audio, threshold_db=-60, min_silence=0.5)
    assert len(found) == 4
    assert [round(1000 * time) for span in found for time in span] == pytest.approx(np.ravel(expected), abs=10)


def test_a_span_over_several_pieces_is_one() -> None:
    audio = make_gaps([(5, 38)], seconds=45, sample_rate=8000, channels=1)
    with copy_to_disk(audio) as stored:
        assert find_silence(stored, threshold_db=-60, min_silence=1) == [(5.0, 38.0)]


def test_the_threshold_and_the_shortest_span_count() -> None:
    audio = make_gaps([(2, 2.4), (5, 7)], seconds=10, sample_rate=8000)
    assert find_silence(audio, threshold_db=-60, min_silence=0.3) == [(2.0, 2.4), (5.0, 7.0)]
    assert find_silence(audio, threshold_db=-60, min_silence=3) == []
    assert find_silence(audio, threshold_db=-10, min_silence=3) == [(0.0, 10.0)]


@pytest.mark.parametrize("num_samples", [1, 40, 4410, 44_100])
def test_audio_that_is_silent_as_a_whole_is_one_span(num_samples: int) -> None:
    audio = Audio(np.zeros((1, num_samples), np.float32), 44_100)
    ((start, end),) = find_silence(audio, threshold_db=-60, min_silence=0.5)
    assert start == 0 and end == pytest.approx(audio.duration, abs=0.01)


def test_clipped_runs_are_counted_per_channel_and_over_blocks() -> None:
    waveform = np.zeros((2, BLOCK_FRAMES + 100), np.float32)
    waveform[0, 10:15] = 1.0  # 5
    waveform[1, 20:22] = -1.0  # too short
    waveform[1, BLOCK_FRAMES - 2 : BLOCK_FRAMES + 2] = -1.2  # 4, over two blocks
    waveform[0, -3:] = 1.0  # 3, up to the end
    waveform[0, 50:60:2] = 1.0  # never two in a row
    assert find_clipping(Audio(waveform, 44_100)) == Clipping(runs=3, samples=12, longest=5)


def test_a_run_longer_than_a_block_is_one() -> None:
    waveform = np.ones((1, 2 * BLOCK_FRAMES + 7), np.float32)
    assert find_clipping(Audio(waveform, 44_100)) == Clipping(1, waveform.shape[1], waveform.shape[1])


def test_audio_below_full_scale_is_not_clipped() -> None:
    assert find_clipping(make_tone(level=0.9)) == Clipping(0, 0, 0)


def test_the_spectrum_of_a_sine_is_at_its_frequency() -> None:
    sine = np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100).astype(np.float32)
    spectrum = measure_spectrum(Audio(sine[None] * np.float32(0.5), 44_100))
    assert spectrum is not None
    assert spectrum.centroid_hz == pytest.approx(1000, abs=10) and spectrum.rolloff_hz == pytest.approx(1000, abs=30)
    assert spectrum.bandwidth_hz < 60 and spectrum.flatness < 0.01


def test_the_spectrum_of_white_noise_is_flat() -> None:
    spectrum = measure_spectrum(Audio(make_noise(1, 88_200), 44_100))
    assert spectrum is not None
    assert spectrum.centroid_hz == pytest.approx(11_025, rel=0.02)
    assert spectrum.rolloff_hz == pytest.approx(0.85 * 22_050, rel=0.02)
    assert spectrum.bandwidth_hz == pytest.approx(22_050 / 12**0.5, rel=0.02) and 0.5 < spectrum.flatness < 0.6


def test_silent_frames_do_not_count() -> None:
    waveform = np.concatenate((make_noise(1, 44_100), np.zeros((1, 10 * 44_100), np.float32)), axis=1)
    spectrum = measure_spectrum(Audio(waveform, 44_100))
    assert spectrum is not None and spectrum.centroid_hz > 10_000
    assert measure_spectrum(Audio(np.zeros((1, 1000), np.float32), 44_100)) is None
