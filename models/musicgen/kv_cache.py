"""Keys and values of what was read, and one query over them, in the form that each device reads fastest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F

KEY_CHUNK = 64  # columns side by side in one row of stored keys


@dataclass(frozen=True)
class CacheSize:
    """R rows, H heads, N columns, D numbers in each head."""

    rows: int
    heads: int
    columns: int
    width: int

    @property
    def chunks(self) -> int:
        """Rows of keys that the columns take."""
        return _chunks(self.columns)


class KeyValueCache(Protocol):
    """One layer's keys and values, column by column; sizes as in `CacheSize`. Queries are scaled already."""

    def write_first(self, both: torch.Tensor) -> None:
        """Keeps the first n columns: `[2, R, H, n, D]`, keys and values."""

    def write(self, slot: torch.Tensor, both: torch.Tensor) -> None:
        """Keeps column `slot` (`[1]`, on the device): `[2, R, H, 1, D]`, keys and values."""

    def attend(self, query: torch.Tensor, length: int, bias: torch.Tensor | None) -> torch.Tensor:
        """`[R, H, 1, D]` over the first `length` columns: `[R, H * D]`; `bias` (`[R or 1, 1, 1, length]`) is added."""


class PlainCache:
    """Columns one after the other, for the fused attention of a GPU. Looks at no value on the device."""

    def __init__(self, size: CacheSize, dtype: torch.dtype, device: torch.device) -> None:
        self._kept = torch.zeros(2, size.rows, size.heads, size.columns, size.width, dtype=dtype, device=device)

    def write_first(self, both: torch.Tensor) -> None:
        self._kept[:, :, :, : both.shape[3]] = both

    def write(self, slot: torch.Tensor, both: torch.Tensor) -> None:
        self._kept.index_copy_(3, slot, both.to(self._kept.dtype))

    def attend(self, query: torch.Tensor, length: int, bias: torch.Tensor | None) -> torch.Tensor:
        key, value = self._kept[:, :, :, :length].to(query.dtype)  # as it is, but for float16 on a CPU
        return _fused(query, key, value, bias)


class BagCache:
    """For a CPU: both of attention's products as weighted sums of rows, which torch has a kernel for (`embedding_bag`).

    That kernel reads float16 at the memory's speed, and adds up in float32. With one query there is one product by each
    number read, so nothing else counts: for MusicGen small at 750 columns, two cores, in ms a step: fused attention 27,
    batched products of bfloat16 8.5 and of float32 17, these sums 4.7 in float16 and 7.6 in float32.

    So that the scores are sums of rows too, keys are kept transposed, `KEY_CHUNK` columns a row: a row holds one of the
    D numbers of that many columns, and its weight is the query's number.
    """

    def __init__(self, size: CacheSize, dtype: torch.dtype, bags: Bags) -> None:
        self._keys = torch.zeros(size.rows, size.heads, size.chunks, size.width, KEY_CHUNK, dtype=dtype)
        self._values = torch.zeros(size.rows, size.heads, size.columns, size.width, dtype=dtype)
        self._bags = bags

    def write_first(self, both: torch.Tensor) -> None:
        key, value = both
        self._values[:, :, : value.shape[2]] = value
        for chunk, columns in enumerate(torch.split(key, KEY_CHUNK, dim=2)):
            self._keys[:, :, chunk, :, : columns.shape[2]] = columns.transpose(2, 3)

    def write(self, slot: torch.Tensor, both: torch.Tensor) -> None:
        key, value = both[:, :, :, 0]
        column = int(slot)
        self._values[:, :, column] = value
        self._keys[:, :, column // KEY_CHUNK, :, column % KEY_CHUNK] = key

    def attend(self, query: torch.Tensor, length: int, bias: torch.Tensor | None) -> torch.Tensor:
        rows, heads, _, width = query.shape
        dtype = self._values.dtype
        key_bags, value_bags = self._bags.over(length)
        weights = query.to(dtype).expand(-1, -1, key_bags.shape[0] // (rows * heads), -1).reshape(-1, width)
        scores = _sums(self._keys.view(-1, KEY_CHUNK), key_bags, weights).view(rows, heads, 1, -1)[..., :length]
        shares = (scores if bias is None else scores + bias).softmax(-1).to(dtype)
        return _sums(self._values.view(-1, width), value_bags, shares.view(-1, length)).view(rows, heads * width)


class Bags:
    """Which rows of the kept keys and values each sum is over; the layers share it, and within a step its length."""

    def __init__(self, size: CacheSize) -> None:
        series = size.rows * size.heads
        keys = torch.arange(series * size.chunks * size.width, dtype=torch.int32)
        self._keys = keys.view(series, size.chunks, size.width)
        self._values = torch.arange(series * size.columns, dtype=torch.int32).view(series, size.columns)
        self._length, self._over = size.columns, (self._keys.flatten(0, 1), self._values)

    def over(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """For the first `length` columns: `[R * H * chunks, D]` rows of keys, and `[R * H, length]` rows of values."""
        if length != self._length:
            keys = self._keys[:, : _chunks(length)].flatten(0, 1)
            self._length, self._over = length, (keys, self._values[:, :length].contiguous())
        return self._over


def caches(
    layers: int, size: CacheSize, *, dtype: torch.dtype, device: torch.device, plain: bool = False
) -> tuple[KeyValueCache, ...]:
    """One for each layer, with nothing in them, in the device's form or in the `plain` one."""
    if plain or device.type != "cpu":
        return tuple(PlainCache(size, dtype, device) for _ in range(layers))
    bags = Bags(size)
    return tuple(BagCache(size, dtype, bags) for _ in range(layers))


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """One query `[rows, H, 1, D]` over `[rows, H, n, D]` that stay as they are, such as a text's: `[rows, H * D]`."""
    if query.device.type != "cpu":
        return _fused(query, key, value, bias)
    # With a single query, torch's fused attention on a CPU takes several times as long as the two products.
    rows, heads, _, head_dim = query.shape
    scores = torch.bmm(key.flatten(0, 1), query.reshape(rows * heads, head_dim, 1)).view(rows, heads, 1, -1)
    scores = scores if bias is None else scores + bias
    return torch.bmm(scores.softmax(-1).flatten(0, 1), value.flatten(0, 1)).view(rows, heads * head_dim)


def _fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0).flatten(1)


def _chunks(columns: int) -> int:
    return -(-columns // KEY_CHUNK)


def _sums(table: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")
