"""What operations that generate clips share: seeds, trimming and fades, and clips that are stored on disk."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from audio import Audio
from audio.disk import materialize_one
from audio.dsp.edit import fade_in, fade_out, trim_silence
from audio.temporary import require_disk_space
from audio.types import AudioSource
from operations.params import MAX_SEED, Int, Params

MAX_CLIPS = 32
MEMORY_BYTES = 384 << 20  # of all clips; beyond, they are stored on disk

Seed = Annotated[Int, Field(ge=0, le=MAX_SEED)]
Seeds = Seed | Annotated[list[Seed], Field(min_length=1, max_length=MAX_CLIPS)]


def choose_seeds(seed: int | list[int] | None, count: int) -> list[int]:
    """One seed for each of `count` clips: those of a list, or consecutive numbers from one; None: from a random one."""
    if isinstance(seed, list):
        return seed
    first = secrets.randbelow(2**32) if seed is None else seed
    return [(first + index) % (MAX_SEED + 1) for index in range(count)]


class FinishingParams(Params):
    """Adds what is done to a clip before its delivery."""

    trim_silence: bool = Field(False, description="Remove silence at the start and the end.")
    fade_in: float = Field(0.0, ge=0, le=60, description="Length of the fade-in in seconds.")
    fade_out: float = Field(0.0, ge=0, le=60, description="Length of the fade-out in seconds.")

    def finishing(self) -> Finishing:
        return Finishing(self.trim_silence, self.fade_in, self.fade_out)


@dataclass(frozen=True, slots=True)
class Finishing:
    """What is done to a clip before its delivery: trimming, then fades of the given lengths in seconds."""

    trim: bool = False
    fade_in: float = 0.0
    fade_out: float = 0.0

    def apply(self, clip: Audio) -> Audio:
        trimmed = trim_silence(clip) if self.trim else clip
        return fade_out(fade_in(trimmed, self.fade_in), self.fade_out)


class ClipStore:
    """Finishes clips one at a time, and keeps them in memory, or on disk if all of them together are too large.

    Args:
        count: of the clips.
        finishing: of every clip.
        memory_bytes: the most that all clips together may take in memory.
        stack: closes those on disk.

    Attributes:
        clips: those that were added, finished.
    """

    def __init__(self, count: int, finishing: Finishing, *, memory_bytes: int, stack: ExitStack) -> None:
        self.clips: list[AudioSource] = []
        self._finishing = finishing
        self._share = memory_bytes // count
        self._stack = stack

    def add(self, clip: Audio) -> None:
        done = self._finishing.apply(clip)
        self.clips.append(materialize_one([done.waveform], like=done, memory_bytes=self._share, stack=self._stack))


def require_room(needed_bytes: int, memory_bytes: int) -> None:
    """Raises `DiskFullError` if clips of `needed_bytes` in total do not fit into memory, and not onto the disk."""
    if needed_bytes > memory_bytes:
        require_disk_space(needed_bytes)
