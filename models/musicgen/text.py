"""Text to what the language model attends to: T5 through transformers, or a table of words. Knows no language model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional as F  # noqa: N812


class TextEncoder(Protocol):
    """Encodes texts, each by itself."""

    @property
    def nbytes(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """`[n, dim]` for each text; an empty one is a single zero vector, as upstream's mask makes it."""


class Projection:
    """The linear layer after a conditioner, in float32."""

    def __init__(self, state: Mapping[str, torch.Tensor], name: str, device: str) -> None:
        prefix = f"condition_provider.conditioners.{name}.output_proj."
        self.weight = state[f"{prefix}weight"].to(device, torch.float32)
        self.bias = state[f"{prefix}bias"].to(device, torch.float32)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + self.bias.nbytes

    @property
    def nothing(self) -> torch.Tensor:
        """What no text is: one zero vector."""
        return torch.zeros(1, self.weight.shape[0], device=self.weight.device)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.float(), self.weight, self.bias)


class T5Encoder:
    """A T5 encoder from a folder in transformers' format, in float32.

    Args:
        tuned: the weights that training gave it (a checkpoint with `finetune`), or empty.
    """

    def __init__(self, folder: Path, projection: Projection, *, tuned: Mapping[str, torch.Tensor]) -> None:
        from transformers import T5EncoderModel, T5Tokenizer

        self._tokenizer: Any = T5Tokenizer.from_pretrained(folder)
        model: Any = T5EncoderModel.from_pretrained(folder, dtype=torch.float32)
        if tuned:
            model.load_state_dict({name: tensor.float() for name, tensor in tuned.items()})
        self._device = projection.weight.device
        self._model = model.to(self._device).eval().requires_grad_(False)
        self._projection = projection

    @property
    def nbytes(self) -> int:
        return sum(int(p.nbytes) for p in self._model.parameters()) + self._projection.nbytes

    def encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """See `TextEncoder`; texts of one call are padded and masked, which changes none of them."""
        made = [self._projection.nothing for _ in texts]
        filled = [index for index, text in enumerate(texts) if text]
        if filled:
            inputs = self._tokenizer([texts[index] for index in filled], return_tensors="pt", padding=True)
            inputs = inputs.to(self._device)
            hidden = self._projection(self._model(**inputs).last_hidden_state)
            for row, index in enumerate(filled):
                made[index] = hidden[row, : int(inputs["attention_mask"][row].sum())]
        return made


class WordTable:
    """audiocraft's `lut` conditioner with the `noop` tokenizer: one vector for a whole text, by its hash."""

    def __init__(self, table: torch.Tensor, projection: Projection) -> None:
        self._table, self._projection = table, projection

    @property
    def nbytes(self) -> int:
        return self._table.nbytes + self._projection.nbytes

    def encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        return [
            self._projection(self._table[self._row(text)][None]) if text else self._projection.nothing for text in texts
        ]

    def _row(self, text: str) -> int:
        return int(hashlib.sha256(text.encode()).hexdigest(), 16) % len(self._table)
