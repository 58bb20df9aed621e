"""The encoder of T5 (arXiv 1910.10683) from a folder in transformers' format, in float32.

Not transformers' own, because importing it costs 2 s of every cold start, more than torch itself (tests compare the
two). Supports the gated layers of flan-T5 too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from models.checkpoints.errors import CheckpointError
from models.checkpoints.hf_folder import TOKENIZER_FILE, find_weights, read_config, read_tokenizer_file
from models.checkpoints.settings import Settings
from models.checkpoints.tensor_loader import TensorLoader, read_tensors

SENTENCEPIECE_FILE = "spiece.model"


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """Text to token ids, the end of text included.

    Args:
        size: every id is below it.
    """

    encode: Callable[[str], list[int]]
    size: int

    def __call__(self, text: str) -> list[int]:
        return self.encode(text)


def read_tokenizer(folder: Path) -> Tokenizer:
    """Reads `tokenizer.json`, or sentencepiece's own file if there is only that.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return _read_fast(folder) if (folder / TOKENIZER_FILE).is_file() else _read_sentencepiece(folder)


def _read_fast(folder: Path) -> Tokenizer:
    fast = read_tokenizer_file(folder)
    return Tokenizer(lambda text: list(fast.encode(text).ids), size=max(fast.get_vocab().values(), default=-1) + 1)


def _read_sentencepiece(folder: Path) -> Tokenizer:
    import sentencepiece

    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / SENTENCEPIECE_FILE))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"its {SENTENCEPIECE_FILE} cannot be read") from error
    end = pieces.eos_id()
    if end < 0:
        raise CheckpointError(f"its {SENTENCEPIECE_FILE} has no token for the end of a text")
    return Tokenizer(lambda text: [*pieces.encode(text), end], size=len(pieces))


@dataclass(frozen=True, slots=True, eq=False)
class _Norm:
    """Normalizes by the root mean square, without subtracting the mean."""

    weight: torch.Tensor
    epsilon: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon))


@dataclass(frozen=True, slots=True, eq=False)
class _Attention:
    """Self-attention with its residual. T5 does not scale the queries."""

    norm: _Norm
    qkv: torch.Tensor
    out: torch.Tensor
    heads: int

    def __call__(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        product = F.linear(self.norm(x), self.qkv)
        query, key, value = product.view(len(x), 3, self.heads, -1).permute(1, 2, 0, 3)
        probabilities = torch.softmax(query @ key.transpose(1, 2) + bias, dim=-1)
        return x + F.linear((probabilities @ value).transpose(0, 1).flatten(1), self.out)


@dataclass(frozen=True, slots=True, eq=False)
class _FeedForward:
    """Feed-forward layer with its residual: ReLU, or, with a `gate`, `gelu(gate(x)) * up(x)` (GELU by tanh)."""

    norm: _Norm
    up: torch.Tensor
    gate: torch.Tensor | None
    down: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x)
        hidden = F.linear(normed, self.up)
        gated = None if self.gate is None else F.gelu(F.linear(normed, self.gate), approximate="tanh")
        return x + F.linear(F.relu(hidden) if gated is None else gated * hidden, self.down)


class T5:
    """A loaded encoder.

    Args:
        settings: of `config.json`.
        state: tensors by transformers' names.

    Raises:
        CheckpointError: a tensor is missing, of another shape or left over, or a setting is not supported.
    """

    def __init__(self, settings: Settings, state: Mapping[str, torch.Tensor], device: str) -> None:
        self._take = take = TensorLoader(state, device)
        # What `config.json` may leave out has transformers' defaults.
        self._width, self._hidden = settings.integer("d_model", 512), settings.integer("d_ff", 2048)
        self._heads = settings.integer("num_heads", 8)
        self._inner = self._heads * settings.integer("d_kv", 64)
        self._epsilon = settings.number("layer_norm_epsilon", 1e-6)
        settings.require("feed_forward_proj", None, "relu", "gated-gelu")
        self._gated = settings.get("feed_forward_proj") == "gated-gelu"
        self._buckets = settings.integer("relative_attention_num_buckets", 32, least=4)
        self._max_distance = settings.integer("relative_attention_max_distance", 128, least=self._buckets // 4 + 1)
        name = "shared.weight" if "shared.weight" in take else "encoder.embed_tokens.weight"
        self._embedding = take(name, -1, self._width)
        biases = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        self._position_biases = take(biases, self._buckets, self._heads)
        count = settings.integer("num_layers", 6)
        self._blocks = [self._load_block(take, f"encoder.block.{index}.layer") for index in range(count)]
        self._last = self._load_norm(take, "encoder.final_layer_norm")
        take.check_all_used("encoder.block.")

    @classmethod
    def read(cls, folder: Path, device: str, tuned: Mapping[str, torch.Tensor] | None = None) -> T5:
        """Loads the encoder of a folder, or, if given, the `tuned` tensors in the place of the folder's."""
        return cls(read_config(folder), tuned or read_tensors(find_weights(folder), mapped=True), device)

    @property
    def vocabulary_size(self) -> int:
        """Every token id is below it."""
        return len(self._embedding)

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return self._take.nbytes

    def __call__(self, tokens: list[int]) -> torch.Tensor:
        """The token ids of one text to `[n, width]`."""
        assert tokens, "a text has at least its end token"
        x = F.embedding(torch.tensor(tokens, device=self._embedding.device), self._embedding)
        bias = self._compute_position_bias(len(tokens))
        for attention, feed_forward in self._blocks:
            x = feed_forward(attention(x, bias))
        return self._last(x)

    def _compute_position_bias(self, count: int) -> torch.Tensor:
        """`[heads, n, n]`, by the distance of key and query: a bucket each for near ones, logarithmic ones for far."""
        position = torch.arange(count, device=self._embedding.device)
        distance = position[None, :] - position[:, None]
        half = self._buckets // 2
        exact = half // 2
        logarithm = torch.log(distance.abs().clamp_min(1).float() / exact)
        far = logarithm / math.log(self._max_distance / exact) * (half - exact)
        far_bucket = (exact + far.long()).clamp_max(half - 1)
        bucket = torch.where(distance.abs() < exact, distance.abs(), far_bucket) + half * (distance > 0)
        return F.embedding(bucket, self._position_biases).permute(2, 0, 1)

    def _load_block(self, take: TensorLoader, name: str) -> tuple[_Attention, _FeedForward]:
        width, inner, hidden = self._width, self._inner, self._hidden
        prefix = f"{name}.0.SelfAttention"
        qkv = torch.cat([take(f"{prefix}.{part}.weight", inner, width) for part in "qkv"])
        attention = _Attention(
            self._load_norm(take, f"{name}.0.layer_norm"), qkv, take(f"{prefix}.o.weight", width, inner), self._heads
        )
        dense = f"{name}.1.DenseReluDense"
        feed_forward = _FeedForward(
            self._load_norm(take, f"{name}.1.layer_norm"),
            up=take(f"{dense}.wi_1.weight" if self._gated else f"{dense}.wi.weight", hidden, width),
            gate=take(f"{dense}.wi_0.weight", hidden, width) if self._gated else None,
            down=take(f"{dense}.wo.weight", width, hidden),
        )
        return attention, feed_forward

    def _load_norm(self, take: TensorLoader, name: str) -> _Norm:
        return _Norm(take(f"{name}.weight", self._width), self._epsilon)
