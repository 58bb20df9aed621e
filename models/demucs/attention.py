"""Multi-head attention for inference, in place of torch's modules, whose CPU kernels gain nothing from bfloat16."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_QUERIES_AT_ONCE: Final = 256  # so that their scores stay in a core's cache


class Attention(nn.Module):
    """Takes the place of a batch-first `nn.MultiheadAttention` without masks, with its weights.

    Args:
        module: whose weights are taken over.
    """

    def __init__(self, module: nn.MultiheadAttention) -> None:
        super().__init__()
        assert module.batch_first and module.in_proj_weight is not None and module.bias_k is None
        self.num_heads = module.num_heads
        self.in_proj_weight = module.in_proj_weight
        self.in_proj_bias = module.in_proj_bias
        self.out_proj = module.out_proj

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, None]:
        """`[B, T, C]`, `[B, T', C]`, `[B, T', C]` to `[B, T, C]`, and no weights, as the callers ask for none."""
        assert options.get("attn_mask") is None and options.get("key_padding_mask") is None
        heads = attend(*(self._heads(part, x) for part, x in enumerate((query, key, value))))
        result: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return result, None

    def _heads(self, part: int, x: Tensor) -> Tensor:
        """The queries, keys or values of each head, `[B, H, T, D]`."""
        weight = self.in_proj_weight.chunk(3)[part]
        bias = self.in_proj_bias.chunk(3)[part] if self.in_proj_bias is not None else None
        projected = functional.linear(x, weight, bias)
        return projected.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention over `[B, H, T, D]`, `[B, H, T', D]`, `[B, H, T', D]`."""
    if query.device.type != "cpu" or query.dtype == torch.float32:
        return functional.scaled_dot_product_attention(query, key, value)
    result = torch.empty_like(query, memory_format=torch.contiguous_format)
    query = (query * query.shape[-1] ** -0.5).contiguous()
    scores = query.new_empty(2, _QUERIES_AT_ONCE, key.shape[2])
    for batch in range(query.shape[0]):
        for head in range(query.shape[1]):
            _attend_one(query[batch, head], key[batch, head], value[batch, head], scores, result[batch, head])
    return result


def _attend_one(query: Tensor, key: Tensor, value: Tensor, scores: Tensor, result: Tensor) -> None:
    """One head's `[T, D]`, queries already scaled, into `result`; `scores` is room for two blocks of them."""
    key, value = key.t(), value.contiguous()
    for start in range(0, query.shape[0], _QUERIES_AT_ONCE):
        some = query[start : start + _QUERIES_AT_ONCE]
        raw, weights = scores[:, : some.shape[0]]
        torch.mm(some, key, out=raw)
        torch.softmax(raw, -1, out=weights)
        torch.mm(weights, value, out=result[start : start + some.shape[0]])


def replace_attention(module: nn.Module) -> None:
    """Puts `Attention` in the place of every `nn.MultiheadAttention` inside, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.MultiheadAttention) and child.batch_first and child.in_proj_weight is not None:
            setattr(module, name, Attention(child))
        else:
            replace_attention(child)
