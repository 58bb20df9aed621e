"""Work in batches: their sizes, and what happens when the device's memory does not suffice for one."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.runtime.batches import BatchRunner, look_ahead


class SmallDevice:
    """Doubles items, at most `capacity` of them at once; records the sizes of the batches that it computed."""

    def __init__(self, capacity: int, error: str = "CUDA out of memory. Tried to allocate 2.00 GiB") -> None:
        self.capacity, self.error = capacity, error
        self.sizes: list[int] = []
        self.num_failures = 0

    def double(self, batch: Sequence[int]) -> list[int]:
        if len(batch) > self.capacity:
            self.num_failures += 1
            raise RuntimeError(self.error)
        self.sizes.append(len(batch))
        return [2 * item for item in batch]


def run(device: SmallDevice, items: Sequence[int], size: int, runner: BatchRunner | None = None) -> list[int]:
    batches = (runner or BatchRunner("items")).run(items, device.double, size=size)
    pairs = [(item, value) for batch, result in batches for item, value in zip(batch, result, strict=True)]
    assert [item for item, _ in pairs] == list(items)
    return [value for _, value in pairs]


@given(st.lists(st.integers(), max_size=60), st.integers(1, 20), st.integers(1, 20))
def test_every_item_is_computed_once_and_in_order_whatever_fits(items: list[int], size: int, capacity: int) -> None:
    device = SmallDevice(capacity)
    assert run(device, items, size) == [2 * item for item in items]
    assert all(0 < computed <= min(size, capacity) for computed in device.sizes)
    assert len(set(device.sizes[:-1])) <= 1


def test_halved_batches_stay_halved_until_the_work_ends() -> None:
    device, runner = SmallDevice(capacity=3), BatchRunner("items")
    run(device, range(20), 8, runner)
    assert (device.num_failures, set(device.sizes)) == (2, {2})
    run(device, range(20), 8, runner)
    assert device.num_failures == 2
    run(SmallDevice(capacity=8), range(16), 8)
    assert device.num_failures == 2


def test_an_error_about_memory_is_raised_if_a_single_item_is_too_much() -> None:
    device = SmallDevice(capacity=0)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(device, range(5), 4)
    assert device.num_failures == 3


def test_other_errors_are_raised_at_once() -> None:
    device = SmallDevice(capacity=1, error="CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal"):
        run(device, range(5), 4)
    assert device.num_failures == 1


def test_the_tensors_of_a_failed_batch_are_freed_before_the_next_attempt() -> None:
    tensors: list[weakref.ref[torch.Tensor]] = []

    def fail_above_two(batch: Sequence[int]) -> int:
        assert all(tensor() is None for tensor in tensors)
        kept = torch.zeros(len(batch))
        if len(batch) > 2:
            tensors.append(weakref.ref(kept))
            raise RuntimeError("CUDA out of memory")
        return len(kept)

    assert [size for _, size in BatchRunner("items").run(range(6), fail_above_two, size=4)] == [2, 2, 2]
    assert len(tensors) == 1


@given(st.lists(st.integers(), max_size=10))
def test_looking_ahead_takes_the_next_item_before_it_yields_one_and_keeps_their_order(items: list[int]) -> None:
    taken: list[int] = []

    def take() -> Iterator[int]:
        for item in items:
            taken.append(item)
            yield item

    for number, item in enumerate(look_ahead(take())):
        assert item == items[number]
        assert len(taken) == min(number + 2, len(items))
    assert taken == items
