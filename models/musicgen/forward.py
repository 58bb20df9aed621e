"""The forward passes of decoding, as pure functions of a model and a state: `prefill` once, then `decode_step`s.

Everything that changes is in `DecodeState`. `decode_step` never reads a value back from the device, so a CUDA graph can
capture it as it is. Columns include the prepended conditions: with P of those, column P + c is the delay pattern's c.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch.nn import functional as F

from models.musicgen.lm import LanguageModel, Layer
from models.musicgen.pattern import UNKNOWN_CODE
from models.musicgen.sampling import SamplingMode, sample
from models.runtime.kv_cache import CacheShape, KVCache, allocate_kv_caches, attend_one_query, mask_value


@dataclass(frozen=True, slots=True)
class StateShape:
    """Sizes of a `DecodeState`.

    Args:
        clips: B.
        rows: R: B, or 2B if guided.
        conditioned_rows: A, those whose cross-attention has a context; 0 if there is none.
        context: L, the context's length.
        columns: N.
        padded: whether rows may have left padding.
    """

    clips: int
    rows: int
    conditioned_rows: int
    context: int
    columns: int
    padded: bool


@dataclass(slots=True, eq=False)
class DecodeState:
    """Everything that a decoding step reads and writes; sizes as in `StateShape`, K codebooks, H heads of D numbers.

    Rows are the B clips with their conditions, then, if guided, the same clips with their null conditions.

    Args:
        kv_cache: for each layer, keys and values of N columns.
        cross_kv: for each layer, keys and values `[2, A, H, L, D]` of the context of the first A rows. The context of
            the other rows is zero, for which cross-attention adds exactly zero, so it is skipped.
        cross_bias: `[A, 1, 1, L]`, `mask_value` at positions beyond a row's own context, 0 elsewhere; None without
            context.
        sequence: `[B, K, N]` codes; `UNKNOWN_CODE` at the places that are still to be generated.
        uniforms: `[B, N, K]` in [0, 1): each decides the code at its place.
        positions: `[N, dim]` positional embeddings.
        left_padding: `[R]`, how many columns at the start are not part of the row.
        padding_bias: `[R, 1, 1, N]`, `mask_value` at those columns, 0 elsewhere; None if no row may have any.
        cache_position: `[1]`, the column that is read next; the codes of the one after it are written.
        cfg_coef, temperature, top_k, top_p: one number each, `top_k` as `[1]`.
    """

    kv_cache: tuple[KVCache, ...]
    cross_kv: tuple[torch.Tensor, ...]
    cross_bias: torch.Tensor | None
    sequence: torch.Tensor
    uniforms: torch.Tensor
    positions: torch.Tensor
    left_padding: torch.Tensor
    padding_bias: torch.Tensor | None
    cache_position: torch.Tensor
    cfg_coef: torch.Tensor
    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor

    @property
    def guided(self) -> bool:
        """Whether the rows hold null conditions too (classifier-free guidance)."""
        return self.left_padding.shape[0] > self.sequence.shape[0]

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        own = (getattr(self, field.name) for field in fields(self))
        tensors = [value for value in (*own, *self.cross_kv) if isinstance(value, torch.Tensor)]
        return sum(tensor.nbytes for tensor in tensors) + sum(cache.nbytes for cache in self.kv_cache)


def allocate_state(lm: LanguageModel, shape: StateShape, *, dense: bool = False) -> DecodeState:
    """A state with nothing in it; `dense` stores keys and values as on a GPU, whatever the device."""
    config, device = lm.config, lm.device
    cache = CacheShape(shape.rows, config.heads, shape.columns, config.head_dim)
    cross = (2, shape.conditioned_rows, config.heads, shape.context, config.head_dim)
    bias = (shape.conditioned_rows, 1, 1, shape.context)

    def zeros(*size: int, dtype: torch.dtype = lm.dtype) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, device=device)

    return DecodeState(
        kv_cache=allocate_kv_caches(len(lm.layers), cache, dtype=lm.cache_dtype, device=device, dense=dense),
        cross_kv=tuple(zeros(*cross) for _ in lm.layers) if shape.conditioned_rows else (),
        cross_bias=zeros(*bias) if shape.conditioned_rows else None,
        sequence=zeros(shape.clips, config.codebooks, shape.columns, dtype=torch.long),
        uniforms=zeros(shape.clips, shape.columns, config.codebooks, dtype=torch.float32),
        positions=lm.compute_positions(shape.columns),
        left_padding=zeros(shape.rows, dtype=torch.long),
        padding_bias=zeros(shape.rows, 1, 1, shape.columns) if shape.padded else None,
        cache_position=zeros(1, dtype=torch.long),
        cfg_coef=zeros(dtype=torch.float32),
        temperature=zeros(dtype=torch.float32),
        top_k=zeros(1, dtype=torch.long),
        top_p=zeros(dtype=torch.float32),
    )


def prefill(
    lm: LanguageModel, state: DecodeState, mode: SamplingMode, *, prepended: torch.Tensor | None, num_known: int
) -> None:
    """Reads the known columns in one pass and writes the first unknown one.

    Args:
        prepended: `[R, P, dim]` conditions that come before the sequence.
        num_known: columns that are read, the P prepended ones included.
    """
    num_prepended = 0 if prepended is None else prepended.shape[1]
    assert num_prepended < num_known < state.sequence.shape[-1], f"{num_known} known columns of {state.sequence.shape}"
    assert prepended is None or prepended.shape[::2] == (len(state.left_padding), lm.config.dim), (
        f"prepended conditions of {list(prepended.shape)} for {len(state.left_padding)} rows"
    )
    x = lm.embed(state.sequence[:, :, num_prepended:num_known])
    x = torch.cat([x, x]) if state.guided else x
    x = x if prepended is None else torch.cat([prepended.to(x.dtype), x], dim=1)
    column = torch.arange(num_known, device=x.device)
    x = x + state.positions[(column - state.left_padding[:, None]).clamp_min(0)]
    bias = None if state.padding_bias is None else _make_causal_bias(state.padding_bias, column)
    for index, layer in enumerate(lm.layers):
        x = _prefill_layer(lm, state, layer, index, x, bias)
    state.cache_position.fill_(num_known - 1)
    _write_next_column(lm, state, mode, x[:, -1])


def decode_step(lm: LanguageModel, state: DecodeState, mode: SamplingMode, *, length: int, masked: bool) -> None:
    """Reads the column at `cache_position`, writes the next one and moves on.

    Args:
        length: how many columns attention reads, at least `cache_position + 1`.
        masked: whether `length` is more than that, as in a captured step, whose length is fixed: the columns beyond
            `cache_position` are masked then.
    """
    x = lm.embed(state.sequence.index_select(2, state.cache_position))[:, 0]
    x = torch.cat([x, x]) if state.guided else x
    x = x + state.positions.index_select(0, state.cache_position - state.left_padding)
    bias = _make_step_bias(state, length, masked=masked)
    for index, layer in enumerate(lm.layers):
        _decode_layer(lm, state, layer, index, x, bias, length)
    _write_next_column(lm, state, mode, x)


def compute_cross_kv(lm: LanguageModel, context: torch.Tensor) -> list[torch.Tensor]:
    """Each layer's keys and values `[2, A, H, L, D]` of a context `[A, L, dim]`; the same at every step."""
    assert context.ndim == 3 and context.shape[2] == lm.config.dim, f"a context of {list(context.shape)}"
    context = context.to(lm.dtype)
    keys_values = []
    for layer in lm.layers:
        assert layer.cross is not None, "a context for a model without cross-attention"
        product = layer.cross.key_value(context.flatten(0, 1)).to(lm.dtype)
        keys_values.append(_split_heads(lm, product.view(*context.shape[:2], 2, -1)))
    return keys_values


def _split_heads(lm: LanguageModel, product: torch.Tensor) -> torch.Tensor:
    """`[rows, n, parts, dim]` to `[parts, rows, H, n, D]`."""
    rows, count, parts, _ = product.shape
    return product.view(rows, count, parts, lm.config.heads, lm.config.head_dim).permute(2, 0, 3, 1, 4)


def _prefill_layer(  # noqa: PLR0913 - as `_decode_layer`
    lm: LanguageModel, state: DecodeState, layer: Layer, index: int, x: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    rows, count, dim = x.shape
    flat = x.flatten(0, 1)
    qkv = _split_heads(lm, layer.qkv(layer.norm(flat)).to(lm.dtype).view(rows, count, 3, dim))
    state.kv_cache[index].write_prefill(qkv[1:])
    query, key, value = qkv
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=bias is None, scale=1.0)
    layer.out.add_to(flat, attended.transpose(1, 2).reshape(rows * count, dim))
    if layer.cross is not None and state.cross_kv:
        conditioned = state.cross_kv[index].shape[1]
        part = flat[: conditioned * count]
        product = layer.cross.query(layer.cross.norm(part)).to(lm.dtype)
        query = _split_heads(lm, product.view(conditioned, count, 1, dim))[0]
        key, value = state.cross_kv[index]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=state.cross_bias, scale=1.0)
        layer.cross.out.add_to(part, attended.transpose(1, 2).reshape(conditioned * count, dim))
    layer.down.add_to(flat, layer.up(layer.norm_up(flat)))
    return flat.view(rows, count, dim)


def _decode_layer(  # noqa: PLR0913 - called 24 to 48 times a step, so nothing is packed
    lm: LanguageModel,
    state: DecodeState,
    layer: Layer,
    index: int,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    length: int,
) -> None:
    """Adds one layer's attention and feed-forward results to the residual stream `x` `[R, dim]`."""
    heads, head_dim = lm.config.heads, lm.config.head_dim
    qkv = layer.qkv(layer.norm(x)).to(lm.dtype).view(-1, 3, heads, 1, head_dim).transpose(0, 1)
    cache = state.kv_cache[index]
    cache.write(state.cache_position, qkv[1:])
    layer.out.add_to(x, cache.attend(qkv[0], length, bias))
    if layer.cross is not None and state.cross_kv:
        keys_values = state.cross_kv[index]
        conditioned = x[: keys_values.shape[1]]
        query = layer.cross.query(layer.cross.norm(conditioned)).to(lm.dtype).view(-1, heads, 1, head_dim)
        attended = attend_one_query(query, keys_values[0], keys_values[1], state.cross_bias)
        layer.cross.out.add_to(conditioned, attended)
    layer.down.add_to(x, layer.up(layer.norm_up(x)))


def _make_step_bias(state: DecodeState, length: int, *, masked: bool) -> torch.Tensor | None:
    """What is added to the scores of the first `length` columns."""
    padding_bias = None if state.padding_bias is None else state.padding_bias[..., :length]
    if not masked:
        return padding_bias
    device, dtype = state.cache_position.device, state.positions.dtype
    beyond = torch.arange(length, device=device) > state.cache_position
    bias = torch.zeros(1, 1, 1, length, dtype=dtype, device=device) if padding_bias is None else padding_bias
    return bias.masked_fill(beyond, mask_value(dtype))


def _make_causal_bias(padding_bias: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """`[R, 1, n, n]`. Every column, padding included, attends to itself."""
    ahead = column[None, :] > column[:, None]
    bias = padding_bias[..., : len(column)].masked_fill(ahead, mask_value(padding_bias.dtype))
    return bias.masked_fill(column[None, :] == column[:, None], 0.0)


def _write_next_column(lm: LanguageModel, state: DecodeState, mode: SamplingMode, hidden: torch.Tensor) -> None:
    """Draws the codes of the column after `cache_position` from `hidden` `[R, dim]`; known codes stay. Moves on."""
    logits = lm.compute_logits(hidden)
    if state.guided:
        conditional, null = logits.chunk(2)
        logits = null + (conditional - null) * state.cfg_coef
    state.cache_position.add_(1)
    uniforms = state.uniforms.index_select(1, state.cache_position)[:, 0]
    codes = sample(logits, uniforms, mode, temperature=state.temperature, top_k=state.top_k, top_p=state.top_p)
    known = state.sequence.index_select(2, state.cache_position)
    codes = torch.where(known == UNKNOWN_CODE, codes.unsqueeze(-1), known)
    state.sequence.index_copy_(2, state.cache_position, codes)
