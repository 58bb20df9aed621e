"""The transformer language model: its configuration and its weights. `forward.py` runs it.

The same arithmetic as audiocraft's `LMModel` (tests hold the logits to 1e-4), with the codebooks' embeddings in one
table, and their output heads in one product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch.nn import functional as F

from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings
from models.checkpoints.tensor_loader import TensorLoader
from models.device import cpu_multiplies_bfloat16
from models.musicgen.pattern import DelayPattern, read_delays
from models.runtime.dtype import MUSICGEN_ACTIVATIONS, MUSICGEN_WEIGHTS, inference_dtype, kv_cache_dtype
from models.runtime.linear import Activation, Linear, build_linear, can_pack

NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class LMConfig:
    """Sizes of a language model and how it is conditioned.

    Args:
        card: codes in each codebook, without the special token.
        cross: names of the conditions that cross-attention reads.
        prepend: names of the conditions that come before the sequence.
        max_period: of the positional sinusoids, columns.
    """

    dim: int
    heads: int
    layers: int
    codebooks: int
    card: int
    activation: Activation
    pattern: DelayPattern
    cross: tuple[str, ...]
    prepend: tuple[str, ...]
    max_period: float = 10_000.0
    positional_scale: float = 1.0

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @classmethod
    def from_settings(cls, settings: Settings) -> LMConfig:
        """Reads a checkpoint's settings (`xp.cfg`).

        Raises:
            CheckpointError: a setting is missing, or asks for what no MusicGen or AudioGen has.
        """
        lm, fuser = settings.section("transformer_lm"), settings.section("fuser")
        _check_supported(lm, fuser)
        card, codebooks = lm.integer("card"), lm.integer("n_q")
        dim, heads = lm.integer("dim"), lm.integer("num_heads")
        if dim % (2 * heads):
            raise CheckpointError(f"its width {dim} cannot be divided among {heads} heads")
        return cls(
            dim=dim,
            heads=heads,
            layers=lm.integer("num_layers"),
            codebooks=codebooks,
            card=card,
            activation=cast(Activation, lm.get("activation") or "relu"),
            pattern=DelayPattern(read_delays(settings.section("codebooks_pattern"), codebooks), special_token=card),
            cross=fuser.texts("cross"),
            prepend=fuser.texts("prepend"),
            max_period=lm.number("max_period", 10_000.0),
            positional_scale=lm.number("positional_scale", 1.0),
        )


def _check_supported(lm: Settings, fuser: Settings) -> None:
    lm.require("norm_first", True)
    lm.require("norm", None, "layer_norm")
    lm.require("causal", True)
    lm.require("positional_embedding", None, "sin")
    lm.require("activation", None, "gelu", "relu")
    lm.require("past_context", None)
    lm.require("layer_scale", None)
    lm.require("qk_layer_norm", None, False)
    lm.require("qk_layer_norm_cross", None, False)
    lm.require("kv_repeat", None, 1)
    if not lm.flag("memory_efficient"):
        lm.require("custom", True)
    fuser.require("sum", None, False, [])
    fuser.require("input_interpolate", None, False, [])
    fuser.require("cross_attention_pos_emb", None, False)


def choose_weight_dtype(device: str) -> torch.dtype:
    """The type of the language model's weights: on a CPU, bfloat16 is worth it for packed weights alone."""
    has_bfloat16 = device == "cpu" and cpu_multiplies_bfloat16() and can_pack()
    return inference_dtype(MUSICGEN_WEIGHTS, device, has_bfloat16=has_bfloat16)


@dataclass(frozen=True, eq=False)
class Norm:
    """Layer normalization over the last dimension."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, NORM_EPSILON)


@dataclass(frozen=True, eq=False)
class CrossAttention:
    """One layer's cross-attention. `query` already scales by 1/sqrt(head_dim)."""

    norm: Norm
    query: Linear
    key_value: Linear
    out: Linear


@dataclass(frozen=True, eq=False)
class Layer:
    """One transformer layer. `qkv` already scales the queries by 1/sqrt(head_dim); `up` applies the activation."""

    norm: Norm
    qkv: Linear
    out: Linear
    cross: CrossAttention | None
    norm_up: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A loaded language model.

    Args:
        embedding: `[K * (card + 1), dim]`, the codebooks' tables one after the other.
        first_rows: `[K, 1]`, the first row of each codebook's table.
        norm: before the head.
        head: one product for all codebooks, `dim` to `K * card`.
        cache_dtype: of cached keys and values.
        nbytes: of all weights.
    """

    config: LMConfig
    embedding: torch.Tensor
    first_rows: torch.Tensor
    layers: tuple[Layer, ...]
    norm: Norm
    head: Linear
    cache_dtype: torch.dtype
    nbytes: int

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Of activations."""
        return self.embedding.dtype

    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        """`[B, K, n]` codes, special tokens included, to `[B, n, dim]`."""
        return F.embedding(codes + self.first_rows, self.embedding).sum(1)

    def compute_positions(self, count: int) -> torch.Tensor:
        """`[count, dim]` sinusoids as in audiocraft: cosines first, and dim / 2 - 1 in the exponent."""
        half = self.config.dim // 2
        exponent = torch.arange(half, dtype=torch.float32, device=self.device) / (half - 1)
        phase = torch.arange(count, dtype=torch.float32, device=self.device)[:, None] / self.config.max_period**exponent
        return (self.config.positional_scale * torch.cat([phase.cos(), phase.sin()], dim=-1)).to(self.dtype)

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[rows, dim]` to `[rows, K, card]` float32."""
        return self.head(self.norm(hidden)).float().view(-1, self.config.codebooks, self.config.card)


def load_language_model(
    state: Mapping[str, torch.Tensor], config: LMConfig, *, device: str, dtype: torch.dtype
) -> LanguageModel:
    """Copies the checkpoint's tensors, one after the other, to the device.

    Args:
        state: `best_state`; may be mapped from disk, each tensor is read once.
        dtype: of the weights; activations have the type of `MUSICGEN_ACTIVATIONS`.

    Raises:
        CheckpointError: a tensor is missing, or of another shape than the settings say.
    """
    loader = _LayerLoader(state, config, device, dtype)
    rows, dim = config.card + 1, config.dim
    embedding = torch.cat([loader.tensor(f"emb.{k}.weight", rows, dim) for k in range(config.codebooks)])
    first_rows = torch.arange(config.codebooks, device=device)[:, None] * rows
    layers = tuple(loader.load_layer(index) for index in range(config.layers))
    head = loader.load_head()
    norm = loader.load_norm("out_norm")
    nbytes = loader.nbytes + embedding.nbytes
    return LanguageModel(config, embedding, first_rows, layers, norm, head, kv_cache_dtype(device, dtype), nbytes)


class _LayerLoader:
    """Makes layers of a checkpoint's tensors, in the device's form.

    Args:
        dtype: of the matrices; norms and embeddings have `inference_dtype(MUSICGEN_ACTIVATIONS)`.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], config: LMConfig, device: str, dtype: torch.dtype) -> None:
        self.tensor = TensorLoader(state, device, dtype=inference_dtype(MUSICGEN_ACTIVATIONS, device))
        self._config, self._dtype = config, dtype
        self.nbytes = 0

    def load_norm(self, name: str) -> Norm:
        dim = self._config.dim
        return Norm(self.tensor(f"{name}.weight", dim), self.tensor(f"{name}.bias", dim))

    def load_layer(self, index: int) -> Layer:
        name, dim = f"transformer.layers.{index}", self._config.dim
        return Layer(
            norm=self.load_norm(f"{name}.norm1"),
            qkv=self._load_attention(f"{name}.self_attn", 0, 3),
            out=self._load_linear(f"{name}.self_attn.out_proj", dim, dim),
            cross=self._load_cross(name) if self._config.cross else None,
            norm_up=self.load_norm(f"{name}.norm2"),
            up=self._load_linear(f"{name}.linear1", -1, dim, self._config.activation),
            down=self._load_linear(f"{name}.linear2", dim, -1),
        )

    def load_head(self) -> Linear:
        """The codebooks' output layers as one."""
        config, names = self._config, [f"linears.{codebook}" for codebook in range(self._config.codebooks)]
        weight = torch.cat([self._load_matrix(f"{name}.weight", config.card, config.dim) for name in names])
        bias = None
        if f"{names[0]}.bias" in self.tensor:
            bias = torch.cat([self.tensor(f"{name}.bias", config.card, dtype=self._dtype) for name in names])
        return self._count(build_linear(weight, bias))

    def _load_cross(self, name: str) -> CrossAttention:
        return CrossAttention(
            norm=self.load_norm(f"{name}.norm_cross"),
            query=self._load_attention(f"{name}.cross_attention", 0, 1),
            key_value=self._load_attention(f"{name}.cross_attention", 1, 3),
            out=self._load_linear(f"{name}.cross_attention.out_proj", self._config.dim, self._config.dim),
        )

    def _load_attention(self, name: str, first: int, last: int) -> Linear:
        """Parts `first` to `last` of the merged query, key and value projections, the query's scaled."""
        dim = self._config.dim
        rows = slice(first * dim, last * dim)
        weight = self._load_matrix(f"{name}.in_proj_weight", 3 * dim, dim, rows)
        bias = self._load_bias(f"{name}.in_proj_bias", 3 * dim, rows)
        if first == 0:
            scale = self._config.head_dim**-0.5  # a power of two in every published model: exact
            weight = torch.cat([weight[:dim] * scale, weight[dim:]])
            bias = None if bias is None else torch.cat([bias[:dim] * scale, bias[dim:]])
        return self._count(build_linear(weight, bias))

    def _load_linear(self, name: str, outer: int, inner: int, activation: Activation = "none") -> Linear:
        weight = self._load_matrix(f"{name}.weight", outer, inner)
        return self._count(build_linear(weight, self._load_bias(f"{name}.bias", weight.shape[0]), activation))

    def _load_matrix(self, name: str, outer: int, inner: int, rows: slice = slice(None)) -> torch.Tensor:
        return self.tensor(name, outer, inner, dtype=self._dtype, rows=rows)

    def _load_bias(self, name: str, length: int, rows: slice = slice(None)) -> torch.Tensor | None:
        return self.tensor(name, length, dtype=self._dtype, rows=rows) if name in self.tensor else None

    def _count(self, made: Linear) -> Linear:
        self.nbytes += made.nbytes
        return made
