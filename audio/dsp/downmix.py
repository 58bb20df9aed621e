"""Downmix: of more than two channels to stereo with the weights of ITU-R BS.775-4 annex 4, and of stereo to mono."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audio.types import AudioSource, Waveform

_HALF_POWER = 0.5**0.5

# Weights into (left, right); the low-frequency channel is left out, as in BS.775.
_WEIGHTS = {
    "L": (1.0, 0.0),
    "R": (0.0, 1.0),
    "C": (_HALF_POWER, _HALF_POWER),
    "l": (_HALF_POWER, 0.0),  # left surround, side or back
    "r": (0.0, _HALF_POWER),
    "b": (0.5, 0.5),  # back centre
    "f": (0.0, 0.0),  # low-frequency effects
}
_WAV_ORDER = {3: "LRC", 4: "LRlr", 5: "LRClr", 6: "LRCflr", 7: "LRCfblr", 8: "LRCflrlr"}
_VORBIS_ORDER = {3: "LCR", 4: "LRlr", 5: "LCRlr", 6: "LCRlrf", 7: "LCRlrbf", 8: "LCRlrlrf"}
_AAC_ORDER = _WAV_ORDER | {4: "LRCb"}
_ORDERS = {"ogg": _VORBIS_ORDER, "opus": _VORBIS_ORDER, "m4a": _AAC_ORDER, "aac": _AAC_ORDER}


def downmix_weights(channels: int, container: str) -> NDArray[np.float32]:
    """`[C, 2]` weights for a file's channels, in the channel order of its container.

    The sum for each side is at most 1, so audio within full scale stays within it. If the container defines no order
    for this number of channels, they alternate between left and right.
    """
    order = _ORDERS.get(container, _WAV_ORDER).get(channels) or ("LR" * channels)[:channels]
    weights = np.array([_WEIGHTS[speaker] for speaker in order], np.float32)
    return np.asarray(weights / max(float(weights.sum(axis=0).max()), 1.0), np.float32)


class MonoView(AudioSource):
    """The mean of a source's channels, computed on reading."""

    def __init__(self, source: AudioSource) -> None:
        super().__init__(source.sample_rate, 1, source.num_samples)
        self._source = source

    def read(self, start: int, count: int) -> Waveform:
        mean: Waveform = self._source.read(start, count).mean(axis=0, keepdims=True, dtype=np.float32)
        return mean
