"""The published Demucs models: names, stems, repositories, licences. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DEFAULT_MODEL = "htdemucs"
FOUR_STEMS = ("drums", "bass", "other", "vocals")
SIX_STEMS = (*FOUR_STEMS, "guitar", "piano")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model that can be downloaded from the Hugging Face hub.

    Args:
        repository: its hub id; holds `<name>.yaml` and one safetensors file per submodel.
        stems: in the order of the model's output.
        submodels: how many networks the model averages.
        parameters: number of weights of all submodels together; the mdx figures are estimates.
        max_segment: the longest `segment` in seconds; None: no limit.
        about: one sentence for people who choose.
        sample_rate: in Hz.
        licence: both statements that are on record about the weights.
        unsupported: why it is not run, as the end of a sentence that begins with "it"; empty if it is.
    """

    repository: str
    stems: tuple[str, ...]
    submodels: int
    parameters: int
    max_segment: float | None
    about: str
    sample_rate: int = 44_100
    channels: int = 2
    licence: str = "MIT (tag on the hub, 2026-07); the author wrote earlier: research only"
    unsupported: str = ""


def _describe_quantised(name: str, parameters: int) -> ModelCard:
    return ModelCard(
        f"adefossez/Demucs-{name}_q",
        FOUR_STEMS,
        4,
        parameters,
        None,
        f"{name} with quantised weights.",
        unsupported=f"has quantised weights (diffq); use '{name}', the same model without quantisation",
    )


# Sizes: demucs 4.1 configurations, counted; repositories: demucs.hf.
CATALOG: Mapping[str, ModelCard] = MappingProxyType(
    {
        "htdemucs": ModelCard("adefossez/HTDemucs", FOUR_STEMS, 1, 41_984_456, 7.8, "Hybrid transformer; the default."),
        "htdemucs_ft": ModelCard(
            "adefossez/HTDemucs-ft",
            FOUR_STEMS,
            4,
            167_937_824,
            7.8,
            "One fine-tuned htdemucs per stem: slightly better, four times slower for all stems.",
        ),
        "htdemucs_6s": ModelCard(
            "adefossez/HTDemucs-6s", SIX_STEMS, 1, 27_414_996, 7.8, "Adds guitar and piano; the piano stem is weak."
        ),
        "hdemucs_mmi": ModelCard(
            "adefossez/Demucs-hdemucs_mmi", FOUR_STEMS, 1, 83_637_832, None, "Hybrid Demucs v3, retrained."
        ),
        "mdx": ModelCard("adefossez/Demucs-mdx", FOUR_STEMS, 4, 435_000_000, None, "Track A winner of MDX 2021."),
        "mdx_extra": ModelCard(
            "adefossez/Demucs-mdx_extra",
            FOUR_STEMS,
            4,
            335_000_000,
            None,
            "As mdx, trained on extra data that includes the MUSDB test set.",
        ),
        "mdx_q": _describe_quantised("mdx", 435_000_000),
        "mdx_extra_q": _describe_quantised("mdx_extra", 335_000_000),
    }
)
