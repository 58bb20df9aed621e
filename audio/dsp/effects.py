"""The vocal chain: high-pass, compressor, reverb, by pedalboard, block by block. Knows no requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from audio.dsp.mix import fit_length
from audio.types import Waveform

END_FADE_S: Final = 0.01
"""At the very end of the result, so that reverb which does not fit dies away without a click."""
_BLOCK_FRAMES: Final = 1 << 16
_LEAST_FRAMES: Final = 64  # pedalboard takes the shorter side of a block for the channels
_LARGEST_FADE: Final = 0.1  # of the whole


@dataclass(frozen=True, slots=True)
class VocalChain:
    """High-pass at 50 Hz (12 dB an octave less), compressor 4:1 above -15 dB (1 ms, 100 ms), then reverb.

    None of them delays the sound. The reverb is stereo where the sound is, also if both sides are the same.

    Args:
        room_size: of the reverb, 0..1.
        damping: of its highs, 0..1.
        wet: its level, 0..1.
        dry: level of the voice itself, 0..1.
    """

    room_size: float = 0.15
    damping: float = 0.7
    wet: float = 0.2
    dry: float = 0.8

    def plugins(self) -> Sequence[Any]:
        """Fresh pedalboard plugins, in order."""
        from pedalboard import Compressor, HighpassFilter, Reverb

        return (
            HighpassFilter(cutoff_frequency_hz=50),
            Compressor(threshold_db=-15, ratio=4, attack_ms=1, release_ms=100),
            Reverb(room_size=self.room_size, damping=self.damping, wet_level=self.wet, dry_level=self.dry, width=1.0),
        )


def apply_vocal_chain(
    vocal: Iterable[Waveform], chain: VocalChain, *, sample_rate: int, channels: int, num_samples: int
) -> Iterator[Waveform]:
    """The vocal through the chain as `[C, n]` blocks; silence stays exactly silent where no reverb is left.

    Args:
        vocal: consecutive blocks, at least one, mono or `channels` wide.
        channels: of the result: mono is made stereo before the reverb.
        num_samples: of the result, which goes on after the vocal with the reverb's tail. Where that would be longer, or
            the vocal itself is the longest, the last 10 ms fade out.
    """
    (*dynamics, reverb), position = chain.plugins(), 0
    fade = min(round(END_FADE_S * sample_rate), int(_LARGEST_FADE * num_samples))
    for block in _even(fit_length(vocal, num_samples=num_samples)):
        count = block.shape[1]
        made = np.pad(block, ((0, 0), (0, max(_LEAST_FRAMES - count, 0))))
        for plugin in dynamics:
            made = plugin.process(made, sample_rate, reset=False)
        made = np.ascontiguousarray(np.broadcast_to(made, (channels, made.shape[1])))
        made = reverb.process(made, sample_rate, reset=False)
        yield _faded(made[:, :count], num_samples - position, fade)
        position += count


def _even(parts: Iterable[Waveform]) -> Iterator[Waveform]:
    """The same samples in blocks of one size, but the last: a plugin forgets its state where a larger one comes."""
    held, count = list[Waveform](), 0
    for part in parts:
        held.append(part)
        count += part.shape[1]
        if count >= _BLOCK_FRAMES:
            joined = np.concatenate(held, axis=1)
            whole = count - count % _BLOCK_FRAMES
            yield from (joined[:, start : start + _BLOCK_FRAMES] for start in range(0, whole, _BLOCK_FRAMES))
            held, count = [joined[:, whole:]], count - whole
    if count:
        yield np.concatenate(held, axis=1)


def _faded(block: Waveform, left: int, fade: int) -> Waveform:
    """`block`, which has `left` samples from its start to the end of all, with the last `fade` of these fading out."""
    first = max(left - fade, 0)
    if first >= block.shape[1]:
        return block
    remaining = left - np.arange(first, block.shape[1], dtype=np.float32)
    faded = block.copy()
    faded[:, first:] *= 0.5 - 0.5 * np.cos(np.pi * np.minimum(remaining / max(fade, 1), 1.0))
    return faded
