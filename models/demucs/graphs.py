"""Replays a network's whole forward pass as one CUDA graph per batch shape, once the shape has come up before."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_WARM_AFTER: Final = 2
_MOST_GRAPHS: Final = 2
_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, eq=False)
class _Captured:
    graph: torch.cuda.CUDAGraph
    given: Tensor
    result: Tensor


class Graphs:
    """Calls `module`, as it is at first, then as a graph: one launch in place of a thousand.

    A graph is kept only if its first replay gives what the module gives. Where capturing fails, for lack of memory or
    for an operation that cannot be captured, the module is called as it is from then on.

    Args:
        module: on a CUDA device, fixed in shape for a fixed input shape.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._seen: Counter[torch.Size] = Counter()
        self._captured: dict[torch.Size, _Captured] = {}
        self._works = True

    def __call__(self, batch: Tensor) -> Tensor:
        """`module(batch)`."""
        self._seen[batch.shape] += 1
        if (captured := self._captured.get(batch.shape)) is not None:
            captured.given.copy_(batch)
            captured.graph.replay()
            return captured.result.clone()
        result: Tensor = self._module(batch)
        if self._works and self._seen[batch.shape] > _WARM_AFTER and len(self._captured) < _MOST_GRAPHS:
            self._capture(batch, result)
        return result

    def _capture(self, batch: Tensor, expected: Tensor) -> None:
        try:
            captured = self._recorded(batch)
            captured.graph.replay()
            self._works = bool((captured.result - expected).abs().max() <= _TOLERANCE * expected.abs().max())
        except RuntimeError as error:
            self._works = False
            logger.warning("No CUDA graph for this network, which costs some speed: %s", str(error).splitlines()[0])
            torch.cuda.empty_cache()
            return
        if self._works:
            self._captured[batch.shape] = captured
        else:
            logger.warning("A CUDA graph of this network gave other results than the network; it is not used")

    def _recorded(self, batch: Tensor) -> _Captured:
        given = batch.clone()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._module(given)  # on the side stream first: workspaces and plans are made outside the capture
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            result = self._module(given)
        return _Captured(graph, given, result)
