"""Chunks cover their whole input once; padding and crossfades hold at any length."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from models.runtime.chunks import Chunk, crossfade, plan_chunks, plan_equal_chunks, reflect_pad


@given(total=st.integers(0, 5000), size=st.integers(1, 700), context=st.integers(0, 100))
@effort(deadline=None)
def test_chunks_keep_every_position_once_and_see_the_context_that_there_is(total: int, size: int, context: int) -> None:
    chunks = list(plan_chunks(total, size=size, context=context))
    assert list(itertools.chain(*(range(total)[chunk.kept] for chunk in chunks))) == list(range(total))
    for chunk in chunks:
        assert chunk.start == max(chunk.keep_start - context, 0)
        assert chunk.stop == min(chunk.keep_stop + context, total)
        assert list(range(chunk.start, chunk.stop)[chunk.inside]) == list(range(total)[chunk.kept])


@given(
    total=st.integers(1, 2000),
    longest=st.integers(3, 400),
    context=st.integers(0, 100),
    multiple=st.sampled_from([1, 2, 32]),
)
@effort(deadline=None)
def test_equal_chunks_have_one_length_and_keep_every_position_once(
    total: int, longest: int, context: int, multiple: int
) -> None:
    context = min(context, (longest - 1) // 2)
    whole, most, side = (count * multiple for count in (total, longest, context))
    chunks = list(plan_equal_chunks(whole, longest=most, context=side, multiple=multiple))
    assert len({chunk.stop - chunk.start for chunk in chunks}) == 1
    assert chunks[0].stop - chunks[0].start <= most
    assert list(itertools.chain(*(range(whole)[chunk.kept] for chunk in chunks))) == list(range(whole))
    for chunk in chunks:
        assert chunk.start % multiple == 0 and 0 <= chunk.start <= chunk.keep_start <= chunk.keep_stop <= chunk.stop
        assert chunk.start == 0 or chunk.keep_start - chunk.start >= side
        assert chunk.stop == whole or chunk.stop - chunk.keep_stop >= side


def test_chunks_shorter_than_their_contexts_are_refused() -> None:
    with pytest.raises(AssertionError, match="keep nothing"):
        next(plan_equal_chunks(100, longest=20, context=10))


def test_a_result_with_several_values_a_position_is_cut_at_the_same_places() -> None:
    assert Chunk(10, 50, 20, 45).scale_inside(320) == slice(3200, 11_200)


@given(length=st.integers(1, 40), start=st.integers(-100, 100), count=st.integers(0, 150))
def test_padding_by_reflection_is_numpys(length: int, start: int, count: int) -> None:
    values = np.arange(length, dtype=np.float32) + 1
    before, after = max(-start, 0), max(start + count - length, 0)
    wanted = np.pad(values, (before, after), mode="reflect")[start + before :][:count]
    np.testing.assert_array_equal(reflect_pad(values, start, start + count), wanted)


def test_an_inner_part_is_not_copied() -> None:
    values = np.arange(10)
    assert np.shares_memory(reflect_pad(values, 2, 8), values)


@given(lengths=st.lists(st.integers(21, 60), min_size=1, max_size=5), fade=st.sampled_from([2, 4, 10]))
def test_parts_of_one_sound_are_joined_without_a_seam(lengths: list[int], fade: int) -> None:
    waveform = np.random.default_rng(0).standard_normal(sum(lengths)).astype(np.float32)
    starts = [0, *itertools.accumulate(length - fade for length in lengths[:-1])]
    parts = (waveform[start : start + length] for start, length in zip(starts, lengths, strict=True))
    joined = np.concatenate(list(crossfade(parts, fade)))
    np.testing.assert_allclose(joined, waveform[fade // 2 : starts[-1] + lengths[-1]], atol=1e-6)
