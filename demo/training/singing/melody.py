"""Composes a vocal melody on the chords of a piece."""

from __future__ import annotations

import random
from dataclasses import dataclass

from demo.training.compose import BEATS_PER_BAR, Piece, list_chords
from demo.training.singing.lexicon import LINES, SYLLABLES
from demo.training.singing.singers import Singer
from demo.training.styles import SCALES

SHORTEST_S = 0.26  # from one syllable to the next
_TRIADS = {"major": (0, 4, 7), "minor": (0, 3, 7), "diminished": (0, 3, 6)}
_WORDS = tuple(SYLLABLES)


@dataclass(frozen=True, slots=True)
class SungNote:
    """One syllable on one note; its vowel starts at `start_s`.

    Args:
        start_s, duration_s: in seconds.
        pitch: MIDI number.
        syllable: a key of `lexicon.SYLLABLES`.
    """

    start_s: float
    duration_s: float
    pitch: int
    syllable: str


def compose_melody(piece: Piece, singer: Singer) -> tuple[SungNote, ...]:
    """Composes the melody of `piece` in the range of `singer`.

    Words and rhythm depend on the piece alone, so that all singers of one piece are aligned. Strong beats have a note
    of the chord, the others move by step. About every eighth phrase is a rest.
    """
    words, pitches = random.Random(f"{piece.seed} words"), random.Random(f"{piece.seed} pitches")
    beat = 60 / piece.bpm
    # Half beats while they are long enough to sing.
    unit = 0.5 if beat / 2 >= SHORTEST_S else 1.0
    phrase_beats = 2 * BEATS_PER_BAR if unit == 0.5 else 4 * BEATS_PER_BAR
    chords = list_chords(piece)
    notes: list[SungNote] = []
    pitch = round(singer.centre)
    for first in range(0, piece.bars * BEATS_PER_BAR - phrase_beats + 1, phrase_beats):
        line = _choose_line(words)
        onsets = _place_syllables(words, len(line), unit, phrase_beats)
        if first and words.random() < 0.12:
            continue
        for syllable, onset, end in zip(line, onsets, [*onsets[1:], onsets[-1] + 2.0], strict=True):
            end = min(end, onset + 3.0, phrase_beats - 0.75)
            root, quality = chords[int(first + onset) // BEATS_PER_BAR]
            allowed = (
                [(root + step) % 12 for step in _TRIADS[quality]]
                if onset % 2 == 0
                else [(piece.tonic + step) % 12 for step in SCALES[piece.mode]]
            )
            pitch = _choose_pitch(pitches, pitch, allowed, singer)
            notes.append(SungNote((first + onset) * beat, (end - onset) * beat, pitch, syllable))
    return tuple(notes)


def _choose_line(rng: random.Random) -> tuple[str, ...]:
    """One of our lines, or as often random words, which bring every syllable beside every other."""
    if rng.random() < 0.5:
        return rng.choice(LINES)
    return tuple(rng.choice(_WORDS) for _ in range(rng.randint(4, 8)))


def _place_syllables(rng: random.Random, count: int, unit: float, phrase_beats: int) -> list[float]:
    """The beats of a phrase on which its syllables start; its last two beats are left for the held note."""
    slots = [unit * step for step in range(round((phrase_beats - 2) / unit))]
    weights = {slot: (3.0 if slot % 2 == 0 else 2.0 if slot % 1 == 0 else 1.0) for slot in slots}
    chosen: set[float] = set()
    while len(chosen) < min(count, len(slots)):
        chosen.add(rng.choices(slots, list(weights.values()))[0])
    onsets = sorted(chosen)
    while len(onsets) < count:
        onsets.append(onsets[-1] + unit)
    return onsets


def _choose_pitch(rng: random.Random, last: int, allowed: list[int], singer: Singer) -> int:
    """A near pitch of the allowed classes, drawn towards the middle of the singer's range."""
    candidates = [pitch for pitch in range(singer.low, singer.high + 1) if pitch % 12 in allowed]
    weights = [2.0 ** (-abs(pitch - last) / 2) * 2.0 ** (-abs(pitch - singer.centre) / 5) for pitch in candidates]
    weights = [weight * (0.35 if pitch == last else 1.0) for pitch, weight in zip(candidates, weights, strict=True)]
    return rng.choices(candidates, weights)[0]
