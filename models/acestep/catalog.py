"""Published ACE-Step 1.5 models: where they are, what they were trained for, how they are sampled. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from models.acestep.config import SamplingDefaults
from models.acestep.request import Task

MAIN_HUB_ID: Final = "ACE-Step/Ace-Step1.5"  # of turbo, and of the VAE and the text encoder that all models share
VAE_FOLDER: Final = "vae"
TEXT_ENCODER_FOLDER: Final = "Qwen3-Embedding-0.6B"
LICENCE: Final = "MIT (card)"  # the repositories hold no licence file
LOCAL_LICENCE: Final = "unknown: see its author's terms"

TURBO: Final = SamplingDefaults(num_steps=8, shift=3.0, cfg_coef=1.0)
TURBO_SHIFT1: Final = SamplingDefaults(num_steps=8, shift=1.0, cfg_coef=1.0)
GUIDED: Final = SamplingDefaults(num_steps=50, shift=1.0, cfg_coef=7.0)
MAX_STEPS: Final = 200
MAX_TURBO_STEPS: Final = 20

_COMMON_TASKS: tuple[Task, ...] = ("text2music", "cover", "repaint")
_TRACK_TASKS: tuple[Task, ...] = ("lego", "extract", "complete")
_PARAMETERS, _XL_PARAMETERS = 2_393_872_518, 4_987_310_726
TEXT_ENCODER_PARAMETERS, VAE_PARAMETERS = 595_776_512, 168_695_426


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One published model.

    Args:
        name: as a request gives it, and of its folder.
        hub_id: its repository in the original layout.
        defaults: how it is sampled.
        about: one line for people.
        is_xl: whether it is one of the larger models.
        has_track_tasks: whether it was trained for lego, extract and complete.
        diffusers_id: its repository in diffusers' layout; empty: there is none.
    """

    name: str
    hub_id: str
    defaults: SamplingDefaults
    about: str
    is_xl: bool = False
    has_track_tasks: bool = False
    diffusers_id: str = ""

    @property
    def tasks(self) -> tuple[Task, ...]:
        return list_tasks(has_track_tasks=self.has_track_tasks)

    @property
    def is_turbo(self) -> bool:
        return self.defaults.is_turbo

    @property
    def parameters(self) -> int:
        """Of all networks in its repository."""
        return _XL_PARAMETERS if self.is_xl else _PARAMETERS

    @property
    def download_bytes(self) -> int:
        """About what a worker with none of its parts downloads. The weights of XL models are published in float32."""
        shared = TEXT_ENCODER_PARAMETERS + VAE_PARAMETERS
        return self.parameters * (4 if self.is_xl else 2) + 2 * shared


def list_tasks(*, has_track_tasks: bool, takes_codes: bool = True) -> tuple[Task, ...]:
    """Returns the tasks of a model. A cover goes through the audio tokenizer, which a model's files may lack."""
    tasks = (*_COMMON_TASKS, *(_TRACK_TASKS if has_track_tasks else ()))
    return tuple(task for task in tasks if takes_codes or task != "cover")


def _make_card(
    name: str, defaults: SamplingDefaults, about: str, *, in_diffusers: bool = False, has_track_tasks: bool = False
) -> ModelCard:
    hub_id = f"ACE-Step/acestep-v15-{name}"
    return ModelCard(
        name=f"acestep-v15-{name}",
        hub_id=MAIN_HUB_ID if name == "turbo" else hub_id,
        defaults=defaults,
        about=about,
        is_xl=name.startswith("xl-"),
        has_track_tasks=has_track_tasks,
        diffusers_id=f"{hub_id}-diffusers" if in_diffusers else "",
    )


CATALOG: tuple[ModelCard, ...] = (
    _make_card("xl-turbo", TURBO, "songs with lyrics in 8 steps, 4.2 B parameters", in_diffusers=True),
    _make_card("turbo", TURBO, "songs with lyrics in 8 steps, 1.6 B parameters"),
    _make_card("turbo-continuous", TURBO, "turbo, distilled for every shift from 1 to 5"),
    _make_card("turbo-shift3", TURBO, "turbo, distilled for a shift of 3"),
    _make_card("turbo-shift1", TURBO_SHIFT1, "turbo, distilled for a shift of 1"),
    _make_card("xl-sft", GUIDED, "songs with lyrics in 50 guided steps, 4.2 B parameters", in_diffusers=True),
    _make_card("sft", GUIDED, "songs with lyrics in 50 guided steps, 1.6 B parameters"),
    _make_card(
        "xl-base",
        GUIDED,
        "songs and single tracks in 50 guided steps, 4.2 B parameters",
        in_diffusers=True,
        has_track_tasks=True,
    ),
    _make_card("base", GUIDED, "songs and single tracks in 50 guided steps, 1.6 B parameters", has_track_tasks=True),
)
"""In the order in which a default model is chosen: turbo models first, which are the authors' default, and fast."""

BY_NAME = {card.name: card for card in CATALOG}


def find_catalog_name(name: str) -> str:
    """Returns the catalogue's name of `ACE-Step/acestep-v15-sft`, `acestep-v15-xl-sft-diffusers` and the main
    repository; other names stay as they are."""
    if name == MAIN_HUB_ID:
        return "acestep-v15-turbo"
    short = name.removeprefix("ACE-Step/").removesuffix("-diffusers")
    return short if short in BY_NAME else name
