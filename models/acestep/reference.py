"""A reference recording, whose timbre and style a song follows: three of its parts, encoded."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from audio import Audio
from audio.dsp.resample import resample
from audio.types import AudioSource, Waveform
from errors import AudioError, ErrorCode
from models.acestep.codec import CHANNELS, LatentCodec
from models.runtime.progress import Progress, ignore_progress

PART_S: Final = 10
NUM_PARTS: Final = 3
_SILENCE: Final = 1e-6  # largest sample of a recording that counts as silent


def encode_reference(codec: LatentCodec, audio: AudioSource, *, progress: Progress = ignore_progress) -> torch.Tensor:
    """Encodes a recording for the timbre encoder.

    Args:
        audio: of any sample rate and length, mono or stereo.
        progress: called after each tile.

    Returns:
        `[1, 750, C]`: latents of 30 s.

    Raises:
        AudioError: the recording is silent.
    """
    return codec.encode(torch.from_numpy(select_parts(audio, codec.sample_rate)), progress=progress)


def select_parts(audio: AudioSource, sample_rate: int) -> Waveform:
    """Returns the first ten seconds, the ten from a third of the recording on, and the last ten, one after the other.

    A recording of less than 30 s is repeated first. Samples beyond full scale are clipped, as in training.

    Returns:
        `[2, 30 * sample_rate]`.

    Raises:
        AudioError: the recording is silent.
    """
    if audio.peak <= _SILENCE:
        raise AudioError(
            "The reference recording is silent, so it has no style to follow. Send one with music.",
            code=ErrorCode.SILENT_AUDIO,
        )
    part = PART_S * audio.sample_rate
    if audio.num_samples < NUM_PARTS * part:
        repeats = -(-NUM_PARTS * part // audio.num_samples)
        audio = Audio(np.tile(audio.read(0, audio.num_samples), (1, repeats)), audio.sample_rate)
    starts = 0, audio.num_samples // NUM_PARTS, audio.num_samples - part
    parts = np.concatenate([audio.read(start, part) for start in starts], axis=1)
    resampled = resample(Audio(parts, audio.sample_rate), sample_rate).waveform.clip(-1.0, 1.0)
    return np.broadcast_to(resampled, (CHANNELS, resampled.shape[1])).copy()
