"""Renders pieces with FluidSynth into one int16 file: mono, 32 kHz, `SECONDS` each, one loudness."""

import json
import subprocess
import tempfile
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.training.captions import write_captions
from demo.training.compose import compose, encode_midi

BUILD = Path(__file__).parents[1] / "build"
SOUNDFONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
SAMPLE_RATE = 32_000
SECONDS = 32
PIECES = 1150
SAMPLES = SECONDS * SAMPLE_RATE
TARGET_RMS, CEILING = 0.12, 0.85
# No chorus and a small room; loading only the samples that a piece uses makes a render take half a second.
OPTIONS = [
    "-ni",
    "-q",
    "-R",
    "1",
    "-C",
    "0",
    "-g",
    "0.4",
    "-T",
    "raw",
    "-O",
    "s16",
    "-o",
    "synth.dynamic-sample-loading=1",
    "-o",
    "synth.reverb.room-size=0.3",
    "-o",
    "synth.reverb.level=0.4",
    "-o",
    "synth.cpu-cores=1",
]


def render(seed: int) -> NDArray[np.int16]:
    """The piece of `seed` as audio, [SAMPLES] int16."""
    with tempfile.TemporaryDirectory() as folder:
        midi, raw = Path(folder) / "piece.mid", Path(folder) / "piece.raw"
        midi.write_bytes(encode_midi(compose(seed)))
        command = ["fluidsynth", *OPTIONS, "-r", str(SAMPLE_RATE), "-F", str(raw), SOUNDFONT, str(midi)]
        subprocess.run(command, check=True, timeout=600, stdin=subprocess.DEVNULL, capture_output=True)
        stereo = np.fromfile(raw, dtype="<i2").reshape(-1, 2).astype(np.float32) / 32768
    mono = np.zeros(SAMPLES, np.float32)
    length = min(SAMPLES, len(stereo))
    mono[:length] = stereo[:length].mean(axis=1)
    return (_normalise_level(mono) * 32767).astype(np.int16)


def _normalise_level(mono: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring a piece to a common loudness; the tanh limiter lets drums alone be as loud as the rest."""
    loud = mono * (TARGET_RMS / max(1e-4, float(np.sqrt(np.mean(mono**2)))))
    limited: NDArray[np.float32] = np.tanh(loud / CEILING) * CEILING
    return limited


def render_all(count: int, first_seed: int = 0, workers: int = 3) -> None:
    """Write build/audio.i16 and build/pieces.json for `count` seeds; continues where an earlier run ended."""
    BUILD.mkdir(exist_ok=True)
    path = BUILD / "audio.i16"
    done = path.stat().st_size // (2 * SAMPLES) if path.exists() else 0
    with path.open("r+b" if path.exists() else "wb") as file, Pool(workers) as pool:
        file.seek(done * 2 * SAMPLES)
        for audio in pool.imap(render, range(first_seed + done, first_seed + count), chunksize=2):
            file.write(audio.tobytes())
    write_pieces(count, first_seed)


def write_pieces(count: int, first_seed: int = 0) -> None:
    """Write build/pieces.json: tempo and captions of each piece, in the order of the audio."""
    pieces = [compose(first_seed + i) for i in range(count)]
    rows = [
        {"seed": p.seed, "bpm": p.bpm, "bars": p.bars, "arrangement": p.arrangement, "captions": write_captions(p)}
        for p in pieces
    ]
    (BUILD / "pieces.json").write_text(json.dumps(rows))


def load_audio() -> NDArray[np.int16]:
    """All rendered audio, [N, SAMPLES] int16, mapped from disk."""
    path = BUILD / "audio.i16"
    count = path.stat().st_size // (2 * SAMPLES)
    return np.memmap(path, dtype=np.int16, mode="r", shape=(count, SAMPLES))
