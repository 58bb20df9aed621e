"""Conditions of a request's batches, with the null conditions of classifier-free guidance (as audiocraft's provider).

audiocraft lets the row of a shorter text attend to the zeros that pad it; here they are masked, so that no clip depends
on the others in its batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence

from models.musicgen.conditioning.conditioners import ChromaConditioner, TextConditioner
from models.musicgen.lm import LMConfig
from models.musicgen.request import GenerationRequest

DESCRIPTION = "description"
MELODY = "self_wav"
"""audiocraft's names of the two conditions that a request can set."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchConditions:
    """The conditions of B clips. Rows are B, or 2B if guided: all clips' conditions, then all their null conditions.

    Args:
        guided: whether there are null conditions.
        context: `[A, L, dim]`, what the first A rows attend to. The context of the other rows is zero, for which
            cross-attention adds exactly zero. None: no row attends to anything.
        context_mask: `[A, L]`, False at positions beyond a row's own context; None if all are as long.
        prepended: `[rows, P, dim]`, what comes before the first column; shorter rows are padded at the left.
        left_padding: `[rows]`, how many of the P positions are padding; None if none are.
    """

    guided: bool
    context: torch.Tensor | None = None
    context_mask: torch.Tensor | None = None
    prepended: torch.Tensor | None = None
    left_padding: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ConditioningProvider:
    """A checkpoint's conditioners.

    Args:
        config: of the language model: which conditions it attends to, and which are prepended.
        texts: by name, in the checkpoint's order. `description` encodes the request's text, others an empty one.
        melody: None if the model takes no melody.
        window: seconds.
    """

    config: LMConfig
    texts: Mapping[str, TextConditioner]
    melody: ChromaConditioner | None
    window: float

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return sum(text.nbytes for text in self.texts.values()) + (self.melody.nbytes if self.melody else 0)

    def prepare(
        self, request: GenerationRequest, melody: torch.Tensor | None, *, slides: bool = False
    ) -> RequestConditions:
        """Encodes a request's descriptions, each one once.

        Args:
            melody: `[samples]` at the melody conditioner's rate.
            slides: whether there are several windows.
        """
        assert melody is None or melody.ndim == 1, f"a melody of {list(melody.shape)} is not mono"
        texts = list(dict.fromkeys([*request.descriptions, request.negative]))
        encoded = self.texts[DESCRIPTION].encode(texts) if DESCRIPTION in self.texts else []
        return RequestConditions(self, request, melody, slides, dict(zip(texts, encoded, strict=False)))


@dataclass(frozen=True, slots=True, eq=False)
class RequestConditions:
    """Makes the conditions of a request's batches. The melody is encoded once a window."""

    provider: ConditioningProvider
    request: GenerationRequest
    melody: torch.Tensor | None
    slides: bool
    encoded: Mapping[str, torch.Tensor]
    _melodies: dict[float | None, torch.Tensor] = field(default_factory=dict)
    _contexts: dict[tuple[int, ...], tuple[torch.Tensor | None, torch.Tensor | None]] = field(default_factory=dict)

    def batch(self, indices: Sequence[int], start: float) -> BatchConditions:
        """The conditions of the clips `indices` in the window that starts at `start` seconds."""
        texts = [self.request.descriptions[index] for index in indices]
        guided = self._is_guided(texts)
        rows = [self._encode_row(self.encoded.get(text), start) for text in texts]
        if guided:
            rows += [self._encode_null_row(text) for text in texts]
        names = self.provider.config.cross
        if MELODY in names:
            context, mask = self._build_context(rows, len(indices), guided=guided)
        else:  # the same tensors for every window, so that the caller can tell that nothing has changed
            if (key := tuple(indices)) not in self._contexts:
                self._contexts[key] = self._build_context(rows, len(indices), guided=guided)
            context, mask = self._contexts[key]
        prepend = self.provider.config.prepend
        # audiocraft prepends each condition before those that are there already.
        prepended, left_padding = _pad_left([_concatenate(row, prepend, reverse=True) for row in rows])
        return BatchConditions(guided, context, mask, prepended, left_padding)

    def _is_guided(self, texts: Sequence[str]) -> bool:
        """False if guidance cancels out exactly: its weight is 1, or the null conditions equal the conditions."""
        same = self.melody is None and all(text == self.request.negative for text in texts)
        return self.request.sampling.cfg_coef != 1 and not same

    def _encode_row(self, text: torch.Tensor | None, start: float | None) -> dict[str, torch.Tensor]:
        """All conditions of one row by name, `[n, dim]` each; `start` None: without a melody."""
        row = {}
        for name, conditioner in self.provider.texts.items():
            row[name] = text if name == DESCRIPTION and text is not None else conditioner.encode([""])[0]
        if self.provider.melody is not None:
            row[MELODY] = self._encode_melody(None if self.melody is None else start)
        return row

    def _encode_null_row(self, text: str) -> dict[str, torch.Tensor]:
        """The null conditions beside `text`: the negative text, or zeros as long as `text`, as in audiocraft."""
        conditional = self.encoded.get(text)
        if self.request.negative or conditional is None:
            return self._encode_row(self.encoded.get(self.request.negative), None)
        return self._encode_row(torch.zeros_like(conditional), None)

    def _encode_melody(self, start: float | None) -> torch.Tensor:
        if start not in self._melodies:
            assert self.provider.melody is not None, "a melody for a model that takes none"
            melody = None if start is None else self._cut_melody(start)
            self._melodies[start] = self.provider.melody.encode(melody)
        return self._melodies[start]

    def _cut_melody(self, start: float) -> torch.Tensor:
        """The melody from `start` seconds on. If windows slide, it is repeated to the window's end."""
        assert self.melody is not None and self.provider.melody is not None, "there is no melody to cut"
        rate = self.provider.melody.sample_rate
        if not self.slides:  # the conditioner cuts or repeats it; one second more keeps its edge out of the last frames
            return self.melody[: int((self.provider.window + 1) * rate)]
        first = int(start * rate)
        positions = torch.arange(first, first + int(self.provider.window * rate))
        return self.melody[positions % len(self.melody)]

    def _build_context(
        self, rows: Sequence[Mapping[str, torch.Tensor]], clips: int, *, guided: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """`context` and `context_mask` of `BatchConditions`: null rows are part of it only if they are not zero."""
        names = self.provider.config.cross
        has_nulls = bool(self.request.negative) or MELODY in names
        has_conditions = any(self.request.descriptions) or MELODY in names
        if not names or not (has_nulls or has_conditions):
            return None, None
        conditioned = rows if guided and has_nulls else rows[:clips]
        contexts = [_concatenate(row, names) for row in conditioned]
        lengths = torch.tensor([len(context) for context in contexts], device=contexts[0].device)
        padded = pad_sequence(contexts, batch_first=True)
        mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        return padded, None if bool(mask.all()) else mask


def _concatenate(row: Mapping[str, torch.Tensor], names: Sequence[str], *, reverse: bool = False) -> torch.Tensor:
    """The named conditions of a row, one after the other, `[n, dim]`; n is 0 if it has none of them."""
    parts = [condition for name, condition in row.items() if name in names]
    if not parts:
        return next(iter(row.values()))[:0]
    return torch.cat(parts[::-1] if reverse else parts)


def _pad_left(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Rows `[n, dim]` of several lengths as `[rows, P, dim]`, and how many positions of each are padding."""
    longest = max(len(row) for row in rows)
    if not longest:
        return None, None
    padding = torch.tensor([longest - len(row) for row in rows], device=rows[0].device)
    padded = torch.stack([torch.cat([row.new_zeros(longest - len(row), row.shape[1]), row]) for row in rows])
    return padded, padding if bool(padding.any()) else None
