"""Runs the planner token after token: text as a grammar allows it, and audio codes, eagerly or by CUDA graphs.

The path of an audio code: `PlannerEngine.generate_codes` -> `Codes.run` -> `forward.read_token`, `forward.write_code`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial as bind
from typing import Any

import torch
from torch.nn import functional as F

from models.acestep.planner.forward import (
    CodeState,
    DecodeState,
    allocate_state,
    read_token,
    read_tokens,
    write_code,
)
from models.acestep.planner.lm import LanguageModel
from models.acestep.planner.sampling import SamplingMode
from models.runtime.cuda_graph import CudaGraphed, CudaGraphRecorder, GraphRecorder
from models.runtime.progress import Check, Progress, ignore_progress, skip_check

PREFILL_CHUNK = 256  # tokens that are read at once; between chunks a job may be cancelled
STEPS_PER_REPLAY = 8  # the host looks at progress, cancellation and deadline once a replay
REPLAYS_AHEAD = 2  # replays queued on the device: it never waits, and a cancellation takes effect within two of them
GRAPH_BYTES = 25_000_000  # of device and host memory for one graph of the largest model, an estimate


@dataclass(frozen=True, slots=True, eq=False)
class ReadPrompt:
    """A prompt that was read: `state` of one row, and `hidden` `[1, hidden]`, what the network makes of its end."""

    state: DecodeState
    hidden: torch.Tensor

    @property
    def length(self) -> int:
        """Tokens."""
        return self.state.columns


@torch.inference_mode()
def read_prompt(lm: LanguageModel, tokens: Sequence[int], progress: Progress = ignore_progress) -> ReadPrompt:
    """Reads a prompt; calls `progress` before each chunk of it."""
    state = allocate_state(lm, rows=1, columns=len(tokens))
    ids = torch.tensor([tokens], dtype=torch.long, device=lm.device)
    for start in range(0, len(tokens), PREFILL_CHUNK):
        progress(start / len(tokens))
        hidden = read_tokens(lm, state, ids[:, start : start + PREFILL_CHUNK], start)
    return ReadPrompt(state, hidden)


def fill_state(state: DecodeState, prompts: Sequence[ReadPrompt]) -> torch.Tensor:
    """Begins rows behind prompts, each of which as many consecutive rows have. Shorter ones get padding on the left.

    Returns:
        `[R, hidden]`, what the network makes of the prompts' ends.
    """
    repeats, count = state.rows // len(prompts), max(prompt.length for prompt in prompts)
    state.begin_rows([prompt.length for prompt in prompts for _ in range(repeats)])
    for index, cache in enumerate(state.kv_cache):
        parts = [prompt.state.kv_cache[index].read(prompt.length) for prompt in prompts]
        padded = [F.pad(part, (0, 0, count - part.shape[3], 0)).expand(-1, repeats, -1, -1, -1) for part in parts]
        cache.write_prefill(torch.cat(padded, dim=1))
    return torch.cat([prompt.hidden.expand(repeats, -1) for prompt in prompts])


class TextDecoding(ABC):
    """One row of text that is being written.

    Args:
        state: of one row.
    """

    def __init__(self, lm: LanguageModel, state: DecodeState) -> None:
        self.lm, self.state, self.position = lm, state, 0

    def begin(self) -> None:
        """Forgets what was read."""
        self.state.begin_rows([0])
        self.position = 0

    @torch.inference_mode()
    def read(self, tokens: Sequence[int], check: Check = skip_check) -> torch.Tensor:
        """Reads the next tokens; returns the logits `[1, num_text]` of the one that follows.

        Args:
            check: called before each chunk of many tokens. Whatever it raises ends the reading.
        """
        if len(tokens) == 1 and self.position:
            self.state.tokens.fill_(tokens[0])
            logits = self._read_one(self.position + 1)
            self.position += 1
            return logits
        for start in range(0, len(tokens), PREFILL_CHUNK):
            check()
            chunk = torch.tensor([tokens[start : start + PREFILL_CHUNK]], dtype=torch.long, device=self.lm.device)
            hidden = read_tokens(self.lm, self.state, chunk, self.position)
            self.position += chunk.shape[1]
        return self.lm.compute_text_logits(hidden)

    @abstractmethod
    def _read_one(self, length: int) -> torch.Tensor:
        """Reads `state.tokens`, after which `length` columns are filled."""


class CodesDecoding(ABC):
    """Audio codes that are being drawn.

    Attributes:
        state: of one row for each clip, or two if guided.
        codes: of the clips.
    """

    state: DecodeState
    codes: CodeState

    @abstractmethod
    def run(self, mode: SamplingMode, first: int, steps: int) -> Iterator[int]:
        """Reads the code at `codes.step` 0, which is in column `first`, and draws those that follow.

        Yields how many of the `steps` codes there are after each step. The device may still be working on the steps
        that follow, so that it never waits for the host.
        """


class DecodeBackend(ABC):
    """The way in which a device runs decoding steps."""

    @abstractmethod
    def start_text(self, columns: int) -> TextDecoding:
        """A row with room for so many tokens, prompt included."""

    @abstractmethod
    def start_codes(self, *, clips: int, guided: bool, columns: int, steps: int) -> CodesDecoding:
        """Room for the prompts of clips and so many audio codes."""

    @property
    def memory_bytes(self) -> int:
        """Of everything that is kept for later requests."""
        return 0

    @property
    def needs_restart(self) -> bool:
        """Whether the process is damaged, so that the worker should restart after the present job."""
        return False

    def free_memory(self) -> None:  # noqa: B027 - by default there is nothing to drop
        """Drops everything that is kept for later requests. None may be in work."""


class EagerBackend(DecodeBackend):
    """Launches each step's kernels one by one: on a CPU, and on any device without CUDA graphs.

    Args:
        static_shapes: runs the steps that `CudaGraphBackend` captures: keys and values are stored as on a GPU, and
            attention reads all columns of the state, the later ones masked. Otherwise it reads the filled ones alone.
    """

    def __init__(self, lm: LanguageModel, *, static_shapes: bool = False) -> None:
        self._lm, self._static_shapes = lm, static_shapes

    def start_text(self, columns: int) -> TextDecoding:
        """See `DecodeBackend`."""
        state = allocate_state(self._lm, rows=1, columns=columns, dense=self._static_shapes)
        return _EagerText(self._lm, state, self._static_shapes)

    def start_codes(self, *, clips: int, guided: bool, columns: int, steps: int) -> CodesDecoding:
        """See `DecodeBackend`."""
        rows, lm, dense = clips * (2 if guided else 1), self._lm, self._static_shapes
        state = allocate_state(lm, rows=rows, columns=columns, padded=guided, dense=dense)
        return _EagerCodes(lm, state, CodeState.allocate(lm, clips=clips, steps=steps), dense)


class _EagerText(TextDecoding):
    def __init__(self, lm: LanguageModel, state: DecodeState, static_shapes: bool) -> None:
        super().__init__(lm, state)
        self._static_shapes = static_shapes

    def _read_one(self, length: int) -> torch.Tensor:
        length = self.state.columns if self._static_shapes else length
        return self.lm.compute_text_logits(read_token(self.lm, self.state, length=length, masked=self._static_shapes))


class _EagerCodes(CodesDecoding):
    def __init__(self, lm: LanguageModel, state: DecodeState, codes: CodeState, static_shapes: bool) -> None:
        self.state, self.codes = state, codes
        self._lm, self._static_shapes = lm, static_shapes

    def run(self, mode: SamplingMode, first: int, steps: int) -> Iterator[int]:
        """See `CodesDecoding`."""
        for done in range(1, steps):
            length = self.state.columns if self._static_shapes else first + done
            hidden = read_token(self._lm, self.state, length=length, masked=self._static_shapes)
            write_code(self._lm, self.state, self.codes, mode, hidden)
            yield done + 1


class CudaGraphBackend(DecodeBackend):
    """Replays captured steps, those of audio codes several at a time.

    A graph is bound to its tensors, so the last state of each kind is kept with its graphs, and filled anew.

    Args:
        recorder: a `CudaGraphRecorder`, except in tests without a GPU.
    """

    def __init__(self, lm: LanguageModel, recorder: GraphRecorder | None = None) -> None:
        self._lm = lm
        self._recorder = recorder or CudaGraphRecorder(lm.device)
        self._text: _CapturedText | None = None
        self._codes: _CapturedCodes | None = None

    def start_text(self, columns: int) -> TextDecoding:
        """See `DecodeBackend`."""
        if self._text is None or self._text.state.columns < columns:
            self._text = None  # freed before a larger one is allocated
            self._text = _CapturedText(self._lm, round_up_columns(columns), self._recorder)
        return self._text

    def start_codes(self, *, clips: int, guided: bool, columns: int, steps: int) -> CodesDecoding:
        """See `DecodeBackend`."""
        columns, steps = round_up_columns(columns + STEPS_PER_REPLAY), steps + STEPS_PER_REPLAY
        if self._codes is None or not self._codes.serves(clips, guided, columns, steps):
            self._codes = None
            self._codes = _CapturedCodes(self._lm, (clips, guided, columns, steps), self._recorder)
        return self._codes

    @property
    def memory_bytes(self) -> int:
        """See `DecodeBackend`."""
        text, codes = self._text, self._codes  # another thread may start a request now
        return (text.memory_bytes if text else 0) + (codes.memory_bytes if codes else 0)

    @property
    def needs_restart(self) -> bool:
        """See `DecodeBackend`."""
        return self._recorder.has_failed

    def free_memory(self) -> None:
        """See `DecodeBackend`."""
        self._text = self._codes = None
        torch.cuda.empty_cache()  # does nothing without a GPU


class _Graphs:
    """The graphs on one state, one for each key. They share a pool of memory, which is freed with the last of them."""

    def __init__(self, recorder: GraphRecorder, name: str, repeats: int, mutated: Sequence[torch.Tensor]) -> None:
        self._recorder, self._name, self._repeats, self._mutated = recorder, name, repeats, mutated
        self._pool: Any = None
        self._graphs: dict[Any, CudaGraphed] = {}

    @property
    def nbytes(self) -> int:
        return GRAPH_BYTES * len(self._graphs)

    def find_or_capture(self, key: Any, step: Callable[[], None]) -> CudaGraphed:
        if key not in self._graphs:
            if not self._graphs:  # a pool without graphs cannot be used again
                self._pool = self._recorder.create_pool()
            self._graphs[key] = CudaGraphed(
                step=step,
                recorder=self._recorder,
                pool=self._pool,
                name=self._name,
                repeats=self._repeats,
                mutated=self._mutated,
            )
        return self._graphs[key]


class _CapturedText(TextDecoding):
    """A row with a graph of one step for each number of columns."""

    def __init__(self, lm: LanguageModel, columns: int, recorder: GraphRecorder) -> None:
        super().__init__(lm, allocate_state(lm, rows=1, columns=columns, dense=True))
        self._logits = torch.zeros(1, lm.num_text, dtype=torch.float32, device=lm.device)
        self._graphs = _Graphs(recorder, "the planner's step of text", 1, (self.state.cache_position,))

    @property
    def memory_bytes(self) -> int:
        return self.state.nbytes + self._logits.nbytes + self._graphs.nbytes

    def _read_one(self, length: int) -> torch.Tensor:
        length = min(round_up_columns(length), self.state.columns)
        self._graphs.find_or_capture(length, bind(_step_text, self.lm, self.state, self._logits, length))()
        return self._logits


class _CapturedCodes(CodesDecoding):
    """Clips with graphs of `STEPS_PER_REPLAY` steps, one for each sampling mode and number of columns."""

    def __init__(self, lm: LanguageModel, shape: tuple[int, bool, int, int], recorder: GraphRecorder) -> None:
        clips, guided, columns, steps = shape
        self.state = allocate_state(lm, rows=clips * (2 if guided else 1), columns=columns, padded=guided, dense=True)
        self.codes = CodeState.allocate(lm, clips=clips, steps=steps)
        self._lm, self._recorder, self._shape = lm, recorder, shape
        mutated = (
            self.state.cache_position,
            self.state.tokens,
            self.codes.codes,
            self.codes.seen,
            self.codes.step,
        )
        self._graphs = _Graphs(recorder, "the planner's step of audio codes", STEPS_PER_REPLAY, mutated)

    @property
    def memory_bytes(self) -> int:
        return self.state.nbytes + self.codes.nbytes + self._graphs.nbytes

    def serves(self, clips: int, guided: bool, columns: int, steps: int) -> bool:
        """Whether it is of this kind, and as large."""
        return self._shape[:2] == (clips, guided) and self._shape[2] >= columns and self._shape[3] >= steps

    def run(self, mode: SamplingMode, first: int, steps: int) -> Iterator[int]:
        """See `CodesDecoding`."""
        queued: deque[tuple[range, Callable[[], None]]] = deque()
        for start in range(1, steps, STEPS_PER_REPLAY):
            length = min(round_up_columns(first + start + STEPS_PER_REPLAY), self.state.columns)
            step = bind(_step_codes, self._lm, self.state, self.codes, mode, length)
            self._graphs.find_or_capture((mode, length), step)()
            queued.append((range(start, min(start + STEPS_PER_REPLAY, steps)), self._recorder.record_event()))
            if len(queued) >= REPLAYS_AHEAD:
                yield from _wait_for_next(queued)
        while queued:
            yield from _wait_for_next(queued)


def _step_text(lm: LanguageModel, state: DecodeState, logits: torch.Tensor, length: int) -> None:
    logits.copy_(lm.compute_text_logits(read_token(lm, state, length=length, masked=True)))


def _step_codes(lm: LanguageModel, state: DecodeState, codes: CodeState, mode: SamplingMode, length: int) -> None:
    write_code(lm, state, codes, mode, read_token(lm, state, length=length, masked=True))


def _wait_for_next(queued: deque[tuple[range, Callable[[], None]]]) -> Iterator[int]:
    """Waits for the oldest replay; yields how many codes there are after each of its steps."""
    drawn, wait = queued.popleft()
    wait()
    yield from (done + 1 for done in drawn)


def round_up_columns(columns: int) -> int:
    """The smallest length that graphs are captured for and that holds so many columns: multiples of 256, later of 1024.

    Attention's fused kernels take masks whose length is a multiple of 16 without copying them.
    """
    step = 256 if columns <= 2048 else 1024
    return -(-columns // step) * step
