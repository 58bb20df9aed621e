"""Describes a piece the way people ask for music: a few tags in any order, or a short sentence."""

import random
from typing import NamedTuple

from demo.training.compose import Piece
from demo.training.styles import INSTRUMENTS, PAD_MOODS, PIANO_MOODS, STYLES

CAPTIONS_PER_PIECE = 12
DRUMS_ONLY = ("drums only", "drum beat", "drum loop", "solo drums", "just drums", "drum groove, no melody")
SOLO = ("solo {0}", "{0} only", "{0} solo")
PAD_NAMES = ("ambient pad", "ambient", "ambient drone", "ambient music", "pad only", "soft pads")
PIANO_NAMES = ("piano solo", "solo piano", "piano piece", "piano only", "piano")


class Words(NamedTuple):
    """What a caption may say; an empty string is left out."""

    name: str
    mood: str
    tempo: str
    key: str
    parts: str


def write_captions(piece: Piece, count: int = CAPTIONS_PER_PIECE) -> list[str]:
    """`count` captions of `piece`, decided by its seed."""
    rng = random.Random(f"captions {piece.seed}")
    return [write_caption(piece, rng) for _ in range(count)]


def write_caption(piece: Piece, rng: random.Random) -> str:
    """One caption: a sentence or a shuffled list of tags. The tempo is left out of one in fifteen."""
    name, mood = _choose_name(piece, rng), rng.choice(_list_moods(piece))
    tempo = rng.choice(("{} bpm", "{} bpm", "at {} bpm", "{} beats per minute", "tempo {}", "{}bpm")).format(piece.bpm)
    if rng.random() < 1 / 15:
        tempo = ""
    key = f"in {piece.key}" if rng.random() < 0.3 else ""
    words = Words(name, mood, tempo, key, _list_parts(piece, rng))
    text = rng.choice((_write_tags, _write_tags, _write_sentence, _write_mood_first))(words, rng)
    return text[0].upper() + text[1:] if rng.random() < 0.3 else text


def _list_moods(piece: Piece) -> tuple[str, ...]:
    return {"pad": PAD_MOODS, "piano": PIANO_MOODS}.get(piece.arrangement) or STYLES[piece.style].moods


def _choose_name(piece: Piece, rng: random.Random) -> str:
    if piece.arrangement == "pad":
        return rng.choice(PAD_NAMES)
    if piece.arrangement == "piano":
        return rng.choice(PIANO_NAMES)
    return rng.choice(STYLES[piece.style].names)


def _list_parts(piece: Piece, rng: random.Random) -> str:
    """The instruments: all of them if they are the point of the piece, else a part of them, or none."""
    words = [rng.choice(INSTRUMENTS[part][1]) if part in INSTRUMENTS else part for part in piece.parts]
    if piece.arrangement == "drums":
        return rng.choice(DRUMS_ONLY)
    if piece.arrangement == "solo":
        return rng.choice(SOLO).format(words[0])
    if piece.arrangement == "piano":
        return ""
    if piece.arrangement == "bass and drums":
        return rng.choice((f"drums and {words[1]}", f"{words[1]} and drums", f"only drums and {words[1]}"))
    if piece.arrangement == "full":
        words = rng.sample(words, rng.randint(2, len(words)))
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _write_tags(words: Words, rng: random.Random) -> str:
    mood = words.mood if rng.random() < 0.7 else ""
    tags = [tag for tag in (words.name, mood, words.tempo, words.key.removeprefix("in "), words.parts) if tag]
    rng.shuffle(tags)
    return ", ".join(tags)


def _write_sentence(words: Words, rng: random.Random) -> str:
    article = rng.choice(("", "a ", "a ")) if words.mood[0] not in "aeiou" else rng.choice(("", "an "))
    noun = rng.choice((" track", " piece", " song", ""))
    subject = f"{article}{words.mood} {words.name}{noun}"
    said = (subject, f"with {words.parts}" if words.parts else "", words.tempo, words.key)
    return " ".join(word for word in said if word)


def _write_mood_first(words: Words, _: random.Random) -> str:
    said = (f"{words.mood} {words.name}", words.tempo, words.parts, words.key.removeprefix("in "))
    return ", ".join(word for word in said if word)
