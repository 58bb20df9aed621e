"""Runs decoding steps as captured CUDA graphs: several steps a replay, one graph for each length of context.

The captured function is `step.advance` as it is. States are kept and filled anew, since a graph is bound to its memory.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from models.cache import is_out_of_memory
from models.musicgen.decode import Room, Window, allocate, fill
from models.musicgen.forward import State, advance
from models.musicgen.lm import LanguageModel
from models.musicgen.sampling import Rule

logger = logging.getLogger(__name__)

STEPS = 8  # a replay; the host looks at progress, cancel and deadline once for each
IN_FLIGHT = 2  # replays ahead of the device: it never waits, and a cancel is seen within two of them
TEXT_BUCKET = 32
COLUMN_BUCKETS = (256, 512, 768, 1024, 1280, 1536, 1792, 2048, 3072)
KEPT_STATES = 3


class Recorder(Protocol):
    """Makes work on a device repeatable, and tells when it is done."""

    def record(self, work: Callable[[], None], times: int) -> Callable[[], None]:
        """Does `work` once; what it returns does it so many `times`, without waiting for it."""

    def mark(self) -> Callable[[], None]:
        """What it returns waits until all that was given to the device so far is done."""


class CudaGraphs:
    """Records by CUDA graphs, which share their memory: one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def record(self, work: Callable[[], None], times: int) -> Callable[[], None]:
        """See `Recorder`; the first time, which chooses kernels and workspaces, must not be captured."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            for _ in range(times):
                work()
        self._pool = self._pool or graph.pool()
        return graph.replay

    def mark(self) -> Callable[[], None]:
        """See `Recorder`."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event.synchronize


@dataclass(eq=False)
class _Kept:
    """A state, its room, and what was recorded on it, by rule and length of context."""

    room: Room
    state: State
    recorded: dict[tuple[Rule, int], Callable[[], None]] = field(default_factory=dict)


class Captured:
    """Recorded steps of one language model on one device. One window at a time.

    Args:
        recorder: `CudaGraphs`, but in tests without a GPU.
    """

    def __init__(self, lm: LanguageModel, recorder: Recorder | None = None) -> None:
        self._lm = lm
        self._recorder = recorder or CudaGraphs(lm.device)
        self._kept: OrderedDict[Room, _Kept] = OrderedDict()

    def begin(self, window: Window) -> State:
        columns = window.prefix + self._lm.shape.pattern.columns(window.length) + STEPS
        exact = Room.of(window, columns)
        kept = self._with_room(
            replace(exact, columns=bucket(columns), text=-(-exact.text // TEXT_BUCKET) * TEXT_BUCKET)
        )
        fill(self._lm, kept.state, window)
        return kept.state

    def _with_room(self, room: Room) -> _Kept:
        """The state of this kind, as large as was ever asked for: a larger one serves a smaller window as well."""
        kind = replace(room, columns=0, text=0)
        kept = self._kept.pop(kind, None)
        if kept is not None:
            room = replace(room, columns=max(room.columns, kept.room.columns), text=max(room.text, kept.room.text))
        if kept is None or kept.room != room:
            kept = None  # given up before another is made
            while len(self._kept) >= KEPT_STATES:
                self._kept.popitem(last=False)
            kept = _Kept(room, allocate(self._lm, room, plain=True))
        self._kept[kind] = kept
        return kept

    def run(self, state: State, window: Window, first: int, last: int) -> Iterator[int]:
        kept = next(kept for kept in self._kept.values() if kept.state is state)
        marks: list[tuple[int, Callable[[], None]]] = []
        for start in range(first, last, STEPS):
            self._steps(kept, window.rule, bucket(start + STEPS))()
            marks.append((min(start + STEPS, last), self._recorder.mark()))
            if len(marks) >= IN_FLIGHT:
                yield from self._finished(marks, start_of=first)
        while marks:
            yield from self._finished(marks, start_of=first)

    def _finished(self, marks: list[tuple[int, Callable[[], None]]], *, start_of: int) -> Iterator[int]:
        """Waits for the oldest replay; its columns, one after the other."""
        end, wait = marks.pop(0)
        wait()
        begin = max(start_of, (end - 1 - start_of) // STEPS * STEPS + start_of)
        yield from range(begin + 1, end + 1)

    def _steps(self, kept: _Kept, rule: Rule, length: int) -> Callable[[], None]:
        length = min(length, kept.room.columns)
        if (rule, length) not in kept.recorded:
            kept.recorded[rule, length] = self._record(kept.state, rule, length)
        return kept.recorded[rule, length]

    def _record(self, state: State, rule: Rule, length: int) -> Callable[[], None]:
        """`STEPS` steps. Recording does one of them for real, so what that changes is put back."""
        logger.debug("Recording %d steps over %d columns", STEPS, length)
        before = [place.clone() for place in (state.slot, state.sequence)]

        def step() -> None:
            advance(self._lm, state, rule, length=length, exact=False)

        try:
            recorded = self._recorder.record(step, times=STEPS)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            logger.warning("Steps cannot be recorded here (%s): they run one by one, slower", type(error).__name__)
            recorded = _repeated(step)
        for place, value in zip((state.slot, state.sequence), before, strict=True):
            place.copy_(value)
        return recorded


def _repeated(step: Callable[[], None]) -> Callable[[], None]:
    def steps() -> None:
        for _ in range(STEPS):
            step()

    return steps


def bucket(columns: int) -> int:
    """The smallest length that graphs are made for and that holds so many columns."""
    return next((size for size in COLUMN_BUCKETS if size >= columns), columns)
