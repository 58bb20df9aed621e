"""The two forms in which keys and values are kept: each is attention, however they came and whatever is read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from torch.nn import functional as F

from models.musicgen.kv_cache import KEY_CHUNK, CacheSize, KeyValueCache, attend, caches

CPU = torch.device("cpu")
SIZE = CacheSize(rows=3, heads=2, columns=3 * KEY_CHUNK - 5, width=32)

pytestmark = pytest.mark.usefixtures("one_thread")


def columns_of(count: int, seed: int = 0) -> torch.Tensor:
    """Keys and values `[2, R, H, count, D]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, SIZE.rows, SIZE.heads, count, SIZE.width, generator=generator)


def query_of(seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE.rows, SIZE.heads, 1, SIZE.width, generator=generator) / 5


def filled(both: torch.Tensor, first: int, *, dtype: torch.dtype, plain: bool) -> KeyValueCache:
    """A cache that was given `first` columns at once and the rest one by one."""
    (cache,) = caches(1, SIZE, dtype=dtype, device=CPU, plain=plain)
    cache.write_first(both[:, :, :, :first])
    for column in range(first, both.shape[3]):
        cache.write(torch.tensor([column]), both[:, :, :, column : column + 1])
    return cache


def attention(query: torch.Tensor, both: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """By its definition, in float64."""
    keys, values = both.double()
    scores = torch.matmul(query.double(), keys.transpose(2, 3))
    shares = (scores if bias is None else scores + bias.double()).softmax(-1)
    return torch.matmul(shares, values).flatten(1)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 2e-6), (torch.float16, 2e-3)])
@given(data=st.data())
@effort(max_examples=40, deadline=None)
def test_columns_written_at_once_or_one_by_one_are_all_attended_to(
    plain: bool, dtype: torch.dtype, most: float, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, SIZE.columns), label="count")
    first = data.draw(st.integers(0, count), label="first")
    length = data.draw(st.integers(1, count), label="length")
    both, query = columns_of(count), query_of()
    found = filled(both, first, dtype=dtype, plain=plain).attend(query, length, None)
    assert found.shape == (SIZE.rows, SIZE.heads * SIZE.width)
    torch.testing.assert_close(found.double(), attention(query, both[:, :, :, :length]), atol=most, rtol=0)


@pytest.mark.parametrize("plain", [True, False])
def test_what_the_bias_masks_is_not_attended_to(plain: bool) -> None:
    both, query = columns_of(SIZE.columns), query_of()
    bias = torch.zeros(SIZE.rows, 1, 1, SIZE.columns)
    bias[0, ..., :70] = bias[1, ..., 100:] = float("-inf")
    found = filled(both, 10, dtype=torch.float32, plain=plain).attend(query, SIZE.columns, bias)
    torch.testing.assert_close(found.double(), attention(query, both, bias), atol=2e-6, rtol=0)


def test_on_a_cpu_a_row_is_what_it_is_alone() -> None:
    """So that an item of a batch does not depend on its neighbours."""
    both, query = columns_of(100), query_of()
    together = filled(both, 90, dtype=torch.float32, plain=False).attend(query, 100, None)
    alone = caches(1, CacheSize(1, SIZE.heads, SIZE.columns, SIZE.width), dtype=torch.float32, device=CPU)[0]
    alone.write_first(both[:, 1:2])
    assert torch.equal(alone.attend(query[1:2], 100, None)[0], together[1])


def test_layers_share_what_they_read_but_not_what_they_keep() -> None:
    first, second = caches(2, SIZE, dtype=torch.float32, device=CPU)
    first.write_first(columns_of(80, seed=2))
    second.write_first(columns_of(80, seed=3))
    for length in (80, 3, 80):
        for seed, cache in ((2, first), (3, second)):
            wanted = attention(query_of(), columns_of(80, seed=seed)[:, :, :, :length])
            torch.testing.assert_close(cache.attend(query_of(), length, None).double(), wanted, atol=2e-6, rtol=0)


def test_a_text_is_attended_to_as_torch_does_it() -> None:
    key, value = columns_of(9)
    bias = torch.zeros(SIZE.rows, 1, 1, 9)
    bias[1, ..., 4:] = float("-inf")
    wanted = F.scaled_dot_product_attention(query_of(), key, value, attn_mask=bias, scale=1.0).flatten(1)
    torch.testing.assert_close(attend(query_of(), key, value, bias), wanted)
