"""Replays a fixed sequence of GPU kernels as one CUDA graph, which saves the host the launching of each kernel.

One wrapper for all families, after the example of moshi's `CUDAGraphed` (`moshi/utils/compile.py`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import torch

from models.device import is_out_of_memory

logger = logging.getLogger(__name__)

Function = Callable[..., torch.Tensor | None]


class GraphRecorder(Protocol):
    """Captures work on a device and marks points in the device's queue. Tests inject one that needs no GPU."""

    def capture(self, work: Callable[[], None], repeats: int) -> Callable[[], None]:
        """Runs `work` once to warm up. The returned function runs it `repeats` times, without waiting for the device.

        Raises:
            RuntimeError: the work cannot be captured.
        """

    def record_event(self) -> Callable[[], None]:
        """The returned function waits until the device has finished everything that it was given so far."""


class CudaGraphRecorder:
    """Captures with `torch.cuda.CUDAGraph`. The graphs of one recorder share their memory, so one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def capture(self, work: Callable[[], None], repeats: int) -> Callable[[], None]:
        """See `GraphRecorder`. The warm-up, which selects kernels and allocates workspaces, must not be captured."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            for _ in range(repeats):
                work()
        self._pool = self._pool or graph.pool()
        return graph.replay

    def record_event(self) -> Callable[[], None]:
        """See `GraphRecorder`. Waiting lets the thread sleep instead of keeping a core busy."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        return event.synchronize


class _Graph:
    """A function with its static tensors: it reads `inputs`, which a replay does not change, and sets `output`."""

    def __init__(self, function: Function, inputs: tuple[torch.Tensor, ...]) -> None:
        self.inputs = inputs
        self.output: torch.Tensor | None = None
        self.replay: Callable[[], None] = self.work
        self._function = function

    def work(self) -> None:
        """What is captured."""
        self.output = self._function(*self.inputs)


class CudaGraphed:
    """Calls a function by replaying a CUDA graph of it, one graph for each combination of input shapes.

    If the function cannot be captured, it is called as it is from then on, and the log gives the reason once.

    Args:
        function: takes tensors and returns one tensor, or changes tensors in place and returns None. It must launch the
            same kernels whenever the shapes are the same, and must not read a value back from the device.
        recorder: a `CudaGraphRecorder`, except in tests without a GPU.
        name: what is captured, for the log.
        enabled: False calls the function as it is, always (setting `CUDA_GRAPHS=0`).
        repeats: how often each call runs the function; for functions that change tensors in place.
        mutated: the tensors that the function changes in place. The warm-up's changes to them are undone.
        eager_calls: how many calls of a shape run as they are before it is captured.
        max_graphs: shapes that are captured; others are called as they are.
        tolerance: if given, a graph is used only if its first output differs from the function's own by no more than
            this fraction of the output's largest magnitude.
    """

    def __init__(  # noqa: PLR0913 - options, each with a default
        self,
        function: Function,
        recorder: GraphRecorder,
        *,
        name: str,
        enabled: bool = True,
        repeats: int = 1,
        mutated: tuple[torch.Tensor, ...] = (),
        eager_calls: int = 0,
        max_graphs: int = 1,
        tolerance: float | None = None,
    ) -> None:
        self._function, self._recorder, self._name = function, recorder, name
        self._enabled = enabled
        self._repeats, self._mutated = repeats, mutated
        self._eager_calls, self._max_graphs, self._tolerance = eager_calls, max_graphs, tolerance
        self._calls: Counter[tuple[torch.Size, ...]] = Counter()
        self._graphs: dict[tuple[torch.Size, ...], _Graph] = {}

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor | None:
        """`function(*inputs)`, `repeats` times; a returned tensor is the caller's own.

        Raises:
            torch.OutOfMemoryError: there is no memory for the graph and no `tolerance` is given. With one, the
                function's own output is there already and is returned.
        """
        shapes = tuple(x.shape for x in inputs)
        graph = self._graphs.get(shapes)
        if graph is None:
            if not self._should_capture(shapes):
                return self._run(inputs)
            expected = None if self._tolerance is None else self._run(inputs)
            graph = self._capture(inputs, expected)
            if graph is None:
                return self._run(inputs) if expected is None else expected
            self._graphs[shapes] = graph
            if expected is not None:
                return expected
        for static, given in zip(graph.inputs, inputs, strict=True):
            static.copy_(given)
        graph.replay()
        return None if graph.output is None else graph.output.clone()

    @property
    def num_graphs(self) -> int:
        """How many shapes have been captured."""
        return len(self._graphs)

    def _should_capture(self, shapes: tuple[torch.Size, ...]) -> bool:
        if not self._enabled or len(self._graphs) >= self._max_graphs:
            return False
        self._calls[shapes] += 1
        return self._calls[shapes] > self._eager_calls

    def _run(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
        for _ in range(self._repeats - 1):
            self._function(*inputs)
        return self._function(*inputs)

    def _capture(self, inputs: tuple[torch.Tensor, ...], expected: torch.Tensor | None) -> _Graph | None:
        """The graph for these shapes; None, and no further attempt, if capturing fails or its output is wrong."""
        before = [tensor.clone() for tensor in self._mutated]
        try:
            graph = self._record(tuple(x.clone() for x in inputs))
            if expected is not None and not self._reproduces(graph, expected):
                self._enabled = False
                logger.warning("The CUDA graph of %s differs from its eager result: it is not used", self._name)
                return None
        except RuntimeError as error:
            if is_out_of_memory(error) and expected is None:
                raise
            self._enabled = False
            logger.warning(
                "CUDA graph capture of %s failed (%s): its kernels are launched one by one, which is slower",
                self._name,
                type(error).__name__,
            )
            logger.debug("The reason for the failed capture of %s", self._name, exc_info=error)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return None
        finally:
            for tensor, value in zip(self._mutated, before, strict=True):
                tensor.copy_(value)
        return graph

    def _record(self, inputs: tuple[torch.Tensor, ...]) -> _Graph:
        logger.debug("Capturing %s, %d times a graph", self._name, self._repeats)
        graph = _Graph(self._function, inputs)
        graph.replay = self._recorder.capture(graph.work, self._repeats)
        return graph

    def _reproduces(self, graph: _Graph, expected: torch.Tensor) -> bool:
        assert graph.output is not None and self._tolerance is not None, "only an output can be compared"
        graph.replay()
        return bool((graph.output - expected).abs().max() <= self._tolerance * expected.abs().max())
