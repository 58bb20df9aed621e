"""Effects by pedalboard, block by block: those on cover vocals, and what all chains share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audio.dsp.mix import fit_length
from audio.types import Waveform

END_FADE_S = 0.01
"""Fade at the very end of the result, so that a reverb tail that is cut off does not click."""
_BLOCK_FRAMES = 1 << 16
MIN_FRAMES = 64  # pedalboard takes the shorter side of a block as the channels
_MAX_FADE_FRACTION = 0.1  # of the total length


@dataclass(frozen=True, slots=True)
class VocalChain:
    """High-pass at 50 Hz (12 dB per octave), compressor 4:1 above -15 dB (attack 1 ms, release 100 ms), then reverb.

    None of them delays the audio. The reverb of a stereo vocal is stereo even if both channels are the same.

    Args:
        room_size: reverb size, 0 to 1.
        damping: damping of high frequencies in the reverb, 0 to 1.
        wet: level of the reverb, 0 to 1.
        dry: level of the vocal itself, 0 to 1.
    """

    room_size: float = 0.15
    damping: float = 0.7
    wet: float = 0.2
    dry: float = 0.8

    def plugins(self) -> Sequence[Any]:
        """New pedalboard plugins, in order."""
        from pedalboard import Compressor, HighpassFilter, Reverb

        return (
            HighpassFilter(cutoff_frequency_hz=50),
            Compressor(threshold_db=-15, ratio=4, attack_ms=1, release_ms=100),
            Reverb(room_size=self.room_size, damping=self.damping, wet_level=self.wet, dry_level=self.dry, width=1.0),
        )


def apply_vocal_chain(
    vocal: Iterable[Waveform], chain: VocalChain, *, sample_rate: int, channels: int, num_samples: int
) -> Iterator[Waveform]:
    """Applies the chain to consecutive `[C, n]` blocks; silence without a reverb tail stays exactly silent.

    Args:
        vocal: at least one block, with one channel or `channels`.
        sample_rate: in Hz.
        channels: of the result; mono is made stereo before the reverb.
        num_samples: length of the result; the reverb tail follows the vocal, and the last 10 ms fade out.
    """
    (*dynamics, reverb), position = chain.plugins(), 0
    fade = min(round(END_FADE_S * sample_rate), int(_MAX_FADE_FRACTION * num_samples))
    for block in equalize_blocks(fit_length(vocal, num_samples=num_samples)):
        count = block.shape[1]
        processed = np.pad(block, ((0, 0), (0, max(MIN_FRAMES - count, 0))))
        for plugin in dynamics:
            processed = plugin.process(processed, sample_rate, reset=False)
        processed = np.ascontiguousarray(np.broadcast_to(processed, (channels, processed.shape[1])))
        processed = reverb.process(processed, sample_rate, reset=False)
        yield fade_end(processed[:, :count], num_samples - position, fade)
        position += count


def equalize_blocks(parts: Iterable[Waveform]) -> Iterator[Waveform]:
    """The same samples in blocks of equal size except the last: plugins reset their state when a larger block comes."""
    buffered, count = list[Waveform](), 0
    for part in parts:
        buffered.append(part)
        count += part.shape[1]
        if count >= _BLOCK_FRAMES:
            joined = np.concatenate(buffered, axis=1)
            whole = count - count % _BLOCK_FRAMES
            yield from (joined[:, start : start + _BLOCK_FRAMES] for start in range(0, whole, _BLOCK_FRAMES))
            buffered, count = [joined[:, whole:]], count - whole
    if count:
        yield np.concatenate(buffered, axis=1)


def fade_end(block: Waveform, remaining: int, fade: int) -> Waveform:
    """Fades out the last `fade` of the `remaining` samples from the start of `block` to the end of the result."""
    first = max(remaining - fade, 0)
    if first >= block.shape[1]:
        return block
    distance = remaining - np.arange(first, block.shape[1], dtype=np.float32)
    faded = block.copy()
    faded[:, first:] *= 0.5 - 0.5 * np.cos(np.pi * np.minimum(distance / max(fade, 1), 1.0))
    return faded
