"""Replays a fixed sequence of GPU kernels as one CUDA graph, which saves the host the launching of each kernel.

After the example of moshi's `CUDAGraphed` (`moshi/utils/compile.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch

from models.device import is_out_of_memory

T = TypeVar("T")
logger = logging.getLogger(__name__)


class GraphCaptureError(Exception):
    """A capture failed midway, for another reason than a lack of memory."""


class GraphRecorder(Protocol):
    """Captures work on a device and marks points in the device's queue. Tests inject one that needs no GPU."""

    @property
    def has_failed(self) -> bool:
        """Whether a capture has failed. Then no graph may be captured or replayed any more."""

    def create_pool(self) -> Any:
        """The id of a new pool of memory that several graphs share; one of them runs at a time.

        The pool lives from its first capture until its last graph is deleted. Its id cannot be used after that.
        """

    def capture(self, work: Callable[[], None], repeats: int, pool: Any) -> Callable[[], None]:
        """Runs `work` once to warm up. The returned function runs it `repeats` times, without waiting for the device.

        Raises:
            torch.OutOfMemoryError: the device has no memory for it. It can be tried again.
            GraphCaptureError: the work cannot be captured.
        """

    def record_event(self) -> Callable[[], None]:
        """The returned function waits until the device has finished everything that it was given so far."""


class CudaGraphRecorder:
    """Captures with `torch.cuda.CUDAGraph`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.has_failed = False

    def create_pool(self) -> Any:
        """See `GraphRecorder`."""
        return torch.cuda.graph_pool_handle()

    def capture(self, work: Callable[[], None], repeats: int, pool: Any) -> Callable[[], None]:
        """See `GraphRecorder`.

        The warm-up selects kernels and allocates workspaces, which must not be captured. cuBLAS keeps a workspace for
        each stream, so the warm-up runs on the stream of the capture, torch's own one for all captures of the process.
        Only this thread is forbidden to do what would break a capture ("thread_local"): other threads go on.
        """
        graph = torch.cuda.CUDAGraph()
        capture = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
        caller, stream = torch.cuda.current_stream(self._device), capture.capture_stream
        assert stream is not None, "torch makes the stream of its captures in `graph`'s constructor"
        stream.wait_stream(caller)
        with torch.cuda.stream(stream):  # leaves the stream even if the capture cannot be begun or ended
            work()
            try:
                with capture:
                    for _ in range(repeats):
                        work()
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self.has_failed = True
                replace_generator_state(torch.cuda.default_generators[caller.device_index])
                raise GraphCaptureError(f"the capture ended with {type(error).__name__}") from error
        caller.wait_stream(stream)
        return graph.replay

    def record_event(self) -> Callable[[], None]:
        """See `GraphRecorder`. Waiting lets the thread sleep instead of keeping a core busy."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize


def replace_generator_state(generator: torch.Generator) -> None:
    """Gives a CUDA generator an equal state that no graph uses.

    A capture that fails leaves the state marked as being captured, and every later draw outside a capture raises.
    """
    generator.graphsafe_set_state(generator.clone_state())


class CudaGraphed:
    """Calls a step several times by replaying a CUDA graph of it, which is captured at once.

    If the step cannot be captured, its kernels are launched one by one from then on, and the log gives the reason once
    for all steps of a recorder.

    Args:
        step: changes tensors in place. It must launch the same kernels at each call, and must not read a value back
            from the device.
        recorder: a `CudaGraphRecorder`, except in tests without a GPU.
        pool: of the recorder.
        name: what is captured, for the log.
        repeats: how often each call runs the step.
        mutated: the tensors that the step changes in place. The warm-up's changes to them are undone.

    Raises:
        torch.OutOfMemoryError: there is no memory for the graph.
    """

    def __init__(  # noqa: PLR0913 - all are keywords
        self,
        *,
        step: Callable[[], None],
        recorder: GraphRecorder,
        pool: Any,
        name: str,
        repeats: int,
        mutated: Sequence[torch.Tensor],
    ) -> None:
        self._step, self._recorder, self._repeats = step, recorder, repeats
        self._replay = None if recorder.has_failed else self._capture(pool, name, mutated)

    def __call__(self) -> None:
        """Runs the step `repeats` times."""
        if self._replay is None or self._recorder.has_failed:
            for _ in range(self._repeats):
                self._step()
        else:
            self._replay()

    def _capture(self, pool: Any, name: str, mutated: Sequence[torch.Tensor]) -> Callable[[], None] | None:
        logger.debug("Capturing %s, %d times a graph", name, self._repeats)
        before = [tensor.clone() for tensor in mutated]
        try:
            return self._recorder.capture(self._step, self._repeats, pool)
        except GraphCaptureError as error:
            logger.warning(
                "CUDA graph capture of %s failed: its kernels are launched one by one, which is slower", name
            )
            logger.debug("The reason for the failed capture of %s", name, exc_info=error)
            return None
        finally:
            for tensor, value in zip(mutated, before, strict=True):
                tensor.copy_(value)


def retry_with_memory(action: Callable[[], T], free_memory: Callable[[], None]) -> T:
    """`action()`; if memory does not suffice, once more after `free_memory()`."""
    try:
        return action()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        logger.warning("The GPU's memory did not suffice for the state of a CUDA graph; dropping those that are kept")
    free_memory()  # out of the except block, so that the tensors of the failed attempt are gone
    return action()
