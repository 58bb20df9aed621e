"""Published RoFormer models: where their files are, checksums, and what is on record about licences. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from models.checkpoints.releases import PublishedFile, Release
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
        hub_id: its repository on the Hugging Face hub; empty: it is not there, or not on record.
        release: the release on GitHub that has its files; None: they are not there.
        weights_file: name of the weights there; empty: not on record.
        settings_file: name of the yaml there; empty: none is published beside the weights.
        settings: what the yaml states, of a model that can be run without one.
        size: bytes of the weights; 0: not on record.
        sha256: of the weights; empty: not on record. Without it the model is never downloaded.
        settings_size, settings_sha256: of the yaml.
        stems: in the order of the model's output; empty: its yaml tells them.
        overlap: of neighbouring chunks if a request states none, as a fraction of their length.
        has_clear_licence: whether it may be used without being named.
    """

    role: Role
    about: str
    licence: str
    licence_note: str
    aliases: tuple[str, ...] = ()
    hub_id: str = ""
    release: Release | None = None
    weights_file: str = ""
    settings_file: str = ""
    settings: Mapping[str, Any] | None = None
    size: int = 0
    sha256: str = ""
    settings_size: int = 0
    settings_sha256: str = ""
    stems: tuple[str, ...] = ()
    overlap: float = 0.5
    has_clear_licence: bool = False

    @property
    def source(self) -> str:
        """The page on which it is published; empty: not on record."""
        if self.release is not None:
            return self.release.page
        return f"https://huggingface.co/{self.hub_id}" if self.hub_id else ""

    @property
    def files(self) -> tuple[PublishedFile, ...]:
        """The files that a download consists of; none if the checksum of one is not on record."""
        weights = PublishedFile(self.weights_file, self.size, self.sha256)
        settings = PublishedFile(self.settings_file, self.settings_size, self.settings_sha256)
        files = (weights,) if self.settings is not None else (settings, weights)
        return files if all(file.name and file.sha256 for file in files) else ()


_UNANSWERED = "The author has published no licence, and questions about it are unanswered."
_MEGA_STEMS = (
    "accordion acoustic-guitar back-vocal banjo bass bassoon bells bowed_strings brass cello clarinet congas"
    " digital-piano dobro double-bass drums electric-guitar flute french-horn glockenspiel guitar harmonica harp"
    " harpsichord hh keys kick lead-vocal mandolin marimba oboe organ percussion piano saxophone sitar snare strings"
    " synth tambourine timpani toms triangle trombone trumpet tuba ukulele viola violin vocal wind wind-chimes"
    " woodwind"
)

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
            release=Release("ZFTurbo/Music-Source-Separation-Training", "v1.0.21"),
            weights_file="mvsep_mega_model_bs_roformer_53_stems_v1.ckpt",
            settings_file="mvsep_mega_model_bs_roformer_53_stems.yaml",
            size=1_368_919_887,
            sha256="c62820893bbf86d4e734f966bd142d9157cfc8bb8e79e9d8f9ea553f3ff3519f",
            settings_size=4184,
            settings_sha256="7e198062a251587088adb91215a4f44ab59e67bd62fcc805cf54d6e7dfc51103",
            stems=tuple(_MEGA_STEMS.split()),
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
            hub_id="KimberleyJSN/melbandroformer",
            weights_file="MelBandRoformer.ckpt",
            settings={
                "audio": {"chunk_size": 352_800, "sample_rate": 44_100},
                "model": {"stft_n_fft": 2048, "stft_hop_length": 441, "stft_win_length": 2048, "sample_rate": 44_100},
                "training": {"instruments": ["vocals", "other"], "target_instrument": "vocals"},
                "inference": {"num_overlap": 2},
            },
            size=913_106_900,
            sha256="87201f4d31afb5bc79993230fc49446918425574db48c01c405e44f365c7559e",
            stems=("vocals", "other"),
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
            hub_id="anvuew/dereverb_mel_band_roformer",
            weights_file="dereverb_mel_band_roformer_less_aggressive_anvuew_sdr_18.8050.ckpt",
            settings_file="dereverb_mel_band_roformer_anvuew.yaml",
        ),
    }
)

DEFAULT_MODEL = next(name for name, card in CATALOG.items() if card.has_clear_licence)
