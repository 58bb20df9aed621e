"""Composes pieces from a seed: chords, bass, drums and lead over a steady tempo. Knows MIDI, not audio."""

import math
import random
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from demo.training.styles import (
    CRASH,
    DRUM_NOTES,
    INSTRUMENTS,
    KEYS,
    PADS,
    PROGRESSIONS,
    SCALES,
    SNARE,
    STYLES,
    TOM,
    Style,
)

TICKS = 480
SECONDS = 31.0
BEATS_PER_BAR = 4
DRUM_CHANNEL = 9
BASS, CHORDS, LEAD = 0, 1, 2
ARRANGEMENTS = {"full": 45, "drums": 16, "bass and drums": 9, "pad": 15, "piano": 8, "solo": 7}
VELOCITY = {"X": 118, "x": 92, "o": 70}


@dataclass(frozen=True)
class Note:
    """`start` and `length` in beats, `pitch` a MIDI number."""

    start: float
    length: float
    pitch: int
    velocity: int
    channel: int


@dataclass
class Piece:
    """A composed piece: what a caption may say of it, and its notes."""

    seed: int
    style: str
    arrangement: str
    bpm: int
    tonic: int
    mode: str
    bars: int
    instruments: dict[int, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{KEYS[self.tonic]} {self.mode}"

    @property
    def parts(self) -> list[str]:
        """Instrument names as heard, drums first."""
        drums = ["drums"] if any(note.channel == DRUM_CHANNEL for note in self.notes) else []
        return drums + [self.instruments[channel] for channel in sorted(self.instruments)]


def compose(seed: int, arrangement: str | None = None) -> Piece:
    """Return the piece that belongs to `seed`; the same seed always gives the same notes.

    Args:
        arrangement: one of `ARRANGEMENTS`; None: the seed's own.
    """
    rng = random.Random(seed)
    drawn = rng.choices(list(ARRANGEMENTS), list(ARRANGEMENTS.values()))[0]
    arrangement = arrangement or drawn
    name = rng.choice(list(STYLES))
    style = STYLES[name]
    # A third of the pieces ignore the genre's habit, so that the caption's number, not its genre, sets the tempo.
    low, high = style.bpm if rng.random() < 0.65 and arrangement not in ("pad", "piano") else (70, 160)
    mode = "minor" if rng.random() < style.minor else "major"
    bpm = rng.randint(low, high)
    bars = math.ceil(SECONDS * bpm / 60 / BEATS_PER_BAR) + 1
    piece = Piece(seed, name, arrangement, bpm, rng.randrange(12), mode, bars)
    ARRANGERS[arrangement](piece, style, rng)
    return piece


def _add_full_band(piece: Piece, style: Style, rng: random.Random) -> None:
    _add_drums(piece, style, rng)
    _add_bass(piece, style, rng)
    _add_chords(piece, rng.choice(style.chords), rng.choice(style.chord_instruments), style, rng)
    if rng.random() < 0.55:
        _add_lead(piece, rng.choice(style.leads), style, rng)


def _add_drums(piece: Piece, style: Style, rng: random.Random) -> None:
    pattern = dict(rng.choice(style.drums))
    if piece.arrangement == "drums" and "hat" not in pattern:
        pattern["hat"] = rng.choice(("x.o.x.o.x.o.x.o.", "xoooxoooxoooxooo"))
    fill_every = rng.choice((4, 4, 8))
    for bar in range(piece.bars):
        fill = bar % fill_every == fill_every - 1
        for name, steps in pattern.items():
            cut = 12 if fill and name in ("snare", "clap", "rim") else 16
            for step, symbol in enumerate(steps[:cut]):
                if symbol != ".":
                    velocity = VELOCITY[symbol] + rng.randint(-5, 5)
                    _add_hit(piece, _start_of_step(bar, step, style.swing), DRUM_NOTES[name], velocity)
        if fill:
            for step, pitch in zip(range(12, 16), rng.choices((SNARE, SNARE, TOM), k=4), strict=True):
                _add_hit(piece, _start_of_step(bar, step, style.swing), pitch, 80 + 8 * (step - 12))
        elif bar % fill_every == 0 and bar:
            _add_hit(piece, _start_of_step(bar, 0, 0.0), CRASH, 84)


def _add_hit(piece: Piece, start: float, pitch: int, velocity: int) -> None:
    piece.notes.append(Note(start, 0.2, pitch, min(127, velocity), DRUM_CHANNEL))


def _start_of_step(bar: int, step: int, swing: float) -> float:
    """Beat of a sixteenth; swing delays the off-beat eighths."""
    late = swing * 0.5 if step % 4 == 2 else 0.0
    return bar * BEATS_PER_BAR + step / 4 + late


def _add_bass_and_drums(piece: Piece, style: Style, rng: random.Random) -> None:
    _add_drums(piece, style, rng)
    _add_bass(piece, style, rng)


def _add_bass(piece: Piece, style: Style, rng: random.Random) -> None:
    piece.instruments[BASS] = rng.choice(style.bass_instruments)
    pattern = rng.choice(style.bass)
    progression = _progression(piece)
    for bar in range(piece.bars):
        root, third, fifth = _triad(piece, progression[bar % len(progression)])
        low = 28 + (root - 28) % 12
        pitches = {"R": low, "T": low + third - root, "F": low + fifth - root, "O": low + 12}
        for step, symbol in enumerate(pattern):
            if symbol in pitches:
                length = _held_beats(pattern, step, 0.9) / 4
                piece.notes.append(Note(_start_of_step(bar, step, style.swing), length, pitches[symbol], 100, BASS))


def _held_beats(pattern: str, step: int, least: float) -> float:
    """Steps a note sounds: itself and the dashes behind it."""
    tail = pattern[step + 1 :]
    return least + len(tail) - len(tail.lstrip("-"))


def _progression(piece: Piece) -> tuple[int, ...]:
    return random.Random(piece.seed + 1).choice(PROGRESSIONS[piece.mode])


def _triad(piece: Piece, degree: int) -> tuple[int, int, int]:
    """Pitches of the chord on a scale degree, root between C3 and B3 of the key."""
    scale = SCALES[piece.mode]
    pitches = [48 + piece.tonic + scale[(degree + i) % 7] + 12 * ((degree + i) // 7) for i in (0, 2, 4)]
    return pitches[0], pitches[1], pitches[2]


def list_chords(piece: Piece) -> list[tuple[int, str]]:
    """Pitch class of the root (C = 0) and `major`, `minor` or `diminished`, for each bar."""
    qualities = {(4, 7): "major", (3, 7): "minor", (3, 6): "diminished"}
    progression = _progression(piece)
    chords = []
    for bar in range(piece.bars):
        root, third, fifth = _triad(piece, progression[bar % len(progression)])
        chords.append((root % 12, qualities[third - root, fifth - root]))
    return chords


def describe_piece(piece: Piece) -> dict[str, Any]:
    """What is true of the piece by construction, as JSON: tempo, key, instruments, and the chord of each bar."""
    bar_s = BEATS_PER_BAR * 60 / piece.bpm
    return {
        "seed": piece.seed,
        "style": piece.style,
        "bpm": piece.bpm,
        "beats_per_bar": BEATS_PER_BAR,
        "key": piece.key,
        "instruments": piece.parts,
        "chords": [
            {"start_s": round(bar * bar_s, 4), "root": KEYS[root], "quality": quality}
            for bar, (root, quality) in enumerate(list_chords(piece))
        ],
    }


def _voicing(piece: Piece, degree: int, seventh: bool) -> list[int]:
    """Chord tones folded into one octave and a half around middle C, so that neighbours move little."""
    root, third, fifth = _triad(piece, degree)
    tones = [root, third, fifth] + ([fifth + 3 if piece.mode == "major" else fifth + 4] if seventh else [])
    return sorted({55 + (tone - 55) % 12 for tone in tones})


def _add_chords(piece: Piece, pattern: str, instrument: str, style: Style, rng: random.Random) -> None:
    piece.instruments[CHORDS] = instrument
    progression = _progression(piece)
    seventh = style.names[0] in ("jazz", "lo-fi hip hop", "funk")
    order = rng.choice(((0, 1, 2, 1), (0, 1, 2, 3), (2, 1, 0, 1), (0, 2, 1, 2)))
    for bar in range(piece.bars):
        tones = _voicing(piece, progression[bar % len(progression)], seventh)
        ladder = [*tones, tones[0] + 12]
        for step, symbol in enumerate(pattern):
            if symbol == "A":
                pitches = [ladder[order[step % 4] % len(ladder)] + 12]
            elif symbol in "xX":
                pitches = tones
            else:
                continue
            length = _held_beats(pattern, step, 0.85) / 4
            accent = 12 if step % 4 == 0 else 0
            velocity = 74 + accent
            start = _start_of_step(bar, step, style.swing)
            piece.notes += [Note(start, length, pitch, velocity, CHORDS) for pitch in pitches]


def _add_lead(piece: Piece, instrument: str, style: Style, rng: random.Random) -> None:
    """A two-bar motif on the scale, repeated with small changes and transposed with the chord."""
    piece.instruments[LEAD] = instrument
    progression = _progression(piece)
    scale = SCALES[piece.mode]
    rhythm = sorted({0, *rng.sample(range(2, 32, 2), rng.randint(6, 10))})
    contour = [rng.choice((0, 2, 4, 4, 6, 7)) + rng.choice((-1, 0, 0, 1)) for _ in rhythm]
    for bar in range(0, piece.bars - 1, 2):
        for i, step in enumerate(rhythm):
            degree = progression[(bar + step // 16) % len(progression)] % 7
            position = contour[i] if rng.random() < 0.85 else contour[i] + rng.choice((-1, 1))
            index = (degree if degree < 4 else degree - 7) + position
            pitch = 72 + piece.tonic % 12 - 6 + scale[index % 7] + 12 * (index // 7)
            until = rhythm[i + 1] if i + 1 < len(rhythm) else 32
            start = _start_of_step(bar + step // 16, step % 16, style.swing)
            piece.notes.append(Note(start, min(4, until - step) / 4 * 0.9, pitch, 96, LEAD))


def _add_drums_only(piece: Piece, style: Style, rng: random.Random) -> None:
    _add_drums(piece, style, rng)


def _add_pad(piece: Piece, style: Style, rng: random.Random) -> None:
    """One chord a bar, swelling with the beat, or with every other one: slow, yet its pulse can be heard."""
    pulse = 1 if piece.bpm < 105 else 2
    piece.style = "ambient"
    piece.instruments[CHORDS] = rng.choice(PADS)
    progression = _progression(piece)
    for bar in range(piece.bars):
        tones = _voicing(piece, progression[bar % len(progression)], False)
        start = float(bar * BEATS_PER_BAR)
        for beat in range(0, BEATS_PER_BAR, pulse):
            velocity = 104 if beat == 0 else 88
            piece.notes += [Note(start + beat, 0.8 * pulse, tone, velocity, CHORDS) for tone in [tones[0] - 12, *tones]]


def _add_piano(piece: Piece, style: Style, rng: random.Random) -> None:
    """Left hand keeps the beat, right hand plays chords, an arpeggio or a melody."""
    piece.style = "piano"
    piece.instruments[CHORDS] = "piano"
    _add_chords(piece, rng.choice(("x...x...x...x...", "A.A.A.A.A.A.A.A.", "X---X---X---X---")), "piano", style, rng)
    progression = _progression(piece)
    for bar in range(piece.bars):
        root, _, fifth = _triad(piece, progression[bar % len(progression)])
        for beat, pitch in enumerate((root - 12, fifth - 12, root, fifth - 12)):
            piece.notes.append(Note(bar * BEATS_PER_BAR + beat, 0.9, pitch, 82, CHORDS))
    if rng.random() < 0.5:
        _add_lead(piece, "piano", style, rng)


def _add_solo(piece: Piece, style: Style, rng: random.Random) -> None:
    """One chord instrument alone, in steady eighths or quarters."""
    pattern = rng.choice(("x.x.x.x.x.x.x.x.", "A.A.A.A.A.A.A.A.", "AAAAAAAAAAAAAAAA", "x...x.x.x...x.x."))
    _add_chords(piece, pattern, rng.choice(style.chord_instruments), style, rng)


ARRANGERS = {
    "full": _add_full_band,
    "drums": _add_drums_only,
    "bass and drums": _add_bass_and_drums,
    "pad": _add_pad,
    "piano": _add_piano,
    "solo": _add_solo,
}


def encode_midi(
    piece: Piece, channels: Collection[int] = range(16), programs: Mapping[int, int] | None = None, setup: bytes = b""
) -> bytes:
    """The piece as a standard MIDI file (format 0).

    Args:
        channels: whose notes are in it.
        programs: General MIDI programs that replace those of the channels' instruments.
        setup: more channel messages of three bytes each, sent before the first note.
    """
    events: list[tuple[int, int, bytes]] = [(0, 0, b"\xff\x51\x03" + struct.pack(">I", round(6e7 / piece.bpm))[1:])]
    for channel, name in piece.instruments.items():
        events.append((0, 1, bytes((0xC0 | channel, INSTRUMENTS[name][0]))))
        events.append((0, 1, bytes((0xB0 | channel, 7, 112 if channel == BASS else 92))))
    events += [(0, 1, bytes((0xC0 | channel, program))) for channel, program in (programs or {}).items()]
    events += [(0, 1, setup[at : at + 3]) for at in range(0, len(setup), 3)]
    for note in piece.notes:
        if note.channel not in channels:
            continue
        start, end = round(note.start * TICKS), round((note.start + note.length) * TICKS)
        events.append((start, 3, bytes((0x90 | note.channel, note.pitch, note.velocity))))
        events.append((end, 2, bytes((0x80 | note.channel, note.pitch, 0))))
    events.sort(key=lambda event: event[:2])
    track, last = b"", 0
    for tick, _, message in events:
        track += _encode_variable_length(tick - last) + message
        last = tick
    track += b"\x00\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS) + b"MTrk" + struct.pack(">I", len(track)) + track


def _encode_variable_length(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | value & 0x7F)
    return bytes(reversed(out))
