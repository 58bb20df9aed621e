"""Gates for the parts of a vocal: levels of windows of half a second, and gains that change from window to window.

Every gate moves audio from one part to another, so that the parts still sum to the vocal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audio.dsp.gain import from_db
from audio.dsp.mix import Silence
from audio.types import AudioSource, Check, Waveform, iter_blocks

WINDOW_S = 0.5
FADE_S = 0.05
SILENCE_DB = -60.0
"""RMS level in dBFS below which a window of the vocals counts as silent."""
MIN_BACKING_DB = -35.0
"""Level of backing vocals, relative to the lead, below which a model's backing vocals count as its error."""
MIN_REVERB_DB = -40.0
"""Level of reverb, relative to the lead, below which a vocal counts as dry."""
MAX_LOSS_DB = 12.0
"""How far the dry vocal may fall below the vocal in a window: what falls further is a breath or a consonant."""

_WINDOWS_PER_BLOCK = 20
_MAX_RATIO_DB = 120.0

Power = NDArray[np.float64]
"""`[W]`, the mean square of each window."""


class DifferenceView(AudioSource):
    """A source minus another one of the same shape, computed on reading."""

    def __init__(self, source: AudioSource, part: AudioSource) -> None:
        shapes = {(one.sample_rate, one.channels, one.num_samples) for one in (source, part)}
        assert len(shapes) == 1, "a part has the sample rate, width and length of the whole"
        super().__init__(*shapes.pop())
        self._source, self._part = source, part

    def read(self, start: int, count: int) -> Waveform:
        return self._source.read(start, count) - self._part.read(start, count)


class WindowGainView(AudioSource):
    """A source with one gain for each window, and a cross-fade of 50 ms around each change; computed on reading.

    Args:
        gains: `[W]` factors, one for each window as `measure_power` counts them.
    """

    def __init__(self, source: AudioSource, gains: NDArray[np.float64]) -> None:
        super().__init__(source.sample_rate, source.channels, source.num_samples)
        self._source = source
        changes = np.flatnonzero(np.diff(gains)) + 1
        borders = changes * float(_window_length(source))
        half = FADE_S * source.sample_rate / 2
        self._positions = np.concatenate([[0.0], np.stack([borders - half, borders + half], axis=1).ravel()])
        self._gains = np.concatenate([gains[:1], np.stack([gains[changes - 1], gains[changes]], axis=1).ravel()])

    def read(self, start: int, count: int) -> Waveform:
        block = self._source.read(start, count)
        positions = np.arange(start, start + block.shape[1], dtype=np.float64)
        gains = np.interp(positions, self._positions, self._gains).astype(np.float32)
        return np.asarray(block * gains, np.float32)


def apply_gains(source: AudioSource, gains: NDArray[np.float64]) -> AudioSource:
    """The source with one gain for each window; the same object if all are 1."""
    if not gains.any():
        return Silence(source.sample_rate, source.channels, source.num_samples)
    return source if (gains == 1).all() else WindowGainView(source, gains)


def measure_power(source: AudioSource, check: Check) -> Power:
    """The mean square of each window over all channels; the last window may be shorter."""
    length = _window_length(source)
    means = []
    for block in iter_blocks(source, length * _WINDOWS_PER_BLOCK):
        check()
        energy = np.einsum("ct,ct->t", block, block, dtype=np.float64)
        starts = np.arange(0, block.shape[1], length)
        counts = np.diff(np.append(starts, block.shape[1]))
        means.append(np.add.reduceat(energy, starts) / (counts * source.channels))
    return np.concatenate(means) if means else np.zeros(0)


def find_active(power: Power) -> NDArray[np.bool_]:
    """The windows that are not silent, with the one before and after each: breaths and tails belong to the voice."""
    loud = power >= from_db(SILENCE_DB) ** 2
    active = loud.copy()
    active[1:] |= loud[:-1]
    active[:-1] |= loud[1:]
    return active


def compare_levels(part: Power, reference: Power, active: NDArray[np.bool_]) -> float | None:
    """Level of a part relative to another in dB over the active windows, within -120 to 120; None if there are none."""
    if not active.any():
        return None
    tiny = from_db(-2 * _MAX_RATIO_DB)
    ratio = 10 * np.log10((part[active].mean() + tiny) / (reference[active].mean() + tiny))
    return float(np.clip(ratio, -_MAX_RATIO_DB, _MAX_RATIO_DB))


def limit_loss(vocal: Power, dry: Power, rest: Power) -> NDArray[np.float64]:
    """The share of `rest` that is added to `dry` in each window, so that it is at most `MAX_LOSS_DB` below `vocal`.

    Args:
        vocal, dry, rest: of the whole, and of its two parts.
    """
    target = vocal * from_db(-MAX_LOSS_DB) ** 2
    cross = (vocal - dry - rest) / 2  # the mean product of both parts
    missing = np.maximum(target - dry, 0.0)
    root = np.sqrt(cross**2 + rest * missing)
    # The power of dry + share * rest is dry + 2 share cross + share² rest; this form of its root has no cancellation.
    denominator = cross + root
    share = np.divide(missing, denominator, out=np.zeros_like(missing), where=denominator > 0)
    return np.asarray(np.clip(share, 0.0, 1.0))


def _window_length(source: AudioSource) -> int:
    return max(round(WINDOW_S * source.sample_rate), 1)
