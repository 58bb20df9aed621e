"""Integrated loudness and true peak as ITU-R BS.1770-4 measures them, in blocks, at any sample rate. Changes nothing.

Own lines rather than pyloudnorm: that refuses sounds under 0.4 s, filters the whole of a sound in float64 at once, and
measures no true peak.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.types import Audio, AudioSource, Waveform

OVERSAMPLING: Final = 4

_BLOCK_FRAMES: Final = 1 << 18
_RINGING_S: Final = 0.25  # the high-pass at 38 Hz falls by a factor of e each 4 ms: 1e-26 is left
_ABSOLUTE_GATE_LUFS: Final = -70.0
_RELATIVE_GATE_LU: Final = -10.0
_STEPS_PER_BLOCK: Final = 4  # gating blocks of 400 ms, one every 100 ms


def integrated_loudness(audio: AudioSource) -> float:
    """Gated loudness in LUFS; -inf for silence and whatever lies below the absolute gate of -70 LUFS throughout.

    BS.1770 measures blocks of 400 ms and leaves shorter sounds undefined: those count as one block of their own length.
    """
    edges = _step_edges(audio)
    energies = _step_energies(audio, edges)
    if len(edges) <= _STEPS_PER_BLOCK:
        blocks = np.array([energies.sum() / audio.num_samples]) if audio.num_samples else np.zeros(0)
    else:
        windows = np.lib.stride_tricks.sliding_window_view(energies, _STEPS_PER_BLOCK).sum(axis=1)
        blocks = windows / (edges[_STEPS_PER_BLOCK:] - edges[:-_STEPS_PER_BLOCK])
    return _gated(blocks)


def _gated(blocks: NDArray[np.float64]) -> float:
    loud = blocks[blocks > _power(_ABSOLUTE_GATE_LUFS)]
    if not len(loud):
        return -math.inf
    loud = loud[loud > loud.mean() * 10.0 ** (_RELATIVE_GATE_LU / 10.0)]
    return float(-0.691 + 10.0 * np.log10(loud.mean()))


def _power(lufs: float) -> float:
    return float(10.0 ** ((lufs + 0.691) / 10.0))


def _step_edges(audio: AudioSource) -> NDArray[np.int64]:
    """Where each whole 100 ms begins, and where the last ends: exact on average at rates that 10 does not divide."""
    steps = audio.num_samples * 10 // audio.sample_rate
    return np.round(np.arange(steps + 1) * audio.sample_rate / 10).astype(np.int64)


def _step_energies(audio: AudioSource, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """K-weighted energy of each step, summed over channels; of the whole where it is too short for one gating block."""
    short = len(edges) <= _STEPS_PER_BLOCK
    bounds = np.array([0, audio.num_samples]) if short else edges
    energies = np.zeros(len(bounds) - 1)
    start = 0
    for weighted in _k_weighted(audio):
        sums = np.concatenate(([0.0], np.cumsum(weighted)))
        inside = np.clip(bounds - start, 0, len(weighted))
        energies += np.diff(sums[inside])
        start += len(weighted)
    return energies


def _k_weighted(audio: AudioSource) -> Iterator[NDArray[np.float64]]:
    """Squares of the K-weighted samples, summed over channels, block by block.

    Filtered by FFT (overlap-save): the slower of the two filters has died away by far within the overlap. scipy's
    recursive filter gives the same, but importing scipy.signal costs a cold worker seconds.
    """
    overlap = round(_RINGING_S * audio.sample_rate)
    size = min(_BLOCK_FRAMES, 1 << (audio.num_samples + overlap).bit_length())
    response = _frequency_response(k_weighting(audio.sample_rate), size)
    for start in range(0, audio.num_samples, size - overlap):
        stop = min(start + size - overlap, audio.num_samples)
        block = np.zeros((audio.channels, size))
        known = min(overlap, start)
        block[:, overlap - known : overlap + stop - start] = audio.read(start - known, stop - start + known)
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
    libebur128 and ffmpeg use them), transformed to the rate asked for. A rate whose Nyquist frequency lies below a
    filter's corner has that corner held just below Nyquist.
    """
    shelf_hz, shelf_db, shelf_q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
    high_pass_hz, high_pass_q = 38.13547087602444, 0.5003270373238773
    k = math.tan(math.pi * min(shelf_hz / sample_rate, 0.49))
    high = 10.0 ** (shelf_db / 20.0)
    band = high**0.4996667741545416
    a0 = 1.0 + k / shelf_q + k * k
    shelf = [
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
    return np.array([shelf, high_pass])


def true_peak_db(audio: AudioSource) -> float:
    """Highest level in dBTP, between samples as well: 4 times oversampled (BS.1770-4 annex 2); -inf for silence."""
    peak = max((float(np.abs(block).max()) for block in oversampled(audio)), default=0.0)
    peak = max(peak, audio.peak)
    return 20.0 * math.log10(peak) if peak > 0.0 else -math.inf


def oversampled(sound: AudioSource) -> Iterator[Waveform]:
    """The sound at four times its rate, in blocks `[C, 4 n]` that together are `[C, 4 T]`; sample 4 i falls on i."""
    import soxr

    channels, length = sound.channels, sound.num_samples
    stream = soxr.ResampleStream(1, OVERSAMPLING, channels, dtype="float32", quality="VHQ")
    left = np.zeros((0, channels), np.float32)
    sent = 0
    for start in range(0, length, _BLOCK_FRAMES):
        last = start + _BLOCK_FRAMES >= length
        block = np.ascontiguousarray(sound.read(start, _BLOCK_FRAMES).T)
        made = np.concatenate((left, stream.resample_chunk(block, last=last)))
        whole = len(made) if last else len(made) // OVERSAMPLING * OVERSAMPLING
        whole = min(whole, OVERSAMPLING * length - sent)
        sent += whole
        left = made[whole:]
        yield made[:whole].T
    if 0 < sent < OVERSAMPLING * length:
        yield np.zeros((channels, OVERSAMPLING * length - sent), np.float32)


def mixed(sounds: Sequence[Audio]) -> Audio:
    """The sum of sounds of one sample rate; the longest sets the length, the widest the channels."""
    if len(sounds) == 1:
        return sounds[0]
    assert len({sound.sample_rate for sound in sounds}) == 1, "sounds that are heard together share a sample rate"
    channels = max(sound.channels for sound in sounds)
    total = np.zeros((channels, max(sound.num_samples for sound in sounds)), np.float32)
    for sound in sounds:
        total[:, : sound.num_samples] += sound.waveform
    return Audio(total, sounds[0].sample_rate)
