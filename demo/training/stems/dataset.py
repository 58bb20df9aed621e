"""Renders pieces as stems into mapped files, once, and draws training mixes from them."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from demo.training.compose import compose, describe_piece
from demo.training.render import BUILD, render_stems
from demo.training.stems.vocals import render_vocals

SAMPLE_RATE = 44_100
SECONDS = 20
SAMPLES = SECONDS * SAMPLE_RATE
INSTRUMENTAL = ("drums", "bass", "other")
VOCALS = ("lead", "backing")
FOLDER = BUILD / "stems"
HEADROOM = 2.0  # full scale of the files
# Of the stems in training: up to 2.7 semitones. The seconds that a training hears have few prime factors then.
SPEEDS = (6 / 7, 8 / 9, 9 / 10, 14 / 15, 20 / 21, 21 / 20, 15 / 14, 10 / 9, 9 / 8, 7 / 6)


@dataclass(frozen=True)
class Split:
    """Pieces of consecutive seeds.

    Args:
        name: of the folder.
        first_seed: of the first piece; the ranges of two splits never meet.
        pieces: how many.
        root: where the folder is.
    """

    name: str
    first_seed: int
    pieces: int
    root: Path = FOLDER

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.pieces)


TRAIN = Split("train", 50_000, 72)
DEVELOPMENT = Split("development", 80_000, 6)  # what settings and weights are chosen by
TEST = Split("test", 90_000, 20)


def render_split(split: Split) -> None:
    """Write every stem of every piece, `<stem>.i16`, and `pieces.json`; continues where an earlier run ended."""
    split.folder.mkdir(parents=True, exist_ok=True)
    for seed in split.seeds[_count(split, INSTRUMENTAL) :]:
        write_stems(split, render_stems(seed, sample_rate=SAMPLE_RATE, seconds=SECONDS))
    rows = [describe_piece(compose(seed, "full")) for seed in split.seeds]
    (split.folder / "pieces.json").write_text(json.dumps(rows))
    for seed in split.seeds[_count(split, VOCALS) :]:
        write_stems(split, render_vocals(seed, seconds=SECONDS))


def _count(split: Split, stems: Sequence[str]) -> int:
    """Pieces whose stems are complete; what is beyond them is cut off."""
    paths = [split.folder / f"{stem}.i16" for stem in stems]
    count = min(path.stat().st_size // (4 * SAMPLES) if path.exists() else 0 for path in paths)
    for path in paths:
        with path.open("ab") as file:
            file.truncate(count * 4 * SAMPLES)
    return count


def write_stems(split: Split, stems: Mapping[str, NDArray[np.float32]]) -> None:
    """Append stems of one piece, [2, SAMPLES] each, to the files."""
    split.folder.mkdir(parents=True, exist_ok=True)
    for stem, audio in stems.items():
        scaled = np.round(audio * (32767 / HEADROOM)).clip(-32768, 32767).astype("<i2")
        with (split.folder / f"{stem}.i16").open("ab") as file:
            file.write(scaled.tobytes())


class Stems:
    """The stems of a split, mapped from disk.

    Args:
        split: rendered by `render_split`.
        names: which stems; `vocals` is the lead and the backing vocals together.
    """

    def __init__(self, split: Split, names: Sequence[str]) -> None:
        self.names = tuple(names)
        files = dict.fromkeys(part for name in names for part in _parts(name))
        self._audio = {part: _open(split.folder / f"{part}.i16") for part in files}
        self.pieces = min(len(audio) for audio in self._audio.values())

    def find_complete(self) -> list[int]:
        """The pieces in which every stem is heard."""
        return [piece for piece in range(self.pieces) if self.read_all(piece).any(axis=(1, 2)).all()]

    def read(self, name: str, piece: int, start: int = 0, length: int = SAMPLES) -> NDArray[np.float32]:
        """Samples of one stem, [2, length]."""
        parts = [self._audio[part][piece, :, start : start + length].astype(np.float32) for part in _parts(name)]
        return np.asarray(sum(parts) * np.float32(HEADROOM / 32767), np.float32)

    def read_all(self, piece: int, start: int = 0, length: int = SAMPLES) -> NDArray[np.float32]:
        """All stems, [S, 2, length]; they sum to the mix."""
        return np.stack([self.read(name, piece, start, length) for name in self.names])


def _parts(name: str) -> tuple[str, ...]:
    return {"vocals": VOCALS, "instrumental": INSTRUMENTAL}.get(name, (name,))


def _open(path: Path) -> NDArray[np.int16]:
    count = path.stat().st_size // (4 * SAMPLES)
    return np.memmap(path, dtype="<i2", mode="r", shape=(count, 2, SAMPLES))


def draw_batches(stems: Stems, *, seed: int | str, size: int, length: int) -> Iterator[torch.Tensor]:
    """Draw training batches without end, from the pieces in which every stem is heard.

    Half of the items are a moment of one piece, half have each stem from another piece and moment. Each stem gets a
    gain of its own (within 6 dB); in half of the cases its channels are swapped, in half its polarity is inverted, in
    half it is faster or slower (all stems of one piece alike), and in one of twelve it is silent.

    Yields:
        `[B, S, 2, length]` float32; the mix is the sum over S.
    """
    rng, pieces = random.Random(seed), stems.find_complete()
    while True:
        items = [_draw_item(stems, pieces, rng, length) for _ in range(size)]
        yield torch.from_numpy(np.stack(items))


def _draw_item(stems: Stems, pieces: Sequence[int], rng: random.Random, length: int) -> NDArray[np.float32]:
    def draw_moment() -> tuple[int, int, int]:
        source = round(length * rng.choice(SPEEDS)) if rng.random() < 0.5 else length
        return rng.choice(pieces), rng.randrange(SAMPLES - source + 1), source

    shared, is_one_piece = draw_moment(), rng.random() < 0.5
    parts = []
    for name in stems.names:
        audio = change_speed(stems.read(name, *(shared if is_one_piece else draw_moment())), length)
        if rng.random() < 0.5:
            audio = audio[::-1]
        gain = 0.0 if rng.random() < 1 / 12 else rng.choice((-1, 1)) * 10 ** (rng.uniform(-6, 6) / 20)
        parts.append(audio * np.float32(gain))
    return np.stack(parts)


def change_speed(audio: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Audio played in `length` samples, `[C, T]` to `[C, length]`: its pitch changes, too."""
    if audio.shape[1] == length:
        return audio
    resampled: NDArray[np.float32] = irfft(rfft(audio), n=length) * np.float32(length / audio.shape[1])
    return resampled


def halve_rate(audio: torch.Tensor) -> torch.Tensor:
    """Audio at half its sample rate, `[..., T]` to `[..., T / 2]`, by cutting its spectrum; T is even."""
    spectrum = torch.fft.rfft(audio)[..., : audio.shape[-1] // 4 + 1].clone()
    spectrum[..., -1] = 0
    halved: torch.Tensor = torch.fft.irfft(spectrum, n=audio.shape[-1] // 2) / 2
    return halved
