"""Audio as a stream of overlapping frames: one channel, resampled, in memory that does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from audio.dsp.resample import resample_blocks, resampled_length
from audio.types import AudioSource, iter_blocks

Floats = NDArray[np.float32]
Progress = Callable[[float], None]
"""Called after each block with the fraction that is done, 0 to 1; what it raises ends the work."""

ANALYSIS_RATE = 22_050  # Hz
BLOCK_FRAMES = 1 << 18
_FRAMES_AT_ONCE = 512  # spectra that are computed together


def iter_mono(source: AudioSource, sample_rate: int, progress: Progress) -> Iterator[Floats]:
    """The mean of the channels at `sample_rate`, as consecutive `[n]` blocks.

    Args:
        source: with at least one sample.
        sample_rate: of the result, in Hz.
        progress: called after each block.
    """

    def mix_blocks() -> Iterator[Floats]:
        done = 0
        for block in iter_blocks(source, BLOCK_FRAMES):
            yield block.mean(axis=0, keepdims=True, dtype=np.float32)
            done += block.shape[1]
            progress(done / source.num_samples)

    length = resampled_length(source.num_samples, source.sample_rate, sample_rate)
    blocks = resample_blocks(
        mix_blocks(), source.sample_rate, sample_rate, num_samples=source.num_samples, length=length
    )
    for block in blocks:
        yield block[0]


class Spectra:
    """Magnitude spectra of a stream. Frame `i` has its centre at sample `i * hop_length`.

    A sine of amplitude 1 at the centre of a bin has magnitude 1.

    Args:
        frame_length: samples of a frame, which is weighted by a Hann window.
        hop_length: samples between the centres of neighbouring frames.
        before: half a frame of samples before the stream; None: silence.
    """

    def __init__(self, frame_length: int, hop_length: int, *, before: Floats | None = None) -> None:
        self._frame_length, self._hop_length = frame_length, hop_length
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame_length) / frame_length)
        self._window = (window / (frame_length / 4)).astype(np.float32)
        self._pending = np.zeros(frame_length // 2, np.float32) if before is None else before

    def push(self, block: Floats) -> Iterator[Floats]:
        """The spectra of the frames that `block` `[n]` completes, as `[m, frame_length / 2 + 1]` arrays."""
        samples = np.concatenate((self._pending, block))
        count = max((len(samples) - self._frame_length) // self._hop_length + 1, 0)
        for first in range(0, count, _FRAMES_AT_ONCE):
            last = min(first + _FRAMES_AT_ONCE, count)
            part = samples[first * self._hop_length : (last - 1) * self._hop_length + self._frame_length]
            frames = np.lib.stride_tricks.sliding_window_view(part, self._frame_length)[:: self._hop_length]
            yield np.abs(np.fft.rfft(frames * self._window, axis=1))
        self._pending = samples[count * self._hop_length :]

    def finish(self) -> Iterator[Floats]:
        """The spectra of the frames whose centre is within the stream and whose end is not."""
        yield from self.push(np.zeros(self._frame_length // 2, np.float32))


def iter_spectra(blocks: Iterable[Floats], *, frame_length: int, hop_length: int) -> Iterator[Floats]:
    """`Spectra` of all of `blocks`."""
    spectra = Spectra(frame_length, hop_length)
    for block in blocks:
        yield from spectra.push(block)
    yield from spectra.finish()
