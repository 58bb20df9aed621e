"""Test signals, and real audio files of them."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from audio import Audio
from audio.files.decode import DecodeLimits
from audio.files.encode import encode
from audio.files.formats import Encoding
from audio.types import DiskAudio, Waveform

LIMITS = DecodeLimits(
    max_bytes=1 << 29, max_seconds=7200.0, max_decoded_bytes=1 << 32, max_sample_rate=192_000, max_channels=8
)

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def make_tone(seconds: float = 1.0, *, sample_rate: int = 44100, channels: int = 2, level: float = 0.3) -> Audio:
    """A chord, a different one in each channel, with a little seeded noise; `level` is about its peak."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(7).standard_normal((channels, len(times)))
    chord = [np.sin(2 * np.pi * (330 + 110 * c) * times) + np.sin(2 * np.pi * 1234 * times) for c in range(channels)]
    return Audio((level / 2 * np.stack(chord) + level / 300 * noise).astype(np.float32), sample_rate)


def make_noise(channels: int, num_samples: int, seed: int = 0, level: float = 0.2) -> Waveform:
    """Gaussian noise with a standard deviation of `level`, `[C, T]`."""
    generator = np.random.default_rng(seed)
    return (level * generator.standard_normal((channels, num_samples))).astype(np.float32)


def copy_to_disk(audio: Audio) -> DiskAudio:
    """The same audio as a `DiskAudio`, which the caller closes."""
    copy = DiskAudio(audio.channels, audio.sample_rate)
    copy.append(audio.waveform)
    return copy


def encode_file(audio: Audio, encoding: Encoding) -> bytes:
    """The audio as an encoded file."""
    stream = io.BytesIO()
    encode(audio, encoding, stream)
    return stream.getvalue()


def encode_with_ffmpeg(audio: Audio, *options: str, suffix: str, to_pipe: bool = False) -> bytes:
    """The file that ffmpeg writes of the audio; `to_pipe` keeps it from seeking back to complete its headers."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.wav"), Path(folder, f"out.{suffix}")
        source.write_bytes(encode_file(audio, Encoding("wav", 32)))
        command = ["ffmpeg", "-v", "error", "-y", "-i", str(source), *options]
        if to_pipe:
            return subprocess.run([*command, "pipe:1"], capture_output=True, check=True).stdout
        subprocess.run([*command, str(target)], check=True)
        return target.read_bytes()


def measure_snr_db(reference: Audio, other: Audio) -> float:
    """Level of `reference` relative to its difference from the best fitting multiple of `other`.

    LAME lowers its input by up to 5 % at low bitrates, so a constant factor does not count as noise.
    """
    ours = reference.waveform.astype(np.float64)
    theirs = other.waveform.astype(np.float64)
    factor = (ours * theirs).sum() / max((theirs * theirs).sum(), 1e-30)
    error = ((ours - factor * theirs) ** 2).sum()
    return float(10 * np.log10((ours**2).sum() / max(error, 1e-30)))
