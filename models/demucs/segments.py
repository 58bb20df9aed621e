"""Cuts a mix into the overlapping segments that the networks work on, and weighs their overlaps. Needs no torch."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.separation import InferenceOptions

MAX_SHIFT_S = 0.5


@dataclass(frozen=True, slots=True)
class Segment:
    """Samples `start` to `start + length` of a mix. Samples before 0 are silent."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class ModelPass:
    """One pass of one submodel over the mix.

    Args:
        submodel: index in the bag.
        start: first sample, <= 0; below 0 if the pass is shifted.
        end: length of the mix in samples.
        segment_length: in samples.
        stride: samples from one segment's start to the next.
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

    def indices_between(self, begin: int, end: int) -> range:
        """Indices of the segments that start at `begin` or later and before `end`."""
        first = max(-(-(begin - self.start) // self.stride), 0)
        last = min(-(-(end - self.start) // self.stride), self.num_segments)
        return range(first, last)

    def overlap(self, index: int) -> Overlap:
        """How segment `index` overlaps its neighbours."""
        reach = (self.segment_length - 1) // self.stride
        before, after = min(index, reach), min(self.num_segments - 1 - index, reach)
        return Overlap(self.segment(index).length, self.segment_length, self.stride, before, after)


@dataclass(frozen=True, slots=True)
class Overlap:
    """A segment of `length` samples of a pass, with the number of segments before and after that overlap it."""

    length: int
    segment_length: int
    stride: int
    before: int
    after: int

    def weights(self) -> NDArray[np.float32]:
        """The weight of each sample, `[n]`: a triangle over the sum of all overlapping triangles, as in demucs.apply.

        The weights of all segments of a pass sum to 1 at every sample.
        """
        triangle = _make_triangle(self.segment_length)
        total = triangle[: self.length].copy()
        for neighbour in range(1, self.before + 1):
            tail = triangle[neighbour * self.stride :][: self.length]
            total[: len(tail)] += tail
        for neighbour in range(1, self.after + 1):
            offset = min(neighbour * self.stride, self.length)
            total[offset:] += triangle[: self.length - offset]
        weights: NDArray[np.float32] = np.divide(triangle[: self.length], total, out=total)
        return weights


def _make_triangle(length: int) -> NDArray[np.float32]:
    """1, 2, 3 and so on to the middle and back to 1: demucs divides it by its peak, which the quotient cancels."""
    rising = np.arange(1, length + 1, dtype=np.float32)
    return np.minimum(rising, rising[::-1])


def draw_pass_starts(num_submodels: int, options: InferenceOptions, sample_rate: int) -> list[list[int]]:
    """The first sample of every pass of each submodel: 0, or random values up to half a second before the mix.

    Values are drawn for all submodels, used or not, so that leaving one out does not change the others.
    """
    if options.shifts == 0:
        return [[0]] * num_submodels
    generator = random.Random(options.seed)
    max_shift = int(MAX_SHIFT_S * sample_rate)
    return [[generator.randint(0, max_shift) - max_shift for _ in range(options.shifts)] for _ in range(num_submodels)]
