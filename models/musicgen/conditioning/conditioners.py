"""Text to what the language model attends to: by T5, or by a table of words. Knows no language model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch.nn import functional as F

from models.checkpoints.tensor_loader import TensorLoader
from models.musicgen.conditioning.t5 import T5, read_tokenizer


class TextEncoder(Protocol):
    """Encodes texts, each by itself."""

    @property
    def nbytes(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """`[n, dim]` for each text; an empty one is a single zero vector, as upstream's mask makes it."""


class Projection:
    """The linear layer after a conditioner, in float32."""

    def __init__(self, state: Mapping[str, torch.Tensor], name: str, device: str) -> None:
        take = TensorLoader(state, device, f"condition_provider.conditioners.{name}.output_proj.")
        self.weight, self.bias = take("weight", -1, -1), take("bias", -1)
        self.nbytes = take.nbytes

    @property
    def nothing(self) -> torch.Tensor:
        """What no text is: one zero vector."""
        return torch.zeros(1, self.weight.shape[0], device=self.weight.device)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.float(), self.weight, self.bias)


class T5Encoder:
    """A T5 from a folder in transformers' format, in float32, each text by itself: none changes another.

    Args:
        tuned: the weights that training gave it (a checkpoint with `finetune`), or empty.
    """

    def __init__(self, folder: Path, projection: Projection, *, tuned: Mapping[str, torch.Tensor]) -> None:
        self._tokens = read_tokenizer(folder)
        self._t5 = T5.read(folder, str(projection.weight.device), tuned)
        self._projection = projection

    @property
    def nbytes(self) -> int:
        return self._t5.nbytes + self._projection.nbytes

    def encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """See `TextEncoder`."""
        return [self._projection(self._t5(self._tokens(text))) if text else self._projection.nothing for text in texts]


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
