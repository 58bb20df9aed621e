"""Copies tensors between a GPU and ordinary memory, by way of page-locked memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

_BUFFER_VALUES = 1 << 22  # float32; 16 MiB
_NUM_BUFFERS = 2


class CopyQueue(Protocol):
    """A device's queue of copies. Tests inject one that runs them late, on the CPU."""

    def allocate(self, count: int) -> torch.Tensor:
        """A page-locked buffer of `count` float32 values on the host."""

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Adds a copy to the queue, one side of which is a buffer from `allocate`, and returns at once."""

    def record_event(self) -> Callable[[], None]:
        """The returned function waits until everything that the queue has got so far is done."""


class CudaCopyQueue:
    """The current stream of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def allocate(self, count: int) -> torch.Tensor:
        """See `CopyQueue`."""
        return torch.empty(count, pin_memory=True)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """See `CopyQueue`."""
        target.copy_(source, non_blocking=True)

    def record_event(self) -> Callable[[], None]:
        """See `CopyQueue`."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize


class HostTransfer:
    """Transfers of any size through two buffers of 16 MiB: one is filled while the other one is emptied.

    A GPU reads and writes page-locked memory several times as fast as ordinary memory. To lock pages is slow, though,
    and locked pages are lost to everything else, so the two buffers are made at the first transfer and then kept.

    Args:
        queue: of the device.
        buffer_values: float32 values in each buffer.
    """

    def __init__(self, queue: CopyQueue, *, buffer_values: int = _BUFFER_VALUES) -> None:
        self._queue, self._buffer_values = queue, buffer_values
        self._buffers: tuple[torch.Tensor, ...] = ()

    def to_host(self, tensor: torch.Tensor) -> NDArray[np.float32]:
        """A copy of a float32 tensor `[C, n]`, whose rows may lie apart, after the device's earlier work."""
        result = np.empty(tensor.shape, np.float32)
        arriving: deque[Callable[[], None]] = deque()
        for (source, target), buffer in self._plan(tensor, torch.from_numpy(result)):
            self._queue.copy(buffer, source)
            arriving.append(partial(_receive, self._queue.record_event(), target, buffer))
            if len(arriving) == _NUM_BUFFERS:
                arriving.popleft()()
        for receive in arriving:
            receive()
        return result

    def to_device(self, waveform: NDArray[np.float32], target: torch.Tensor) -> None:
        """Copies `[C, n]` into a float32 tensor `[C, n]` on the device, whose rows may lie apart."""
        leaving: deque[Callable[[], None]] = deque()
        for (source, part), buffer in self._plan(torch.from_numpy(np.ascontiguousarray(waveform)), target):
            if len(leaving) == _NUM_BUFFERS:
                leaving.popleft()()
            buffer.copy_(source)
            self._queue.copy(part, buffer)
            leaving.append(self._queue.record_event())
        for wait in leaving:
            wait()

    def _plan(
        self, source: torch.Tensor, target: torch.Tensor
    ) -> Iterator[tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]]:
        """Parts of every row of the source and of the target, each with a buffer; the buffers take turns."""
        assert source.dtype == target.dtype == torch.float32, f"only float32 is copied, not {source.dtype}"
        assert source.shape == target.shape, f"{list(source.shape)} does not fit into {list(target.shape)}"
        self._buffers = self._buffers or tuple(self._queue.allocate(self._buffer_values) for _ in range(_NUM_BUFFERS))
        buffers = cycle(self._buffers)
        for row, target_row in zip(source, target, strict=True):
            parts = zip(row.split(self._buffer_values), target_row.split(self._buffer_values), strict=True)
            for part, buffer in zip(parts, buffers, strict=False):
                yield part, buffer[: len(part[0])]


def start_download(tensor: torch.Tensor) -> Callable[[], NDArray[np.float32]]:
    """Starts to copy a tensor to the host; the returned function waits for the copy alone, not for later work.

    On a GPU the copy is in page-locked memory of its own, so it is for a batch of results and not for whole songs.
    """
    if tensor.device.type != "cuda":
        on_host = tensor.cpu()
        return lambda: np.asarray(on_host.numpy())
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    queue = CudaCopyQueue(tensor.device)
    queue.copy(copy, tensor)
    wait = queue.record_event()

    def receive() -> NDArray[np.float32]:
        wait()
        return np.asarray(copy.numpy())

    return receive


def _receive(wait: Callable[[], None], target: torch.Tensor, buffer: torch.Tensor) -> None:
    wait()
    target.copy_(buffer)
