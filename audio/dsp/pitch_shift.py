"""Pitch shift that keeps the timing, and time stretch that keeps the pitch or shifts it, for audio of any length.

Rubber Band (its finer engine, through `pedalboard.time_stretch`) keeps exact time only when it transposes downwards and
the ratio is given for every sample: with a constant ratio its integer hops drift by up to 2 ms per second, and upwards
always. So for a shift upwards the audio is first played faster (resampling, which does not drift) and Rubber Band slows
it down again while transposing down by a tenth of a semitone. The remaining delay is constant and measured once.
Another tempo is one more factor of the ratio that Rubber Band is given.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from audio.parallel import map_parallel
from audio.types import AudioSource, Waveform, iter_blocks

Progress = Callable[[float], None]

CHUNK_S = 20.0
_OVERLAP_S = 0.5  # of neighbouring chunks: within it the best position for the crossfade is searched
_FADE_S = 0.05
_MAX_LAG_S = 0.004
_CONTEXT_S = 0.5  # read before and after each chunk, then discarded
_MIN_DOWN = 0.1  # semitones
_CANDIDATES = 19
_LAG_PENALTY = 0.1  # subtracted from the correlation at the largest lag
_CLICK_EVERY_S = 0.2
_CLICKS = 32
_EPSILON = 1e-12


def shift_pitch(
    source: AudioSource, semitones: float, progress: Progress, *, chunk_s: float = CHUNK_S
) -> Iterator[Waveform]:
    """The audio in another key, as consecutive `[C, n]` blocks of exactly the same total length.

    Formants move along with the pitch. Chunks on a fixed grid are rendered in parallel. Neighbours are
    crossfaded at the most similar place of their overlap.

    Args:
        semitones: -24 to 24.
        progress: called with the fraction done, 0 to 1, at every chunk; an exception it raises ends the work.
        chunk_s: length of a chunk in seconds, more than 1; determines the memory needed.
    """
    yield from stretch_time(source, 1.0, semitones, progress, chunk_s=chunk_s)


def stretched_length(num_samples: int, tempo: float) -> int:
    """`num_samples / tempo`, rounded half up and at least 1."""
    return max(math.floor(num_samples / tempo + 0.5), 1)


def stretch_time(
    source: AudioSource, tempo: float, semitones: float, progress: Progress, *, chunk_s: float = CHUNK_S
) -> Iterator[Waveform]:
    """The audio at another tempo and in another key, as `[C, n]` blocks of `stretched_length` samples in total.

    What is at `t` seconds in the source is at `t / tempo` in the result, within about two milliseconds.

    Args:
        tempo: 0.5 to 2; 2 is twice as fast.
        semitones: -24 to 24.
        progress, chunk_s: as in `shift_pitch`; chunks are those of the result.
    """
    if not semitones and tempo == 1.0:
        yield from iter_blocks(source)
        return
    overlap, length = _to_frames(_OVERLAP_S, source), stretched_length(source.num_samples, tempo)
    shift = _Shift(source.sample_rate, float(semitones), tempo)
    borders = _plan_borders(length, _to_frames(chunk_s, source))
    spans = [(max(start - overlap, 0), min(stop + overlap, length)) for start, stop in pairwise(borders)]
    tail = np.zeros((source.channels, 0), np.float32)  # the last chunk's rendering of the time around its border
    done = 0
    chunks = map_parallel(lambda span: _render(source, shift, *span), spans)
    for border, chunk in zip(borders[1:], chunks, strict=True):
        progress(done / length)
        joined = _crossfade(tail, chunk, source.sample_rate) if tail.size else chunk
        final = joined.shape[1] if border == length else border - overlap - done
        yield joined[:, :final]
        tail = joined[:, final:]
        done += final
    progress(1.0)


def _plan_borders(length: int, chunk: int) -> list[int]:
    """Borders of chunks on a fixed grid; the last chunk is 0.5 to 1.5 times as long as the others."""
    inner = [border for border in range(chunk, length, chunk) if length - border >= chunk // 2]
    return [0, *inner, length]


@dataclass(frozen=True, slots=True)
class _Shift:
    """One change of key and tempo, divided between resampling and Rubber Band."""

    sample_rate: int
    semitones: float
    tempo: float = 1.0

    @property
    def down(self) -> float:
        """Semitones by which Rubber Band transposes down; more than 0."""
        return max(-self.semitones, _MIN_DOWN)

    @property
    def speed(self) -> float:
        """Factor by which resampling plays the audio faster; 1 for a shift downwards."""
        return float(2.0 ** ((self.semitones + self.down) / 12))

    def apply(self, waveform: Waveform) -> Waveform:
        """`[C, n]` in the new key and tempo, delayed by `_measure_delay` samples and about `n / tempo` samples long."""
        import pedalboard

        if self.speed != 1.0:
            import soxr

            faster = soxr.resample(np.ascontiguousarray(waveform.T), self.speed, 1.0, quality="VHQ")
            waveform = np.ascontiguousarray(faster.T)
        stretch = np.full(waveform.shape[1], self.tempo / self.speed)
        shifted = pedalboard.time_stretch(
            waveform, float(self.sample_rate), stretch, -self.down, preserve_formants=False
        )
        return np.asarray(shifted, np.float32)


@functools.lru_cache(maxsize=64)
def _measure_delay(shift: _Shift) -> int:
    """Delay of `apply` in samples (negative: early), measured with clicks as the mean of their centres."""
    step = int(_CLICK_EVERY_S * shift.sample_rate)  # of the clicks in the result
    spacing = round(step * shift.tempo)
    width = max(shift.sample_rate // 5000, 1)
    clicks = np.zeros(spacing * (_CLICKS + 2), np.float32)
    # Unevenly spaced, so that they fall on all positions of the engine's own grid.
    positions = [spacing * n + spacing * (7 * n % 13) // 52 for n in range(1, _CLICKS + 1)]
    for position in positions:
        clicks[position - width : position + width + 1] = np.hanning(2 * width + 3)[1:-1]
    energy = np.square(shift.apply(clicks[None])[0], dtype=np.float64)
    late, reach = 0.0, step // 3
    expected = [round(position / shift.tempo) for position in positions[4:-4]]
    for _ in range(3):  # each time the windows are centred on the clicks found, so that no neighbour is counted
        windows = np.stack([energy[round(position + late) - reach :][: 2 * reach] for position in expected])
        centroids = windows @ np.arange(2 * reach) / np.maximum(windows.sum(axis=1), _EPSILON)
        late = round(late) + float(np.mean(centroids)) - reach
    return round(late)


def _render(source: AudioSource, shift: _Shift, first: int, stop: int) -> Waveform:
    """Samples `first` to `stop` of the result."""
    context = _to_frames(_CONTEXT_S, source)
    begin, end = round(first * shift.tempo) - context, round(stop * shift.tempo) + context
    waveform = np.zeros((source.channels, end - begin), np.float32)
    start = max(begin, 0)
    block = source.read(start, end - start)
    waveform[:, start - begin : start - begin + block.shape[1]] = block
    skipped = round(first - begin / shift.tempo) + _measure_delay(shift)
    shifted = shift.apply(waveform)[:, skipped:][:, : stop - first]
    return np.pad(shifted, ((0, 0), (0, stop - first - shifted.shape[1])))


def _crossfade(before: Waveform, after: Waveform, sample_rate: int) -> Waveform:
    """Crossfades two renderings of the same time at their most similar place; the first ends within the second.

    The second is shifted by up to 4 ms there, because the phase of a tone differs between renderings, and then runs
    less than a cent faster or slower until it is in time again. The fade keeps the power for any correlation of both.
    """
    fade, max_lag = round(_FADE_S * sample_rate), round(_MAX_LAG_S * sample_rate)
    length = before.shape[1]
    starts = np.linspace(max_lag, length - fade - max_lag, _CANDIDATES).astype(int)
    similarity = np.array([_measure_similarity(before, after, start, fade, max_lag) for start in starts])
    penalty = _LAG_PENALTY * np.abs(np.arange(-max_lag, max_lag + 1)) / max_lag
    best, lag = np.unravel_index(int(np.argmax(similarity - penalty)), similarity.shape)
    start, correlation = int(starts[best]), max(float(similarity[best, lag]), 0.0)
    fraction = (start + fade / 2) / after.shape[1]
    after = _shift_start(after, round((int(lag) - max_lag) / (1 - fraction)))
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    power = np.sqrt(ramp**2 + (1 - ramp) ** 2 + 2 * correlation * ramp * (1 - ramp))
    mixed = (before[:, start : start + fade] * (1 - ramp) + after[:, start : start + fade] * ramp) / power
    return np.concatenate([before[:, :start], mixed.astype(np.float32), after[:, start + fade :]], axis=1)


def _measure_similarity(before: Waveform, after: Waveform, start: int, fade: int, max_lag: int) -> NDArray[np.float64]:
    """Correlation of the `fade` samples from `start` on, for each lag from -`max_lag` to `max_lag`; 1 for silence."""
    first = before[:, start : start + fade].astype(np.float64)
    second = after[:, start - max_lag : start + fade + max_lag].astype(np.float64)
    products = sum(np.correlate(other, own, "valid") for own, other in zip(first, second, strict=True))
    sums = np.cumsum(np.pad(np.square(second).sum(axis=0), (1, 0)))
    energy = np.sqrt(np.square(first).sum() * np.maximum(sums[fade:] - sums[:-fade], 0.0))
    return np.where(energy > _EPSILON, products / np.maximum(energy, _EPSILON), 1.0)


def _shift_start(waveform: Waveform, lag: int) -> Waveform:
    """Starts the audio `lag` samples earlier and slows it down so that its end stays in place."""
    if not lag:
        return waveform
    import soxr

    length = waveform.shape[1]
    cut = waveform[:, lag:] if lag > 0 else np.pad(waveform, ((0, 0), (-lag, 0)))
    stretched = soxr.resample(np.ascontiguousarray(cut.T), cut.shape[1], length, quality="VHQ").T[:, :length]
    return np.pad(stretched, ((0, 0), (0, length - stretched.shape[1])))


def _to_frames(seconds: float, source: AudioSource) -> int:
    return round(seconds * source.sample_rate)
