"""The planner's tokens: text as ids and back, its special tokens, and the values of the metas as sequences of tokens.

The vocabulary is Qwen3's text tokens, then one token for each audio code: what is text and what is a code is told by
a comparison of numbers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.acestep.metas import LANGUAGES, MAX_BPM, MAX_DURATION_S, MIN_BPM, MIN_DURATION_S, TIME_SIGNATURES
from models.checkpoints.errors import CheckpointError

if TYPE_CHECKING:
    import tokenizers

NUM_CODES: Final = 64_000  # of ACE-Step's audio tokenizer; the vocabulary has tokens for some more, which mean nothing
_ACCIDENTALS = ("", "#", "b", "♯", "♭")
KEYS: Final = tuple(
    f"{note}{accidental} {mode}" for note in "ABCDEFG" for accidental in _ACCIDENTALS for mode in ("major", "minor")
)
FIRST_CODE: Final = "<|audio_code_0|>"

PrefixTree = Mapping[tuple[int, ...], tuple[int, ...]]
"""From the tokens that a value has so far to those that may follow; the end of the line follows a whole value."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids of the tokens that a plan is built with.

    Args:
        end_of_text: `<|endoftext|>`.
        turn_start, turn_end: `<|im_start|>`, `<|im_end|>`; the latter ends what the planner writes.
        think, think_end: `<think>`, `</think>`.
        first_code: `<|audio_code_0|>`.
    """

    end_of_text: int
    turn_start: int
    turn_end: int
    think: int
    think_end: int
    first_code: int


_NAMES: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", FIRST_CODE)


class Vocabulary:
    """What the planner reads and writes.

    Args:
        tokenizer: of the planner's folder.
        size: rows of the model's embedding.

    Attributes:
        special: the ids of the special tokens.
        num_codes: how many audio codes can be generated, `NUM_CODES` in every published planner.
        num_text: ids below this are text and special tokens, those from here on are audio codes.
        blocked: ids of text tokens that no text may contain: all special tokens but the end of a turn.

    Raises:
        CheckpointError: the tokenizer is not that of a planner, or not this model's.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, size: int) -> None:
        self._tokenizer = tokenizer
        self.special = SpecialTokens(*(_find_special(tokenizer, name) for name in _NAMES))
        self.num_text = self.special.first_code
        self.num_codes = min(NUM_CODES, _count_codes(tokenizer, self.num_text))
        if max(self.special.turn_start, self.special.turn_end, self.special.think_end) >= self.num_text:
            raise CheckpointError("its tokenizer has special tokens behind those of the audio codes")
        if self.num_text + self.num_codes > size:
            raise CheckpointError(
                f"its tokenizer has {self.num_text + self.num_codes} tokens and its network only {size} rows for them"
            )
        added = tokenizer.get_added_tokens_decoder()
        self.blocked = tuple(sorted(id for id in added if id < self.num_text and id != self.special.turn_end))
        names = (re.escape(token.content) for id, token in added.items() if id < self.num_text)
        self._special_text = re.compile("|".join((*names, r"<\|audio_code_\d+\|>")))

    def encode(self, text: str) -> list[int]:
        """The ids of a text in which special tokens stand by their names."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens by their names."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def escape(self, text: str) -> str:
        """A caller's text without special tokens: they get a blank behind the first character."""
        return self._special_text.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    def encode_codes(self, codes: Iterable[int]) -> list[int]:
        """The ids of audio codes; raises `ValueError` for a code that there is not."""
        ids = [self.num_text + code for code in codes]
        if any(not self.num_text <= id < self.num_text + self.num_codes for id in ids):
            raise ValueError(f"audio codes are 0..{self.num_codes - 1}")
        return ids

    @functools.cached_property
    def newline(self) -> int:
        """The id of a line's end."""
        (newline,) = self.encode("\n")
        return newline

    def encode_name(self, field: str) -> tuple[int, ...]:
        """The ids of a field's name and its colon, as they stand at the beginning of a line."""
        return tuple(self.encode(f"{field}:"))

    def encode_value(self, field: str, value: str) -> tuple[int, ...]:
        """The ids of a value and the end of its line, as they stand behind the field's name.

        Raises:
            CheckpointError: the tokenizer joins the name and the value, as that of no published planner does.
        """
        name, line = self.encode_name(field), self.encode(f"{field}: {value}\n")
        if tuple(line[: len(name)]) != name:
            raise CheckpointError(f"its tokenizer does not keep the name '{field}' and its value apart")
        return tuple(line[len(name) :])

    @functools.cached_property
    def trees(self) -> Mapping[str, PrefixTree]:
        """The values that each field of the metas may have."""
        values: Mapping[str, Iterable[object]] = {
            "bpm": range(MIN_BPM, MAX_BPM + 1),
            "duration": range(MIN_DURATION_S, MAX_DURATION_S + 1),
            "keyscale": KEYS,
            "language": LANGUAGES,
            "timesignature": TIME_SIGNATURES,
        }
        return {field: self._build_tree(field, map(str, allowed)) for field, allowed in values.items()}

    def _build_tree(self, field: str, values: Iterable[str]) -> PrefixTree:
        follow: dict[tuple[int, ...], set[int]] = {}
        for value in values:
            ids = self.encode_value(field, value)
            for end in range(len(ids)):
                follow.setdefault(ids[:end], set()).add(ids[end])
        return {prefix: tuple(sorted(ids)) for prefix, ids in follow.items()}


def _find_special(tokenizer: tokenizers.Tokenizer, name: str) -> int:
    id = tokenizer.token_to_id(name)
    if id is None or list(tokenizer.encode(name, add_special_tokens=False).ids) != [id]:
        raise CheckpointError(f"its tokenizer has no token '{name}', which every planner of ACE-Step has")
    return int(id)


def _count_codes(tokenizer: tokenizers.Tokenizer, first: int) -> int:
    """How many tokens from `first` on are the codes 0, 1, 2 and so on."""
    count = tokenizer.get_vocab_size(with_added_tokens=True) - first
    samples = {0, count // 3, count // 2, count - 1, min(count, NUM_CODES) - 1}
    for code in samples:
        if tokenizer.token_to_id(f"<|audio_code_{code}|>") != first + code:
            raise CheckpointError("the audio codes in its tokenizer are not numbered one after the other")
    return count
