"""A track of a mix: placed in time, faded, panned and ducked under another one, computed on reading."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio.dsp.gain import from_db
from audio.types import AudioSource, Check, Waveform, iter_blocks

FRAME_S = 0.01  # of the level that ducking follows
FULL_DUCK_DB = 12.0  # above the threshold the whole depth is reached


def count_frame_samples(sample_rate: int) -> int:
    """Samples of a frame."""
    return max(round(FRAME_S * sample_rate), 1)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a track plays.

    Args:
        start: first sample in the mix.
        gain_db: level change.
        pan: -1 (left) to 1 (right), constant power; 0 leaves the audio as it is.
        fade_in, fade_out: raised cosines at both ends, in samples; each at most the whole track.
    """

    start: int = 0
    gain_db: float = 0.0
    pan: float = 0.0
    fade_in: int = 0
    fade_out: int = 0


class TrackView(AudioSource):
    """A source as it sounds in a mix, silent before and after it.

    Args:
        source: mono, or with `channels` channels.
        channels: of the mix; mono is copied to each. Panning needs two.
        num_samples: of the mix.
        ducking: gain of every frame of `FRAME_S`, from `follow_level`.
    """

    def __init__(
        self,
        source: AudioSource,
        placement: Placement,
        *,
        channels: int,
        num_samples: int,
        ducking: NDArray[np.float32] | None = None,
    ) -> None:
        assert source.channels in (1, channels), f"{source.channels} channels do not fit into {channels}"
        assert channels == 2 or not placement.pan, "panning needs two channels"
        super().__init__(source.sample_rate, channels, num_samples)
        self._source, self._placement, self._ducking = source, placement, ducking
        angle = (placement.pan + 1) * math.pi / 4
        pan = np.sqrt(2) * np.array([math.cos(angle), math.sin(angle)]) if placement.pan else np.ones(channels)
        self._gains = (from_db(placement.gain_db) * pan).astype(np.float32)[:, None]

    def read(self, start: int, count: int) -> Waveform:
        count = max(min(count, self.num_samples - start), 0)
        result = np.zeros((self.channels, count), np.float32)
        first = max(start - self._placement.start, 0)  # in the source
        last = min(start + count - self._placement.start, self._source.num_samples)
        if last <= first:
            return result
        offset = first + self._placement.start - start
        part = result[:, offset : offset + last - first]
        part[:] = self._source.read(first, last - first) * self._gains
        self._fade(part, first)
        if self._ducking is not None:
            positions = np.arange(start + offset, start + offset + last - first)
            frames = (positions + 0.5) / count_frame_samples(self.sample_rate) - 0.5  # a gain holds in its middle
            part *= np.interp(frames, np.arange(len(self._ducking)), self._ducking).astype(np.float32)
        return result

    def _fade(self, part: Waveform, first: int) -> None:
        """Fades the source's samples from `first` on in place."""
        positions = np.arange(first, first + part.shape[1])
        for length, distance in (
            (self._placement.fade_in, positions),
            (self._placement.fade_out, self._source.num_samples - 1 - positions),
        ):
            if length and distance.min() < length:
                part *= (0.5 - 0.5 * np.cos(np.pi * np.minimum(distance / length, 1.0))).astype(np.float32)


def follow_level(  # noqa: PLR0913  (options by keyword)
    source: AudioSource, *, depth_db: float, threshold_db: float, attack_s: float, release_s: float, check: Check
) -> NDArray[np.float32]:
    """The gain that ducks another track under `source`: one factor for each frame of `FRAME_S`.

    The RMS level of a frame above the threshold lowers the gain, by the whole depth from 12 dB above it on.

    Args:
        depth_db: of the reduction, 0 or more.
        attack_s, release_s: time constants with which the gain falls and rises again.
    """
    frame = count_frame_samples(source.sample_rate)
    levels = [np.zeros(0)]
    for block in iter_blocks(source, frame * 4096):
        check()
        energy = np.square(block, dtype=np.float64).mean(axis=0)
        padded = np.pad(energy, (0, -len(energy) % frame)).reshape(-1, frame)
        levels.append(10 * np.log10(np.maximum(padded.mean(axis=1), 1e-20)))
    target = -depth_db * np.clip((np.concatenate(levels) - threshold_db) / FULL_DUCK_DB, 0.0, 1.0)
    attack, release = (1 - math.exp(-FRAME_S / max(seconds, 1e-6)) for seconds in (attack_s, release_s))
    gain, gains = 0.0, np.empty(len(target))
    for index, wanted in enumerate(target.tolist()):
        gain += (wanted - gain) * (attack if wanted < gain else release)
        gains[index] = gain
    return (10 ** (gains / 20)).astype(np.float32)
