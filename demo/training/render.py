"""Renders pieces with FluidSynth: mono, 32 kHz, `SECONDS` each, one loudness; or as stems."""

import random
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.training.compose import BASS, CHORDS, DRUM_CHANNEL, LEAD, compose, encode_midi
from demo.training.styles import INSTRUMENTS

BUILD = Path(__file__).parents[1] / "build"
SOUNDFONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
SAMPLE_RATE = 32_000
SECONDS = 32
SAMPLES = SECONDS * SAMPLE_RATE
TARGET_RMS, CEILING = 0.12, 0.85
STEM_CHANNELS = {"drums": (DRUM_CHANNEL,), "bass": (BASS,), "other": (CHORDS, LEAD)}
STEM_LEVELS_DB = (-27.0, -21.0)  # RMS of a stem, re full scale
PAN = 10  # the MIDI controller
WIDTH = {"drums": 10, "bass": 6, "other": 40}  # farthest pan to either side, of 64
DRUM_KITS = (0, 0, 8, 16, 24, 25, 32, 40)
# Sounds of the soundfont that pass for the instrument, so that a stem is more than one recording of it.
PROGRAM_VARIANTS = {
    0: (0, 1, 2, 3), 4: (4, 5), 16: (16, 17, 18), 25: (24, 25), 27: (26, 27), 30: (29, 30),
    33: (33, 34, 35), 36: (36, 37), 38: (38, 87), 39: (38, 39), 48: (48, 49), 50: (50, 51), 61: (61, 62),
    66: (65, 66), 73: (73, 74), 80: (80, 82), 81: (81, 84), 91: (89, 91),
}  # fmt: skip
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


def render_midi(midi: bytes, sample_rate: int, samples: int) -> NDArray[np.float32]:
    """A MIDI file played by FluidSynth, [2, samples]; silence follows if it is shorter."""
    with tempfile.TemporaryDirectory() as folder:
        source, raw = Path(folder) / "piece.mid", Path(folder) / "piece.raw"
        source.write_bytes(midi)
        command = ["fluidsynth", *OPTIONS, "-r", str(sample_rate), "-F", str(raw), SOUNDFONT, str(source)]
        subprocess.run(command, check=True, timeout=600, stdin=subprocess.DEVNULL, capture_output=True)
        played = np.fromfile(raw, dtype="<i2", count=2 * samples).reshape(-1, 2).T.astype(np.float32) / 32768
    stereo = np.zeros((2, samples), np.float32)
    stereo[:, : played.shape[1]] = played
    return stereo


def render(seed: int) -> NDArray[np.int16]:
    """The piece of `seed` as audio, [SAMPLES] int16."""
    mono = render_midi(encode_midi(compose(seed)), SAMPLE_RATE, SAMPLES).mean(axis=0)
    return (_normalise_level(mono) * 32767).astype(np.int16)


def render_stems(seed: int, *, sample_rate: int = 44_100, seconds: float) -> dict[str, NDArray[np.float32]]:
    """A full band that plays the piece of `seed`, one stem at a time, so that each is exact.

    Sounds, pan and levels are drawn with the seed. The first 31 s (`compose.SECONDS`) have music.

    Returns:
        `drums`, `bass` and `other`, [2, T] each, whose sum is the instrumental.
    """
    piece, rng = compose(seed, "full"), random.Random(f"stems {seed}")
    samples = round(seconds * sample_rate)
    stems = {}
    for name, channels in STEM_CHANNELS.items():
        programs = {DRUM_CHANNEL: rng.choice(DRUM_KITS)}
        for channel in set(channels) & piece.instruments.keys():
            program = INSTRUMENTS[piece.instruments[channel]][0]
            programs[channel] = rng.choice(PROGRAM_VARIANTS.get(program, (program,)))
        setup = b"".join(
            bytes((0xB0 | channel, PAN, 64 + rng.randint(-WIDTH[name], WIDTH[name]))) for channel in channels
        )
        stereo = render_midi(encode_midi(piece, channels, programs, setup), sample_rate, samples)
        stems[name] = set_level(stereo, rng.uniform(*STEM_LEVELS_DB))
    return stems


def set_level(audio: NDArray[np.float32], level_db: float) -> NDArray[np.float32]:
    """Scale audio to an RMS of `level_db` re full scale; silence stays silence."""
    rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
    return audio * np.float32(10 ** (level_db / 20) / max(rms, 1e-4))


def _normalise_level(mono: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring a piece to a common loudness; the tanh limiter lets drums alone be as loud as the rest."""
    loud = mono * (TARGET_RMS / max(1e-4, float(np.sqrt(np.mean(mono**2)))))
    limited: NDArray[np.float32] = np.tanh(loud / CEILING) * CEILING
    return limited
