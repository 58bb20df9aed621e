"""A look-ahead true-peak limiter that never lets a peak pass, for audio of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from audio.disk import materialize_one
from audio.dsp.gain import EnvelopeView, GainView, from_db, to_db
from audio.dsp.loudness import BLOCK_FRAMES, OVERSAMPLING, oversample
from audio.dsp.mix import Silence
from audio.types import AudioSource, Waveform, iter_blocks

LOOK_AHEAD_S = 0.005
RELEASE_S = 0.075

_HEADROOM_DB = 0.02  # aimed at below the ceiling, because changing the gain moves the peaks between samples
_MAX_PASSES = 4
_NEGLIGIBLE_DB = 1e-3  # of gain reduction: below, the release ends and the gain is exactly 1
ENVELOPE_MEMORY_BYTES = 32 << 20
"""Larger envelopes (longer than 3 minutes at 44.1 kHz) are stored on disk."""


@dataclass(frozen=True, slots=True)
class Limited:
    """Result of `limit`.

    Args:
        sources: in the order given, each with its own length; the same objects if nothing was changed. They are
            computed on reading.
        envelope: the limiter's gain for each sample, None if no peak exceeded the ceiling.
        limited_db: the largest gain reduction at any moment, 0.0 if there was none.
    """

    sources: tuple[AudioSource, ...]
    envelope: AudioSource | None = None
    limited_db: float = 0.0


def measure_peaks(sources: Sequence[AudioSource], *, memory_bytes: int = ENVELOPE_MEMORY_BYTES) -> AudioSource:
    """Highest level of any channel of any source at, just before and just after each sample, one channel `[1, T]`.

    Levels between samples are found by 4 times oversampling. The sources have one sample rate; the longest sets T.
    """
    assert len({source.sample_rate for source in sources}) == 1, "sources limited together have one sample rate"
    longest = max(sources, key=lambda source: source.num_samples)
    return _store(_link_peaks(sources), longest, memory_bytes)


def limit(
    sources: Sequence[AudioSource],
    *,
    gain_db: float = 0.0,
    ceiling_dbtp: float = -1.0,
    peaks: AudioSource | None = None,
    memory_bytes: int = ENVELOPE_MEMORY_BYTES,
) -> Limited:
    """Changes the level by `gain_db` and holds every true peak at or below `ceiling_dbtp` with one envelope for all.

    The gain falls over the 5 ms before a peak and recovers exponentially in dB with 75 ms; away from peaks the limiter
    changes no bit. The gain is the same for all channels and sources, so stereo images and balances do not move.
    Changing the gain moves the peaks between samples a little; what then exceeds the ceiling is limited again, and in
    extreme cases removed by one last constant gain. Memory is bounded: long envelopes are stored on disk.

    Args:
        peaks: `measure_peaks(sources)` if it is already known.
        memory_bytes: the most that an envelope may take in memory.
    """
    unlimited = tuple(GainView(source, gain_db) if gain_db else source for source in sources)
    limited, envelope = unlimited, None
    ceiling, target = from_db(ceiling_dbtp), from_db(ceiling_dbtp - _HEADROOM_DB)
    scale = from_db(gain_db)
    if peaks is None:
        peaks = measure_peaks(sources, memory_bytes=memory_bytes)
    for attempt in range(_MAX_PASSES + 1):
        highest = scale * peaks.peak
        if highest <= ceiling:
            break
        if attempt < _MAX_PASSES:
            gains = _compute_gain(peaks, scale / target)
        else:
            gains = (np.full_like(block, target / highest) for block in iter_blocks(peaks))
        envelope = _store(gains if envelope is None else _multiply(envelope, gains), peaks, memory_bytes)
        limited = tuple(EnvelopeView(source, envelope) for source in unlimited)
        peaks, scale = measure_peaks(limited, memory_bytes=memory_bytes), 1.0
    if envelope is None:
        return Limited(unlimited)
    return Limited(limited, envelope, -to_db(min(float(block.min()) for block in iter_blocks(envelope))))


def _store(blocks: Iterable[Waveform], like: AudioSource, memory_bytes: int) -> AudioSource:
    """One channel, as long as `like`, from `[1, n]` blocks."""
    shape = Silence(like.sample_rate, 1, like.num_samples)
    return materialize_one(blocks, like=shape, memory_bytes=memory_bytes)


def _multiply(envelope: AudioSource, blocks: Iterable[Waveform]) -> Iterator[Waveform]:
    start = 0
    for block in blocks:
        yield block * envelope.read(start, block.shape[1])
        start += block.shape[1]


def _link_peaks(sources: Sequence[AudioSource]) -> Iterator[Waveform]:
    """`measure_peaks` as `[1, n]` blocks."""
    for blocks in zip_longest(*map(_find_peaks, sources)):
        present = [block for block in blocks if block is not None]
        linked = max(present, key=len)
        for block in present:
            np.maximum(linked[: len(block)], block, out=linked[: len(block)])
        yield linked[None]


def _find_peaks(source: AudioSource) -> Iterator[Waveform]:
    """`measure_peaks` of one source, as `[n]` blocks."""
    last_between = np.float32(0.0)
    for block, fine in zip(iter_blocks(source, BLOCK_FRAMES), oversample(source), strict=True):
        count = block.shape[1]
        peaks, between = np.zeros(count, np.float32), np.zeros(count, np.float32)
        for row in block:
            np.maximum(peaks, np.abs(row), out=peaks)
        for row in fine.reshape(-1, count, OVERSAMPLING).transpose(0, 2, 1).reshape(-1, count):
            np.maximum(between, np.abs(row), out=between)
        np.maximum(peaks, between, out=peaks)
        np.maximum(peaks[1:], between[:-1], out=peaks[1:])
        peaks[0] = max(peaks[0], last_between)
        last_between = between[-1]
        yield peaks


def _compute_gain(peaks: AudioSource, scale: float) -> Iterator[Waveform]:
    """`[1, n]` blocks of a gain that is at most `1 / (scale * peaks)` everywhere.

    The reduction in dB is held for half the look-ahead to both sides (maximum filter), released exponentially, and
    averaged over as long as the hold: every average covers only values that are high enough for the sample in its
    middle. Blocks are read with the margins that the filters need; the release level is carried from block to block.
    """
    margin = max(round(LOOK_AHEAD_S / 2 * peaks.sample_rate), 1)
    level_before = 0.0
    for start in range(0, peaks.num_samples, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, peaks.num_samples - start)
        levels = scale * _read_around(peaks, start, count, margin=2 * margin).astype(np.float64)
        if level_before == 0.0 and levels.max() <= 1.0:
            yield np.ones((1, count), np.float32)
            continue
        needed = 20.0 * np.log10(np.maximum(levels, 1.0))
        released = _release(_hold(needed, margin), level_before, peaks.sample_rate)
        level_before = float(released[count - 1])
        reduction = np.maximum(_average(released, margin), needed[2 * margin : -2 * margin])
        yield (10.0 ** (-reduction / 20.0)).astype(np.float32)[None]


def _read_around(source: AudioSource, start: int, count: int, *, margin: int) -> Waveform:
    """`[count + 2 margin]` samples of a mono source from `start - margin` on; zeros beyond its ends."""
    around = np.zeros(count + 2 * margin, np.float32)
    first = max(start - margin, 0)
    block = source.read(first, start + count + margin - first)[0]
    around[first - start + margin :][: len(block)] = block
    return around


def _hold(needed: NDArray[np.float64], margin: int) -> NDArray[np.float64]:
    """Highest value within `margin` to either side; the result is `margin` values shorter at both ends.

    Running maxima from both ends of pieces as long as the window: every window is the end of one piece and the start
    of the next (van Herk 1992). Importing scipy.ndimage would take a cold worker longer than limiting a song.
    """
    window = 2 * margin + 1
    length = len(needed) - window + 1
    pieces = np.pad(needed, (0, -len(needed) % window)).reshape(-1, window)
    from_start = np.maximum.accumulate(pieces, axis=1).reshape(-1)
    from_end = np.maximum.accumulate(pieces[:, ::-1], axis=1)[:, ::-1].reshape(-1)
    return np.maximum(from_end[:length], from_start[window - 1 :][:length])


def _average(released: NDArray[np.float64], margin: int) -> NDArray[np.float64]:
    """Mean over `margin` to either side; the result is `margin` values shorter at both ends."""
    window = 2 * margin + 1
    sums = np.concatenate(([0.0], np.cumsum(released)))
    average = (sums[window:] - sums[:-window]) / window
    average[average < _NEGLIGIBLE_DB / 100] = 0.0  # rounding errors of the difference of sums
    return average


def _release(reduction_db: NDArray[np.float64], level_before: float, sample_rate: int) -> NDArray[np.float64]:
    """Each value falls no faster than by exp(-1 / (release * rate)) a sample: y[n] = max(x[n], y[n - 1] * decay).

    In logarithms the decay is a straight line, and the recursion a running maximum above it.
    """
    line = np.arange(len(reduction_db) + 1) / (RELEASE_S * sample_rate)
    with np.errstate(divide="ignore"):
        levels = np.log(np.concatenate(([level_before], reduction_db)))
    released = np.exp(np.maximum.accumulate(levels + line) - line)[1:]
    released[released < _NEGLIGIBLE_DB] = 0.0
    return released
