"""What is known of an ACE-Step model without loading it: what it can do and how it is sampled. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from models.acestep.metas import LANGUAGES, MAX_DURATION_S, MIN_DURATION_S
from models.acestep.request import Task
from models.family import ModelInfo

SAMPLE_RATE: Final = 48_000
CHANNELS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AceStepModelInfo(ModelInfo):
    """A model of ACE-Step 1.5.

    Args:
        licence: of the weights.
        tasks: what it was trained for: `text2music`, and the tasks of edit_music.
        takes_codes: whether its files have the audio tokenizer, which covers and audio codes need.
        is_turbo: it is distilled to few steps, without classifier-free guidance.
        num_steps: the default.
        max_steps: the most that are accepted.
        shift: the default shift of the timesteps.
        cfg_coef: the default of classifier-free guidance; 1 = none.
        hub_id: of a published model.
    """

    licence: str
    tasks: tuple[Task, ...] = ()
    takes_codes: bool = True
    is_turbo: bool = True
    num_steps: int = 8
    max_steps: int = 20
    shift: float = 3.0
    cfg_coef: float = 1.0
    hub_id: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "family": "acestep",
            "licence": self.licence,
            "available": self.availability.to_json(),
            "sample_rate": SAMPLE_RATE,
            "channels": CHANNELS,
            "tasks": list(self.tasks),
            "audio_codes": self.takes_codes,
            "languages": list(LANGUAGES),
            "min_duration_s": MIN_DURATION_S,
            "max_duration_s": MAX_DURATION_S,
            "inference_steps": self.num_steps,
            "shift": self.shift,
            "cfg_coef": self.cfg_coef,
        } | ({"hub_id": self.hub_id} if self.hub_id else {})
