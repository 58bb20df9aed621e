"""Which Demucs models there are: names, stems, sources, licences. Importable without torch; knows no folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

DEFAULT_MODEL: Final = "htdemucs"
FOUR_STEMS: Final = ("drums", "bass", "other", "vocals")
SIX_STEMS: Final = (*FOUR_STEMS, "guitar", "piano")


@dataclass(frozen=True, slots=True)
class Row:
    """One model that can be had from the hub.

    Args:
        repository: on the Hugging Face hub; holds `<name>.yaml` and one safetensors file per submodel.
        stems: in the order in which the model gives them.
        submodels: how many networks the model averages.
        parameters: of all submodels together; the mdx figures are estimates.
        max_segment: the longest `segment` in seconds, or None for no limit.
        note: one sentence for people who choose.
    """

    repository: str
    stems: tuple[str, ...]
    submodels: int
    parameters: int
    max_segment: float | None
    note: str
    sample_rate: int = 44_100
    channels: int = 2
    licence: str = "MIT"


# Sizes: demucs 4.1 configurations, counted; repositories: demucs.hf.
CATALOG: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "htdemucs": Row(
            "adefossez/HTDemucs", FOUR_STEMS, 1, 41_984_456, 7.8, "Hybrid transformer; the dependable default."
        ),
        "htdemucs_ft": Row(
            "adefossez/HTDemucs-ft",
            FOUR_STEMS,
            4,
            167_937_824,
            7.8,
            "One fine-tuned htdemucs per stem: a little better, four times the work for all stems.",
        ),
        "htdemucs_6s": Row(
            "adefossez/HTDemucs-6s", SIX_STEMS, 1, 27_414_996, 7.8, "Adds guitar and piano; piano is weak."
        ),
        "hdemucs_mmi": Row(
            "adefossez/Demucs-hdemucs_mmi", FOUR_STEMS, 1, 83_637_832, None, "Hybrid Demucs v3, retrained."
        ),
        "mdx": Row("adefossez/Demucs-mdx", FOUR_STEMS, 4, 435_000_000, None, "Track A winner of MDX 2021."),
        "mdx_extra": Row(
            "adefossez/Demucs-mdx_extra",
            FOUR_STEMS,
            4,
            335_000_000,
            None,
            "As mdx, with extra data; its training saw the MUSDB test set.",
        ),
    }
)
