"""Sounds, and real files of them, for the tests of the audio room."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from audio import Audio
from audio.files.decode import DecodeLimits
from audio.files.encode import Encoding, encode

LIMITS: Final = DecodeLimits(max_bytes=1 << 29, max_seconds=7200.0, max_sample_rate=192_000, max_channels=8)

needs_ffmpeg: Final = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def tone(seconds: float = 1.0, *, sample_rate: int = 44100, channels: int = 2, level: float = 0.3) -> Audio:
    """A chord, another one in each channel, with a little seeded noise."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(7).standard_normal((channels, len(times)))
    chord = [np.sin(2 * np.pi * (330 + 110 * c) * times) + np.sin(2 * np.pi * 1234 * times) for c in range(channels)]
    return Audio((level / 2 * np.stack(chord) + level / 300 * noise).astype(np.float32), sample_rate)


def file_of(audio: Audio, encoding: Encoding) -> bytes:
    stream = io.BytesIO()
    encode(audio, encoding, stream)
    return stream.getvalue()


def with_ffmpeg(audio: Audio, *options: str, suffix: str, to_pipe: bool = False) -> bytes:
    """The file that ffmpeg makes of a sound; `to_pipe` keeps it from seeking back to mend its headers."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.wav"), Path(folder, f"out.{suffix}")
        source.write_bytes(file_of(audio, Encoding("wav", 32)))
        command = ["ffmpeg", "-v", "error", "-y", "-i", str(source), *options]
        if to_pipe:
            return subprocess.run([*command, "pipe:1"], capture_output=True, check=True).stdout
        subprocess.run([*command, str(target)], check=True)
        return target.read_bytes()


def snr_db(reference: Audio, other: Audio) -> float:
    """Level of `reference` over that of its difference from the best fitting multiple of `other`.

    LAME lowers its input by up to 5 % at low bitrates, so a constant factor is no noise.
    """
    ours = reference.waveform.astype(np.float64)
    theirs = other.waveform.astype(np.float64)
    factor = (ours * theirs).sum() / max((theirs * theirs).sum(), 1e-30)
    error = ((ours - factor * theirs) ** 2).sum()
    return float(10 * np.log10((ours**2).sum() / max(error, 1e-30)))
