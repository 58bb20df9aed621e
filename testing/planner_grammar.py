"""Runs the grammar of a plan against logits that a test makes, without a network."""

from __future__ import annotations

from collections.abc import Callable

import torch

from models.acestep.planner.constraint import Choose, Grammar, Peek, Write
from models.acestep.planner.vocabulary import Vocabulary

Logits = Callable[[int], torch.Tensor]
"""From the number of tokens so far to the logits `[tokens of the vocabulary]` of the next one."""


def make_logits(vocabulary: Vocabulary, size: int, *, seed: int = 0, script: str = "") -> Logits:
    """Random logits; those of the script's tokens are the largest at their places."""
    tokens = vocabulary.encode(script)

    def logits(count: int) -> torch.Tensor:
        values = 2 * torch.randn(size, generator=torch.Generator().manual_seed(seed * 100_003 + count))
        if count < len(tokens):
            values[tokens[count]] += 50
        return values

    return logits


def run_grammar(grammar: Grammar, vocabulary: Vocabulary, logits: Logits) -> tuple[list[int], bool]:
    """Always takes the most likely token that the grammar allows; the tokens, and what the grammar returned."""
    tokens: list[int] = []
    choice = next(grammar)
    while True:
        if isinstance(choice, Write):
            tokens += choice.tokens
            token = choice.tokens[-1]
        else:
            values = logits(len(tokens))[: vocabulary.num_text].clone()
            if isinstance(choice, Choose):
                token = choice.options[int(values[list(choice.options)].argmax())]
            else:
                values[list(choice.blocked)] = -torch.inf
                token = int(values.argmax())
            if not isinstance(choice, Peek):
                tokens.append(token)
        try:
            choice = grammar.send(token)
        except StopIteration as end:
            return tokens, bool(end.value)
