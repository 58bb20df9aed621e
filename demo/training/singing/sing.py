"""Sings a melody: places phonemes in time, draws f0, and synthesizes with WORLD."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyworld
from numpy.typing import NDArray

from demo.training.singing.bank import BINS, FRAME_S, SAMPLE_RATE, VOWEL_LEVEL, Bank, Syllable, load_bank
from demo.training.singing.lexicon import BREATH, CONSONANT_SECONDS, DIPHTHONGS, SILENCE, SYLLABLES, UNVOICED, VOWELS
from demo.training.singing.melody import SungNote
from demo.training.singing.singers import Singer

F0_RATE = 100
TARGET_RMS = 0.1  # of the voiced frames
MAX_PEAK = 0.9
_STEP = round(1 / (F0_RATE * FRAME_S))
_SHORTEST_VOWEL_S = 0.07
_BREATH_S, _BREATH_GAP_S = 0.32, 0.42
_BREATH_LEVEL = -5.5  # natural logarithm of power, under a vowel
_EDGE = 4  # frames over which the start and end of a phrase fade
_SILENT = -30.0  # natural logarithm of power
_LEGATO_S = 0.06  # shorter gaps between notes are closed

Frames = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Phoneme:
    """A phoneme of `lexicon.PHONEMES` and where it is, in seconds."""

    symbol: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, eq=False)
class SungLine:
    """What was sung, and its truth.

    Args:
        audio: `[T]` float32 at 44.1 kHz.
        f0: `[frames]` in Hz at 100 frames/s, frame i is at i / 100 s; 0 = unvoiced.
        phonemes: without gaps, from 0 to the end of the audio.
        cycles: `[T]`, cycles of f0 since the start at each sample; WORLD's pulses are at whole numbers. It has no
            meaning in unvoiced parts.
    """

    audio: NDArray[np.float32]
    f0: NDArray[np.float32]
    phonemes: tuple[Phoneme, ...]
    cycles: Frames


@dataclass(frozen=True, slots=True)
class _Part:
    """A phoneme on the grid of frames; `note` is -1 for silence and breath."""

    symbol: str
    start: int
    end: int
    note: int = -1
    number: int = 0  # of the phoneme in its syllable


def sing(notes: Sequence[SungNote], singer: Singer, *, seed: int, seconds: float) -> SungLine:
    """Sings `notes`; those that do not end before `seconds` are left out.

    Args:
        seed: of pitch drift, dynamics and noise.
        seconds: length of the result.
    """
    rng = np.random.default_rng([seed, zlib.crc32(singer.name.encode())])
    sung = [note for note in notes if note.start_s + note.duration_s <= seconds - 0.1]
    count = round(seconds / FRAME_S)
    parts = list(_fill_gaps(_place_phonemes(sung), count))
    envelope, aperiodicity = _build_spectra(parts, sung, singer, rng, count)
    f0 = _draw_f0(parts, sung, singer, rng, count)
    # WORLD draws the same noise in every call.
    audio = pyworld.synthesize(f0, np.exp(envelope), aperiodicity, SAMPLE_RATE, 1000 * FRAME_S)
    length = round(seconds * SAMPLE_RATE)
    audio = np.pad(audio, (0, max(0, length - len(audio))))[:length]
    audio = _set_level(audio, f0)
    phonemes = tuple(Phoneme(part.symbol, part.start * FRAME_S, part.end * FRAME_S) for part in parts)
    return SungLine(audio.astype(np.float32), f0[::_STEP].astype(np.float32), phonemes, _count_cycles(f0, length))


def _place_phonemes(notes: Sequence[SungNote]) -> list[_Part]:
    """Consonants before a vowel end at its note's start; those after it end at the note's end or before the next."""
    parts: list[_Part] = []
    heads = [_count_frames(_split(note)[0]) for note in notes]
    earliest = 0
    for number, note in enumerate(notes):
        before, vowel, after = _split(note)
        start = round(note.start_s / FRAME_S)
        end = round((note.start_s + note.duration_s) / FRAME_S)
        if number + 1 < len(notes):
            following = round(notes[number + 1].start_s / FRAME_S) - heads[number + 1]
            if following - end < _LEGATO_S / FRAME_S:
                end = following
        head, tail = heads[number], _count_frames(after)
        start = max(start, earliest + head)
        end = max(end, start + tail + round(_SHORTEST_VOWEL_S / FRAME_S))
        groups = ((before, start - head, start), ((vowel,), start, end - tail), (after, end - tail, end))
        symbols = 0
        for group, first, last in groups:
            lengths = np.array([CONSONANT_SECONDS.get(symbol, 1.0) for symbol in group])
            edges = first + np.round(np.cumsum([0, *lengths]) / max(lengths.sum(), 1e-9) * (last - first)).astype(int)
            for symbol, (left, right) in zip(group, pairwise(edges.tolist()), strict=True):
                parts.append(_Part(symbol, left, right, number, symbols))
                symbols += 1
        earliest = end
    return parts


def _split(note: SungNote) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """The consonants before the vowel, the vowel, and those after it."""
    symbols = SYLLABLES[note.syllable]
    vowel = next(index for index, symbol in enumerate(symbols) if symbol in VOWELS)
    return symbols[:vowel], symbols[vowel], symbols[vowel + 1 :]


def _count_frames(symbols: Sequence[str]) -> int:
    return round(sum(CONSONANT_SECONDS[symbol] for symbol in symbols) / FRAME_S)


def _fill_gaps(parts: list[_Part], count: int) -> Iterator[_Part]:
    """Puts silence, and a breath where there is time for one, before each phrase and at the end."""
    position = 0
    for part in parts:
        if part.start > position:
            breath = round(_BREATH_S / FRAME_S) if part.start - position >= _BREATH_GAP_S / FRAME_S else 0
            inhaled = part.start - 6  # a breath ends 30 ms before the voice starts
            if breath:
                yield _Part(SILENCE, position, inhaled - breath)
                yield _Part(BREATH, inhaled - breath, inhaled)
                position = inhaled
            yield _Part(SILENCE, position, part.start)
        yield part
        position = part.end
    if position < count:
        yield _Part(SILENCE, position, count)


def _build_spectra(
    parts: Sequence[_Part], notes: Sequence[SungNote], singer: Singer, rng: np.random.Generator, count: int
) -> tuple[Frames, Frames]:
    """Envelope (natural logarithm of power) and aperiodicity, `[count, BINS]` each."""
    bank = load_bank(singer)
    envelope, aperiodicity = np.full((count, BINS), _SILENT), np.ones((count, BINS))
    gains = _draw_gains(notes, rng)
    for part in parts:
        frames = slice(part.start, min(part.end, count))
        if part.note < 0:
            if part.symbol == BREATH:
                envelope[frames] = _make_breath(bank, part.end - part.start)[: count - part.start]
            continue
        syllable = bank[notes[part.note].syllable]
        positions = _stretch(part, syllable)[: count - part.start]
        envelope[frames] = _interpolate(syllable.envelope, positions) + gains[part.note]
        aperiodicity[frames] = 1.0 if part.symbol in UNVOICED else _interpolate(syllable.aperiodicity, positions)
    _smooth_joins(parts, envelope)
    _fade_phrases(parts, envelope)
    return envelope, aperiodicity


def _draw_gains(notes: Sequence[SungNote], rng: np.random.Generator) -> Frames:
    """Natural logarithm of each note's power: an arc over each phrase, and chance."""
    gains = rng.normal(0, 0.2, len(notes))
    starts = [0] + [
        number
        for number, (left, right) in enumerate(pairwise(notes), 1)
        if right.start_s - left.start_s > left.duration_s + 0.2
    ]
    for first, last in pairwise([*starts, len(notes)]):
        gains[first:last] += 0.6 * np.sin(np.pi * (np.arange(last - first) + 0.5) / (last - first))
    return np.asarray(gains)


def _stretch(part: _Part, syllable: Syllable) -> Frames:
    """For each frame of a phoneme, the frame of the recording that it is taken from.

    The edges of a vowel keep their speed, its middle is stretched; of a diphthong the first part is.
    """
    first, last = syllable.starts[part.number], syllable.starts[part.number + 1]
    have, want = last - first, part.end - part.start
    if part.symbol not in VOWELS or want <= have:
        return first + (np.arange(want) + 0.5) * have / max(want, 1) - 0.5
    head = min(have // 5, 8)
    tail = have - round(0.45 * have) if part.symbol in DIPHTHONGS else min(have // 4, 12)
    middle = (np.arange(want - head - tail) + 0.5) / (want - head - tail) * (have - head - tail) - 0.5
    return np.asarray(first + np.concatenate([np.arange(head), head + middle, have - tail + np.arange(tail)]))


def _interpolate(frames: Frames, positions: Frames) -> Frames:
    positions = np.clip(positions, 0, len(frames) - 1)
    left = np.minimum(positions.astype(int), len(frames) - 2)
    part = (positions - left)[:, None]
    return np.asarray(frames[left] * (1 - part) + frames[left + 1] * part)


def _make_breath(bank: Bank, length: int) -> Frames:
    """An inhaled breath, `[length, BINS]`: the noise of an h, swelling and ending sooner."""
    syllable = bank["her"]
    noise = syllable.envelope[syllable.starts[0] : syllable.starts[1]].mean(0)
    noise = noise - np.log(np.exp(noise).mean()) + VOWEL_LEVEL + _BREATH_LEVEL
    position = (np.arange(length) + 0.5) / length
    swell = np.log(np.sin(np.pi * position**0.7) ** 2 + 1e-6)
    return np.asarray(noise + swell[:, None])


def _smooth_joins(parts: Sequence[_Part], envelope: Frames) -> None:
    """Blends the frames around the border of two notes, so that joined syllables do not click."""
    for left, right in pairwise(parts):
        if left.note >= 0 and right.note >= 0 and left.note != right.note and right.start + 2 <= len(envelope):
            around = slice(right.start - 2, right.start + 2)
            before, after = envelope[right.start - 3].copy(), envelope[min(right.start + 2, len(envelope) - 1)].copy()
            weights = (np.arange(1, 5) / 5)[:, None]
            envelope[around] = 0.5 * envelope[around] + 0.5 * (before * (1 - weights) + after * weights)


def _fade_phrases(parts: Sequence[_Part], envelope: Frames) -> None:
    ramp = np.log((np.arange(_EDGE) + 0.5) / _EDGE)[:, None] * 2
    for left, right in pairwise(parts):
        if left.note < 0 <= right.note:
            frames = envelope[right.start : right.start + _EDGE]
            frames += ramp[: len(frames)]
        elif right.note < 0 <= left.note:
            frames = envelope[max(left.end - _EDGE, 0) : left.end]
            frames += ramp[::-1][: len(frames)]


def _draw_f0(
    parts: Sequence[_Part], notes: Sequence[SungNote], singer: Singer, rng: np.random.Generator, count: int
) -> Frames:
    """f0 of every frame in Hz, 0 = unvoiced: notes joined by glides, vibrato on held ones, and drift."""
    if not notes:
        return np.zeros(count)
    times = np.arange(count) * FRAME_S
    semitones = np.full(count, float(notes[0].pitch))
    vibrato = np.zeros(count)
    for number, note in enumerate(notes):
        own = [part for part in parts if part.note == number]
        start, end = own[0].start, min(own[-1].end, count)
        semitones[start:] = note.pitch
        since = times[start:end] - note.start_s
        swell = np.clip((since - 0.22) / 0.3, 0, 1) * singer.vibrato_cents / 100 * rng.uniform(0.8, 1.2)
        rate = singer.vibrato_hz * rng.uniform(0.95, 1.05)
        vibrato[start:end] = swell * np.sin(2 * np.pi * rate * since)
    semitones = _smooth(semitones, singer.portamento_s)
    for left, right in pairwise(parts):
        if left.note < 0 <= right.note:  # a phrase starts a little low
            since = times[right.start :] - right.start * FRAME_S
            semitones[right.start :] -= rng.uniform(0.3, 1.0) * np.exp(-since / 0.06)
    drift = _smooth(rng.normal(0, 1, count), 0.4)
    drift *= 0.1 / max(float(drift.std()), 1e-9)
    jitter = 0.015 * rng.normal(0, 1, count)
    f0 = 440 * 2 ** ((semitones + vibrato + drift + jitter - 69) / 12)
    for part in parts:
        if part.note < 0 or part.symbol in UNVOICED:
            f0[part.start : part.end] = 0
    return np.asarray(f0)


def _count_cycles(f0: Frames, length: int) -> Frames:
    """`[length]`: cycles since the start at each sample, as WORLD's synthesis interpolates f0 and sums it."""
    positions = np.arange(length) / (SAMPLE_RATE * FRAME_S)
    frames = np.arange(len(f0))
    hz = np.interp(positions, frames, f0)
    voiced = np.interp(positions, frames, (f0 > 0).astype(float)) > 0.5
    return np.cumsum(np.where(voiced, hz, 500.0)) / SAMPLE_RATE


def _smooth(values: Frames, seconds: float) -> Frames:
    """Mean over a Hann window of this length."""
    length = 2 * round(seconds / FRAME_S / 2) + 1
    window = np.hanning(length + 2)[1:-1]
    return np.convolve(np.pad(values, length // 2, mode="edge"), window / window.sum(), "valid")


def _set_level(audio: Frames, f0: Frames) -> Frames:
    """Brings the voiced frames to `TARGET_RMS`; a peak above `MAX_PEAK` lowers all."""
    hop = round(FRAME_S * SAMPLE_RATE * 1000) / 1000
    voiced = np.interp(np.arange(len(audio)) / hop, np.arange(len(f0)), (f0 > 0).astype(float)) > 0.5
    level = float(np.sqrt(np.mean(audio[voiced] ** 2))) if voiced.any() else 0.0
    if level == 0:
        return audio
    audio = audio * (TARGET_RMS / level)
    return np.asarray(audio * min(1.0, MAX_PEAK / float(np.abs(audio).max())))
