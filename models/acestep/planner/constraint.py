"""Which tokens a plan may continue with: a grammar that writes itself wherever there is no choice.

    <think>                     forced, as are all names of fields
    bpm: 120                    30..300, or what the request gives
    caption: A slow song        free text; further lines begin with a blank
    duration: 200               10..600
    genres: pop                 free text of one line, only beside lyrics
    keyscale: F# minor          70 keys
    language: en                the most likely of 51
    timesignature: 4            2, 3, 4 or 6
    </think>                    then the lyrics, if they are asked for, until the end of the turn

After the example of the state machine in ace-step/ACE-Step-1.5, `acestep/constrained_logits_processor.py`. It differs
in one thing: which field follows the caption is not left to the model, so that none is skipped or comes twice.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass
from typing import Final

from models.acestep.planner.vocabulary import PrefixTree, Vocabulary

FIELDS: Final = ("bpm", "caption", "duration", "genres", "keyscale", "language", "timesignature")
MAX_CAPTION_TOKENS: Final = 512
MAX_GENRES_TOKENS: Final = 64
MAX_LYRICS_TOKENS: Final = 2048  # the song's model reads no more
MAX_PLAN_TOKENS: Final = MAX_CAPTION_TOKENS + MAX_GENRES_TOKENS + MAX_LYRICS_TOKENS + 128
_LINE_ENDS = ("\n", " \n", "\n\n", " \n\n")


@dataclass(frozen=True, slots=True)
class Write:
    """These tokens come next."""

    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Choose:
    """One of these tokens comes next: drawn, or the most likely one."""

    options: tuple[int, ...]
    greedy: bool = False


@dataclass(frozen=True, slots=True)
class Free:
    """Any text token but these comes next. It is drawn."""

    blocked: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Peek:
    """The most likely text token is asked for; it does not come next yet."""

    blocked: tuple[int, ...]


Choice = Write | Choose | Free | Peek
Grammar = Generator[Choice, int, bool]
"""Yields what may come next, and is sent the token that came; returns whether the plan is complete."""


@dataclass(frozen=True, slots=True)
class _TextRules:
    """Tokens that free text may not contain: in a field, at the beginning of a field, and in lyrics."""

    field: tuple[int, ...]
    beginning: tuple[int, ...]
    lyrics: tuple[int, ...]

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> _TextRules:
        ends = [ids[0] for text in _LINE_ENDS if len(ids := vocabulary.encode(text)) == 1]
        backtick = vocabulary.encode("`")
        field = (*vocabulary.blocked, vocabulary.special.turn_end, *backtick)
        return cls(field, (*field, *ends), vocabulary.blocked)


class PlanGrammars:
    """Makes the grammars of plans; one for each loaded planner.

    Args:
        vocabulary: of the planner.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._rules = _TextRules.of(vocabulary)

    def start(
        self, *, given: Mapping[str, str], skipped: Collection[str] = (), lyrics: bool = False, max_lyrics: int = 0
    ) -> Grammar:
        """Begins a plan.

        Args:
            given: values of fields that are not left to the planner.
            skipped: fields that the plan does not have.
            lyrics: whether lyrics follow the thoughts.
            max_lyrics: tokens; longer lyrics are cut, and the grammar returns False.
        """
        vocabulary = self._vocabulary
        yield Write((vocabulary.special.think, vocabulary.newline))
        for field in FIELDS:
            if field in skipped:
                continue
            yield Write(vocabulary.encode_name(field))
            if field in given:
                yield Write(vocabulary.encode_value(field, given[field]))
            elif field == "caption":
                yield from self._write_text(MAX_CAPTION_TOKENS, many_lines=True)
            elif field == "genres":
                yield from self._write_text(MAX_GENRES_TOKENS)
            else:
                yield from _choose_value(vocabulary.trees[field], vocabulary.newline, greedy=field == "language")
        if not lyrics:
            return True
        yield Write((vocabulary.special.think_end,))
        for _ in range(max_lyrics):
            if (yield Free(self._rules.lyrics)) == vocabulary.special.turn_end:
                return True
        return False

    def _write_text(self, limit: int, *, many_lines: bool = False) -> Generator[Choice, int, None]:
        """Free text until the end of the line, or of the last line that begins with a blank."""
        decode, rules = self._vocabulary.decode, self._rules
        token = yield Free(rules.beginning)
        for _ in range(limit - 1):
            if "\n" not in decode([token]):
                token = yield Free(rules.field)
                continue
            if not many_lines or not decode([likeliest := (yield Peek(rules.field))]).startswith((" ", "\t")):
                return
            yield Write((likeliest,))
            token = likeliest
        if "\n" not in decode([token]):
            yield Write((self._vocabulary.newline,))


def _choose_value(tree: PrefixTree, newline: int, *, greedy: bool) -> Generator[Choice, int, None]:
    """One of the tree's values, and the end of its line."""
    prefix: tuple[int, ...] = ()
    while True:
        options = tree[prefix]
        if len(options) == 1:
            yield Write(options)
            token = options[0]
        else:
            token = yield Choose(options, greedy)
        if token == newline:
            return
        prefix = (*prefix, token)
