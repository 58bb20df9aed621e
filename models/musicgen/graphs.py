"""Runs decoding steps as captured CUDA graphs: several steps a replay, one graph for each length of context.

The captured function is `step.advance` as it is. States are kept and filled anew, since a graph is bound to its memory.
"""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from models.musicgen.decode import Room, Window, allocate, fill
from models.musicgen.lm import LanguageModel
from models.musicgen.sampling import Rule
from models.musicgen.step import State, advance

logger = logging.getLogger(__name__)

STEPS = 8  # a replay; the host looks at progress, cancel and deadline once for each
IN_FLIGHT = 2  # replays ahead of the device: it never waits, and a cancel is seen within two of them
TEXT_BUCKET = 32
COLUMN_BUCKETS = (256, 512, 768, 1024, 1280, 1536, 1792, 2048, 3072)
KEPT_STATES = 3


@dataclass(eq=False)
class _Kept:
    """A state and the graphs that are bound to it, by rule and length of context."""

    state: State
    graphs: dict[tuple[Rule, int], Any] = field(default_factory=dict)


class Captured:
    """Graphs of one language model on one CUDA device. One window at a time."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._kept: OrderedDict[Room, _Kept] = OrderedDict()
        self._pool: Any = None

    def begin(self, window: Window) -> State:
        columns = window.prefix + self._lm.shape.pattern.columns(window.length) + STEPS
        exact = Room.of(window, columns)
        room = replace(exact, columns=bucket(columns), text=-(-exact.text // TEXT_BUCKET) * TEXT_BUCKET)
        kept = self._kept.pop(room, None)
        if kept is None:
            while len(self._kept) >= KEPT_STATES:
                self._kept.popitem(last=False)
            kept = _Kept(allocate(self._lm, room))
        self._kept[room] = kept
        fill(self._lm, kept.state, window)
        return kept.state

    def run(self, state: State, window: Window, first: int, last: int) -> Iterator[int]:
        kept = next(kept for kept in self._kept.values() if kept.state is state)
        marks: list[tuple[int, Any]] = []
        for start in range(first, last, STEPS):
            self._graph(kept, window.rule, bucket(start + STEPS)).replay()
            mark = torch.cuda.Event()  # type: ignore[no-untyped-call]
            mark.record()
            marks.append((min(start + STEPS, last), mark))
            if len(marks) >= IN_FLIGHT:
                yield from self._finished(marks, start_of=first)
        while marks:
            yield from self._finished(marks, start_of=first)

    def _finished(self, marks: list[tuple[int, Any]], *, start_of: int) -> Iterator[int]:
        """Waits for the oldest replay; its columns, one after the other."""
        end, mark = marks.pop(0)
        mark.synchronize()
        begin = max(start_of, (end - 1 - start_of) // STEPS * STEPS + start_of)
        yield from range(begin + 1, end + 1)

    def _graph(self, kept: _Kept, rule: Rule, length: int) -> Any:
        length = min(length, kept.state.sequence.shape[-1])
        if (rule, length) not in kept.graphs:
            kept.graphs[rule, length] = self._capture(kept.state, rule, length)
        return kept.graphs[rule, length]

    def _capture(self, state: State, rule: Rule, length: int) -> Any:
        """A graph of `STEPS` steps. The warm-up before it runs for real, so what it changes is put back."""
        logger.debug("Capturing %d steps over %d columns", STEPS, length)
        before = [place.clone() for place in (state.slot, state.sequence)]
        stream = torch.cuda.Stream(self._lm.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._lm.device))
        with torch.cuda.stream(stream):
            advance(self._lm, state, rule, length=length, exact=False)
        torch.cuda.current_stream(self._lm.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            for _ in itertools.repeat(None, STEPS):
                advance(self._lm, state, rule, length=length, exact=False)
        self._pool = self._pool or graph.pool()
        for place, value in zip((state.slot, state.sequence), before, strict=True):
            place.copy_(value)
        return graph


def bucket(columns: int) -> int:
    """The smallest length that graphs are made for and that holds so many columns."""
    return next((size for size in COLUMN_BUCKETS if size >= columns), columns)
