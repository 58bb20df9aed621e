"""The parameters of plan_music."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from models.acestep.metas import MAX_DURATION_S, MIN_DURATION_S
from operations.clips import Seed
from operations.params import AudioField, Text
from operations.params import Params as BaseParams
from operations.songs.params import LmParams, SongTextParams
from operations.songs.values import Codes

Mode = Literal["sample", "format", "understand", "random"]

# The parameters that belong to some modes only.
MODES_OF: Mapping[str, tuple[Mode, ...]] = {
    "prompt": ("sample", "format"),
    "lyrics": ("format",),
    "instrumental": ("sample", "random"),
    "vocal_language": ("sample", "format", "random"),
    "bpm": ("sample", "format"),
    "key": ("sample", "format"),
    "time_signature": ("sample", "format"),
    "duration": ("sample", "format"),
    "audio": ("understand",),
    "audio_codes": ("understand",),
    "model": ("understand",),
    "return_codes": ("sample", "format", "understand"),
    **{name: ("sample", "format", "understand") for name in LmParams.model_fields},
}


class PlanParams(BaseParams):
    """What to plan."""

    mode: Mode = Field(
        description="`sample`: a whole song from a short description; `format`: caption and lyrics rewritten;"
        " `understand`: what a recording is; `random`: one of the worker's own examples, without a model.",
    )
    prompt: Text = Field(
        "", description="The short description, or the caption to rewrite. Empty with `sample`: any song."
    )
    duration: float | None = Field(
        None,
        ge=MIN_DURATION_S,
        le=MAX_DURATION_S,
        description="Length of the song in seconds. Default: the planner's choice.",
    )
    audio: AudioField | None = Field(None, description=f"The recording to understand, at most {MAX_DURATION_S} s long.")
    audio_codes: Codes | None = Field(None, description="Its audio codes, in place of `audio`.")
    model: str | None = Field(
        None,
        max_length=200,
        description="ACE-Step model that reads `audio`, as in `list_models`. Default: the best one on this worker.",
    )
    seed: Seed | None = Field(None, description="Seed of what is drawn. Default: random; the reply has it.")
    return_codes: bool = Field(
        False, description="Return audio codes, too: those that the planner writes for the song, or the recording's."
    )


class Params(LmParams, SongTextParams, PlanParams):
    """What to plan, and how."""

    ALIASES = {"description": "prompt", "caption": "prompt", "query": "prompt"}

    def find_errors(self) -> Iterable[tuple[str, str]]:
        yield from self.find_text_errors()
        for name, modes in MODES_OF.items():
            if name in self.model_fields_set and self.mode not in modes and getattr(self, name) is not False:
                belongs = " and ".join(f"'{mode}'" for mode in modes)
                yield name, f"has no effect in mode '{self.mode}'; it belongs to {belongs}"
        if self.mode == "format" and not (self.prompt.strip() or self.lyrics):
            yield "prompt", "is required in mode 'format', or 'lyrics'"
        if self.mode == "understand" and (self.audio is None) == (self.audio_codes is None):
            yield "audio", "or 'audio_codes' is required in mode 'understand', one of them"
        if self.model is not None and self.audio_codes is not None:
            yield "model", "has no effect on 'audio_codes'; it reads 'audio'"
