"""A vocal as the networks hear it: mono, 16 kHz, without rumble. Block by block, on an absolute grid of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from audio.dsp.resample import resample_blocks, resampled_length
from audio.types import BLOCK_FRAMES, AudioSource, Waveform, iter_blocks

Progress = Callable[[float], None]

SAMPLE_RATE: Final = 16_000
PEAK: Final = 0.95
_HIGH_PASS_HZ: Final = 48
_ORDER: Final = 5
_EDGE: Final = 3 * (_ORDER + 1)  # samples that scipy's filtfilt adds on each side


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A vocal for the networks.

    Args:
        waveform: `[T]` float32 mono at 16 kHz; sample i is the source's sound at i / 16000 s.
        duration: of the source, in seconds, exactly.
    """

    waveform: Waveform
    duration: float


def preprocess(sound: AudioSource, progress: Progress) -> Heard:
    """Mixes down, resamples, brings peaks to at most 0.95 and takes away what is below 48 Hz, without delay.

    As RVC prepares its input: a Butterworth high-pass of order 5, forwards and backwards.
    """
    length = resampled_length(sound.num_samples, sound.sample_rate, SAMPLE_RATE)
    waveform = np.zeros(length + 2 * _EDGE, np.float32)
    inside, position = waveform[_EDGE : _EDGE + length], 0
    coming = resample_blocks(
        _mono(sound, progress), sound.sample_rate, SAMPLE_RATE, num_samples=sound.num_samples, length=length
    )
    for block in coming:
        count = min(block.shape[1], length - position)
        inside[position : position + count] = block[0, :count]
        position += count
    if (peak := _peak(inside)) > PEAK:
        inside *= PEAK / peak
    _high_pass(waveform, inside)
    return Heard(inside, sound.duration)


def _mono(sound: AudioSource, progress: Progress) -> Iterator[Waveform]:
    for number, block in enumerate(iter_blocks(sound)):
        progress(number * BLOCK_FRAMES / sound.num_samples)
        yield block.mean(axis=0, keepdims=True, dtype=np.float32)


def _peak(waveform: Waveform) -> float:
    return max(float(waveform.max()), -float(waveform.min())) if waveform.size else 0.0


def _high_pass(waveform: Waveform, inside: Waveform) -> None:
    """scipy's `filtfilt` on `inside`, in place; `waveform` has room for its odd extension at both ends."""
    from scipy.signal import butter, lfilter_zi

    if not (length := len(inside)):
        return
    edge = min(_EDGE, length - 1)
    if edge:
        waveform[_EDGE - edge : _EDGE] = 2 * inside[0] - inside[edge:0:-1]
        end = _EDGE + length
        waveform[end : end + edge] = 2 * inside[-1] - inside[-2 : -edge - 2 : -1]
    used = waveform[_EDGE - edge : _EDGE + length + edge]
    coefficients = butter(_ORDER, _HIGH_PASS_HZ, btype="high", fs=SAMPLE_RATE)
    start = lfilter_zi(*coefficients)
    _filter(used, coefficients, start)
    _filter(used[::-1], coefficients, start)


def _filter(waveform: Waveform, coefficients: tuple[Any, Any], start: NDArray[np.float64]) -> None:
    from scipy.signal import lfilter

    state = start * float(waveform[0])
    for position in range(0, len(waveform), BLOCK_FRAMES):
        part = slice(position, position + BLOCK_FRAMES)
        waveform[part], state = lfilter(*coefficients, waveform[part].astype(np.float64), zi=state)
