"""Integrated loudness and true peak by ITU-R BS.1770-4, loudness range by EBU Tech 3342; block by block, at any rate.

Not pyloudnorm: it refuses audio shorter than 0.4 s, filters all of it in float64 at once, and measures no true peak.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio.types import AudioSource, Waveform

OVERSAMPLING = 4

BLOCK_FRAMES = 1 << 18
_RINGING_S = 0.25  # the high-pass at 38 Hz falls by a factor of e each 4 ms: 1e-26 is left
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = -10.0
_RANGE_GATE_LU = -20.0
_RANGE_STEPS = 30  # of 100 ms
_STEPS_PER_BLOCK = 4  # gating blocks of 400 ms, one every 100 ms


@dataclass(frozen=True)
class Loudness:
    """Loudness of a whole programme.

    Args:
        integrated: gated loudness in LUFS; -inf for audio that never exceeds the absolute gate of -70 LUFS.
        range: loudness range in LU by EBU Tech 3342: between the 10th and the 95th percentile of the loudness of
            3 s; 0 for shorter audio.
    """

    integrated: float
    range: float


def integrated_loudness(audio: AudioSource) -> float:
    """Gated loudness in LUFS; -inf for silence and for audio that never exceeds the absolute gate of -70 LUFS.

    BS.1770 measures blocks of 400 ms and does not define shorter audio: that counts as one block of its own length.
    """
    return measure_loudness(audio).integrated


def measure_loudness(audio: AudioSource) -> Loudness:
    """Integrated loudness and loudness range, in one pass."""
    edges = _find_step_edges(audio)
    energies = _measure_steps(audio, edges)
    if len(edges) <= _STEPS_PER_BLOCK:
        return Loudness(_gate(energies / max(audio.num_samples, 1)), 0.0)
    return Loudness(_gate(_average(energies, edges, _STEPS_PER_BLOCK)), _measure_range(energies, edges))


def _average(energies: NDArray[np.float64], edges: NDArray[np.int64], steps: int) -> NDArray[np.float64]:
    """Mean energy of every block of `steps` steps."""
    windows = np.lib.stride_tricks.sliding_window_view(energies, steps).sum(axis=1)
    return np.asarray(windows / (edges[steps:] - edges[:-steps]))


def _gate(blocks: NDArray[np.float64]) -> float:
    loud = _leave_out_silence(blocks)
    if not len(loud):
        return -math.inf
    loud = loud[loud > loud.mean() * 10.0 ** (_RELATIVE_GATE_LU / 10.0)]
    return float(-0.691 + 10.0 * np.log10(loud.mean()))


def _leave_out_silence(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(blocks[blocks > 10.0 ** ((_ABSOLUTE_GATE_LUFS + 0.691) / 10.0)])


def _measure_range(energies: NDArray[np.float64], edges: NDArray[np.int64]) -> float:
    if len(energies) < _RANGE_STEPS:
        return 0.0
    loud = _leave_out_silence(_average(energies, edges, _RANGE_STEPS))
    if not len(loud):
        return 0.0
    loud = loud[loud > loud.mean() * 10.0 ** (_RANGE_GATE_LU / 10.0)]
    low, high = np.percentile(10.0 * np.log10(loud), (10, 95))
    return float(high - low)


def _find_step_edges(audio: AudioSource) -> NDArray[np.int64]:
    """Start of each whole 100 ms, and the end of the last: exact on average at rates that 10 does not divide."""
    steps = audio.num_samples * 10 // audio.sample_rate
    return np.round(np.arange(steps + 1) * audio.sample_rate / 10).astype(np.int64)


def _measure_steps(audio: AudioSource, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """K-weighted energy of each step, summed over channels; of all samples if they are too few for a gating block."""
    short = len(edges) <= _STEPS_PER_BLOCK
    bounds = np.array([0, audio.num_samples]) if short else edges
    energies = np.zeros(len(bounds) - 1)
    start = 0
    for weighted in _k_weight(audio):
        sums = np.concatenate(([0.0], np.cumsum(weighted)))
        inside = np.clip(bounds - start, 0, len(weighted))
        energies += np.diff(sums[inside])
        start += len(weighted)
    return energies


def _k_weight(audio: AudioSource) -> Iterator[NDArray[np.float64]]:
    """Squares of the K-weighted samples, summed over channels, block by block.

    Filtered by FFT (overlap-save): the response of the slower filter is negligible beyond the overlap. scipy's
    recursive filter gives the same, but importing scipy.signal takes a cold worker seconds.
    """
    overlap = round(_RINGING_S * audio.sample_rate)
    size = min(BLOCK_FRAMES, 1 << (audio.num_samples + overlap).bit_length())
    response = _frequency_response(k_weighting(audio.sample_rate), size)
    for start in range(0, audio.num_samples, size - overlap):
        stop = min(start + size - overlap, audio.num_samples)
        block = np.zeros((audio.channels, size))
        before = min(overlap, start)
        block[:, overlap - before : overlap + stop - start] = audio.read(start - before, stop - start + before)
        weighted = np.fft.irfft(np.fft.rfft(block) * response, size)[:, overlap : overlap + stop - start]
        yield np.einsum("ct,ct->t", weighted, weighted)


def _frequency_response(sections: NDArray[np.float64], size: int) -> NDArray[np.complex128]:
    """Response of second-order sections at the `size // 2 + 1` frequencies of a real FFT."""
    delay = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    response = np.ones(len(delay), np.complex128)
    for b0, b1, b2, a0, a1, a2 in sections:
        response *= (b0 + delay * (b1 + delay * b2)) / (a0 + delay * (a1 + delay * a2))
    return response


def k_weighting(sample_rate: int) -> NDArray[np.float64]:
    """The two filters of BS.1770-4 annex 1 as `[2, 6]` second-order sections, for any rate.

    The standard gives coefficients for 48 kHz only; these are the analogue prototypes behind them (De Man 2014, as
    libebur128 and ffmpeg use them), transformed to `sample_rate`. A corner above the Nyquist frequency is moved just
    below it.
    """
    shelf_hz, shelf_db, shelf_q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
    high_pass_hz, high_pass_q = 38.13547087602444, 0.5003270373238773
    k = math.tan(math.pi * min(shelf_hz / sample_rate, 0.49))
    high = 10.0 ** (shelf_db / 20.0)
    band = high**0.4996667741545416
    a0 = 1.0 + k / shelf_q + k * k
    high_shelf = [
        (high + band * k / shelf_q + k * k) / a0,
        2.0 * (k * k - high) / a0,
        (high - band * k / shelf_q + k * k) / a0,
        1.0,
        2.0 * (k * k - 1.0) / a0,
        (1.0 - k / shelf_q + k * k) / a0,
    ]
    k = math.tan(math.pi * high_pass_hz / sample_rate)
    a0 = 1.0 + k / high_pass_q + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2.0 * (k * k - 1.0) / a0, (1.0 - k / high_pass_q + k * k) / a0]
    return np.array([high_shelf, high_pass])


def true_peak_db(audio: AudioSource) -> float:
    """Highest level in dBTP, between samples as well: 4 times oversampled (BS.1770-4 annex 2); -inf for silence."""
    peak = max((float(np.abs(block).max()) for block in oversample(audio)), default=0.0)
    peak = max(peak, audio.peak)
    return 20.0 * math.log10(peak) if peak > 0.0 else -math.inf


def oversample(audio: AudioSource) -> Iterator[Waveform]:
    """The audio at 4 times its sample rate; oversampled sample 4 i coincides with sample i.

    Yields `[C, 4 n]` blocks that cover the same time as the `[C, n]` blocks of `iter_blocks(audio, BLOCK_FRAMES)`.
    """
    import soxr

    stream = soxr.ResampleStream(1, OVERSAMPLING, audio.channels, dtype="float32", quality="VHQ")
    size, remaining = OVERSAMPLING * BLOCK_FRAMES, OVERSAMPLING * audio.num_samples
    buffered = np.zeros((0, audio.channels), np.float32)
    for start in range(0, audio.num_samples, BLOCK_FRAMES):
        block = np.ascontiguousarray(audio.read(start, BLOCK_FRAMES).T)
        last = start + BLOCK_FRAMES >= audio.num_samples
        buffered = np.concatenate((buffered, stream.resample_chunk(block, last=last)))
        if last:  # the resampler may round the total length by a sample
            buffered = np.pad(buffered[:remaining], ((0, max(remaining - len(buffered), 0)), (0, 0)))
        while remaining and len(buffered) >= min(size, remaining):
            fine, buffered = buffered[:size], buffered[size:]
            remaining -= len(fine)
            yield fine.T
