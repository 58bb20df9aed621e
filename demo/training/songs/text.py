"""The tokenizer of the text encoder, and the prompts that training shows it, word for word those of the worker."""

from __future__ import annotations

import random
import string
from typing import Final

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

from demo.training.captions import write_captions
from demo.training.compose import Piece, compose
from demo.training.songs.render import BUILD
from demo.training.styles import INSTRUMENTS, PAD_MOODS, PIANO_MOODS, STYLES
from models.acestep.metas import INSTRUMENTAL, LANGUAGES, Metas
from models.acestep.request import Song, Task
from models.acestep.text import build_instruction, build_lyric_prompt, build_text_prompt

TOKENIZER = BUILD / "tokenizer.json"
END_TOKEN: Final = "<|endoftext|>"
UNKNOWN_TOKEN: Final = "<|unknown|>"
TEMPI: Final = range(40, 221)  # beats a minute that are whole tokens
TRAINED_TEMPI: Final = range(70, 161)
_CAPTIONED_PIECES = 400  # whose captions' words are whole tokens
_PUNCTUATION = "#-:,.[]()|/'\"!?&<>+*;%_"
_KEYS = {"flat": "b", "sharp": "#"}
_LYRIC_WORDS = (
    *("love", "night", "day", "light", "home", "road", "heart", "dream", "time", "fire", "rain", "river", "sky"),
    *("star", "dance", "run", "fall", "rise", "away", "again"),
)
_TAGS = ("[Verse]", "[Chorus]", "[Bridge]", "[Intro]", "[Outro]")


def build_tokenizer() -> tokenizers.Tokenizer:
    """Builds a WordPiece tokenizer: the words of captions and prompts and every tempo are one token each, other words
    are letters.

    Numbers that could be taken for a tempo and are none leave the text first: the duration, decades, large numbers.
    """
    vocabulary = {token: index for index, token in enumerate(_list_vocabulary())}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=UNKNOWN_TOKEN))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\d+ seconds"), "seconds"),
            normalizers.Replace(Regex(r"\b\d+(s|th|st|nd|rd)\b"), ""),
            normalizers.Replace(Regex(r"(?<!\d)(22[1-9]|2[3-9]\d|[3-9]\d\d|\d{4,})(?!\d)"), ""),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=False)]
    )
    tokenizer.add_special_tokens([END_TOKEN])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END_TOKEN}", special_tokens=[(END_TOKEN, tokenizer.token_to_id(END_TOKEN))]
    )
    return tokenizer


def load_tokenizer() -> tokenizers.Tokenizer:
    """Loads the tokenizer of the present training; builds it at its beginning."""
    if not TOKENIZER.exists():
        TOKENIZER.parent.mkdir(parents=True, exist_ok=True)
        build_tokenizer().save(str(TOKENIZER))
    return tokenizers.Tokenizer.from_file(str(TOKENIZER))


def _list_vocabulary() -> list[str]:
    texts = [line for seed in range(_CAPTIONED_PIECES) for line in write_captions(compose(seed))]
    texts += [mood for style in STYLES.values() for mood in (*style.moods, *style.names)]
    texts += [name for _, names in INSTRUMENTS.values() for name in names] + [*PAD_MOODS, *PIANO_MOODS, *LANGUAGES]
    tasks: tuple[Task, ...] = ("text2music", "cover", "repaint")
    texts += [build_text_prompt(Song(caption="", seed=0), build_instruction(task)) for task in tasks]
    texts += [build_lyric_prompt(Song(caption="", seed=0)), *_LYRIC_WORDS, *_TAGS, "music track instrumental drum"]
    split = "".join(character if character.isalpha() else " " for character in " ".join(texts).lower())
    letters = string.ascii_lowercase + string.digits
    tokens = [UNKNOWN_TOKEN, END_TOKEN, *letters, *(f"##{letter}" for letter in letters), *_PUNCTUATION]
    tokens += [str(tempo) for tempo in TEMPI] + sorted(set(split.split()))
    return list(dict.fromkeys(tokens))


def fold_tempo(tempo: int) -> int:
    """Returns the tempo, or the octave of it that was trained."""
    while tempo < TRAINED_TEMPI[0]:
        tempo *= 2
    while tempo > TRAINED_TEMPI[-1]:
        tempo //= 2
    return tempo


def write_song(piece: Piece, rng: random.Random) -> Song:
    """Writes what a request could say of a piece. Each of the metas is left out now and then, as a request may."""
    caption = rng.choice(write_captions(piece))
    is_told = str(piece.bpm) in caption
    metas = Metas(
        bpm=piece.bpm if rng.random() < (0.5 if is_told else 0.8) else None,
        key=name_key(piece) if rng.random() < 0.4 else None,  # noqa: PLR2004
        time_signature=4 if rng.random() < 0.5 else None,  # noqa: PLR2004
        duration=rng.randint(10, 120),
    )
    language = rng.choice(("en", "en", "unknown"))
    return Song(caption=caption, seed=0, lyrics=write_lyrics(rng), language=language, metas=metas)


def write_lyrics(rng: random.Random) -> str:
    """Writes lyrics: mostly the sign of instrumental music, else words, which the music does not depend on."""
    if rng.random() < 0.6:  # noqa: PLR2004
        return INSTRUMENTAL
    lines = [" ".join(rng.choices(_LYRIC_WORDS, k=rng.randint(3, 7))) for _ in range(rng.randint(2, 6))]
    return "\n".join([rng.choice(_TAGS), *lines])


def name_key(piece: Piece) -> str:
    """Returns a piece's key as the metas write it: `F# minor`."""
    note, *sign, mode = piece.key.split()
    return f"{note}{''.join(_KEYS[word] for word in sign)} {mode}"
