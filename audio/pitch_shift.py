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
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from audio.recording import Sound
from audio.sound import Waveform

Progress = Callable[[float], None]
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

CHUNK_S: Final = 30.0
"""Rendered at once; sets the memory that is needed."""
_OVERLAP_S: Final = 0.5  # of neighbouring chunks, in which the best place to pass from one to the other is looked for
_FADE_S: Final = 0.05
_CONTEXT_S: Final = 0.5  # heard by the engine before and after what is used
_LEAST_DOWN: Final = 0.1  # semitones
_CANDIDATES: Final = 19
_MOST_THREADS: Final = 4
_CLICK_EVERY_S: Final = 0.2
_CLICKS: Final = 32
_QUIET: Final = 1e-12


def shifted_blocks(sound: Sound, semitones: float, progress: Progress) -> Iterator[Waveform]:
    """The sound in another key, as consecutive `[C, n]` blocks, in total exactly as long as it was.

    Formants move along with the pitch. Chunks lie on a fixed grid, are rendered side by side, and are joined where they
    are most alike.

    Args:
        semitones: up or down, at most 24.
        progress: called with the fraction done, 0..1, at every chunk; what it raises ends the work.
    """
    chunk, overlap, length = _frames(CHUNK_S, sound), _frames(_OVERLAP_S, sound), sound.num_samples
    shift = _Shift(sound.sample_rate, float(semitones))
    spans = [(max(start - overlap, 0), min(start + chunk + overlap, length)) for start in range(0, length, chunk)]
    held = np.zeros((sound.channels, 0), np.float32)  # what the last chunk says of the time around its border
    done = 0
    for made in _side_by_side(lambda span: _rendered(sound, shift, *span), spans):
        progress(done / length)
        joined = _joined(held, made, _frames(_FADE_S, sound)) if held.size else made
        border = (done + overlap) // chunk * chunk + chunk
        settled = joined.shape[1] if border >= length else border - overlap - done
        yield joined[:, :settled]
        held = joined[:, settled:]
        done += settled
    progress(1.0)


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


def _rendered(sound: Sound, shift: _Shift, first: int, stop: int) -> Waveform:
    """Samples `first` to `stop` of the sound in its new key."""
    context = _frames(_CONTEXT_S, sound)
    waveform = np.zeros((sound.channels, stop - first + 2 * context), np.float32)
    start = max(first - context, 0)
    heard = sound.read(start, stop + context - start)
    begin = start - (first - context)
    waveform[:, begin : begin + heard.shape[1]] = heard
    made = shift.apply(waveform)[:, context + _delay(shift) :][:, : stop - first]
    return np.pad(made, ((0, 0), (0, stop - first - made.shape[1])))


def _joined(before: Waveform, after: Waveform, fade: int) -> Waveform:
    """Two renderings whose first `before` samples are the same time, joined by a fade where they are most alike.

    The fade keeps the power at its middle whatever the two have in common.
    """
    length = before.shape[1]
    fade = min(fade, length)
    starts = np.linspace(0, length - fade, _CANDIDATES if length > fade else 1).astype(int)
    likeness = [_likeness(before[:, start : start + fade], after[:, start : start + fade]) for start in starts]
    best = int(np.argmax(likeness))
    start, alike = int(starts[best]), max(likeness[best], 0.0)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    power = np.sqrt(ramp**2 + (1 - ramp) ** 2 + 2 * alike * ramp * (1 - ramp))
    mixed = (before[:, start : start + fade] * (1 - ramp) + after[:, start : start + fade] * ramp) / power
    return np.concatenate([before[:, :start], mixed.astype(np.float32), after[:, start + fade :]], axis=1)


def _likeness(before: Waveform, after: Waveform) -> float:
    """Correlation, -1..1; 1 where both are silent."""
    energy = float(np.sqrt(np.vdot(before, before) * np.vdot(after, after)))
    return float(np.vdot(before, after)) / energy if energy > _QUIET else 1.0


def _frames(seconds: float, sound: Sound) -> int:
    return round(seconds * sound.sample_rate)
