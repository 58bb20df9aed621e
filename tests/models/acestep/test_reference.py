"""Which parts of a reference recording are encoded, against diffusers' pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from audio import Audio
from errors import AudioError, ErrorCode
from models.acestep.codec import LatentCodec
from models.acestep.reference import encode_reference, select_parts
from testing.signals import make_noise, make_tone
from testing.tiny_acestep import build_tiny_components

RATE = 1000  # Hz, for tests of positions alone


def make_ramp(num_samples: int, rate: int = RATE) -> Audio:
    """Samples that tell their own position."""
    ramp = np.linspace(0.0, 1.0, num_samples, dtype=np.float32)
    return Audio(np.stack([ramp, -ramp]), rate)


def test_a_long_recording_gives_its_front_middle_and_back() -> None:
    audio = make_ramp(100 * RATE)
    expected = [audio.waveform[:, start : start + 10_000] for start in (0, 33_333, 90_000)]
    np.testing.assert_array_equal(select_parts(audio, RATE), np.concatenate(expected, axis=1))


def test_a_short_recording_is_repeated_to_thirty_seconds() -> None:
    audio = make_ramp(7 * RATE)
    repeated = np.tile(audio.waveform, 5)
    expected = [repeated[:, start : start + 10_000] for start in (0, 35_000 // 3, 25_000)]
    np.testing.assert_array_equal(select_parts(audio, RATE), np.concatenate(expected, axis=1))


@pytest.mark.parametrize("seconds", [0.01, 3.0, 30.0, 30.5])
def test_every_recording_gives_thirty_seconds_of_stereo(seconds: float) -> None:
    for channels, rate in ((1, 8_000), (2, 11_025)):
        audio = Audio(make_noise(channels, int(seconds * rate)), rate)
        assert select_parts(audio, 6_000).shape == (2, 180_000)


def test_both_channels_of_a_mono_recording_are_the_same() -> None:
    left, right = select_parts(Audio(make_noise(1, 900), RATE), RATE)
    np.testing.assert_array_equal(left, right)


def test_samples_beyond_full_scale_are_clipped() -> None:
    parts = select_parts(Audio(make_noise(2, 1000, level=1.0), RATE), RATE)
    assert (parts.max(), parts.min()) == (1.0, -1.0)


@pytest.mark.parametrize("level", [0.0, 1e-7])
def test_a_silent_recording_is_refused(level: float) -> None:
    with pytest.raises(AudioError, match="silent") as caught:
        select_parts(Audio(np.full((2, 40 * RATE), level, np.float32), RATE), RATE)
    assert caught.value.error_code == ErrorCode.SILENT_AUDIO


def test_the_latents_of_a_recording_are_those_of_diffusers_without_its_noise() -> None:
    audio = make_tone(4.0, sample_rate=48_000)
    vae: Any = build_tiny_components().vae
    expected = encode_with_diffusers(vae, audio)
    fractions: list[float] = []
    found = encode_reference(LatentCodec(vae), audio, progress=fractions.append)
    assert found.shape == (1, 750, 4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert fractions[-1] == 1.0


@torch.no_grad()
def encode_with_diffusers(vae: Any, audio: Audio) -> torch.Tensor:
    """The parts as the pipeline selects them at 48 kHz, and the mean of their distribution."""
    waveform = torch.from_numpy(audio.waveform).repeat(1, 8)
    third, part = waveform.shape[1] // 3, 10 * 48_000
    parts = [waveform[:, :part], waveform[:, third : third + part], waveform[:, -part:]]
    mean: torch.Tensor = vae.encode(torch.cat(parts, dim=1)[None]).latent_dist.mean
    return mean.transpose(1, 2)
