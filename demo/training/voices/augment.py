"""Crops of training lines, changed in speed, colour, level and noise, so that networks do not learn the singer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from demo.training.voices.data import F0_RATE, INPUT_RATE, NAMES, Lines

HOP_LENGTH = 320  # of the content encoder, at 16 kHz
FRAME_CENTRE = 200  # of the samples that a frame is computed from
TAIL = 80  # samples that the last frame needs beyond its hop
SPEEDS = (0.85, 1.18)
COLOR_DB = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Aligned crops of pairs of singers: row i and row B / 2 + i are the same words.

    Args:
        waveforms: `[B, T]` float32 at 16 kHz.
        times: `[B, frames]`, position in the line of each frame of the content encoder, in seconds.
        pieces: `[B]`.
        singers: `[B]`, numbers in `NAMES`.
    """

    waveforms: torch.Tensor
    times: NDArray[np.float64]
    pieces: NDArray[np.int64]
    singers: NDArray[np.int64]


def draw_crops(  # noqa: PLR0913  (keyword-only)
    lines: Lines,
    rng: np.random.Generator,
    *,
    pairs: int,
    frames: int,
    speeds: tuple[float, float] = SPEEDS,
    color_db: float = COLOR_DB,
) -> Crops:
    """Draws crops of `frames` frames at 50 frames/s.

    Args:
        speeds: range of the factor at which both of a pair are played.
        color_db: standard deviation of the gains of a random equalizer.
    """
    total = lines.input_audio.shape[2]
    count = frames * HOP_LENGTH + TAIL
    waveforms, times, pieces, singers = [], [], [], []
    chosen = [(rng.integers(len(lines.phonemes)), rng.uniform(*speeds), rng.uniform()) for _ in range(pairs)]
    pairings = np.array([rng.choice(len(NAMES), 2, replace=False) for _ in range(pairs)])
    for half in range(2):
        for (piece, speed, place), singer in zip(chosen, pairings[:, half], strict=True):
            start = place * (total - count * speed - 2)
            positions = start + np.arange(count) * speed
            row = lines.input_audio[piece, singer]
            first, last = int(positions[0]), int(positions[-1]) + 2
            waveforms.append(_play(row[first:last], positions - first))
            times.append((start + (np.arange(frames) * HOP_LENGTH + FRAME_CENTRE) * speed) / INPUT_RATE)
            pieces.append(piece)
            singers.append(singer)
    audio = _color(torch.from_numpy(np.stack(waveforms)), rng, color_db)
    return Crops(audio, np.stack(times), np.array(pieces), np.array(singers))


def label_crops(lines: Lines, crops: Crops, *, offset: int = FRAME_CENTRE) -> torch.Tensor:
    """`[B, frames]` int64: the phoneme at sample `HOP_LENGTH * i + offset` of the crop."""
    times = crops.times + (offset - FRAME_CENTRE) / INPUT_RATE
    columns = np.clip(np.round(times * F0_RATE).astype(int), 0, lines.phonemes.shape[1] - 1)
    return torch.from_numpy(lines.phonemes[crops.pieces[:, None], columns].astype(np.int64))


def _play(row: NDArray[np.int16], positions: NDArray[np.float64]) -> NDArray[np.float32]:
    """The samples at fractional positions."""
    left = positions.astype(int)
    part = (positions - left).astype(np.float32)
    samples = row.astype(np.float32) / 32768
    return np.asarray(samples[left] * (1 - part) + samples[left + 1] * part)


def _color(waveforms: torch.Tensor, rng: np.random.Generator, color_db: float) -> torch.Tensor:
    """A random smooth equalizer, a random level, and white noise 25 to 60 dB below it."""
    batch, length = waveforms.shape
    bands = torch.from_numpy(rng.normal(0, color_db, (batch, 1, 6)).astype(np.float32))
    gains = F.interpolate(bands, size=length // 2 + 1, mode="linear", align_corners=True)[:, 0]
    colored = torch.fft.irfft(torch.fft.rfft(waveforms) * 10 ** (gains / 20), n=length)
    noise = torch.from_numpy(rng.standard_normal((batch, length)).astype(np.float32))
    level = colored.square().mean(1, keepdim=True).sqrt()
    share = torch.from_numpy((10 ** (-rng.uniform(25, 60, (batch, 1)) / 20)).astype(np.float32))
    gain = torch.from_numpy((10 ** (rng.uniform(-12, 6, (batch, 1)) / 20)).astype(np.float32))
    noisy: torch.Tensor = (colored + noise * level * share) * gain
    return noisy
