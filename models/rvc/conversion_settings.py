"""How a voice sings, as plain values: importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Conversion:
    """Settings of one conversion."""

    semitones: float = 0.0
    index_rate: float = 0.5
    protect: float = 0.33
    rms_mix_rate: float = 0.25
    filter_radius: int = 3
    formant_shift: float = 0.0
    seed: int = 0
    retrieval: Literal["exact", "ivf"] = "exact"
