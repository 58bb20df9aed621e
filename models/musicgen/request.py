"""What an `Engine` is asked to generate and what it returns. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from audio import Audio

MAX_DRIFT_DB = 3.0  # how far the loudness of a window may differ from the first one's: music has dynamics


@dataclass(frozen=True, slots=True)
class Sampling:
    """How codes are drawn from the language model's distribution.

    Args:
        temperature: at least 0; 0 always takes the most likely code.
        top_k: how many of the most likely codes are candidates; 0 = all.
        top_p: the candidates are the smallest set of codes with this probability; 0 = off. Replaces `top_k` if set.
        cfg_coef: classifier-free guidance, the weight of the conditions against the null conditions; 1 = no guidance.
    """

    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 0.0
    cfg_coef: float = 3.0


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What to generate. Its values have been validated.

    Args:
        descriptions: one for each clip; an empty one means no text.
        seeds: one for each clip.
        duration: of the new audio, seconds.
        stride: how far the window moves on if the clip is longer than one window, seconds; 0 < stride < window.
        sampling: how codes are drawn.
        negative: a description that takes the place of the null condition.
        melody: the melody to follow, without drums and bass; only for a model with melody conditioning.
        prompt: audio to continue, shorter than the window.
        prompt_codes: codes of such audio in its place, `[K, T]`, all of the model's codebooks.
        include_prompt: whether the clips begin with the prompt.
        partial: whether to return what has been generated if the deadline passes.
    """

    descriptions: Sequence[str]
    seeds: Sequence[int]
    duration: float
    stride: float
    sampling: Sampling = field(default_factory=Sampling)
    negative: str = ""
    melody: Audio | None = None
    prompt: Audio | None = None
    prompt_codes: NDArray[np.int16] | None = None
    include_prompt: bool = True
    partial: bool = False


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """The generated clips in the order of the request's descriptions, and what they cost.

    Args:
        clips: all of them, unless the deadline passed or `on_clip` has taken them.
        timings: seconds by stage: `condition_s`, `decode_s`, `codec_s`.
        steps: decoding steps of the language model; a step of a whole batch counts once.
        complete: False if the deadline passed: clips may be missing, and the last ones may be short.
        window_levels_db: for each clip of several windows, each window's loudness before it was levelled, dBFS.
    """

    clips: tuple[Audio, ...]
    timings: Mapping[str, float]
    steps: int
    complete: bool = True
    window_levels_db: tuple[tuple[float, ...], ...] = ()

    @property
    def steps_per_s(self) -> float:
        """Decoding steps per second. With 50 frames a second, 50 steps per second are real time for one clip."""
        return self.steps / self.timings["decode_s"] if self.timings["decode_s"] else 0.0
