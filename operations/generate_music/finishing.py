"""What is done to a generated clip before it is delivered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from audio import Audio
from audio.dsp.edit import fade_in, fade_out, trim_silence
from operations.generate_music.params import Params


@dataclass(frozen=True, slots=True)
class Finishing:
    """Trimming, then fades of the given lengths in seconds."""

    trim: bool
    fade_in: float
    fade_out: float

    @classmethod
    def of(cls, params: Params) -> Self:
        return cls(params.trim_silence, params.fade_in, params.fade_out)

    def apply(self, clip: Audio) -> Audio:
        trimmed = trim_silence(clip) if self.trim else clip
        return fade_out(fade_in(trimmed, self.fade_in), self.fade_out)
