"""Self-attention of the diffusion transformer: over all tokens, or over a sliding window, which is run by blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, slots=True, eq=False)
class SlidingMask:
    """Which keys each query sees: those at most `window` tokens away, on either side.

    Args:
        window: tokens.
        bias: what is added to the scores, 0 or -inf; `[L, L]` of all tokens, or `[N, 1, G * W, 3 * W]` of N blocks;
            None: no token is too far away.
        num_blocks: N; 0: not by blocks.
    """

    window: int
    bias: torch.Tensor | None
    num_blocks: int = 0


def make_sliding_mask(
    num_tokens: int, window: int, *, groups: int, dtype: torch.dtype, device: torch.device
) -> SlidingMask:
    """The mask for `num_tokens`: by blocks of `window` queries if each of them then sees less than half of the keys.

    Args:
        num_tokens: L.
        window: W.
        groups: G, query heads that share a head of keys.
        dtype: of the queries.
        device: of the queries.
    """
    if num_tokens <= window + 1:
        return SlidingMask(window, None)
    position = torch.arange(num_tokens, device=device)
    if num_tokens <= 6 * window:
        is_seen = (position[:, None] - position).abs() <= window
        return SlidingMask(window, _make_bias(is_seen, dtype))
    num_blocks = -(-num_tokens // window)
    query = torch.arange(window, device=device)[:, None]
    key = torch.arange(-window, 2 * window, device=device)
    absolute = torch.arange(num_blocks, device=device)[:, None, None] * window + key
    is_seen = ((query - key).abs() <= window) & (absolute >= 0) & (absolute < num_tokens)
    return SlidingMask(window, _make_bias(is_seen.repeat(1, groups, 1)[:, None], dtype), num_blocks)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention of `[B, L, H, D]` queries to `[B, K, H / G, D]` keys and values.

    Args:
        bias: added to the scores; `[L, K]` or `[1, K]`.

    Returns:
        `[B, L, H * D]`.
    """
    groups = query.shape[2] // key.shape[2]
    if bias is not None and groups > 1 and query.device.type == "cuda":  # no fast kernel there takes both
        return attend_by_groups(query, key, value, bias)
    attended = F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=bias, enable_gqa=groups > 1
    )
    return attended.transpose(1, 2).flatten(2)


def attend_by_groups(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """As `attend`: the query heads that share a head of keys become further queries of that head."""
    groups = query.shape[2] // key.shape[2]
    bias = bias.expand(query.shape[1], -1).repeat(groups, 1)
    folded = _fold_groups(query, groups)
    attended = F.scaled_dot_product_attention(folded, key.transpose(1, 2), value.transpose(1, 2), attn_mask=bias)
    return _unfold_groups(attended, groups)


def attend_sliding(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: SlidingMask) -> torch.Tensor:
    """As `attend`, each query to the keys in its window. `query` has as many tokens as the mask."""
    if not mask.num_blocks:
        return attend(query, key, value, bias=mask.bias)
    rows, length, heads, _ = query.shape
    groups, window, blocks = heads // key.shape[2], mask.window, mask.num_blocks
    padding = blocks * window - length
    queries = F.pad(query, (0, 0, 0, 0, 0, padding)).reshape(rows * blocks, window, heads, -1)
    attended = F.scaled_dot_product_attention(
        _fold_groups(queries, groups),
        _cut_windows(key, window, padding),
        _cut_windows(value, window, padding),
        attn_mask=mask.bias if rows == 1 or mask.bias is None else mask.bias.repeat(rows, 1, 1, 1),
    )
    return _unfold_groups(attended, groups).reshape(rows, blocks * window, -1)[:, :length]


def _make_bias(is_seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(is_seen.shape, dtype=dtype, device=is_seen.device).masked_fill_(~is_seen, float("-inf"))


def _fold_groups(query: torch.Tensor, groups: int) -> torch.Tensor:
    """`[B, L, H, D]` to `[B, H / G, G * L, D]`."""
    batch, length, heads, width = query.shape
    grouped = query.view(batch, length, heads // groups, groups, width)
    return grouped.permute(0, 2, 3, 1, 4).flatten(2, 3)


def _unfold_groups(attended: torch.Tensor, groups: int) -> torch.Tensor:
    """`[B, H / G, G * L, D]` to `[B, L, H * D]`."""
    batch, heads, length, width = attended.shape
    grouped = attended.reshape(batch, heads, groups, length // groups, width)
    return grouped.permute(0, 3, 1, 2, 4).flatten(2)


def _cut_windows(tokens: torch.Tensor, window: int, padding: int) -> torch.Tensor:
    """`[B, L, H, D]` to `[B * N, H, 3 * W, D]`: each block with the one before and the one after it."""
    padded = F.pad(tokens, (0, 0, 0, 0, window, window + padding))
    return padded.unfold(1, 3 * window, window).flatten(0, 1).transpose(2, 3)
