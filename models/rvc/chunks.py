"""Splits a long vocal into overlapping chunks of one length on an absolute grid of frames."""

from __future__ import annotations

from dataclasses import dataclass

ENCODER_TAIL = 80  # samples at 16 kHz that HuBERT's last frame reaches beyond a chunk's end
CONTEXT = 100  # frames on each side of a chunk that the networks see and whose audio is discarded
FADE = 10  # frames of the crossfade between two chunks, half of them on each side of the seam
_MIN_SIZE = 2 * FADE


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """The chunks of one vocal.

    Chunk k contributes the frames from `k * size` to `(k + 1) * size`; the networks also see `CONTEXT` frames on each
    side. Frames are counted from the vocal's first sample. Frames outside the vocal are its mirror image. All chunks
    have one length, so that the networks see one shape.

    Args:
        num_frames: of the vocal, rounded up to an even number, because one frame of HuBERT stands for two frames. The
            last chunk may reach further.
        count: number of chunks.
        size: frames that a chunk contributes, even.
    """

    num_frames: int
    count: int
    size: int

    @property
    def length(self) -> int:
        """Frames that the networks see of a chunk."""
        return self.size + 2 * CONTEXT

    def start(self, chunk: int) -> int:
        """The first frame that the networks see of a chunk; negative for the first chunk."""
        return chunk * self.size - CONTEXT


def plan_chunks(num_frames: int, max_size: int, *, multiple: int = 2) -> ChunkPlan:
    """Plans the fewest chunks for `num_frames` frames, as even as possible.

    Args:
        max_size: frames that a chunk contributes at most; a multiple of `multiple`.
        multiple: even. Chunks contribute a multiple of it, so vocals of many lengths share few shapes.
    """
    assert multiple % 2 == 0 and max_size % multiple == 0, (
        f"chunks of at most {max_size} frames, multiples of {multiple}"
    )
    num_frames += num_frames % 2
    count = max(-(-num_frames // max_size), 1)
    size = -(-num_frames // (multiple * count)) * multiple
    return ChunkPlan(num_frames, count, max(size, _MIN_SIZE))
