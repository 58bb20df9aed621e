"""Converts float samples to interleaved integers; dithers to 16 bits unless the samples are 16-bit integers already."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from audio.types import AudioSource, Waveform, iter_blocks

_BLOCK_FRAMES = 16384  # libsndfile's Vorbis writer overflows its stack from some 100,000 on (issue 1095)
_SEED = 0x5EED


def iter_interleaved(source: AudioSource) -> Iterator[Waveform]:
    """The audio as `[n, C]` blocks, the sample order of files."""
    for part in iter_blocks(source):
        for start in range(0, part.shape[1], _BLOCK_FRAMES):
            yield np.ascontiguousarray(part[:, start : start + _BLOCK_FRAMES].T)


def is_on_16_bit_grid(source: AudioSource) -> bool:
    """Whether every sample is a multiple of 1/32768, as after decoding a 16-bit file."""
    return all(
        np.array_equal(scaled, np.rint(scaled)) for scaled in (block * 32768.0 for block in iter_interleaved(source))
    )


def quantize(source: AudioSource, bit_depth: int) -> Iterator[NDArray[np.int16] | NDArray[np.int32]]:
    """The audio as interleaved `[n, C]` blocks: int16 for 16 bits, int32 with the value in the upper 24 for 24 bits.

    Full scale 1.0 is 2**(bits - 1), the scale of decoders, so integers survive a round trip; +1.0 itself becomes the
    largest integer. For 16 bits, triangular dither of +-1 step is added (Lipshitz, Wannamaker and Vanderkooy 1992),
    from a fixed seed so that the same audio gives the same bytes. Samples at which all channels are exactly zero stay
    zero, and audio that already lies on the 16-bit grid is not dithered again. 24 bits are rounded: their step lies
    below the noise of any converter.
    """
    if bit_depth == 16:
        dithered = not is_on_16_bit_grid(source)
        generator = np.random.default_rng(_SEED)
        for block in iter_interleaved(source):
            yield _to_int16(block, generator if dithered else None)
    else:
        for block in iter_interleaved(source):
            yield np.clip(np.rint(block * 8388608.0), -8388608, 8388607).astype(np.int32) << 8


def _to_int16(block: Waveform, generator: np.random.Generator | None) -> NDArray[np.int16]:
    scaled = block * np.float32(32768.0)
    if generator is not None:
        words = generator.integers(0, 1 << 32, block.shape, np.uint32)
        triangular = ((words & 0xFFFF).astype(np.float32) + (words >> 16).astype(np.float32)) / 65535.0 - 1.0
        scaled += np.where((block == 0.0).all(axis=1, keepdims=True), np.float32(0.0), triangular)
    return np.asarray(np.clip(np.rint(scaled), -32768, 32767), np.int16)
