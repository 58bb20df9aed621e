"""Cuts long input into chunks with context, and joins their results. Importable without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Positions `start` to `stop` are computed together; the results from `keep_start` to `keep_stop` are kept.

    The other results are dropped: they lack context on one side. All are positions in the whole input.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def kept(self) -> slice:
        """The kept positions of the whole."""
        return slice(self.keep_start, self.keep_stop)

    @property
    def inside(self) -> slice:
        """The kept positions, counted from `start`."""
        return self.scale_inside(1)

    def scale_inside(self, factor: int) -> slice:
        """`inside` in a result that has `factor` values for each position of the input."""
        return slice((self.keep_start - self.start) * factor, (self.keep_stop - self.start) * factor)


def plan_chunks(total: int, *, size: int, context: int) -> Iterator[Chunk]:
    """Chunks that keep `size` positions each, the last one fewer, and see `context` more on either side if there are.

    Args:
        total: positions of the whole.
        size: at least 1.
        context: at least 0.
    """
    assert size >= 1 and context >= 0, f"a chunk of {size} positions with {context} of context"
    for start in range(0, total, size):
        stop = min(start + size, total)
        yield Chunk(max(start - context, 0), min(stop + context, total), start, stop)


def plan_equal_chunks(total: int, *, longest: int, context: int, multiple: int = 1) -> Iterator[Chunk]:
    """The fewest chunks of at most `longest` positions that cover `total`, all of one length.

    One length means one shape for the network, and so one set of kernels.

    Args:
        total: positions of the whole; a multiple of `multiple`, as are `longest` and `context`.
        longest: more than twice `context`.
        context: positions between the inner end of a chunk and the first one that it keeps there.
        multiple: chunks start and stop at multiples of this.
    """
    assert longest > 2 * context, f"chunks of {longest} positions keep nothing between contexts of {context}"
    count = max(-(-(total - 2 * context) // (longest - 2 * context)), 1)
    steps = -(-(total + 2 * context * (count - 1)) // (count * multiple))
    length = min(steps * multiple, total)
    done = 0
    for index in range(count):
        start = min(index * (length - 2 * context), total - length)
        stop = start + length
        keep_stop = stop if index == count - 1 else stop - context
        yield Chunk(start, stop, done, keep_stop)
        done = keep_stop


def reflect_pad(values: NDArray[Item], start: int, stop: int) -> NDArray[Item]:
    """`values[start:stop]` of `[T]` with positions before 0 and after T mirrored, as numpy's `reflect` mode does.

    The first and last values are not repeated. `start` may be negative, `stop` may be beyond T, by any distance.
    """
    if start >= 0 and stop <= len(values):
        return values[start:stop]
    last = len(values) - 1
    assert last >= 0, "an empty array cannot be mirrored"
    if last == 0:
        return np.repeat(values, stop - start)
    mirrored: NDArray[Item] = values[last - np.abs(last - np.arange(start, stop) % (2 * last))]
    return mirrored


def crossfade(parts: Iterator[NDArray[np.float32]], fade: int) -> Iterator[NDArray[np.float32]]:
    """Joins parts that overlap by `fade` samples at each seam, with gains that sum to 1.

    Equal gains rather than equal powers, because both parts hold the same sound there.

    Args:
        parts: `[n]` each, longer than two fades. The first one has `fade / 2` samples before the sound begins.
        fade: even.

    Yields:
        `[n]`; together as long as the parts without their overlaps, plus the last part's `fade / 2` after its end.
    """
    assert fade % 2 == 0, f"a crossfade of {fade} samples has no middle"
    rising = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)).astype(np.float32)
    tail: NDArray[np.float32] | None = None
    for part in parts:
        assert part.ndim == 1 and len(part) > 2 * fade, f"a part of {part.shape} with two fades of {fade}"
        head = part[fade // 2 : fade] if tail is None else tail + rising * (part[:fade] - tail)
        tail = part[-fade:]
        yield np.concatenate([head, part[fade:-fade]])
    if tail is not None:
        yield tail
