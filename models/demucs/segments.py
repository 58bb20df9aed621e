"""Cuts a mix into the overlapping segments that a network works on, and weighs their overlaps. Knows no networks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from errors import InvalidRequestError

MAX_SHIFT_S: Final = 0.5

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """How a mix is gone through.

    Args:
        shifts: passes, each shifted by a random time below half a second, averaged; 0: one, unshifted.
        overlap: of neighbouring segments, as a fraction.
        segment: seconds; None: the model's own.
        seed: of the shifts.
    """

    shifts: int = 0
    overlap: float = 0.25
    segment: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a mix: samples `start` to `start + length`, which may begin before the mix (as silence)."""

    start: int
    length: int


@dataclass(frozen=True)
class Lane:
    """One pass of one submodel over the mix, from `start` (0, or before the mix where it is shifted) to its end.

    Args:
        submodel: index in the bag.
        start: in samples, <= 0.
        end: the mix's length.
        segment_length: in samples.
        stride: from one segment's start to the next.
    """

    submodel: int
    start: int
    end: int
    segment_length: int
    stride: int

    @property
    def num_segments(self) -> int:
        return -(-(self.end - self.start) // self.stride)

    def segment(self, index: int) -> Segment:
        start = self.start + index * self.stride
        return Segment(start, min(self.segment_length, self.end - start))

    def starting_in(self, begin: int, end: int) -> range:
        """Indices of the segments that start at `begin` or later and before `end`."""
        first = max(-(-(begin - self.start) // self.stride), 0)
        last = min(-(-(end - self.start) // self.stride), self.num_segments)
        return range(first, last)

    def overlap(self, index: int) -> Overlap:
        """How segment `index` lies among its neighbours."""
        reach = (self.segment_length - 1) // self.stride
        before, after = min(index, reach), min(self.num_segments - 1 - index, reach)
        return Overlap(self.segment(index).length, self.segment_length, self.stride, before, after)


@dataclass(frozen=True, slots=True)
class Overlap:
    """A segment of `length` samples of a lane's `segment_length`, with so many overlapping ones before and after."""

    length: int
    segment_length: int
    stride: int
    before: int
    after: int

    def weights(self) -> NDArray[np.float32]:
        """What each sample counts, `[n]`: a triangle over the sum of its neighbours', as demucs.apply weighs overlaps.

        Over all segments of a lane they sum to 1 at every sample.
        """
        triangle = _triangle(self.segment_length)
        total = triangle[: self.length].copy()
        for neighbour in range(1, self.before + 1):
            tail = triangle[neighbour * self.stride :][: self.length]
            total[: len(tail)] += tail
        for neighbour in range(1, self.after + 1):
            offset = min(neighbour * self.stride, self.length)
            total[offset:] += triangle[: self.length - offset]
        return (triangle[: self.length] / total).astype(np.float32)


def _triangle(length: int) -> NDArray[np.float64]:
    half = length // 2
    ramp = np.concatenate([np.arange(1, half + 1), np.arange(length - half, 0, -1)]).astype(np.float64)
    return np.asarray(ramp / ramp.max(), np.float64)


def shifted_starts(submodels: int, passes: InferenceOptions, sample_rate: int) -> list[list[int]]:
    """Where each submodel's passes start: 0, or at seeded random places up to half a second before the mix.

    All submodels draw, needed or not, so that leaving some out does not change the others.
    """
    if passes.shifts == 0:
        return [[0]] * submodels
    draw = random.Random(passes.seed)
    latest = int(MAX_SHIFT_S * sample_rate)
    return [[draw.randint(0, latest) - latest for _ in range(passes.shifts)] for _ in range(submodels)]


def even_batches(items: Sequence[Item], most: int) -> list[Sequence[Item]]:
    """Consecutive batches of at most `most`, as equal in size as can be."""
    count = -(-len(items) // most)
    size = -(-len(items) // count) if count else 1
    return [items[start : start + size] for start in range(0, len(items), size)]


def too_long(segment: float, longest: float) -> InvalidRequestError:
    """The error for a segment beyond what the model was trained on."""
    return InvalidRequestError(
        f"'segment' is {segment:g} s, and this model takes at most {longest:g} s. Leave it out for the model's own.",
        details={"faults": [{"field": "segment", "problem": f"must be at most {longest:g}"}]},
    )
