"""Where a long vocal is cut: windows of one length on an absolute grid of frames, and how their sound is joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from audio.types import Waveform

FRAME: Final = 160  # samples at 16 kHz; 100 frames a second
ENCODER_TAIL: Final = 80  # 16 kHz samples after a window's end that HuBERT's last frame reaches into
CONTEXT: Final = 100  # frames on each side that the networks see and that are thrown away
FADE: Final = 10  # frames, half on each side of a seam
_SHORTEST_CORE: Final = 2 * FADE

Item = TypeVar("Item", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Windows:
    """The cuts of one vocal.

    Window k stands for the frames from `k * core` to `(k + 1) * core` and is given `CONTEXT` more on each side. Frames
    are numbered from the vocal's first sample; what lies outside of the vocal is its mirror image. All windows are of
    one length, so that networks see one shape.

    Args:
        frames: of the vocal, rounded up to an even number: HuBERT gives one of its frames for two of these.
        count: of windows.
        core: frames that a window stands for, even.
    """

    frames: int
    count: int
    core: int

    @property
    def length(self) -> int:
        """Frames of a window."""
        return self.core + 2 * CONTEXT

    def start(self, window: int) -> int:
        """The first frame that the window is given; may be negative."""
        return window * self.core - CONTEXT


def cut(frames: int, longest_core: int) -> Windows:
    """Windows for a vocal of so many frames, as even as they can be, none standing for more than `longest_core`."""
    frames += frames % 2
    count = max(-(-frames // longest_core), 1)
    core = -(-frames // (2 * count)) * 2
    return Windows(frames, count, max(core, _SHORTEST_CORE))


def mirrored(values: NDArray[Item], start: int, count: int) -> NDArray[Item]:
    """`values[start : start + count]` of `[T]` continued at both ends by its mirror image, as numpy's `reflect`."""
    if start >= 0 and start + count <= len(values):
        return values[start : start + count]
    period = max(2 * (len(values) - 1), 1)
    places = np.arange(start, start + count) % period
    return values[np.minimum(places, period - places) if len(values) > 1 else np.zeros(count, np.intp)]


def joined(parts: Iterator[Waveform], fade: int) -> Iterator[Waveform]:
    """One sound from parts that overlap by `fade` samples at each seam.

    Args:
        parts: `[n]`, each longer than two fades. The first has `fade / 2` samples before the sound begins.
        fade: even.

    Yields:
        `[n]`; together as long as the parts without their overlaps, plus the last part's `fade / 2` after its end.
    """
    rising = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)).astype(np.float32)
    tail: Waveform | None = None
    for part in parts:
        # What overlaps is the same sound but for what the networks saw further away: gains that sum to 1.
        head = part[fade // 2 : fade] if tail is None else tail + rising * (part[:fade] - tail)
        tail = part[-fade:]
        yield np.concatenate([head, part[fade:-fade]])
    if tail is not None:
        yield tail
