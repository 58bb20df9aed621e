"""Texts and melody as the tensors that the language model listens to, each item's with its null condition beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from models.musicgen.order import Order

Tensors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Conditions:
    """For the items of a batch: name -> (embeddings `[n, L, D]`, mask `[n, L]`).

    `n` is twice the batch (all conditions, then all null conditions) where `guided`, else the batch.
    """

    tensors: Tensors
    guided: bool

    @property
    def shape(self) -> tuple[Any, ...]:
        """Two items may share a batch if this is the same."""
        shapes = sorted((name, tuple(embedding.shape[1:])) for name, (embedding, _) in self.tensors.items())
        return (self.guided, *shapes)


def stacked(items: Sequence[Conditions]) -> Conditions:
    """The conditions of items of the same shape, as one batch."""
    halves = range(2 if items[0].guided else 1)
    tensors = {
        name: (
            torch.cat([item.tensors[name][0][half : half + 1] for half in halves for item in items]),
            torch.cat([item.tensors[name][1][half : half + 1] for half in halves for item in items]),
        )
        for name in items[0].tensors
    }
    return Conditions(tensors, items[0].guided)


@dataclass(frozen=True, eq=False)
class Conditioner:
    """Makes the conditions of one order, each text's once.

    Args:
        lm: audiocraft's `LMModel`; its provider is called as audiocraft does (an item and its null condition together,
            padded to the longer), one item at a time, so that no item changes with its neighbours.
        order: whose melody, if any, is at `sample_rate` and mono already.
        sample_rate: in Hz.
        window: s.
        slides: whether there are several windows.
    """

    lm: Any
    order: Order
    melody: torch.Tensor | None
    sample_rate: int
    window: float
    device: str
    slides: bool
    _made: dict[tuple[str, float], Conditions] = field(default_factory=dict)

    def of(self, text: str, start: float) -> Conditions:
        """The conditions of an item in the window that starts at `start` s."""
        key = (text, start if self.melody is not None else 0.0)
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def _make(self, text: str, start: float) -> Conditions:
        guided = self._is_guided(text)
        attributes = [self._attributes(text, self._melody_from(start))]
        if guided:
            attributes.append(self._attributes(self.order.negative, None))
        provider = self.lm.condition_provider
        return Conditions(provider(provider.tokenize(attributes)), guided)

    def _is_guided(self, text: str) -> bool:
        """Whether the null condition counts: at guidance 1, or where it is the condition itself, it cancels out."""
        same = text == self.order.negative and self.melody is None
        return self.order.sampling.cfg_coef != 1 and not same

    def _attributes(self, text: str, melody: torch.Tensor | None) -> Any:
        from audiocraft.modules.conditioners import ConditioningAttributes, WavCondition

        provider = self.lm.condition_provider
        texts = {name: (text or None) if name == "description" else None for name in provider.text_conditions}
        waveform = torch.zeros(1, 1, 1) if melody is None else melody[None]
        length = torch.tensor([0 if melody is None else melody.shape[-1]])
        sound = WavCondition(waveform.to(self.device), length.to(self.device), [self.sample_rate], [None], [0.0])
        return ConditioningAttributes(text=texts, wav={name: sound for name in provider.wav_conditions})

    def _melody_from(self, start: float) -> torch.Tensor | None:
        """`[1, samples]` from `start` s on; where windows slide, begun again whenever the melody is over."""
        if self.melody is None:
            return None
        if not self.slides:  # the conditioner cuts or repeats it; a second more than it needs spares its edge
            return self.melody[:, : int((self.window + 1) * self.sample_rate)]
        first = int(start * self.sample_rate)
        positions = torch.arange(first, first + int(self.window * self.sample_rate))
        return self.melody[:, positions % self.melody.shape[-1]]
