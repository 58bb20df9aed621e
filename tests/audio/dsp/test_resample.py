"""Sample rate conversion: exact lengths, no delay, the same result by blocks as at once."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import Audio
from audio.dsp.gain import GainView
from audio.dsp.resample import resample, resample_blocks, resample_source, resampled_length
from audio.types import DiskAudio
from testing.repository import ROOT
from testing.signals import copy_to_disk, make_noise, make_tone


@given(st.integers(1, 200_000), st.integers(1000, 192_000), st.integers(1000, 192_000))
def test_the_resampled_length_is_the_exact_one_rounded(num_samples: int, rate: int, new_rate: int) -> None:
    assert abs(resampled_length(num_samples, rate, new_rate) - num_samples * new_rate / rate) <= 0.5


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20_000),
    st.sampled_from([8000, 11025, 16000, 24000, 32000, 44100, 48000, 96000]),
    st.sampled_from([16000, 32000, 40000, 44100, 48000]),
)
def test_resampling_gives_that_length(num_samples: int, rate: int, new_rate: int) -> None:
    audio = Audio(np.ones((2, num_samples), np.float32), rate)
    result = resample(audio, new_rate)
    assert result.num_samples == resampled_length(num_samples, rate, new_rate)
    assert result.sample_rate == new_rate


@pytest.mark.parametrize(("rate", "new_rate"), [(44100, 48000), (48000, 16000), (32000, 44100)])
def test_resampling_does_not_delay_a_tone(rate: int, new_rate: int) -> None:
    def sine(at: int) -> Audio:
        return Audio(np.sin(2 * np.pi * 1000 * np.arange(at) / at)[None].astype(np.float32), at)

    result, expected = resample(sine(rate), new_rate), sine(new_rate)
    inner = slice(new_rate // 10, -new_rate // 10)
    np.testing.assert_allclose(result.waveform[:, inner], expected.waveform[:, inner], atol=1e-5)


def test_the_same_rate_returns_the_same_object() -> None:
    audio = make_tone(0.1)
    assert resample(audio, 44100) is audio


ODD_RATES = [8000, 11_025, 12_345, 22_254, 31_999, 44_056, 44_099, 44_101, 88_200, 96_001, 191_999, 192_000]

CAPPED = """
import json, resource, sys
import numpy as np
import soxr
from audio import Audio
from audio.dsp.resample import resample

status = open("/proc/self/status").read()
used = int(next(line for line in status.splitlines() if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), used + (200 << 20)))
worst = {}
for rate in json.loads(sys.argv[1]):
    for new_rate in (16_000, 32_000, 44_100, 48_000):
        times = np.arange(10 * rate) / rate
        tone = np.sin(2 * np.pi * 440 * times)[None].astype(np.float32)
        result = resample(Audio(tone, rate), new_rate).waveform[0]
        expected = np.sin(2 * np.pi * 440 * np.arange(len(result)) / new_rate)
        inner = slice(new_rate // 10, -new_rate // 10)
        worst[f"{rate} to {new_rate}"] = float(np.abs(result - expected)[inner].max())
print(json.dumps(worst))
"""


def test_resampling_between_any_two_rates_takes_little_memory_and_is_exact() -> None:
    """Ten seconds at each rate, with 200 MB of address space left. A filter for the exact ratio of 44,101 to 32,000
    would take 11 GB."""
    done = subprocess.run(
        [sys.executable, "-c", CAPPED, json.dumps(ODD_RATES)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    worst = json.loads(done.stdout)
    assert len(worst) == 4 * len(ODD_RATES)
    assert max(worst.values()) < 1e-4, worst


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("new_rate", [16_000, 32_000])
def test_at_usual_rates_the_result_is_that_of_julius_to_70_db(rate: int, new_rate: int) -> None:
    """julius is what audiocraft resamples with. Both are compared on noise below 80 % of the lower Nyquist frequency,
    where julius' shorter filter begins to fall."""
    from julius.resample import resample_frac

    spectrum = np.fft.rfft(make_noise(1, 2 * rate))
    frequencies = np.fft.rfftfreq(2 * rate, 1 / rate)
    spectrum[:, frequencies > 0.8 * min(rate, new_rate) / 2] = 0
    noise = np.fft.irfft(spectrum).astype(np.float32)
    ours = resample(Audio(noise, rate), new_rate).waveform
    theirs = resample_frac(torch.from_numpy(noise), rate, new_rate).numpy()
    assert ours.shape == theirs.shape
    inner = slice(new_rate // 10, -new_rate // 10)
    difference = np.square(ours - theirs)[:, inner].mean() / np.square(theirs)[:, inner].mean()
    assert 10 * np.log10(difference + 1e-30) < -70


@pytest.mark.parametrize("rates", [(48_000, 44_100), (44_100, 48_000), (8000, 44_100), (192_000, 44_100)])
@pytest.mark.parametrize("size", [777, 65_536])
def test_resampling_by_blocks_equals_resampling_at_once(rates: tuple[int, int], size: int) -> None:
    waveform = make_noise(2, 30_000)
    whole = resample(Audio(waveform, rates[0]), rates[1]).waveform
    blocks = (waveform[:, start : start + size] for start in range(0, 30_000, size))
    converted = list(resample_blocks(blocks, *rates, num_samples=30_000, length=whole.shape[1]))
    np.testing.assert_allclose(np.concatenate(converted, axis=1), whole, atol=1e-5)


def test_a_large_result_is_on_disk_even_if_the_source_is_in_memory(no_files_left: Path) -> None:
    audio = Audio(np.zeros((2, 8000 * 500), np.float32), 8000)
    with ExitStack() as stack:
        result = resample_source(audio, 48_000, stack)
        assert isinstance(result, DiskAudio) and result.num_samples == 48_000 * 500


def test_a_source_of_any_storage_is_resampled_like_audio_in_memory() -> None:
    audio = Audio(make_noise(2, 300_000), 44_100)
    expected = resample(audio, 48_000).waveform
    with copy_to_disk(audio) as stored, ExitStack() as stack:
        assert resample_source(stored, 44_100, stack) is stored
        for source in (audio, stored, GainView(audio, 0.0)):
            np.testing.assert_allclose(resample_source(source, 48_000, stack).read(0, 1 << 20), expected, atol=1e-5)
