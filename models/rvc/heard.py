"""A vocal as the networks hear it. (Minimal: a plain resampling.)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from audio.recording import Sound, blocks
from audio.resample import resampled_blocks, resampled_length
from audio.sound import Waveform

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class Heard:
    """Mono 16 kHz `waveform [T]`; `duration` exact."""

    waveform: Waveform
    duration: float


def hear(sound: Sound, progress: Callable[[float], None]) -> Heard:
    """The sound in mono at 16 kHz."""
    progress(0.0)
    length = resampled_length(sound.num_samples, sound.sample_rate, SAMPLE_RATE)
    mono = (block.mean(axis=0, keepdims=True) for block in blocks(sound))
    made = resampled_blocks(mono, sound.sample_rate, SAMPLE_RATE, num_samples=sound.num_samples, length=length)
    return Heard(np.concatenate([np.zeros((1, 0), np.float32), *made], axis=1)[0], sound.duration)
