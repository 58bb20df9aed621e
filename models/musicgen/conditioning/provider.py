"""From an order's texts and melody to the tensors of a batch. Knows no encoder's inside and no decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence

from models.musicgen.conditioning.conditioners import TextEncoder
from models.musicgen.conditions import Conditions
from models.musicgen.lm import Shape
from models.musicgen.melody import MelodyEncoder
from models.musicgen.request import GenerationRequest

DESCRIPTION = "description"
MELODY = "self_wav"


@dataclass(frozen=True, eq=False)
class Listener:
    """A checkpoint's conditioners.

    Args:
        texts: by name, in the checkpoint's order; `description` takes the request's text, others hear nothing.
    """

    shape: Shape
    texts: Mapping[str, TextEncoder]
    melody: MelodyEncoder | None
    window: float

    @property
    def nbytes(self) -> int:
        return sum(text.nbytes for text in self.texts.values()) + (self.melody.nbytes if self.melody else 0)

    def to(self, order: GenerationRequest, melody: torch.Tensor | None, *, slides: bool = False) -> Hearing:
        """What is heard of an order.

        Args:
            melody: the order's, `[samples]` at the melody encoder's rate.
            slides: whether there are several windows.
        """
        wanted = list(dict.fromkeys([*order.texts, order.negative]))
        encoded = self.texts[DESCRIPTION].encode(wanted) if DESCRIPTION in self.texts else []
        return Hearing(self, order, melody, slides, dict(zip(wanted, encoded, strict=False)))


@dataclass(frozen=True, eq=False)
class Hearing:
    """Makes the conditions of one order's batches; each text is encoded once, the melody once a window."""

    listener: Listener
    order: GenerationRequest
    melody: torch.Tensor | None
    slides: bool
    encoded: Mapping[str, torch.Tensor]
    _melodies: dict[float | None, torch.Tensor] = field(default_factory=dict)
    _contexts: dict[tuple[int, ...], tuple[torch.Tensor | None, torch.Tensor | None]] = field(default_factory=dict)

    def conditions(self, indices: Sequence[int], start: float) -> Conditions:
        """Of the order's items `indices`, in the window that starts at `start` s."""
        texts = [self.order.texts[index] for index in indices]
        guided = self._guided(texts)
        rows = [self._row(self.encoded.get(text), start) for text in texts]
        if guided:
            rows += [self._null(text) for text in texts]
        context, mask = self._kept_context(indices, rows, guided=guided)
        prefix, pads = _left_padded([self._fused(row, self.listener.shape.prepend, reverse=True) for row in rows])
        return Conditions(guided=guided, context=context, context_mask=mask, prefix=prefix, pads=pads)

    def _guided(self, texts: Sequence[str]) -> bool:
        """Whether null conditions count: at guidance 1, and where they are the conditions, they cancel out exactly."""
        same = self.melody is None and all(text == self.order.negative for text in texts)
        return self.order.sampling.cfg_coef != 1 and not same

    def _row(self, text: torch.Tensor | None, start: float | None) -> dict[str, torch.Tensor]:
        """Every condition of one row by name; `start` None: no melody."""
        row = {}
        for name, encoder in self.listener.texts.items():
            row[name] = text if name == DESCRIPTION and text is not None else encoder.encode([""])[0]
        if self.listener.melody is not None:
            row[MELODY] = self._melody(None if self.melody is None else start)
        return row

    def _null(self, text: str) -> dict[str, torch.Tensor]:
        """The null conditions beside `text`: the negative text; without one, zeros as long as `text`, as upstream."""
        beside = self.encoded.get(text)
        if self.order.negative or beside is None:
            return self._row(self.encoded.get(self.order.negative), None)
        return self._row(torch.zeros_like(beside), None)

    def _melody(self, start: float | None) -> torch.Tensor:
        if start not in self._melodies:
            assert self.listener.melody is not None
            self._melodies[start] = self.listener.melody.encode(None if start is None else self._melody_from(start))
        return self._melodies[start]

    def _melody_from(self, start: float) -> torch.Tensor:
        """From `start` s on; where windows slide, begun again whenever the melody is over."""
        assert self.melody is not None and self.listener.melody is not None
        rate = self.listener.melody.sample_rate
        if not self.slides:  # the encoder cuts or repeats it; a second more than it needs spares its edge
            return self.melody[: int((self.listener.window + 1) * rate)]
        first = int(start * rate)
        positions = torch.arange(first, first + int(self.listener.window * rate))
        return self.melody[positions % len(self.melody)]

    def _kept_context(
        self, indices: Sequence[int], rows: Sequence[Mapping[str, torch.Tensor]], *, guided: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Of `_context`: the same tensors for every window, but where a melody is attended to."""
        if MELODY in self.listener.shape.cross:
            return self._context(rows, len(indices), guided=guided)
        if (key := tuple(indices)) not in self._contexts:
            self._contexts[key] = self._context(rows, len(indices), guided=guided)
        return self._contexts[key]

    def _context(
        self, rows: Sequence[Mapping[str, torch.Tensor]], batch: int, *, guided: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What rows attend to: all of them only where the null conditions are not zeros."""
        names = self.listener.shape.cross
        nulls_sound = bool(self.order.negative) or MELODY in names
        conditions_sound = any(self.order.texts) or MELODY in names
        if not names or not (nulls_sound or conditions_sound):
            return None, None
        attending = rows if guided and nulls_sound else rows[:batch]
        contexts = [self._fused(row, names) for row in attending]
        lengths = torch.tensor([len(context) for context in contexts], device=contexts[0].device)
        padded = pad_sequence(contexts, batch_first=True)
        mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        return padded, None if bool(mask.all()) else mask

    def _fused(self, row: Mapping[str, torch.Tensor], names: Sequence[str], *, reverse: bool = False) -> torch.Tensor:
        """The named conditions of a row, one after the other; upstream prepends each before those it has."""
        parts = [tensor for name, tensor in row.items() if name in names]
        if not parts:
            return next(iter(row.values()))[:0]
        return torch.cat(parts[::-1] if reverse else parts)


def _left_padded(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Rows `[n, dim]` of several lengths as one `[rows, P, dim]`, and by how much each is padded at its start."""
    longest = max(len(row) for row in rows)
    if not longest:
        return None, None
    pads = torch.tensor([longest - len(row) for row in rows], device=rows[0].device)
    padded = torch.stack([torch.cat([row.new_zeros(longest - len(row), row.shape[1]), row]) for row in rows])
    return padded, pads if bool(pads.any()) else None
