"""How a voice sings, as plain values: importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Conversion:
    """Settings of one conversion.

    Args:
        semitones: added to f0.
        index_rate: how much of the features comes from the voice's index, 0 to 1.
        protect: how much of that unvoiced sounds (consonants, breath) take, 0 to 0.5; 0.5 stands for all of it.
        rms_mix_rate: 0 gives the result the loudness curve of the source, 1 leaves its own.
        fill_gaps: f0 is drawn through unvoiced sounds, which stay unvoiced for `protect`.
        formant_shift: semitones by which the voice's resonances move, f0 staying where it is.
        seed: of the noise that the voice is made from.
        retrieval: `exact`, or `ivf` as faiss searches.
    """

    semitones: float = 0.0
    index_rate: float = 0.5
    protect: float = 0.33
    rms_mix_rate: float = 0.25
    fill_gaps: bool = False
    formant_shift: float = 0.0
    seed: int = 0
    retrieval: Literal["exact", "ivf"] = "ivf"
