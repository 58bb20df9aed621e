"""Published RoFormer models: file names, checksums, and what is on record about their licences. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from models.separation import Role

NONE_PUBLISHED = "none published"
_GPL = "GPL-3.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One published model.

    Args:
        role: what it is for.
        about: one sentence.
        licence: of the weights.
        licence_note: what is on record about the licence, and where.
        aliases: shorter names.
        source: the page on which it is published; empty: several, of which none is the author's.
        size: bytes of the weights; 0: not on record.
        sha256: of the weights; empty: not on record.
        settings_sha256: of the yaml.
        has_clear_licence: whether it may be used without being named.
    """

    role: Role
    about: str
    licence: str
    licence_note: str
    aliases: tuple[str, ...] = ()
    source: str = ""
    size: int = 0
    sha256: str = ""
    settings_sha256: str = ""
    has_clear_licence: bool = False


_UNANSWERED = "The author has published no licence, and questions about it are unanswered."

CATALOG: Mapping[str, ModelCard] = MappingProxyType(
    {
        "mvsep_mega_model_bs_roformer_53_stems_v1": ModelCard(
            role="stems",
            about="53 stems by one network, of which only those that are asked for are computed.",
            licence="MIT",
            licence_note=(
                "The author on GitHub (ZFTurbo/Music-Source-Separation-Training, issue 245, 2026-09-25): the weights "
                "are MIT, for commercial use, redistribution and conversion; nothing is promised about the audio that "
                "it was trained on."
            ),
            aliases=("mega53",),
            source="https://github.com/ZFTurbo/Music-Source-Separation-Training/releases/tag/v1.0.21",
            size=1_368_919_887,
            sha256="c62820893bbf86d4e734f966bd142d9157cfc8bb8e79e9d8f9ea553f3ff3519f",
            settings_sha256="7e198062a251587088adb91215a4f44ab59e67bd62fcc805cf54d6e7dfc51103",
            has_clear_licence=True,
        ),
        "kim": ModelCard(
            role="vocals",
            about="Mel-Band RoFormer for vocals, the usual choice.",
            licence=_GPL,
            licence_note=(
                "GPL-3.0 according to a model card of Intel; the author has answered on the hub. A request of 2026-04 "
                "asks for MIT or Apache, and some projects write MIT already."
            ),
            size=913_106_900,
            sha256="87201f4d31afb5bc79993230fc49446918425574db48c01c405e44f365c7559e",
        ),
        "model_bs_roformer_ep_368_sdr_12.9628": ModelCard(
            role="vocals",
            about="BS RoFormer for vocals.",
            licence=NONE_PUBLISHED,
            licence_note=_UNANSWERED,
        ),
        "model_mel_band_roformer_karaoke_aufr33_viperx_sdr_10.1956": ModelCard(
            role="karaoke",
            about="Mel-Band RoFormer that takes the lead vocal out of the vocals.",
            licence=NONE_PUBLISHED,
            licence_note=_UNANSWERED,
            aliases=("karaoke",),
        ),
        "dereverb_mel_band_roformer_less_aggressive_anvuew_sdr_18.8050": ModelCard(
            role="dereverb",
            about="Mel-Band RoFormer that removes reverb from a voice.",
            licence=_GPL,
            licence_note="GPL-3.0 (tag on the hub).",
            aliases=("dereverb",),
        ),
    }
)

ALIASES: Mapping[str, str] = MappingProxyType({alias: name for name, card in CATALOG.items() for alias in card.aliases})
DEFAULT_MODEL = next(name for name, card in CATALOG.items() if card.has_clear_licence)
