"""The syllables of one singer as WORLD's parameters: spectral envelope and aperiodicity of every frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyworld
from numpy.typing import NDArray

from demo.training.singing.lexicon import UNVOICED, VOWELS
from demo.training.singing.recording import Speech, record
from demo.training.singing.singers import SINGERS, Singer

FRAME_S = 0.005
FFT_SIZE = 2048  # of synthesis at 44.1 kHz; its bins are as wide as those of an analysis of 1024 at 22.05 kHz
SAMPLE_RATE = 44_100
BINS = FFT_SIZE // 2 + 1
VOWEL_LEVEL = -6.0  # natural logarithm of a vowel's mean power; any constant
_F0_RANGE = (60.0, 400.0)
_TOP_HZ = 10_000.0  # above, espeak-ng has nothing, and the envelope is continued
_TOP_SLOPE = -1.6  # of the natural logarithm of power, per octave
_FLOOR = 1e-12

Frames = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Syllable:
    """One syllable.

    Args:
        envelope: `[N, BINS]`, natural logarithm of the power spectrum, linear in frequency up to 22.05 kHz.
        aperiodicity: `[N, BINS]`, 0 to 1.
        phonemes: symbols.
        starts: the frame at which each phoneme starts, and the one at which the last ends.
    """

    envelope: Frames
    aperiodicity: Frames
    phonemes: tuple[str, ...]
    starts: tuple[int, ...]


class Bank:
    """The syllables of one singer, each analysed when it is first asked for."""

    def __init__(self, singer: Singer) -> None:
        self._singer = singer
        self._speech = record(singer.espeak_voice)
        self._syllables: dict[str, Syllable] = {}

    def __getitem__(self, name: str) -> Syllable:
        if name not in self._syllables:
            self._syllables[name] = _analyse(self._speech[name], self._singer)
        return self._syllables[name]


@lru_cache(maxsize=len(SINGERS))
def load_bank(singer: Singer) -> Bank:
    """Records the syllables for `singer`, once in a process."""
    return Bank(singer)


def _analyse(speech: Speech, singer: Singer) -> Syllable:
    rate, hop = speech.sample_rate, speech.sample_rate * FRAME_S
    waveform = speech.waveform.astype(np.float64)
    f0, times = pyworld.dio(waveform, rate, *_F0_RANGE, frame_period=1000 * FRAME_S)
    f0 = pyworld.stonemask(waveform, f0, times, rate)
    starts = tuple(round(start / hop) for start in speech.starts)
    f0 = _set_voicing(f0, speech.phonemes, starts)
    size = FFT_SIZE * rate // SAMPLE_RATE
    power = pyworld.cheaptrick(waveform, f0, times, rate, fft_size=size)
    aperiodicity = pyworld.d4c(waveform, f0, times, rate, fft_size=size)
    envelope = _shape(_extend(np.log(power + _FLOOR)), singer)
    vowel = _slice_vowel(speech.phonemes, starts)
    envelope += VOWEL_LEVEL - np.log(np.exp(envelope[vowel]).mean())
    return Syllable(envelope, _add_breath(aperiodicity, singer), speech.phonemes, starts)


def _set_voicing(f0: Frames, phonemes: tuple[str, ...], starts: tuple[int, ...]) -> Frames:
    """f0 as the phonemes say: zero in unvoiced ones, interpolated in voiced ones."""
    known = np.flatnonzero(f0)
    filled = np.interp(np.arange(len(f0)), known, f0[known])
    for phoneme, start, end in zip(phonemes, starts[:-1], starts[1:], strict=True):
        if phoneme in UNVOICED:
            filled[start:end] = 0
    return np.asarray(filled)


def _extend(envelope: Frames) -> Frames:
    """Continues an envelope of 0 to 11.025 kHz to 22.05 kHz with a slope."""
    frequencies = np.arange(BINS) * SAMPLE_RATE / FFT_SIZE
    top = int(np.searchsorted(frequencies, _TOP_HZ))
    level = envelope[:, top - 46 : top].mean(1, keepdims=True)  # the last kHz
    tail = level + _TOP_SLOPE * np.log2(frequencies[top:] / _TOP_HZ)
    return np.concatenate([envelope[:, :top], tail], axis=1)


def _shape(envelope: Frames, singer: Singer) -> Frames:
    """Moves the formants, tilts the spectrum and adds the singer's formant."""
    bins = np.arange(BINS, dtype=np.float64)
    frequencies = bins * SAMPLE_RATE / FFT_SIZE
    source = np.clip(bins / singer.formant_scale, 0, BINS - 1)
    left = np.minimum(source.astype(int), BINS - 2)
    part = source - left
    warped = envelope[:, left] * (1 - part) + envelope[:, left + 1] * part
    to_log_power = np.log(10) / 10
    tilt = singer.tilt_db * np.log2(np.maximum(frequencies, 500) / 500)
    ring = singer.ring_db * np.exp(-0.5 * ((frequencies - 2900) / 450) ** 2)
    return np.asarray(warped + to_log_power * (tilt + ring))


def _add_breath(aperiodicity: Frames, singer: Singer) -> Frames:
    """Extends aperiodicity to 22.05 kHz, where all is noise, and raises it for a breathy voice."""
    frequencies = np.arange(BINS) * SAMPLE_RATE / FFT_SIZE
    extended = np.concatenate([aperiodicity, np.repeat(aperiodicity[:, -1:], BINS - aperiodicity.shape[1], 1)], axis=1)
    breath = singer.breathiness / (1 + np.exp(-(frequencies - 2500) / 700))
    noise = 0.9 / (1 + np.exp(-(frequencies - 9000) / 900))
    return np.asarray(np.clip(1 - (1 - extended) * (1 - breath) * (1 - noise), 0.001, 1.0))


def _slice_vowel(phonemes: tuple[str, ...], starts: tuple[int, ...]) -> slice:
    vowel = next(number for number, phoneme in enumerate(phonemes) if phoneme in VOWELS)
    return slice(starts[vowel], starts[vowel + 1])
