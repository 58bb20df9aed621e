"""Rate and level of sounds of any length: in memory as elsewhere, on disk by blocks. Knows no files and no requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from audio.dsp import gain
from audio.dsp.gain import CEILING_DBTP, Normalized, NormalizeMode, from_db, to_db
from audio.dsp.loudness import integrated_loudness, true_peak_db
from audio.dsp.resample import resample, resample_blocks, resampled_length
from audio.types import Audio, AudioSource, DiskAudio, Waveform, iter_blocks

_BELOW_FULL_SCALE = 0.9999  # a fraction of a 16-bit step above this is left for dither


@dataclass(frozen=True, slots=True)
class GainView:
    """A sound at another level, computed as it is read."""

    sound: AudioSource
    factor: float

    @property
    def sample_rate(self) -> int:
        return self.sound.sample_rate

    @property
    def channels(self) -> int:
        return self.sound.channels

    @property
    def num_samples(self) -> int:
        return self.sound.num_samples

    @property
    def duration(self) -> float:
        return self.sound.duration

    @property
    def peak(self) -> float:
        return self.sound.peak * self.factor

    def read(self, start: int, count: int) -> Waveform:
        return self.sound.read(start, count) * np.float32(self.factor)


@dataclass(frozen=True, slots=True)
class MixView:
    """Sounds of one rate, width and length heard together, added as they are read."""

    sounds: Sequence[AudioSource]

    @property
    def sample_rate(self) -> int:
        return self.sounds[0].sample_rate

    @property
    def channels(self) -> int:
        return self.sounds[0].channels

    @property
    def num_samples(self) -> int:
        return self.sounds[0].num_samples

    @property
    def duration(self) -> float:
        return self.sounds[0].duration

    @property
    def peak(self) -> float:
        return max((float(np.abs(block).max()) for block in iter_blocks(self)), default=0.0)

    def read(self, start: int, count: int) -> Waveform:
        total = self.sounds[0].read(start, count).copy()
        for sound in self.sounds[1:]:
            total += sound.read(start, count)
        return total


def at_rate(sound: AudioSource, sample_rate: int, stack: ExitStack) -> AudioSource:
    """`resample` for sounds of any length; what lies on disk goes to disk, until `stack` closes."""
    if isinstance(sound, Audio):
        return resample(sound, sample_rate)
    if sound.sample_rate == sample_rate:
        return sound
    length = resampled_length(sound.num_samples, sound.sample_rate, sample_rate)
    made = stack.enter_context(DiskAudio(sound.channels, sample_rate))
    coming = resample_blocks(
        iter_blocks(sound), sound.sample_rate, sample_rate, num_samples=sound.num_samples, length=length
    )
    for block in coming:
        made.append(block)
    return made


def bring_below_full_scale(sounds: Sequence[AudioSource]) -> tuple[tuple[AudioSource, ...], float | None]:
    """As `gain.bring_below_full_scale`, for sounds of any length."""
    in_memory = [sound for sound in sounds if isinstance(sound, Audio)]
    if len(in_memory) == len(sounds):
        return gain.bring_below_full_scale(in_memory)
    peak = max(sound.peak for sound in sounds)
    if peak <= 1.0:
        return tuple(sounds), None
    factor = _BELOW_FULL_SCALE / peak
    return tuple(GainView(sound, factor) for sound in sounds), to_db(factor)


def normalize(
    sounds: Sequence[AudioSource], mode: NormalizeMode, *, loudness_lufs: float = -14.0
) -> Normalized | NormalizedLong:
    """As `gain.normalize`, for sounds of any length.

    Those on disk have one width and length. They are not limited: where the loudness asked for would take a true peak
    above -1 dBTP, they get as loud as they can without, and `loudness_lufs` of the result says how loud.
    """
    in_memory = [sound for sound in sounds if isinstance(sound, Audio)]
    if len(in_memory) == len(sounds):
        return gain.normalize(in_memory, mode, loudness_lufs=loudness_lufs)
    if mode == "none":
        return NormalizedLong(tuple(sounds))
    room_db = CEILING_DBTP - max(true_peak_db(sound) for sound in sounds)
    if math.isinf(room_db):
        return NormalizedLong(tuple(sounds))
    if mode == "peak":
        return NormalizedLong(_louder(sounds, room_db), room_db)
    measured = integrated_loudness(MixView(sounds))
    if math.isinf(measured):
        return NormalizedLong(tuple(sounds), loudness_lufs=measured)
    gain_db = min(loudness_lufs - measured, room_db)
    return NormalizedLong(_louder(sounds, gain_db), gain_db, measured + gain_db)


@dataclass(frozen=True, slots=True)
class NormalizedLong:
    """As `gain.Normalized`."""

    sounds: tuple[AudioSource, ...]
    gain_db: float | None = None
    loudness_lufs: float | None = None


def _louder(sounds: Sequence[AudioSource], gain_db: float) -> tuple[AudioSource, ...]:
    return tuple(GainView(sound, from_db(gain_db)) for sound in sounds)
