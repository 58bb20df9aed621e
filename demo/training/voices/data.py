"""Sung lines for training: every singer sings every piece, so that the lines of a piece are aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from demo.training.compose import compose
from demo.training.singing import SAMPLE_RATE, SINGERS, TARGETS, SungLine, compose_melody, sing
from demo.training.singing.lexicon import PHONEMES

BUILD = Path(__file__).parents[2] / "build" / "voices"
SECONDS = 8.0
F0_RATE = 100
INPUT_RATE = 16_000
VOICE_RATE = 32_000
TRAINING_SEED, TEST_SEED = 100_000, 200_000
TRAINING_PIECES, TEST_PIECES = 300, 20
NAMES = tuple(SINGERS)
SOURCES = tuple(name for name in NAMES if name not in TARGETS)


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Sung lines, mapped from disk; P pieces, S singers in the order of `NAMES`.

    Args:
        input_audio: `[P, S, T]` int16 at 16 kHz.
        voice_audio: `[P, len(TARGETS), T]` int16 at 32 kHz, of the singers in `TARGETS`.
        voice_phase: `[P, len(TARGETS), T]` uint16 at 32 kHz: the phase of f0 of `voice_audio`, in periods / 65536. The
            vocoder's pulses are where it wraps.
        f0: `[P, S, F]` in Hz at 100 frames/s, 0 = unvoiced.
        phonemes: `[P, F]`, numbers in `lexicon.PHONEMES`, at i / 100 s; the same for all singers.
    """

    input_audio: NDArray[np.int16]
    voice_audio: NDArray[np.int16]
    voice_phase: NDArray[np.uint16]
    f0: NDArray[np.float32]
    phonemes: NDArray[np.uint8]


def sing_piece(seed: int, name: str, seconds: float = SECONDS) -> SungLine:
    """The line of the piece `seed` by the singer called `name`."""
    singer = SINGERS[name]
    return sing(compose_melody(compose(seed), singer), singer, seed=seed, seconds=seconds)


def label_frames(line: SungLine) -> NDArray[np.uint8]:
    """The number of the phoneme at the time of each frame of f0, `[F]`."""
    starts = [phoneme.start_s for phoneme in line.phonemes]
    times = np.arange(len(line.f0)) / F0_RATE + 1e-6
    numbers = np.array([PHONEMES.index(phoneme.symbol) for phoneme in line.phonemes], np.uint8)
    return numbers[np.searchsorted(starts, times, side="right") - 1]


def sample_phase(line: SungLine) -> NDArray[np.uint16]:
    """The phase of the line's f0 at 32 kHz, in periods / 65536, `[T]`."""
    times = np.arange(round(len(line.cycles) / SAMPLE_RATE * VOICE_RATE)) / VOICE_RATE
    cycles = np.interp(times, np.arange(len(line.cycles)) / SAMPLE_RATE, line.cycles)
    return np.asarray(np.floor(65536 * (cycles % 1)), np.uint16)


def record_lines(pieces: int, folder: Path = BUILD) -> None:
    """Sings the training lines; continues where an earlier run ended."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = _open(pieces, folder, mode="r+" if (folder / "done.txt").exists() else "w+")
    done_path = folder / "done.txt"
    done = int(done_path.read_text()) if done_path.exists() else 0
    for piece in range(done, pieces):
        for number, name in enumerate(NAMES):
            line = sing_piece(TRAINING_SEED + piece, name)
            arrays.input_audio[piece, number] = _to_int16(line.audio, INPUT_RATE)
            if name in TARGETS:
                arrays.voice_audio[piece, TARGETS.index(name)] = _to_int16(line.audio, VOICE_RATE)
                arrays.voice_phase[piece, TARGETS.index(name)] = sample_phase(line)
            arrays.f0[piece, number] = line.f0
            arrays.phonemes[piece] = label_frames(line)
        done_path.write_text(str(piece + 1))
        print(f"piece {piece + 1} of {pieces}", flush=True)


def load_lines(folder: Path = BUILD) -> Lines:
    """All lines that have been sung."""
    done = int((folder / "done.txt").read_text())
    return _open(done, folder, mode="r")


def _open(pieces: int, folder: Path, *, mode: str) -> Lines:
    def map_file(name: str, dtype: type, shape: Sequence[int]) -> NDArray[np.generic]:
        path = folder / name
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if mode != "r" and (not path.exists() or path.stat().st_size < size or mode == "w+"):
            with path.open("wb" if mode == "w+" else "r+b") as file:
                file.truncate(size)
        return np.memmap(path, dtype=dtype, mode="r" if mode == "r" else "r+", shape=tuple(shape))

    frames = round(SECONDS * F0_RATE)
    return Lines(
        input_audio=map_file("input.i16", np.int16, (pieces, len(NAMES), round(SECONDS * INPUT_RATE))),  # type: ignore[arg-type]
        voice_audio=map_file("voice.i16", np.int16, (pieces, len(TARGETS), round(SECONDS * VOICE_RATE))),  # type: ignore[arg-type]
        voice_phase=map_file("phase.u16", np.uint16, (pieces, len(TARGETS), round(SECONDS * VOICE_RATE))),  # type: ignore[arg-type]
        f0=map_file("f0.f32", np.float32, (pieces, len(NAMES), frames)),  # type: ignore[arg-type]
        phonemes=map_file("phonemes.u8", np.uint8, (pieces, frames)),  # type: ignore[arg-type]
    )


def _to_int16(audio: NDArray[np.float32], rate: int) -> NDArray[np.int16]:
    resampled = soxr.resample(audio, SAMPLE_RATE, rate, quality="HQ")
    length = round(SECONDS * rate)
    padded = np.pad(resampled, (0, max(0, length - len(resampled))))[:length]
    return np.asarray(np.round(np.clip(padded, -1, 1) * 32767), np.int16)
