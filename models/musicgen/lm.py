"""The transformer language model: its configuration and its weights. `forward.py` runs it.

The same arithmetic as audiocraft's `LMModel` (tests hold the logits to 1e-4), with the codebooks' embeddings in one
table, and their output heads in one product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn import functional as F

from models.checkpoints.tensor_loader import copy_to
from models.musicgen.linear import Activation, Linear, build_linear
from models.musicgen.pattern import DelayPattern, read_delays
from models.runtime.dtype import MUSICGEN_ACTIVATIONS, inference_dtype, kv_cache_dtype

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
    def from_settings(cls, settings: Mapping[str, Any]) -> LMConfig:
        """Reads a checkpoint's settings (`xp.cfg`, plain values).

        Raises:
            ValueError: a setting asks for something that no MusicGen or AudioGen has; the message names it.
        """
        lm, fuser = settings["transformer_lm"], settings["fuser"]
        _check_supported(lm, fuser)
        card, codebooks = int(lm["card"]), int(lm["n_q"])
        return cls(
            dim=int(lm["dim"]),
            heads=int(lm["num_heads"]),
            layers=int(lm["num_layers"]),
            codebooks=codebooks,
            card=card,
            activation=cast(Activation, lm.get("activation") or "relu"),
            pattern=DelayPattern(read_delays(settings.get("codebooks_pattern") or {}, codebooks), special_token=card),
            cross=tuple(fuser.get("cross") or ()),
            prepend=tuple(fuser.get("prepend") or ()),
            max_period=float(lm.get("max_period") or 10_000.0),
            positional_scale=float(lm.get("positional_scale") or 1.0),
        )


def _check_supported(lm: Mapping[str, Any], fuser: Mapping[str, Any]) -> None:
    expected = {
        "norm_first": (True,),
        "norm": (None, "layer_norm"),
        "causal": (True,),
        "positional_embedding": (None, "sin"),
        "activation": (None, "gelu", "relu"),
        "past_context": (None,),
        "layer_scale": (None,),
        "qk_layer_norm": (None, False),
        "qk_layer_norm_cross": (None, False),
        "kv_repeat": (None, 1),
    }
    for name, values in expected.items():
        if lm.get(name) not in values:
            raise ValueError(f"transformer_lm.{name} = {lm.get(name)}")
    if not (lm.get("custom") or lm.get("memory_efficient")):
        raise ValueError("transformer_lm without custom attention")
    for name in ("sum", "input_interpolate", "cross_attention_pos_emb"):
        if fuser.get(name):
            raise ValueError(f"fuser.{name}")


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

    def positions(self, count: int) -> torch.Tensor:
        """`[count, dim]` sinusoids as in audiocraft: cosines first, and dim / 2 - 1 in the exponent."""
        half = self.config.dim // 2
        exponent = torch.arange(half, dtype=torch.float32, device=self.device) / (half - 1)
        phase = torch.arange(count, dtype=torch.float32, device=self.device)[:, None] / self.config.max_period**exponent
        return (self.config.positional_scale * torch.cat([phase.cos(), phase.sin()], dim=-1)).to(self.dtype)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[rows, dim]` to `[rows, K, card]` float32."""
        return self.head(self.norm(hidden)).float().view(-1, self.config.codebooks, self.config.card)


def load_language_model(
    state: Mapping[str, torch.Tensor], config: LMConfig, *, device: str, dtype: torch.dtype
) -> LanguageModel:
    """Builds the model from a checkpoint's tensors, one after the other.

    Args:
        state: `best_state`; may be mapped from disk, each tensor is read once.
        dtype: of the weights; activations have the type of `MUSICGEN_ACTIVATIONS`.

    Raises:
        KeyError: a tensor is missing.
    """
    taker = _Taker(state, config, device, dtype)
    embedding = torch.cat([taker.tensor(f"emb.{k}.weight") for k in range(config.codebooks)])
    first_rows = torch.arange(config.codebooks, device=device)[:, None] * (config.card + 1)
    layers = tuple(taker.layer(index) for index in range(config.layers))
    head = taker.merged([f"linears.{k}" for k in range(config.codebooks)])
    norm = taker.norm("out_norm")
    taker.nbytes += embedding.nbytes
    return LanguageModel(config, embedding, first_rows, layers, norm, head, kv_cache_dtype(device, dtype), taker.nbytes)


class _Taker:
    """Reads tensors by name into the device's form."""

    def __init__(self, state: Mapping[str, torch.Tensor], config: LMConfig, device: str, dtype: torch.dtype) -> None:
        self._state, self._config, self._device, self._dtype = state, config, device, dtype
        self.nbytes = 0

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        return copy_to(self._state[name], self._device, dtype or inference_dtype(MUSICGEN_ACTIVATIONS, self._device))

    def norm(self, name: str) -> Norm:
        return Norm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"))

    def layer(self, index: int) -> Layer:
        name = f"transformer.layers.{index}"
        return Layer(
            norm=self.norm(f"{name}.norm1"),
            qkv=self._attention(f"{name}.self_attn", 0, 3),
            out=self._linear(f"{name}.self_attn.out_proj"),
            cross=self._cross(name) if self._config.cross else None,
            norm_up=self.norm(f"{name}.norm2"),
            up=self._linear(f"{name}.linear1", self._config.activation),
            down=self._linear(f"{name}.linear2"),
        )

    def merged(self, names: list[str]) -> Linear:
        """Several linear layers with the same input as one."""
        weight = torch.cat([self.tensor(f"{name}.weight", self._dtype) for name in names])
        bias = None
        if f"{names[0]}.bias" in self._state:
            bias = torch.cat([self.tensor(f"{name}.bias", self._dtype) for name in names])
        return self._counted(build_linear(weight, bias))

    def _cross(self, name: str) -> CrossAttention:
        return CrossAttention(
            norm=self.norm(f"{name}.norm_cross"),
            query=self._attention(f"{name}.cross_attention", 0, 1),
            key_value=self._attention(f"{name}.cross_attention", 1, 3),
            out=self._linear(f"{name}.cross_attention.out_proj"),
        )

    def _attention(self, name: str, first: int, last: int) -> Linear:
        """Parts `first` to `last` of the merged query, key and value projections, the query's scaled."""
        dim = self._config.dim
        parts = slice(first * dim, last * dim)
        weight, bias = self._pair(f"{name}.in_proj_", parts)
        if first == 0:
            scale = self._config.head_dim**-0.5  # a power of two in every published model: exact
            weight = torch.cat([weight[:dim] * scale, weight[dim:]])
            bias = None if bias is None else torch.cat([bias[:dim] * scale, bias[dim:]])
        return self._counted(build_linear(weight, bias))

    def _linear(self, name: str, activation: Activation = "none") -> Linear:
        weight, bias = self._pair(f"{name}.", slice(None))
        return self._counted(build_linear(weight, bias, activation))

    def _pair(self, prefix: str, rows: slice) -> tuple[torch.Tensor, torch.Tensor | None]:
        weight = copy_to(self._state[f"{prefix}weight"][rows], self._device, self._dtype)
        bias = self._state.get(f"{prefix}bias")
        return weight, None if bias is None else copy_to(bias[rows], self._device, self._dtype)

    def _counted(self, made: Linear) -> Linear:
        self.nbytes += made.nbytes
        return made
