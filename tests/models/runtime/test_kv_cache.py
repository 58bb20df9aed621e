"""Both layouts of the KV cache compute attention, however the columns were written and however many are read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from torch.nn import functional as F

from models.runtime.kv_cache import KEY_CHUNK, CacheShape, KVCache, allocate_kv_caches, attend_one_query, mask_value

CPU = torch.device("cpu")
SHAPE = CacheShape(rows=3, heads=2, columns=3 * KEY_CHUNK - 5, head_dim=32)


def random_columns(count: int, seed: int = 0) -> torch.Tensor:
    """Keys and values `[2, R, H, count, D]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, SHAPE.rows, SHAPE.heads, count, SHAPE.head_dim, generator=generator)


def random_query(seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE.rows, SHAPE.heads, 1, SHAPE.head_dim, generator=generator) / 5


def fill_cache(keys_values: torch.Tensor, first: int, *, dtype: torch.dtype, dense: bool) -> KVCache:
    """A cache into which `first` columns were written at once and the others one by one."""
    (cache,) = allocate_kv_caches(1, SHAPE, dtype=dtype, device=CPU, dense=dense)
    cache.write_prefill(keys_values[:, :, :, :first])
    for column in range(first, keys_values.shape[3]):
        cache.write(torch.tensor([column]), keys_values[:, :, :, column : column + 1])
    return cache


def exact_attention(query: torch.Tensor, keys_values: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Attention by its definition, in float64."""
    keys, values = keys_values.double()
    scores = torch.matmul(query.double(), keys.transpose(2, 3))
    probabilities = (scores if bias is None else scores + bias.double()).softmax(-1)
    return torch.matmul(probabilities, values).flatten(1)


def half_spacing(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The largest error of rounding numbers of the size of `x` to `dtype`."""
    info = torch.finfo(dtype)
    error: torch.Tensor = torch.exp2(x.abs().clamp_min(info.tiny).log2().floor()) * (info.eps / 2)
    return error


def rounding_bound(query: torch.Tensor, keys_values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """By how much each number of the result `[R, H * D]` may be off if attention is computed in `dtype`.

    Exact, not an estimate. `query` and `keys_values` are rounded already; what is rounded after that, each number by at
    most half the spacing at its size, is:

    1. each score s_i, by d_i. With probabilities p_i and result o, that changes o = sum p_i v_i by at most
       exp(max d) * sum p_i (exp(d_i) - 1) |v_i - o|, for the weights sum to 1 again after the softmax;
    2. each probability, by r_i, which changes o by at most sum r_i |v_i|;
    3. the result.

    Sums are accumulated in float32. They are off by at most one of its roundings for each term.
    """
    keys, values = keys_values.double()
    scores = torch.matmul(query.double(), keys.transpose(2, 3))
    probabilities = scores.softmax(-1)
    result = torch.matmul(probabilities, values)
    float32_rounding = torch.finfo(torch.float32).eps / 2
    products = torch.matmul(query.double().abs(), keys.abs().transpose(2, 3))
    d = half_spacing(scores, dtype) + SHAPE.head_dim * float32_rounding * products
    distances = (values.unsqueeze(2) - result.unsqueeze(3)).abs()  # [R, H, 1, n, D]
    by_scores = torch.einsum("rhqn,rhqnd->rhqd", probabilities * d.expm1(), distances) * d.amax(-1, keepdim=True).exp()
    by_probabilities = torch.matmul(half_spacing(probabilities, dtype), values.abs())
    by_sums = 3 * (keys.shape[2] + 2) * float32_rounding * torch.matmul(probabilities, values.abs())
    bound: torch.Tensor = by_scores + by_probabilities + by_sums + half_spacing(result, dtype)
    return bound.flatten(1)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@given(data=st.data())
@effort(max_examples=40, deadline=None)
def test_columns_written_at_once_or_one_by_one_are_all_attended_to(
    dense: bool, dtype: torch.dtype, data: st.DataObject
) -> None:
    """Compared with exact attention over the numbers that are stored: those of the cache's type.

    A dense cache then computes in the query's float32. The other one computes in its own type, and so rounds the query,
    the scores, the probabilities and the result to it: for float16, `rounding_bound` follows from these roundings. A
    fixed figure does not: the spacing of float16 at the size of a score, up to 4 here, is 2^-8.
    """
    count = data.draw(st.integers(1, SHAPE.columns), label="count")
    first = data.draw(st.integers(0, count), label="first")
    length = data.draw(st.integers(1, count), label="length")
    keys_values, query = random_columns(count), random_query()
    found = fill_cache(keys_values, first, dtype=dtype, dense=dense).attend(query, length, None)
    assert found.shape == (SHAPE.rows, SHAPE.heads * SHAPE.head_dim)
    stored = keys_values[:, :, :, :length].to(dtype)
    if dense or dtype == torch.float32:
        torch.testing.assert_close(found.double(), exact_attention(query, stored), atol=2e-6, rtol=0)
    else:
        error = (found.double() - exact_attention(query.to(dtype), stored)).abs()
        assert bool((error <= rounding_bound(query.to(dtype), stored, dtype)).all())


@pytest.mark.parametrize("length", [2, KEY_CHUNK, SHAPE.columns])
def test_the_bound_for_float16_is_tight_enough_to_notice_a_single_missing_column(length: int) -> None:
    keys_values, query = random_columns(length).half(), random_query().half()
    bound = rounding_bound(query, keys_values, torch.float16)
    assert float(bound.mean()) < 1e-3
    for column in range(length):
        others = torch.cat([keys_values[:, :, :, :column], keys_values[:, :, :, column + 1 :]], dim=3)
        error = (exact_attention(query, others) - exact_attention(query, keys_values)).abs()
        assert bool((error > bound).any())


@pytest.mark.parametrize("dense", [True, False])
def test_columns_that_the_bias_masks_are_not_attended_to(dense: bool) -> None:
    keys_values, query = random_columns(SHAPE.columns), random_query()
    bias = torch.zeros(SHAPE.rows, 1, 1, SHAPE.columns)
    bias[0, ..., :70] = bias[1, ..., 100:] = mask_value(torch.float32)
    found = fill_cache(keys_values, 10, dtype=torch.float32, dense=dense).attend(query, SHAPE.columns, bias)
    torch.testing.assert_close(found.double(), exact_attention(query, keys_values, bias), atol=2e-6, rtol=0)


@pytest.mark.parametrize("dense", [True, False])
def test_a_row_whose_columns_are_all_masked_stays_finite(dense: bool) -> None:
    keys_values, query = random_columns(SHAPE.columns), random_query()
    bias = torch.full((SHAPE.rows, 1, 1, SHAPE.columns), mask_value(torch.float32))
    found = fill_cache(keys_values, 10, dtype=torch.float32, dense=dense).attend(query, SHAPE.columns, bias)
    assert found.isfinite().all()
    keys, values = keys_values
    assert attend_one_query(query, keys, values, bias).isfinite().all()


def test_on_a_cpu_a_row_does_not_depend_on_the_other_rows() -> None:
    """So that a clip does not depend on the others in its batch."""
    keys_values, query = random_columns(100), random_query()
    together = fill_cache(keys_values, 90, dtype=torch.float32, dense=False).attend(query, 100, None)
    shape = CacheShape(1, SHAPE.heads, SHAPE.columns, SHAPE.head_dim)
    alone = allocate_kv_caches(1, shape, dtype=torch.float32, device=CPU)[0]
    alone.write_prefill(keys_values[:, 1:2])
    assert torch.equal(alone.attend(query[1:2], 100, None)[0], together[1])


def test_layers_share_their_row_indices_but_not_their_columns() -> None:
    first, second = allocate_kv_caches(2, SHAPE, dtype=torch.float32, device=CPU)
    first.write_prefill(random_columns(80, seed=2))
    second.write_prefill(random_columns(80, seed=3))
    for length in (80, 3, 80):
        for seed, cache in ((2, first), (3, second)):
            expected = exact_attention(random_query(), random_columns(80, seed=seed)[:, :, :, :length])
            found = cache.attend(random_query(), length, None)
            torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=0)


def test_attention_over_a_text_equals_torchs() -> None:
    keys, values = random_columns(9)
    bias = torch.zeros(SHAPE.rows, 1, 1, 9)
    bias[1, ..., 4:] = mask_value(torch.float32)
    query = random_query()
    expected = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=1.0).flatten(1)
    torch.testing.assert_close(attend_one_query(query, keys, values, bias), expected)


@pytest.mark.parametrize("dense", [True, False])
@given(data=st.data())
@effort(max_examples=25, deadline=None)
def test_columns_may_be_stored_in_parts_and_are_read_back(dense: bool, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, SHAPE.columns), label="count")
    cuts = sorted(data.draw(st.sets(st.integers(1, count), max_size=3), label="cuts"))
    keys_values = random_columns(count)
    (cache,) = allocate_kv_caches(1, SHAPE, dtype=torch.float32, device=CPU, dense=dense)
    for start, end in zip([0, *cuts], [*cuts, count], strict=True):
        cache.write_prefill(keys_values[:, :, :, start:end], start)
    length = data.draw(st.integers(1, count), label="length")
    assert torch.equal(cache.read(length), keys_values[:, :, :, :length])


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("length", [1, KEY_CHUNK, SHAPE.columns])
def test_queries_of_a_group_share_a_head_of_keys_and_values(dense: bool, length: int) -> None:
    """Grouped-query attention equals attention in which each head of keys and values is repeated for its queries."""
    shape = CacheShape(SHAPE.rows, SHAPE.heads, SHAPE.columns, SHAPE.head_dim, group=3)
    keys_values, generator = random_columns(SHAPE.columns), torch.Generator().manual_seed(4)
    query = torch.randn(shape.rows, shape.heads, shape.group, shape.head_dim, generator=generator) / 5
    bias = torch.zeros(shape.rows, 1, 1, length)
    bias[0, ..., : length // 2] = mask_value(torch.float32)
    (cache,) = allocate_kv_caches(1, shape, dtype=torch.float32, device=CPU, dense=dense)
    cache.write_prefill(keys_values)
    repeated = keys_values[:, :, :, :length].repeat_interleave(shape.group, 2)
    expected = exact_attention(query.flatten(1, 2).unsqueeze(2), repeated, bias)
    torch.testing.assert_close(cache.attend(query, length, bias).double(), expected, atol=2e-6, rtol=0)
