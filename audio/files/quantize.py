"""Float samples to integers: exact where they are integers already, dithered to 16 bit where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.types import AudioSource, Waveform, iter_blocks

_BLOCK_FRAMES: Final = 16384  # libsndfile's Vorbis writer overflows its stack from some 100,000 on (issue 1095)
_SEED: Final = 0x5EED


def interleaved(sound: AudioSource) -> Iterator[Waveform]:
    """The sound as blocks `[n, C]`, the order in which files hold samples."""
    for part in iter_blocks(sound):
        for start in range(0, part.shape[1], _BLOCK_FRAMES):
            yield np.ascontiguousarray(part[:, start : start + _BLOCK_FRAMES].T)


def on_16_bit_grid(sound: AudioSource) -> bool:
    """Whether every sample is a whole number of 1/32768, as in what was decoded from 16 bit."""
    return all(np.array_equal(scaled, np.rint(scaled)) for scaled in (block * 32768.0 for block in interleaved(sound)))


def quantized(sound: AudioSource, bit_depth: int) -> Iterator[NDArray[np.int16] | NDArray[np.int32]]:
    """The sound as interleaved `[n, C]` blocks: int16 for 16 bit, int32 with the value in the upper 24 for 24 bit.

    Full scale 1.0 is 2**(bits - 1), the scale at which decoders read, so integers survive a round trip; +1.0 itself,
    which integers lack, becomes the largest one. To 16 bit triangular dither of +-1 step is added (Lipshitz, Wannamaker
    and Vanderkooy 1992), from a fixed seed so that the same sound gives the same bytes. Moments in which all channels
    are exactly zero stay so, and sound that already lies on the 16-bit grid is not dithered again. 24 bit is rounded:
    its step lies below the noise of any converter.
    """
    if bit_depth == 16:
        dithered = not on_16_bit_grid(sound)
        generator = np.random.default_rng(_SEED)
        for block in interleaved(sound):
            yield _to_int16(block, generator if dithered else None)
    else:
        for block in interleaved(sound):
            yield np.clip(np.rint(block * 8388608.0), -8388608, 8388607).astype(np.int32) << 8


def _to_int16(block: Waveform, generator: np.random.Generator | None) -> NDArray[np.int16]:
    scaled = block * np.float32(32768.0)
    if generator is not None:
        words = generator.integers(0, 1 << 32, block.shape, np.uint32)
        triangular = ((words & 0xFFFF).astype(np.float32) + (words >> 16).astype(np.float32)) / 65535.0 - 1.0
        scaled += np.where((block == 0.0).all(axis=1, keepdims=True), np.float32(0.0), triangular)
    return np.asarray(np.clip(np.rint(scaled), -32768, 32767), np.int16)
