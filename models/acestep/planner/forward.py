"""The forward passes of the planner, as pure functions of a model and a state.

`read_tokens` reads any number of known tokens at once; `read_token` reads one, and `write_code` draws the code that
follows. The last two never read a value back from the device, so a CUDA graph can capture them as they are. Everything
that changes is in `DecodeState` and `CodeState`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from models.acestep.planner.lm import LanguageModel, Layer
from models.acestep.planner.sampling import SamplingMode, SamplingValues, penalise, sample
from models.runtime.kv_cache import CacheShape, KVCache, allocate_kv_caches, mask_value


@dataclass(slots=True, eq=False)
class DecodeState:
    """What has been read: R rows of N columns, of which those before `cache_position` are filled.

    Args:
        kv_cache: for each layer, keys and values of N columns.
        rotations: `[N, head_dim / 2]`, `LanguageModel.compute_rotations`.
        left_padding: `[R]`, how many columns at the start are not part of the row.
        padding_bias: `[R, 1, 1, N]`, `mask_value` at those columns, 0 elsewhere; None if no row has any.
        tokens: `[R]` ids, what `read_token` reads.
        cache_position: `[1]`, the column that is written next.
    """

    kv_cache: tuple[KVCache, ...]
    rotations: torch.Tensor
    left_padding: torch.Tensor
    padding_bias: torch.Tensor | None
    tokens: torch.Tensor
    cache_position: torch.Tensor

    @property
    def columns(self) -> int:
        """N."""
        return self.rotations.shape[0]

    @property
    def rows(self) -> int:
        """R."""
        return self.tokens.shape[0]

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        bias = 0 if self.padding_bias is None else self.padding_bias.nbytes
        return sum(cache.nbytes for cache in self.kv_cache) + self.rotations.nbytes + bias

    def begin_rows(self, lengths: Sequence[int]) -> None:
        """Begins anew behind rows of so many tokens each, which end in the same column."""
        count = max(lengths)
        self.cache_position.fill_(count)
        self.left_padding.copy_(torch.tensor([count - length for length in lengths], dtype=torch.long))
        if self.padding_bias is None:
            assert min(lengths) == count, f"rows of {sorted(set(lengths))} tokens in a state without padding"
            return
        is_padding = torch.arange(self.columns, device=self.tokens.device) < self.left_padding[:, None]
        self.padding_bias.zero_().masked_fill_(is_padding[:, None, None], mask_value(self.padding_bias.dtype))


def allocate_state(
    lm: LanguageModel, *, rows: int, columns: int, padded: bool = False, dense: bool = False
) -> DecodeState:
    """A state in which nothing has been read.

    Args:
        padded: whether rows may have left padding.
        dense: stores keys and values as on a GPU, whatever the device.
    """
    config, device = lm.config, lm.device
    shape = CacheShape(
        rows, config.num_kv_heads, columns, config.head_dim, group=config.num_heads // config.num_kv_heads
    )
    return DecodeState(
        kv_cache=allocate_kv_caches(config.num_layers, shape, dtype=lm.cache_dtype, device=device, dense=dense),
        rotations=lm.compute_rotations(columns),
        left_padding=torch.zeros(rows, dtype=torch.long, device=device),
        padding_bias=torch.zeros(rows, 1, 1, columns, dtype=lm.dtype, device=device) if padded else None,
        tokens=torch.zeros(rows, dtype=torch.long, device=device),
        cache_position=torch.zeros(1, dtype=torch.long, device=device),
    )


@dataclass(slots=True, eq=False)
class CodeState:
    """The audio codes of B clips: what is drawn, and how. The state that is decoded has B rows, or 2B if guided: then
    the second half reads the same codes behind an unconditional prompt.

    Args:
        codes: `[B, S]`.
        uniforms: `[B, S]` in [0, 1): each decides the code at its place.
        seen: `[B, codes]`, which codes a clip has had.
        step: `[1]`, the place that is written next.
        values: of the sampling settings.
    """

    codes: torch.Tensor
    uniforms: torch.Tensor
    seen: torch.Tensor
    step: torch.Tensor
    values: SamplingValues

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return self.codes.nbytes + self.uniforms.nbytes + self.seen.nbytes

    @classmethod
    def allocate(cls, lm: LanguageModel, *, clips: int, steps: int) -> CodeState:
        """A state without codes."""
        return cls(
            codes=torch.zeros(clips, steps, dtype=torch.long, device=lm.device),
            uniforms=torch.zeros(clips, steps, dtype=torch.float32, device=lm.device),
            seen=torch.zeros(clips, lm.num_codes, dtype=torch.bool, device=lm.device),
            step=torch.zeros(1, dtype=torch.long, device=lm.device),
            values=SamplingValues.allocate(lm.device),
        )


def read_tokens(lm: LanguageModel, state: DecodeState, tokens: torch.Tensor, start: int) -> torch.Tensor:
    """Reads known tokens in one pass, into rows without padding.

    Args:
        tokens: `[R, n]` ids.
        start: the column of the first; all columns before it have been read.

    Returns:
        `[R, hidden]`, what the network makes of the last one.
    """
    rows, count = tokens.shape
    assert start + count <= state.columns, f"{start} + {count} tokens in a state of {state.columns} columns"
    x = lm.embed(tokens).flatten(0, 1)
    column = torch.arange(start, start + count, device=x.device)
    rotation = state.rotations[start : start + count].repeat(rows, 1)[:, None]
    bias = _make_causal_bias(start, column, lm.dtype)
    for index, layer in enumerate(lm.layers):
        query, keys_values = _project(lm, layer, x, rotation)
        query = query.view(rows, count, -1, lm.config.head_dim).transpose(1, 2)
        keys_values = keys_values.view(2, rows, count, -1, lm.config.head_dim).transpose(2, 3)
        state.kv_cache[index].write_prefill(keys_values, start)
        if start:
            keys_values = state.kv_cache[index].read(start + count).to(query.dtype)
        key, value = keys_values.repeat_interleave(lm.config.num_heads // lm.config.num_kv_heads, 2)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=bias is None, scale=1.0)
        _finish_layer(lm, layer, x, attended.transpose(1, 2).reshape(rows * count, -1))
    state.cache_position.fill_(start + count)
    return x.view(rows, count, -1)[:, -1]


def read_token(lm: LanguageModel, state: DecodeState, *, length: int, masked: bool) -> torch.Tensor:
    """Reads `state.tokens` at `cache_position` and moves on.

    Args:
        length: how many columns attention reads, at least `cache_position + 1`.
        masked: whether `length` is more than that, as in a captured step, whose length is fixed: the columns beyond
            `cache_position` are masked then.

    Returns:
        `[R, hidden]`.
    """
    x = lm.embed(state.tokens)
    rotation = state.rotations.index_select(0, state.cache_position - state.left_padding)[:, None]
    bias = _make_step_bias(state, lm.dtype, length, masked=masked)
    for index, layer in enumerate(lm.layers):
        query, keys_values = _project(lm, layer, x, rotation)
        cache = state.kv_cache[index]
        cache.write(state.cache_position, keys_values.unsqueeze(3))
        query = query.view(state.rows, lm.config.num_kv_heads, -1, lm.config.head_dim)
        _finish_layer(lm, layer, x, cache.attend(query, length, bias))
    state.cache_position.add_(1)
    return x


def write_code(
    lm: LanguageModel, state: DecodeState, codes: CodeState, mode: SamplingMode, hidden: torch.Tensor
) -> None:
    """Draws the next code of each clip from `hidden` `[R, hidden]`; it is what `read_token` reads next."""
    logits = lm.compute_code_logits(hidden)
    clips = codes.codes.shape[0]
    if state.rows > clips:
        conditional, unconditional = logits.chunk(2)
        logits = unconditional + (conditional - unconditional) * codes.values.cfg_coef
    if mode.is_penalised:
        logits = penalise(logits, codes.seen, codes.values.penalty)
    drawn = sample(logits, codes.uniforms.index_select(1, codes.step)[:, 0], mode, codes.values)
    codes.codes.index_copy_(1, codes.step, drawn[:, None])
    if mode.is_penalised:
        codes.seen.scatter_(1, drawn[:, None], True)
    state.tokens.copy_((drawn + lm.num_text).repeat(state.rows // clips))
    codes.step.add_(1)


def _project(
    lm: LanguageModel, layer: Layer, x: torch.Tensor, rotation: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries `[n, query heads, head_dim]`, scaled, and keys and values `[2, n, key heads, head_dim]`, each at its
    position.

    Args:
        x: `[n, hidden]`.
        rotation: `[n, 1, head_dim / 2]`.
    """
    config = lm.config
    heads, keys, dim = config.num_heads, config.num_kv_heads, config.head_dim
    qkv = layer.qkv(lm.normalize(x, layer.norm)).view(-1, heads + 2 * keys, dim)
    normed = F.rms_norm(qkv[:, : heads + keys].float(), (dim,), None, config.rms_norm_eps) * layer.norm_heads
    rotated = torch.view_as_complex(normed.view(-1, heads + keys, dim // 2, 2)) * rotation
    queries_keys = torch.view_as_real(rotated).flatten(2).to(lm.dtype)
    return queries_keys[:, :heads], torch.stack([queries_keys[:, heads:], qkv[:, heads + keys :].to(lm.dtype)])


def _finish_layer(lm: LanguageModel, layer: Layer, x: torch.Tensor, attended: torch.Tensor) -> None:
    """Adds one layer's attention and MLP to the residual stream `x` `[n, hidden]`."""
    layer.out.add_to(x, attended)
    gate, factor = layer.gate_up(lm.normalize(x, layer.norm_mlp)).chunk(2, dim=-1)
    layer.down.add_to(x, F.silu(gate) * factor)


def _make_step_bias(state: DecodeState, dtype: torch.dtype, length: int, *, masked: bool) -> torch.Tensor | None:
    """What is added to the scores of the first `length` columns."""
    padding_bias = None if state.padding_bias is None else state.padding_bias[..., :length]
    if not masked:
        return padding_bias
    device = state.cache_position.device
    beyond = torch.arange(length, device=device) > state.cache_position
    bias = torch.zeros(1, 1, 1, length, dtype=dtype, device=device) if padding_bias is None else padding_bias
    return bias.masked_fill(beyond, mask_value(dtype))


def _make_causal_bias(start: int, column: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """`[n, start + n]`, what is added to the scores; None: there is nothing before these n columns."""
    if not start:
        return None
    bias = torch.zeros(len(column), start + len(column), dtype=dtype, device=column.device)
    before = torch.arange(bias.shape[1], device=column.device)
    return bias.masked_fill(before > column[:, None], mask_value(dtype))
