"""Keys and values of the columns read so far, and attention of one query over them, in each device's fastest layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F

KEY_CHUNK = 64  # columns stored side by side in one row of keys


@dataclass(frozen=True, slots=True)
class CacheShape:
    """R rows, H heads of keys and values, N columns and D = `head_dim` numbers in each head.

    Args:
        group: G, how many heads of queries read one head of keys and values.
    """

    rows: int
    heads: int
    columns: int
    head_dim: int
    group: int = 1


class KVCache(Protocol):
    """One layer's keys and values, column by column. Sizes as in `CacheShape`; queries are already scaled."""

    @property
    def nbytes(self) -> int:
        """Of the stored keys and values."""

    def write_prefill(self, keys_values: torch.Tensor, start: int = 0) -> None:
        """Stores the n columns from `start` on: `[2, R, H, n, D]`, keys and values."""

    def write(self, cache_position: torch.Tensor, keys_values: torch.Tensor) -> None:
        """Stores the column at `cache_position` (`[1]`, on the device): `[2, R, H, 1, D]`, keys and values."""

    def attend(self, query: torch.Tensor, length: int, bias: torch.Tensor | None) -> torch.Tensor:
        """Attention over the first `length` columns.

        Args:
            query: `[R, H, G, D]`.
            bias: `[R or 1, 1, 1, length]`, added to the scores.

        Returns:
            `[R, H * G * D]`.
        """

    def read(self, length: int) -> torch.Tensor:
        """Returns the first `length` columns, `[2, R, H, length, D]`."""


class DenseKVCache:
    """One tensor of keys and values, for the fused attention of a GPU. Never reads a value back from the device."""

    def __init__(self, shape: CacheShape, dtype: torch.dtype, device: torch.device) -> None:
        size = (2, shape.rows, shape.heads, shape.columns, shape.head_dim)
        self._keys_values = torch.zeros(size, dtype=dtype, device=device)
        self.nbytes = self._keys_values.nbytes

    def write_prefill(self, keys_values: torch.Tensor, start: int = 0) -> None:
        self._keys_values[:, :, :, start : start + keys_values.shape[3]] = keys_values

    def write(self, cache_position: torch.Tensor, keys_values: torch.Tensor) -> None:
        self._keys_values.index_copy_(3, cache_position, keys_values.to(self._keys_values.dtype))

    def attend(self, query: torch.Tensor, length: int, bias: torch.Tensor | None) -> torch.Tensor:
        keys, values = self._keys_values[:, :, :, :length].to(query.dtype)  # no copy, except of float16 on a CPU
        return _fused_attention(query, keys, values, bias)

    def read(self, length: int) -> torch.Tensor:
        return self._keys_values[:, :, :, :length]


class EmbeddingBagKVCache:
    """For a CPU: both products of attention as weighted sums of rows, by torch's `embedding_bag` kernel.

    That kernel reads float16 at the memory's full speed and accumulates in float32. With one query there is one product
    for each number read, so only reading counts. MusicGen small at 750 columns on two cores, milliseconds a step: fused
    attention 27, batched products in bfloat16 8.5 and in float32 17, these sums in float16 4.7 and in float32 7.6.

    The scores become sums of rows by storing the keys transposed, `KEY_CHUNK` columns a row: a row holds one of the D
    numbers for that many columns, and its weight is the query's number.
    """

    def __init__(self, shape: CacheShape, dtype: torch.dtype, indices: RowIndices) -> None:
        chunks = _num_chunks(shape.columns)
        self._keys = torch.zeros(shape.rows, shape.heads, chunks, shape.head_dim, KEY_CHUNK, dtype=dtype)
        self._values = torch.zeros(shape.rows, shape.heads, shape.columns, shape.head_dim, dtype=dtype)
        self._indices = indices
        self.nbytes = self._keys.nbytes + self._values.nbytes

    def write_prefill(self, keys_values: torch.Tensor, start: int = 0) -> None:
        keys, values = keys_values
        end = start + values.shape[2]
        self._values[:, :, start:end] = values
        for chunk in range(start // KEY_CHUNK, _num_chunks(end)):
            first, last = max(start, chunk * KEY_CHUNK), min(end, (chunk + 1) * KEY_CHUNK)
            stored = self._keys[:, :, chunk, :, first - chunk * KEY_CHUNK : last - chunk * KEY_CHUNK]
            stored.copy_(keys[:, :, first - start : last - start].transpose(2, 3))

    def write(self, cache_position: torch.Tensor, keys_values: torch.Tensor) -> None:
        key, value = keys_values[:, :, :, 0]
        column = int(cache_position)
        self._values[:, :, column] = value
        self._keys[:, :, column // KEY_CHUNK, :, column % KEY_CHUNK] = key

    def attend(self, query: torch.Tensor, length: int, bias: torch.Tensor | None) -> torch.Tensor:
        rows, heads, group, head_dim = query.shape
        dtype = self._values.dtype
        key_rows, value_rows = self._indices.first(length)
        weights = query.to(dtype).unsqueeze(3).expand(-1, -1, -1, _num_chunks(length), -1).reshape(-1, head_dim)
        scores = _sum_rows(self._keys.view(-1, KEY_CHUNK), key_rows, weights).view(rows, heads, group, -1)[..., :length]
        probabilities = (scores if bias is None else scores + bias).softmax(-1).to(dtype)
        sums = _sum_rows(self._values.view(-1, head_dim), value_rows, probabilities.view(-1, length))
        return sums.view(rows, heads * group * head_dim)

    def read(self, length: int) -> torch.Tensor:
        keys = self._keys[:, :, : _num_chunks(length)].transpose(3, 4).flatten(2, 3)
        return torch.stack([keys[:, :, :length], self._values[:, :, :length]])


class RowIndices:
    """Which rows of the stored keys and values each sum is over. All layers share one, and within a step its length."""

    def __init__(self, shape: CacheShape) -> None:
        series, chunks = shape.rows * shape.heads, _num_chunks(shape.columns)
        keys = torch.arange(series * chunks * shape.head_dim, dtype=torch.int32)
        values = torch.arange(series * shape.columns, dtype=torch.int32)
        self._keys = keys.view(series, chunks, shape.head_dim).repeat_interleave(shape.group, 0)
        self._values = values.view(series, shape.columns).repeat_interleave(shape.group, 0)
        self._length, self._first = shape.columns, (self._keys.flatten(0, 1), self._values)

    def first(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the first `length` columns: of keys `[R * H * G * chunks, D]` and of values `[R * H * G, length]`."""
        if length != self._length:
            keys = self._keys[:, : _num_chunks(length)].flatten(0, 1)
            self._length, self._first = length, (keys, self._values[:, :length].contiguous())
        return self._first


def allocate_kv_caches(
    layers: int, shape: CacheShape, *, dtype: torch.dtype, device: torch.device, dense: bool = False
) -> tuple[KVCache, ...]:
    """An empty cache for each layer, in the device's fastest layout, or `dense` as on a GPU."""
    if dense or device.type != "cpu":
        return tuple(DenseKVCache(shape, dtype, device) for _ in range(layers))
    indices = RowIndices(shape)
    return tuple(EmbeddingBagKVCache(shape, dtype, indices) for _ in range(layers))


def mask_value(dtype: torch.dtype) -> float:
    """What is added to the score of a column that is not attended to.

    Not minus infinity: a softmax over columns that are all masked would be NaN. A row with much left padding begins
    with such columns, and the kernels that read keys in tiles compute a softmax over each tile.
    """
    return torch.finfo(dtype).min


def attend_one_query(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Attention over keys and values that do not change, such as those of a text.

    Args:
        query: `[rows, H, 1, D]`, scaled.
        keys, values: `[rows, H, n, D]`.
        bias: `[rows, 1, 1, n]`, added to the scores.

    Returns:
        `[rows, H * D]`.
    """
    if query.device.type != "cpu":
        return _fused_attention(query, keys, values, bias)
    # With a single query, torch's fused attention on a CPU takes several times as long as the two products.
    rows, heads, _, head_dim = query.shape
    scores = torch.bmm(keys.flatten(0, 1), query.reshape(rows * heads, head_dim, 1)).view(rows, heads, 1, -1)
    scores = scores if bias is None else scores + bias
    return torch.bmm(scores.softmax(-1).flatten(0, 1), values.flatten(0, 1)).view(rows, heads * head_dim)


def _fused_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=1.0).flatten(1)


def _num_chunks(columns: int) -> int:
    return -(-columns // KEY_CHUNK)


def _sum_rows(table: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")
