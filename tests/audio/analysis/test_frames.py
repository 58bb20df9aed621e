"""Streams of frames equal those of the whole audio, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from audio import Audio
from audio.analysis.frames import Spectra, iter_mono, iter_spectra
from audio.analysis.observed import ObservedAudio
from audio.types import iter_blocks
from testing.signals import make_noise


@pytest.mark.parametrize("lengths", [(1000,), (1, 999), (300, 7, 693), (64, 64, 872)])
def test_spectra_do_not_depend_on_the_blocks(lengths: tuple[int, ...]) -> None:
    samples = make_noise(1, 1000)[0]
    blocks = np.split(samples, np.cumsum(lengths)[:-1])
    spectra = np.concatenate(list(iter_spectra(blocks, frame_length=128, hop_length=32)))
    padded = np.pad(samples, 64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(128) / 128)
    expected = [np.abs(np.fft.rfft(padded[start : start + 128] * window)) / 32 for start in range(0, 1001, 32)]
    np.testing.assert_allclose(spectra, expected, atol=1e-5)


def test_a_sine_of_full_scale_has_magnitude_one() -> None:
    sine = np.sin(2 * np.pi * 8 * np.arange(4096) / 256).astype(np.float32)
    spectra = np.concatenate(list(Spectra(256, 64).push(sine)))
    assert spectra[10].argmax() == 8 and spectra[10].max() == pytest.approx(1, abs=1e-3)


def test_mono_is_the_mean_of_the_channels_at_the_new_rate() -> None:
    audio = Audio(np.stack([np.full(44_100, 0.5), np.full(44_100, 0.1)]).astype(np.float32), 44_100)
    fractions: list[float] = []
    mono = np.concatenate(list(iter_mono(audio, 22_050, fractions.append)))
    assert len(mono) == 22_050 and mono[2000:-2000] == pytest.approx(np.full(18_050, 0.3), abs=1e-4)
    assert fractions[-1] == 1.0


def test_reading_observed_audio_reports_progress_and_ends_when_it_raises() -> None:
    audio, fractions = Audio(make_noise(2, 1000), 44_100), list[float]()
    observed = ObservedAudio(audio, fractions.append)
    assert np.array_equal(np.concatenate(list(iter_blocks(observed, 250)), axis=1), audio.waveform)
    assert fractions == [0.0, 0.25, 0.5, 0.75] and observed.peak == audio.peak

    class EndedError(Exception):
        pass

    def end(fraction: float) -> None:
        raise EndedError

    with pytest.raises(EndedError):
        list(iter_blocks(ObservedAudio(audio, end)))
