"""Codes of audio, with what is needed to decode them. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class EncodedAudio:
    """What a codec makes of audio.

    Args:
        codes: `[K, T]` int16. Of a codec that works in segments, the frames of all segments, one after the other.
        num_samples: of the audio, at the codec's sample rate.
        scales: the level of each segment; None if the codec does not measure it.
    """

    codes: NDArray[np.int16]
    num_samples: int
    scales: NDArray[np.float32] | None = None
