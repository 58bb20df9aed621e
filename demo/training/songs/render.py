"""Renders composed pieces at 48 kHz into one int16 file. Both channels of the songs are the same, so one is kept."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.training.compose import compose, encode_midi

BUILD = Path(__file__).parents[2] / "build" / "songs"
AUDIO = BUILD / "audio.i16"
SOUNDFONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
SAMPLE_RATE = 48_000
SECONDS = 30
PIECES = 226
SAMPLES = SECONDS * SAMPLE_RATE
_TARGET_RMS, _CEILING = 0.12, 0.85
_TIMEOUT_S = 600
_SETTINGS = ("dynamic-sample-loading=1", "reverb.room-size=0.3", "reverb.level=0.4", "cpu-cores=1")
_OPTIONS = [
    *("-ni", "-q", "-R", "1", "-C", "0", "-g", "0.4", "-T", "raw", "-O", "s16"),
    *(part for setting in _SETTINGS for part in ("-o", f"synth.{setting}")),
]


def render(seed: int) -> NDArray[np.int16]:
    """Renders the piece of a seed: `[SAMPLES]`, mono. Its first sample is the first beat of a bar."""
    with tempfile.TemporaryDirectory() as folder:
        midi, raw = Path(folder) / "piece.mid", Path(folder) / "piece.raw"
        midi.write_bytes(encode_midi(compose(seed)))
        command = ["fluidsynth", *_OPTIONS, "-r", str(SAMPLE_RATE), "-F", str(raw), SOUNDFONT, str(midi)]
        subprocess.run(command, check=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL, capture_output=True)
        stereo = np.fromfile(raw, dtype="<i2").reshape(-1, 2)[:SAMPLES].astype(np.float32) / 32768
    mono = np.zeros(SAMPLES, np.float32)
    mono[: len(stereo)] = stereo.mean(axis=1)
    loud = mono * (_TARGET_RMS / max(1e-4, float(np.sqrt(np.mean(mono**2)))))
    limited: NDArray[np.int16] = (np.tanh(loud / _CEILING) * _CEILING * 32767).astype(np.int16)
    return limited


def render_all(count: int = PIECES) -> None:
    """Writes the pieces of the seeds 0 to `count`; continues where an earlier run ended."""
    BUILD.mkdir(parents=True, exist_ok=True)
    done = AUDIO.stat().st_size // (2 * SAMPLES) if AUDIO.exists() else 0
    with AUDIO.open("r+b" if done else "wb") as file:
        file.seek(done * 2 * SAMPLES)
        for seed in range(done, count):
            file.write(render(seed).tobytes())


def load_audio() -> NDArray[np.int16]:
    """All rendered audio, `[N, SAMPLES]`, mapped from disk."""
    count = AUDIO.stat().st_size // (2 * SAMPLES)
    return np.memmap(AUDIO, dtype=np.int16, mode="r", shape=(count, SAMPLES))
