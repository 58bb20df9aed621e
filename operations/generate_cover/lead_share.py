"""The lead vocal as its share of a vocal, from a model's estimates of the lead and of the backing vocals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from audio.parallel import map_parallel
from audio.types import AudioSource, Check, Waveform

N_FFT = 2048
HOP_LENGTH = 441
_FRAMES_PER_BLOCK = 256
_EPSILON = 1e-12


def extract_lead(vocal: AudioSource, lead: AudioSource, backing: AudioSource, check: Check) -> Iterator[Waveform]:
    """The lead vocal, as consecutive `[C, n]` blocks: of each bin of the vocal's spectrum the Wiener share
    `|lead|² / (|lead|² + |backing|²)`.

    A model's heads for vocal, lead and backing do not sum; what the share leaves over is the backing, so nothing that
    the vocal has is lost. A bin in which neither head has anything belongs to the lead.

    Args:
        vocal, lead, backing: of one shape.
    """
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    block_length = _FRAMES_PER_BLOCK * HOP_LENGTH

    def extract_block(begin: int) -> Waveform:
        end = min(begin + block_length, vocal.num_samples)
        reach = -(-N_FFT // (2 * HOP_LENGTH))  # frames on either side that reach into the block
        count = -(-(end - begin) // HOP_LENGTH) + 2 * reach
        start = begin - reach * HOP_LENGTH - N_FFT // 2
        length = (count - 1) * HOP_LENGTH + N_FFT
        spectra = [_transform(_read_padded(source, start, length), window) for source in (vocal, lead, backing)]
        lead_power, backing_power = np.abs(spectra[1]) ** 2 + _EPSILON, np.abs(spectra[2]) ** 2
        share = lead_power / (lead_power + backing_power)
        return _invert(spectra[0] * share, window, length)[:, begin - start : end - start]

    for block in map_parallel(extract_block, range(0, vocal.num_samples, block_length)):
        check()
        yield block


def _read_padded(source: AudioSource, start: int, length: int) -> Waveform:
    """Samples `start` to `start + length`, with silence beyond the ends."""
    padded = np.zeros((source.channels, length), np.float32)
    before = max(-start, 0)
    samples = source.read(start + before, length - before)
    padded[:, before : before + samples.shape[1]] = samples
    return padded


def _transform(samples: Waveform, window: NDArray[np.float32]) -> NDArray[np.complex64]:
    """`[C, n]` -> `[C, K, N_FFT // 2 + 1]`."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT, axis=1)[:, ::HOP_LENGTH]
    return np.asarray(np.fft.rfft(frames * window), np.complex64)


def _invert(spectrum: NDArray[np.complex64], window: NDArray[np.float32], length: int) -> Waveform:
    """`[C, K, F]` -> `[C, length]`; exact at every sample that all frames around it cover."""
    frames = np.fft.irfft(spectrum, N_FFT) * window
    samples, weights = np.zeros((spectrum.shape[0], length)), np.zeros(length)
    for index in range(spectrum.shape[1]):
        span = slice(index * HOP_LENGTH, index * HOP_LENGTH + N_FFT)
        samples[:, span] += frames[:, index]
        weights[span] += window**2
    return np.asarray(samples / np.maximum(weights, 1e-6), np.float32)
