"""The demo models that come with the worker, as data: small models of this project's own. Importable without torch.

A demo model is used without being named only if no real model of its family is on the worker; named, it always works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

LICENCE = "MIT"
F0_METHOD = "fcpe"  # of the demo voices: its weights come with its package, so that nothing is downloaded
CONTENT_ENCODER = "demo-content-encoder"
_HUB = "downloaded if the worker can reach the Hugging Face hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCard:
    """One demo model.

    Args:
        name: as a request gives it, and of its folder.
        family: `ModelFamily.name`.
        operations: that it serves, for the documentation.
        about: one sentence.
        instead_of: what its quality is not that of; empty: another model of the same reply says it.
        remedy: a sentence that says how to get a real model.
    """

    name: str
    family: str
    operations: str
    about: str
    instead_of: str = ""
    remedy: str = ""

    @property
    def warning(self) -> str:
        """What a reply that was made with the model says about it; empty: nothing."""
        if not self.instead_of:
            return ""
        return (
            f"'{self.name}' is a demo model that comes with the worker; it does not show the quality of "
            f"{self.instead_of}. {self.remedy}"
        )


def _separator(name: str, family: str, about: str) -> DemoCard:
    return DemoCard(
        name=name,
        family=family,
        operations="separate, generate_cover",
        about=about,
        instead_of="published separation models",
        remedy=f"For clean stems put a Demucs or RoFormer model below MODELS_DIR, or name 'htdemucs', which is {_HUB}.",
    )


def _voice(name: str, about: str) -> DemoCard:
    return DemoCard(
        name=name,
        family="rvc",
        operations="generate_cover",
        about=about,
        instead_of="a voice that was trained on a singer",
        remedy="Put an RVC voice into RVC_MODELS_DIR and name it as 'voice_model'.",
    )


MUSIC = DemoCard(
    name="demo",
    family="musicgen",
    operations="generate_music, encode_audio, decode_audio",
    about="A small MusicGen of this project: drums, bands and pads in a tempo that the prompt names; rough.",
    instead_of="MusicGen",
    remedy=(
        "For real music set MODELS_DIR to a folder with a MusicGen checkpoint, or send 'model': 'small', 'medium' or "
        f"'large', which are {_HUB}."
    ),
)

CATALOG: tuple[DemoCard, ...] = (
    MUSIC,
    DemoCard(
        name="demo-acestep",
        family="acestep",
        operations="generate_music, edit_music, release_task",
        about="A small ACE-Step of this project: plays the tempo of the prompt, and does not sing; rough.",
        instead_of="ACE-Step",
        remedy=(
            "For real songs put an ACE-Step model below MODELS_DIR, or send 'model': 'acestep-v15-turbo', which is "
            f"{_HUB}."
        ),
    ),
    _separator(
        "demo-htdemucs", "demucs", "A small htdemucs of this project: drums, bass, other and vocals; audible remains."
    ),
    _separator(
        "demo-mel-band-roformer", "roformer", "A small Mel-Band RoFormer of this project: vocals and instrumental."
    ),
    _separator(
        "demo-karaoke", "roformer", "A small Mel-Band RoFormer of this project: lead and backing vocals of vocals."
    ),
    _voice("demo-alto", "A small RVC voice of this project: a synthetic alto."),
    _voice("demo-baritone", "A small RVC voice of this project: a synthetic baritone."),
    DemoCard(
        name=CONTENT_ENCODER,
        family="hubert",
        operations="generate_cover",
        about="A small content encoder of this project, for the demo voices alone.",
    ),
)


def list_demos(family: str) -> Mapping[str, DemoCard]:
    """The demo models of a family, by name."""
    return MappingProxyType({card.name: card for card in CATALOG if card.family == family})
