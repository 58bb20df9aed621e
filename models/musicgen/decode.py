"""Decodes one window of codes: prefill, then one column after the other, eagerly or by CUDA graphs.

The path of a token: `Engine.generate` -> `decode_window` -> `forward.decode_step`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial as bind
from typing import Any, Protocol

import torch

from errors import DeadlineError
from models.musicgen.conditioning import BatchConditions
from models.musicgen.forward import DecodeState, StateShape, allocate_state, compute_cross_kv, decode_step, prefill
from models.musicgen.lm import LanguageModel
from models.musicgen.request import Sampling
from models.musicgen.sampling import SamplingMode, draw_uniforms
from models.runtime.cuda_graph import CudaGraphed, CudaGraphRecorder, GraphRecorder, retry_with_memory
from models.runtime.kv_cache import mask_value

STEPS_PER_REPLAY = 8  # the host looks at progress, cancellation and deadline once a replay
REPLAYS_AHEAD = 2  # replays queued on the device: it never waits, and a cancellation takes effect within two of them
TEXT_ROOM = 128  # tokens; the context of a captured state is a multiple of this
MAX_CAPTURED_STATES = 3
GRAPH_BYTES = 25_000_000  # of device and host memory for one graph of the largest model, an estimate


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What to decode, for a batch of B clips.

    Args:
        prompt: `[B, K, P]` known codes.
        length: frames, prompt included; > P.
        conditions: for these clips.
        sampling: how codes are drawn.
        generators: B of them, on the CPU.
        on_step: called with (done, total) before each step. Whatever it raises ends the decoding.
        partial: whether a `DeadlineError` of `on_step` returns the frames that are complete, instead of being raised.
        cross_kv: `compute_cross_kv` of the conditions' context if the caller has it from another window.
    """

    prompt: torch.Tensor
    length: int
    conditions: BatchConditions
    sampling: Sampling
    generators: Sequence[torch.Generator]
    on_step: Callable[[int, int], None]
    partial: bool = False
    cross_kv: Sequence[torch.Tensor] | None = None

    @property
    def num_prepended(self) -> int:
        """Columns that the prepended conditions take."""
        return 0 if self.conditions.prepended is None else self.conditions.prepended.shape[1]

    @property
    def num_known(self) -> int:
        """Columns before the first one that is generated: prepended conditions, start column, prompt."""
        return self.num_prepended + 1 + self.prompt.shape[-1]

    def shape_state(self, columns: int) -> StateShape:
        """The smallest state of so many columns that fits."""
        conditions, clips = self.conditions, self.prompt.shape[0]
        conditioned, context = (0, 0) if conditions.context is None else conditions.context.shape[:2]
        rows = clips * (2 if conditions.guided else 1)
        return StateShape(clips, rows, conditioned, context, columns, padded=conditions.left_padding is not None)


class Decoding(Protocol):
    """A window that is being decoded."""

    @property
    def state(self) -> DecodeState: ...

    def run(self, mode: SamplingMode, first: int, last: int) -> Iterator[int]:
        """Reads column `first` and those after it until column `last` is written.

        Yields the number of the last written column after each step. The device may still be working on the steps that
        follow, so that it never waits for the host.
        """


class DecodeBackend(ABC):
    """The way in which a device runs decoding steps."""

    @abstractmethod
    def start(self, window: Window) -> Decoding:
        """Allocates or reuses a state and fills in the window's inputs; runs nothing yet."""

    @property
    def memory_bytes(self) -> int:
        """Of everything that is kept for later windows."""
        return 0

    @property
    def needs_restart(self) -> bool:
        """Whether the process is damaged, so that the worker should restart after the present job."""
        return False

    def free_memory(self) -> None:  # noqa: B027 - by default there is nothing to drop
        """Drops everything that is kept for later windows. No window may be in work."""


@torch.inference_mode()
def decode_window(lm: LanguageModel, backend: DecodeBackend, window: Window) -> torch.Tensor:
    """Continues the window's prompt.

    Returns:
        `[B, K, length]` codes, prompt first; fewer frames only if the deadline passed and the window is `partial`.

    Raises:
        DeadlineError: `on_step` raised it, and the window is not `partial` or no new frame is complete.
    """
    clips, codebooks, known = window.prompt.shape
    assert codebooks == lm.config.codebooks, f"a prompt of {codebooks} codebooks, the model has {lm.config.codebooks}"
    assert known < window.length, f"a prompt of {known} frames leaves nothing to decode of {window.length}"
    assert len(window.generators) == clips, f"{len(window.generators)} generators for {clips} clips"
    pattern, num_known = lm.config.pattern, window.num_known
    last = window.num_prepended + pattern.num_columns(window.length) - 1
    steps, column = last - num_known + 1, num_known - 1
    mode = SamplingMode.choose(window.sampling)
    decoding = backend.start(window)
    try:
        window.on_step(0, steps)
        prefill(lm, decoding.state, mode, prepended=window.conditions.prepended, num_known=num_known)
        column = num_known
        if column < last:
            window.on_step(1, steps)
            for column in decoding.run(mode, num_known, last):
                if column < last:
                    window.on_step(column - num_known + 1, steps)
        frames = window.length
    except DeadlineError:
        frames = min(pattern.num_complete_frames(column + 1 - window.num_prepended), window.length)
        if not window.partial or frames <= known:
            raise
    return pattern.revert_sequence(decoding.state.sequence[:, :, window.num_prepended :], frames).clone()


def fill_state(lm: LanguageModel, state: DecodeState, window: Window) -> None:
    """Writes a window's inputs into a state that is large enough; stale keys and values are never attended to."""
    conditions, first = window.conditions, window.num_prepended
    sequence = lm.config.pattern.build_sequence(window.prompt, window.length)
    end = first + sequence.shape[-1]
    uniforms = draw_uniforms(window.generators, end - window.num_known, lm.config.codebooks)
    state.sequence.fill_(lm.config.pattern.special_token)
    state.sequence[:, :, first:end] = sequence.to(lm.device)
    state.uniforms[:, window.num_known : end] = uniforms.to(lm.device)
    if conditions.context is not None and state.cross_bias is not None:
        length = conditions.context.shape[1]
        cross_kv = window.cross_kv or compute_cross_kv(lm, conditions.context)
        for stored, keys_values in zip(state.cross_kv, cross_kv, strict=True):
            stored[:, :, :, :length] = keys_values
        masked = mask_value(state.cross_bias.dtype)
        state.cross_bias.fill_(masked)
        state.cross_bias[..., :length] = 0.0
        if conditions.context_mask is not None:
            state.cross_bias[..., :length].masked_fill_(~conditions.context_mask[:, None, None], masked)
    if conditions.left_padding is not None and state.padding_bias is not None:
        state.left_padding.copy_(conditions.left_padding)
        padding = torch.arange(state.padding_bias.shape[-1], device=lm.device) < state.left_padding[:, None]
        state.padding_bias.zero_().masked_fill_(padding[:, None, None], mask_value(state.padding_bias.dtype))
    state.cfg_coef.fill_(window.sampling.cfg_coef)
    state.temperature.fill_(window.sampling.temperature or 1.0)
    state.top_k.fill_(min(window.sampling.top_k or lm.config.card, lm.config.card))
    state.top_p.fill_(window.sampling.top_p)


class EagerBackend(DecodeBackend):
    """Launches each step's kernels one by one: on a CPU, and on any device without CUDA graphs.

    Args:
        static_shapes: runs the steps that `CudaGraphBackend` captures: keys and values are stored as on a GPU, and
            attention reads all columns of the state, the later ones masked. Otherwise it reads the filled ones alone.
    """

    def __init__(self, lm: LanguageModel, *, static_shapes: bool = False) -> None:
        self._lm, self._static_shapes = lm, static_shapes

    def start(self, window: Window) -> Decoding:
        """See `DecodeBackend`."""
        columns = window.num_prepended + self._lm.config.pattern.num_columns(window.length)
        state = allocate_state(self._lm, window.shape_state(columns), dense=self._static_shapes)
        fill_state(self._lm, state, window)
        return _EagerDecoding(self._lm, state, self._static_shapes)


@dataclass(frozen=True, slots=True, eq=False)
class _EagerDecoding:
    lm: LanguageModel
    state: DecodeState
    static_shapes: bool

    def run(self, mode: SamplingMode, first: int, last: int) -> Iterator[int]:
        """See `Decoding`."""
        end = self.state.sequence.shape[-1]
        for column in range(first, last):
            length = end if self.static_shapes else column + 1
            decode_step(self.lm, self.state, mode, length=length, masked=self.static_shapes)
            yield column + 1


class CudaGraphBackend(DecodeBackend):
    """Replays captured steps, several at a time. A graph is bound to its tensors, so states are kept and filled anew.

    One window at a time. A state has room for a whole window of the model and `TEXT_ROOM` text tokens, so that one set
    of graphs serves all requests with as many clips. If memory does not suffice, all states are dropped, and from then
    on states have room for what is asked for.

    Args:
        recorder: a `CudaGraphRecorder`, except in tests without a GPU.
        window_frames: frames that the model sees at once.
    """

    def __init__(self, lm: LanguageModel, recorder: GraphRecorder | None = None, *, window_frames: int = 0) -> None:
        self._lm = lm
        self._recorder = recorder or CudaGraphRecorder(lm.device)
        self._window_frames = window_frames
        self._states: dict[StateShape, _CapturedDecoding] = {}  # the last used comes last

    def start(self, window: Window) -> Decoding:
        """See `DecodeBackend`."""
        decoding = retry_with_memory(lambda: self._find_or_allocate(window), self._shrink)
        fill_state(self._lm, decoding.state, window)
        return decoding

    @property
    def memory_bytes(self) -> int:
        """See `DecodeBackend`."""
        states = list(self._states.values())  # another thread may start a window now
        return sum(decoding.memory_bytes for decoding in states)

    @property
    def needs_restart(self) -> bool:
        """See `DecodeBackend`."""
        return self._recorder.has_failed

    def free_memory(self) -> None:
        """See `DecodeBackend`."""
        self._states = {}
        torch.cuda.empty_cache()  # does nothing without a GPU

    def _shrink(self) -> None:
        self._window_frames = 0
        self.free_memory()

    def _shape_state(self, window: Window) -> StateShape:
        prepended, frames = window.num_prepended, max(window.length, self._window_frames)
        if self._window_frames and prepended:
            prepended += TEXT_ROOM
        columns = prepended + self._lm.config.pattern.num_columns(frames) + STEPS_PER_REPLAY
        shape = window.shape_state(round_up_columns(columns))
        return replace(shape, context=-(-shape.context // TEXT_ROOM) * TEXT_ROOM)

    def _find_or_allocate(self, window: Window) -> _CapturedDecoding:
        """The state of the window's kind, as large as any window has needed: a larger one serves smaller ones too."""
        shape = self._shape_state(window)
        kind = replace(shape, columns=0, context=0)
        kept = self._states.pop(kind, None)
        if kept is not None:
            columns, context = max(shape.columns, kept.shape.columns), max(shape.context, kept.shape.context)
            shape = replace(shape, columns=columns, context=context)
        if kept is None or kept.shape != shape:
            kept = None  # freed before a larger one is allocated
            while len(self._states) >= MAX_CAPTURED_STATES:
                del self._states[next(iter(self._states))]
            kept = _CapturedDecoding(self._lm, shape, self._recorder, lambda: self._drop_others(kind))
        self._states[kind] = kept
        return kept

    def _drop_others(self, kind: StateShape) -> None:
        """Drops every state but the one in use."""
        self._states = {kind: self._states[kind]}
        torch.cuda.empty_cache()


class _CapturedDecoding:
    """A state with graphs of `STEPS_PER_REPLAY` steps on it, one for each sampling mode and number of columns.

    Its graphs share a pool of memory, which is freed with the last of them.

    Args:
        drop_others: frees the memory of all other states.
    """

    def __init__(
        self, lm: LanguageModel, shape: StateShape, recorder: GraphRecorder, drop_others: Callable[[], None]
    ) -> None:
        self.shape = shape
        self.state = allocate_state(lm, shape, dense=True)
        self._lm, self._recorder, self._drop_others = lm, recorder, drop_others
        self._pool: Any = None
        self._graphs: dict[tuple[SamplingMode, int], CudaGraphed] = {}

    @property
    def memory_bytes(self) -> int:
        """Of the state, and an estimate of its graphs."""
        return self.state.nbytes + GRAPH_BYTES * len(self._graphs)

    def run(self, mode: SamplingMode, first: int, last: int) -> Iterator[int]:
        """See `Decoding`."""
        queued: deque[tuple[range, Callable[[], None]]] = deque()
        for start in range(first, last, STEPS_PER_REPLAY):
            length = min(round_up_columns(start + STEPS_PER_REPLAY), self.shape.columns)
            if (mode, length) not in self._graphs:
                self._graphs[mode, length] = retry_with_memory(bind(self._capture, mode, length), self._drop_others)
            self._graphs[mode, length]()
            written = range(start + 1, min(start + STEPS_PER_REPLAY, last) + 1)
            queued.append((written, self._recorder.record_event()))
            if len(queued) >= REPLAYS_AHEAD:
                yield from _wait_for_next(queued)
        while queued:
            yield from _wait_for_next(queued)

    def _capture(self, mode: SamplingMode, length: int) -> CudaGraphed:
        if not self._graphs:  # a pool without graphs cannot be used again
            self._pool = self._recorder.create_pool()
        return CudaGraphed(
            step=bind(decode_step, self._lm, self.state, mode, length=length, masked=True),
            recorder=self._recorder,
            pool=self._pool,
            name="MusicGen's decoding step",
            repeats=STEPS_PER_REPLAY,
            mutated=(self.state.cache_position, self.state.sequence),
        )


def _wait_for_next(queued: deque[tuple[range, Callable[[], None]]]) -> Iterator[int]:
    """Waits for the oldest replay; yields the columns that it wrote."""
    written, wait = queued.popleft()
    wait()
    yield from written


def round_up_columns(columns: int) -> int:
    """The smallest length that graphs are captured for and that holds so many columns: multiples of 256, later of 1024.

    Attention's fused kernels take masks whose length is a multiple of 16 without copying them.
    """
    step = 256 if columns <= 2048 else 1024
    return -(-columns // step) * step
