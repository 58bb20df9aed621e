"""Sounds heard together from their first sample on: level, width and length. Knows no effects and no requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from audio.dsp.gain import from_db
from audio.dsp.long import MixView
from audio.types import AudioSource, Waveform


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing to hear, of a given shape."""

    sample_rate: int
    channels: int
    num_samples: int

    @property
    def duration(self) -> float:
        return self.num_samples / self.sample_rate

    @property
    def peak(self) -> float:
        return 0.0

    def read(self, start: int, count: int) -> Waveform:
        return np.zeros((self.channels, max(min(count, self.num_samples - start), 0)), np.float32)


@dataclass(frozen=True, slots=True)
class Placed:
    """A sound as it stands in a mix: at its level, as wide and as long as the mix. Computed as it is read.

    Args:
        sound: at the mix's rate, mono or as wide as the mix; what it lacks at its end is silence.
        gain_db: of its level in the mix.
        channels: of the mix; mono goes to both sides as it is.
        num_samples: of the mix; at least those of the sound.
    """

    sound: AudioSource
    gain_db: float
    channels: int
    num_samples: int

    def __post_init__(self) -> None:
        assert self.sound.channels in (1, self.channels) and self.sound.num_samples <= self.num_samples

    @property
    def sample_rate(self) -> int:
        return self.sound.sample_rate

    @property
    def duration(self) -> float:
        return self.num_samples / self.sample_rate

    @property
    def peak(self) -> float:
        return self.sound.peak * from_db(self.gain_db)

    def read(self, start: int, count: int) -> Waveform:
        block = np.zeros((self.channels, max(min(count, self.num_samples - start), 0)), np.float32)
        heard = self.sound.read(start, count)
        block[:, : heard.shape[1]] = heard * np.float32(from_db(self.gain_db))
        return block


def place(sounds: Sequence[tuple[AudioSource, float]]) -> list[Placed]:
    """(sound, gain in dB) pairs of one rate, each as it stands in their mix: as wide as the widest, as long as the
    longest."""
    channels = max(sound.channels for sound, _ in sounds)
    num_samples = max(sound.num_samples for sound, _ in sounds)
    return [Placed(sound, gain_db, channels, num_samples) for sound, gain_db in sounds]


def mix(sounds: Sequence[AudioSource]) -> AudioSource:
    """The sum of sounds of one shape, in float, computed as it is read; may exceed full scale."""
    return MixView(sounds)


def fit(blocks: Iterable[Waveform], *, num_samples: int) -> Iterator[Waveform]:
    """The blocks, at least one, cut or filled up with silence to `num_samples`."""
    left, channels = num_samples, 1
    for block in blocks:
        part, channels = block[:, :left], block.shape[0]
        left -= part.shape[1]
        if part.shape[1]:
            yield part
    silence = Silence(1, channels, left)
    for start in range(0, left, _SILENCE_FRAMES):
        yield silence.read(start, _SILENCE_FRAMES)


_SILENCE_FRAMES = 1 << 19
