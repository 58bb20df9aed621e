"""Another key in the same time: pitch moved by semitones, every sample's place and the length kept. Any length.

Rubber Band (its finer engine, through `pedalboard.time_stretch`) keeps time to the sample only where it transposes
downwards with ratios given over time: with constant ones its whole-numbered hops drift by up to 2 ms a second, upwards
always. So a shift upwards plays the sound faster first (resampling, which has no drift) and Rubber Band slows it down
again, a tenth of a semitone being left to it. What is then left is a constant delay, which is measured once a shift.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from audio.types import AudioSource, Waveform, iter_blocks

Progress = Callable[[float], None]
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

CHUNK_S: Final = 20.0
_OVERLAP_S: Final = 0.5  # of neighbouring chunks, in which the best place to pass from one to the other is looked for
_FADE_S: Final = 0.05
_REACH_S: Final = 0.004
_CONTEXT_S: Final = 0.5  # heard by the engine before and after what is used
_LEAST_DOWN: Final = 0.1  # semitones
_CANDIDATES: Final = 19
_MOVE_COST: Final = 0.1  # of likeness, for the farthest
_MOST_THREADS: Final = 4
_CLICK_EVERY_S: Final = 0.2
_CLICKS: Final = 32
_QUIET: Final = 1e-12


def shift_pitch(
    sound: AudioSource, semitones: float, progress: Progress, *, chunk_s: float = CHUNK_S
) -> Iterator[Waveform]:
    """The sound in another key, as consecutive `[C, n]` blocks, in total exactly as long as it was.

    Formants move along with the pitch. Chunks lie on a fixed grid, are rendered side by side, and are joined where they
    are most alike.

    Args:
        semitones: up or down, at most 24.
        progress: called with the fraction done, 0..1, at every chunk; what it raises ends the work.
        chunk_s: rendered at once, in seconds, more than 1; sets the memory that is needed.
    """
    if not semitones:
        yield from iter_blocks(sound)
        return
    overlap, length = _frames(_OVERLAP_S, sound), sound.num_samples
    shift = _Shift(sound.sample_rate, float(semitones))
    borders = _borders(length, _frames(chunk_s, sound))
    spans = [(max(start - overlap, 0), min(stop + overlap, length)) for start, stop in pairwise(borders)]
    held = np.zeros((sound.channels, 0), np.float32)  # what the last chunk says of the time around its border
    done = 0
    made = _side_by_side(lambda span: _rendered(sound, shift, *span), spans)
    for border, chunk in zip(borders[1:], made, strict=True):
        progress(done / length)
        joined = _joined(held, chunk, sound.sample_rate) if held.size else chunk
        settled = joined.shape[1] if border == length else border - overlap - done
        yield joined[:, :settled]
        held = joined[:, settled:]
        done += settled
    progress(1.0)


def _borders(length: int, chunk: int) -> list[int]:
    """Of the chunks, on a fixed grid; the last is at least half as long as the others, and up to half longer."""
    inner = [border for border in range(chunk, length, chunk) if length - border >= chunk // 2]
    return [0, *inner, length]


def _side_by_side(work: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
    """`work` of each item, in order, a few at a time; Rubber Band leaves the interpreter to other threads."""
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Made]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True, slots=True)
class _Shift:
    """One key change: how much of it is done by resampling, how much by Rubber Band."""

    sample_rate: int
    semitones: float

    @property
    def down(self) -> float:
        """Semitones that Rubber Band takes it down by; more than 0."""
        return max(-self.semitones, _LEAST_DOWN)

    @property
    def speed(self) -> float:
        """How much faster the sound is played before; 1 where it is not."""
        return float(2.0 ** ((self.semitones + self.down) / 12))

    def apply(self, waveform: Waveform) -> Waveform:
        """`[C, n]` in the new key, delayed by `delay` and of about the same length."""
        import pedalboard

        if self.speed != 1.0:
            import soxr

            faster = soxr.resample(np.ascontiguousarray(waveform.T), self.speed, 1.0, quality="VHQ")
            waveform = np.ascontiguousarray(faster.T)
        stretch = np.full(waveform.shape[1], 1.0 / self.speed)
        made = pedalboard.time_stretch(waveform, float(self.sample_rate), stretch, -self.down, preserve_formants=False)
        return np.asarray(made, np.float32)


@functools.lru_cache(maxsize=64)
def _delay(shift: _Shift) -> int:
    """Samples by which `apply` comes late (negative: early), measured with clicks: the mean of their centres."""
    spacing = int(_CLICK_EVERY_S * shift.sample_rate)
    width = max(shift.sample_rate // 5000, 1)
    clicks = np.zeros(spacing * (_CLICKS + 2), np.float32)
    # Not evenly, so that they fall on all places of the engine's own grid.
    places = [spacing * n + spacing * (7 * n % 13) // 52 for n in range(1, _CLICKS + 1)]
    for place in places:
        clicks[place - width : place + width + 1] = np.hanning(2 * width + 3)[1:-1]
    energy = np.square(shift.apply(clicks[None])[0], dtype=np.float64)
    late, reach = 0.0, spacing // 3
    for _ in range(3):  # the windows are set anew around where the clicks are, so that no neighbour is counted
        windows = [energy[round(place + late) - reach :][: 2 * reach] for place in places[4:-4]]
        late = round(late) + float(np.mean([_centre(window) - reach for window in windows]))
    return round(late)


def _centre(energy: NDArray[np.float64]) -> float:
    return float(energy @ np.arange(len(energy)) / max(energy.sum(), _QUIET))


def _rendered(sound: AudioSource, shift: _Shift, first: int, stop: int) -> Waveform:
    """Samples `first` to `stop` of the sound in its new key."""
    context = _frames(_CONTEXT_S, sound)
    waveform = np.zeros((sound.channels, stop - first + 2 * context), np.float32)
    start = max(first - context, 0)
    heard = sound.read(start, stop + context - start)
    begin = start - (first - context)
    waveform[:, begin : begin + heard.shape[1]] = heard
    made = shift.apply(waveform)[:, context + _delay(shift) :][:, : stop - first]
    return np.pad(made, ((0, 0), (0, stop - first - made.shape[1])))


def _joined(before: Waveform, after: Waveform, sample_rate: int) -> Waveform:
    """Two renderings of the same time, of which the first ends within the second, joined where they are most alike.

    The second is moved by up to 4 ms there, as a tone's phase may be any in it, and runs less than a cent faster or
    slower until it is in its place again. The fade keeps the power whatever the two have in common.
    """
    fade, reach = round(_FADE_S * sample_rate), round(_REACH_S * sample_rate)
    length = before.shape[1]
    starts = np.linspace(reach, length - fade - reach, _CANDIDATES).astype(int)
    likeness = np.array([_likeness(before, after, start, fade, reach) for start in starts])
    least = _MOVE_COST * np.abs(np.arange(-reach, reach + 1)) / reach
    best, lag = np.unravel_index(int(np.argmax(likeness - least)), likeness.shape)
    start, alike = int(starts[best]), max(float(likeness[best, lag]), 0.0)
    there = (start + fade / 2) / after.shape[1]
    after = _moved(after, round((int(lag) - reach) / (1 - there)))
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    power = np.sqrt(ramp**2 + (1 - ramp) ** 2 + 2 * alike * ramp * (1 - ramp))
    mixed = (before[:, start : start + fade] * (1 - ramp) + after[:, start : start + fade] * ramp) / power
    return np.concatenate([before[:, :start], mixed.astype(np.float32), after[:, start + fade :]], axis=1)


def _likeness(before: Waveform, after: Waveform, start: int, fade: int, reach: int) -> NDArray[np.float64]:
    """Correlation of the `fade` samples from `start` on, for each lag of -`reach`..`reach`; 1 where all is silent."""
    here = before[:, start : start + fade].astype(np.float64)
    there = after[:, start - reach : start + fade + reach].astype(np.float64)
    products = sum(np.correlate(other, own, "valid") for own, other in zip(here, there, strict=True))
    sums = np.cumsum(np.pad(np.square(there).sum(axis=0), (1, 0)))
    energy = np.sqrt(np.square(here).sum() * np.maximum(sums[fade:] - sums[:-fade], 0.0))
    return np.where(energy > _QUIET, products / np.maximum(energy, _QUIET), 1.0)


def _moved(waveform: Waveform, lag: int) -> Waveform:
    """The sound `lag` samples earlier at its beginning, and less and less so until its end, which stays in place."""
    if not lag:
        return waveform
    import soxr

    length = waveform.shape[1]
    source = waveform[:, lag:] if lag > 0 else np.pad(waveform, ((0, 0), (-lag, 0)))
    moved = soxr.resample(np.ascontiguousarray(source.T), source.shape[1], length, quality="VHQ").T[:, :length]
    return np.pad(moved, ((0, 0), (0, length - moved.shape[1])))


def _frames(seconds: float, sound: AudioSource) -> int:
    return round(seconds * sound.sample_rate)
