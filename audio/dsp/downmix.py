"""More than two channels into stereo, by the weights of ITU-R BS.775-4 annex 4. Knows no files."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_HALF_POWER: Final = 0.5**0.5

# Weights into (left, right); the low-frequency channel is left out, as BS.775 does.
_WEIGHTS: Final = {
    "L": (1.0, 0.0),
    "R": (0.0, 1.0),
    "C": (_HALF_POWER, _HALF_POWER),
    "l": (_HALF_POWER, 0.0),  # left surround, side or back
    "r": (0.0, _HALF_POWER),
    "b": (0.5, 0.5),  # back centre
    "f": (0.0, 0.0),  # low-frequency effects
}
_WAV_ORDER: Final = {3: "LRC", 4: "LRlr", 5: "LRClr", 6: "LRCflr", 7: "LRCfblr", 8: "LRCflrlr"}
_VORBIS_ORDER: Final = {3: "LCR", 4: "LRlr", 5: "LCRlr", 6: "LCRlrf", 7: "LCRlrbf", 8: "LCRlrlrf"}
_AAC_ORDER: Final = _WAV_ORDER | {4: "LRCb"}
_ORDERS: Final = {"ogg": _VORBIS_ORDER, "opus": _VORBIS_ORDER, "m4a": _AAC_ORDER, "aac": _AAC_ORDER}


def downmix_weights(channels: int, container: str) -> NDArray[np.float32]:
    """`[C, 2]` weights for a file's channels, ordered as its container orders them.

    They are scaled so that neither side's sum exceeds 1: what does not exceed full scale before does not after.
    Channel counts without a customary order go left and right in turn.
    """
    order = _ORDERS.get(container, _WAV_ORDER).get(channels) or ("LR" * channels)[:channels]
    weights = np.array([_WEIGHTS[speaker] for speaker in order], np.float32)
    return np.asarray(weights / max(float(weights.sum(axis=0).max()), 1.0), np.float32)
