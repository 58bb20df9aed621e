"""What an engine is asked for and what it gives back, as values. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from audio import Audio

Progress = Callable[[float], None]
MAX_DRIFT_DB = 3.0  # by how much the loudness of a window may differ from the first's: music has dynamics


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    Args:
        temperature: >= 0; 0 takes the likeliest.
        top_k: candidates kept; 0: all.
        top_p: smallest set of candidates with that probability; 0: off; goes before `top_k`.
        cfg_coef: weight of the condition against the null condition; 1: no guidance.
    """

    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 0.0
    cfg_coef: float = 3.0


@dataclass(frozen=True)
class GenerationRequest:
    """What is to be made, checked already.

    Args:
        texts: one for each item; empty: no text.
        seeds: one for each item.
        duration: s of new sound.
        stride: s by which a window moves on where the whole is longer than one; 0 < stride < window.
        negative: takes the place of the null condition.
        melody: what the items shall follow, freed of drums and bass; only for a model with melody conditioning.
        prompt: sound to continue, shorter than the window.
        include_prompt: whether the result begins with it.
        partial: whether what is done at the deadline is wanted.
    """

    texts: Sequence[str]
    seeds: Sequence[int]
    duration: float
    stride: float
    sampling: Sampling = field(default_factory=Sampling)
    negative: str = ""
    melody: Audio | None = None
    prompt: Audio | None = None
    include_prompt: bool = True
    partial: bool = False


@dataclass(frozen=True)
class GenerationResult:
    """The sounds in the order's sequence, and what they cost.

    Args:
        timings: seconds by stage: `condition_s`, `decode_s`, `codec_s`.
        steps: decoding steps of the language model, a batch's step counted once.
        complete: False where the deadline ended it: items may be missing, and the last ones short.
        window_levels_db: of each item of several windows, their loudness as the model made it, dBFS.
    """

    items: tuple[Audio, ...]
    timings: Mapping[str, float]
    steps: int
    complete: bool = True
    window_levels_db: tuple[tuple[float, ...], ...] = ()

    @property
    def steps_per_s(self) -> float:
        """Decoding steps per second; at 50 frames a second, 50 is real time for a batch of one."""
        return self.steps / self.timings["decode_s"] if self.timings["decode_s"] else 0.0


def silent(fraction: float) -> None:
    """The progress of a caller who wants none."""


def span(progress: Progress, start: float, end: float) -> Progress:
    """`progress`, with 0..1 of a part mapped to `start`..`end` of the whole."""
    return lambda fraction: progress(start + (end - start) * fraction)
