"""One pass of decoding as pure functions of a model and a state: `prefill`, then `advance` again and again.

Everything that changes is in `State`; nothing here looks at a value on the device, so `advance` can be captured in a
CUDA graph as it is. Columns count from the prefix on: column `prefix + c` is column `c` of the delay pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from models.musicgen.kv_cache import KeyValueCache, attend
from models.musicgen.lm import CrossAttention, LanguageModel, Layer
from models.musicgen.pattern import UNKNOWN
from models.musicgen.sampling import Rule, pick


@dataclass(eq=False)
class State:
    """All that a decoding step reads and writes. B items; R rows: B, or 2B with the null conditions after them.

    Args:
        cache: for each layer keys and values of N columns.
        text: for each layer keys and values `[2, A, H, L, D]` of the text; its A rows are the first A of R. The others
            would attend to zeros, which adds exactly zero.
        text_bias: `[A, 1, 1, L]`, -inf where a text is shorter than L; None where none is.
        sequence: `[B, K, N]` codes, `UNKNOWN` where one is to be found.
        uniforms: `[B, N, K]`: a column's codes are drawn by its numbers.
        positions: `[N, dim]`.
        pads: `[R]`, how many columns at the start are no part of a row.
        pad_bias: `[R, 1, 1, N]`, -inf there; None where no row is padded.
        slot: `[1]`, the column that is read next; the one after it is written.
        guidance, temperature, top_p: one number each.
    """

    cache: tuple[KeyValueCache, ...]
    text: tuple[torch.Tensor, ...]
    text_bias: torch.Tensor | None
    sequence: torch.Tensor
    uniforms: torch.Tensor
    positions: torch.Tensor
    pads: torch.Tensor
    pad_bias: torch.Tensor | None
    slot: torch.Tensor
    guidance: torch.Tensor
    temperature: torch.Tensor
    top_p: torch.Tensor

    @property
    def guided(self) -> bool:
        return self.pads.shape[0] > self.sequence.shape[0]


def prefill(lm: LanguageModel, state: State, rule: Rule, *, prefix: torch.Tensor | None, known: int) -> None:
    """Reads the prefix `[R, P, dim]` and the columns up to `known`, and writes column `known`."""
    start = 0 if prefix is None else prefix.shape[1]
    x = lm.embed(state.sequence[:, :, start:known])
    x = torch.cat([x, x]) if state.guided else x
    x = x if prefix is None else torch.cat([prefix.to(x.dtype), x], dim=1)
    column = torch.arange(known, device=x.device)
    x = x + state.positions[(column - state.pads[:, None]).clamp_min(0)]
    bias = None if state.pad_bias is None else _causal_bias(state.pad_bias, column)
    for index, layer in enumerate(lm.layers):
        x = _prefill_layer(lm, state, layer, index, x, bias)
    state.slot.fill_(known - 1)
    _write_next(lm, state, rule, x[:, -1])


def advance(lm: LanguageModel, state: State, rule: Rule, *, length: int, exact: bool) -> None:
    """Reads column `slot`, writes the one after it, and moves on.

    Args:
        length: how many columns attention reads; > slot.
        exact: whether `length` is slot + 1; else what lies beyond the slot is masked, as a captured step must.
    """
    x = lm.embed(state.sequence.index_select(2, state.slot))[:, 0]
    x = torch.cat([x, x]) if state.guided else x
    x = x + state.positions.index_select(0, state.slot - state.pads)
    bias = _visible(state, length, exact=exact)
    for index, layer in enumerate(lm.layers):
        x = _advance_layer(lm, state, layer, index, x, bias, length)
    _write_next(lm, state, rule, x)


def text_keys_values(lm: LanguageModel, context: torch.Tensor) -> list[torch.Tensor]:
    """Keys and values `[2, A, H, L, D]` of each layer for a text `[A, L, dim]`."""
    context = context.to(lm.dtype)
    made = []
    for layer in lm.layers:
        assert layer.cross is not None
        product = layer.cross.key_value(context.flatten(0, 1)).to(lm.dtype)
        made.append(_heads(lm, product.view(*context.shape[:2], 2, -1)))
    return made


def _heads(lm: LanguageModel, product: torch.Tensor) -> torch.Tensor:
    """`[rows, n, parts, dim]` to `[parts, rows, H, n, D]`."""
    rows, count, parts, _ = product.shape
    return product.view(rows, count, parts, lm.shape.heads, lm.shape.head_dim).permute(2, 0, 3, 1, 4)


def _prefill_layer(  # noqa: PLR0913 - as `_advance_layer`
    lm: LanguageModel, state: State, layer: Layer, index: int, x: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    rows, count, dim = x.shape
    flat = x.flatten(0, 1)
    qkv = _heads(lm, layer.qkv(layer.norm(flat)).to(lm.dtype).view(rows, count, 3, dim))
    state.cache[index].write_first(qkv[1:])
    query, key, value = qkv
    seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=bias is None, scale=1.0)
    flat = layer.out.plus(flat, seen.transpose(1, 2).reshape(rows * count, dim))
    if layer.cross is not None and state.text:
        attending = state.text[index].shape[1]
        part = flat[: attending * count]
        query = _heads(lm, layer.cross.query(layer.cross.norm(part)).to(lm.dtype).view(attending, count, 1, dim))[0]
        key, value = state.text[index]
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=state.text_bias, scale=1.0)
        part = layer.cross.out.plus(part, seen.transpose(1, 2).reshape(attending * count, dim))
        flat = part if attending == rows else torch.cat([part, flat[attending * count :]])
    return layer.down.plus(flat, layer.up(layer.norm_up(flat))).view(rows, count, dim)


def _advance_layer(  # noqa: PLR0913 - the loop's one callee, called 24 to 48 times a step
    lm: LanguageModel,
    state: State,
    layer: Layer,
    index: int,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    length: int,
) -> torch.Tensor:
    heads, head_dim = lm.shape.heads, lm.shape.head_dim
    qkv = layer.qkv(layer.norm(x)).to(lm.dtype).view(-1, 3, heads, 1, head_dim).transpose(0, 1)
    cache = state.cache[index]
    cache.write(state.slot, qkv[1:])
    x = layer.out.plus(x, cache.attend(qkv[0], length, bias))
    if layer.cross is not None and state.text:
        x = _attend_to_text(lm, layer.cross, x, state.text[index], state.text_bias)
    return layer.down.plus(x, layer.up(layer.norm_up(x)))


def _attend_to_text(
    lm: LanguageModel, cross: CrossAttention, x: torch.Tensor, text: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    attending = text.shape[1]
    part = x[:attending]
    query = cross.query(cross.norm(part)).to(lm.dtype).view(attending, lm.shape.heads, 1, lm.shape.head_dim)
    part = cross.out.plus(part, attend(query, text[0], text[1], bias))
    return part if attending == x.shape[0] else torch.cat([part, x[attending:]])


def _visible(state: State, length: int, *, exact: bool) -> torch.Tensor | None:
    """What is added to the scores of the columns before `length`."""
    pad_bias = None if state.pad_bias is None else state.pad_bias[..., :length]
    if exact:
        return pad_bias
    beyond = torch.arange(length, device=state.slot.device) > state.slot
    bias = torch.zeros(1, 1, 1, length, dtype=state.positions.dtype, device=state.slot.device)
    bias = bias.masked_fill(beyond, float("-inf"))
    return bias if pad_bias is None else bias + pad_bias


def _causal_bias(pad_bias: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """`[R, 1, n, n]`; every column sees itself, padding too, so that no softmax is over nothing."""
    ahead = column[None, :] > column[:, None]
    bias = pad_bias[..., : len(column)].masked_fill(ahead, float("-inf"))
    return bias.masked_fill(column[None, :] == column[:, None], 0.0)


def _write_next(lm: LanguageModel, state: State, rule: Rule, hidden: torch.Tensor) -> None:
    """Draws the codes of the column after `slot` from `hidden` `[R, dim]`, keeps those that are known, moves on."""
    logits = lm.logits(hidden)
    if state.guided:
        conditional, null = logits.chunk(2)
        logits = null + (conditional - null) * state.guidance
    state.slot.add_(1)
    uniforms = state.uniforms.index_select(1, state.slot)[:, 0]
    codes = pick(logits, uniforms, rule, temperature=state.temperature, top_p=state.top_p)
    known = state.sequence.index_select(2, state.slot)
    state.sequence.index_copy_(2, state.slot, torch.where(known == UNKNOWN, codes.unsqueeze(-1), known))
