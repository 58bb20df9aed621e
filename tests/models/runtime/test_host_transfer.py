"""Transfers through page-locked buffers, with a queue that runs its copies as early and as late as a GPU may."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.runtime.host_transfer import CudaCopyQueue, HostTransfer


class FakeQueue:
    """Runs each copy at once, or only when somebody waits for an event after it.

    A buffer that is filled again too early shows in the first case, one that is read too early in the second.
    """

    def __init__(self, *, is_late: bool) -> None:
        self._is_late = is_late
        self.allocated: list[int] = []
        self._copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._num_done = 0

    def allocate(self, count: int) -> torch.Tensor:
        self.allocated.append(count)
        return torch.full((count,), torch.nan)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        if self._is_late:
            self._copies.append((target, source))
        else:
            target.copy_(source)

    def record_event(self) -> Callable[[], None]:
        due = len(self._copies)

        def wait() -> None:
            for target, source in self._copies[self._num_done : due]:
                target.copy_(source)
            self._num_done = max(self._num_done, due)

        return wait


def make_waveform(channels: int, samples: int) -> NDArray[np.float32]:
    return np.random.default_rng(samples).standard_normal((channels, samples)).astype(np.float32)


@given(st.integers(1, 5), st.integers(0, 50), st.integers(1, 20), st.booleans())
def test_every_value_arrives_in_both_directions(channels: int, samples: int, buffer_values: int, is_late: bool) -> None:
    queue, waveform = FakeQueue(is_late=is_late), make_waveform(channels, samples)
    transfer = HostTransfer(queue, buffer_values=buffer_values)
    on_device = torch.full((channels, samples + 7), torch.nan)
    for _ in range(2):
        transfer.to_device(waveform, on_device[:, 3 : 3 + samples])
        np.testing.assert_array_equal(transfer.to_host(on_device[:, 3 : 3 + samples]), waveform)
    assert on_device[:, :3].isnan().all() and on_device[:, 3 + samples :].isnan().all()


def test_only_two_buffers_are_made_however_much_is_transferred() -> None:
    queue = FakeQueue(is_late=True)
    transfer = HostTransfer(queue, buffer_values=16)
    assert queue.allocated == []
    for samples in (3, 1000):
        target = torch.zeros(2, samples)
        transfer.to_device(make_waveform(2, samples), target)
        transfer.to_host(target)
    assert queue.allocated == [16, 16]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_and_returns_the_same_values() -> None:
    device = torch.device("cuda")
    transfer, waveform = HostTransfer(CudaCopyQueue(device)), make_waveform(2, 20_000_000)
    on_device = torch.zeros(waveform.shape, device=device)
    transfer.to_device(waveform, on_device)
    np.testing.assert_array_equal(transfer.to_host(on_device), waveform)
