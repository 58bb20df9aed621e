"""Runs the transformer's steps in the device's fastest way: kernel by kernel, or as a captured CUDA graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from models.acestep.transformer import DiffusionTransformer, KeysValues, StepInputs
from models.runtime.cuda_graph import CudaGraphed, CudaGraphRecorder, GraphRecorder, retry_with_memory

# A longer step keeps a GPU busy by itself: to launch its kernels takes the host less time than to run them. An estimate
# from 10.6 TFLOP for 3,000 tokens and some 700 launches.
MAX_CAPTURED_TOKENS = 2048
CONTEXT_ROOM = 128  # tokens; the conditions of a captured step are padded to a multiple, so that it serves other lyrics
MAX_CAPTURED_STEPS = 3
GRAPH_BYTES = 25_000_000  # of device and host memory for one graph, an estimate


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """What guides a clip at some of its steps.

    Args:
        context: `[1, T, 2 C]`: latents of the source, then the mask: 1 in frames that are generated.
        cross_kv: `DiffusionTransformer.compute_cross_kv` of the text, the lyrics and the timbre.
    """

    context: torch.Tensor
    cross_kv: Sequence[KeysValues]


class Predict(Protocol):
    """One step of the transformer."""

    def __call__(self, latents: torch.Tensor, timestep: float) -> torch.Tensor:
        """Velocities `[1, T, C]`, or `[2, T, C]` if guided, of latents `[1, T, C]`; all are float32.

        The result is valid until the next call.
        """


class StepBackend(ABC):
    """The way in which a device runs the transformer's steps."""

    def __init__(self, transformer: DiffusionTransformer) -> None:
        self.transformer = transformer

    @abstractmethod
    def start(self, conditions: Conditions, *, guided: bool) -> Predict:
        """Prepares steps with these conditions; they end with the next call."""

    @abstractmethod
    def record_event(self) -> Callable[[], None]:
        """The returned function waits until the device has finished everything that it was given so far."""

    @property
    def memory_bytes(self) -> int:
        """Of everything that is kept for later requests."""
        return 0

    @property
    def needs_restart(self) -> bool:
        """Whether the process is damaged, so that the worker should restart after the present job."""
        return False

    def free_memory(self) -> None:  # noqa: B027 - by default there is nothing to drop
        """Drops everything that is kept for later requests. No clip may be in work."""


class EagerBackend(StepBackend):
    """Launches each step's kernels one by one: on a CPU, and on any device without CUDA graphs."""

    def start(self, conditions: Conditions, *, guided: bool) -> Predict:
        """See `StepBackend`."""
        transformer = self.transformer
        positions = transformer.make_positions(conditions.context.shape[1])
        inputs = StepInputs(conditions.context, conditions.cross_kv, positions, guided)

        def predict(latents: torch.Tensor, timestep: float) -> torch.Tensor:
            time = torch.full((1,), timestep, dtype=transformer.dtype, device=transformer.device)
            return transformer.predict(latents.to(transformer.dtype), time, inputs).float()

        return predict

    def record_event(self) -> Callable[[], None]:
        """See `StepBackend`."""
        device = self.transformer.device
        return CudaGraphRecorder(device).record_event() if device.type == "cuda" else _do_nothing


class CudaGraphBackend(StepBackend):
    """Replays captured steps. A graph is bound to its tensors, so they are kept and filled anew.

    Which steps are captured depends on their size alone, so that the same request gives the same bytes.

    Args:
        recorder: a `CudaGraphRecorder`, except in tests without a GPU.
    """

    def __init__(self, transformer: DiffusionTransformer, recorder: GraphRecorder | None = None) -> None:
        super().__init__(transformer)
        self._recorder = recorder or CudaGraphRecorder(transformer.device)
        self._eager = EagerBackend(transformer)
        self._steps: dict[tuple[int, int, bool], _CapturedStep] = {}  # the last used comes last

    def start(self, conditions: Conditions, *, guided: bool) -> Predict:
        """See `StepBackend`."""
        frames, length = conditions.context.shape[1], conditions.cross_kv[0][0].shape[1]
        if self.transformer.count_tokens(frames) * (2 if guided else 1) > MAX_CAPTURED_TOKENS:
            return self._eager.start(conditions, guided=guided)
        key = (frames, -(-length // CONTEXT_ROOM) * CONTEXT_ROOM, guided)
        step = self._steps.pop(key, None)
        if step is None:
            while len(self._steps) >= MAX_CAPTURED_STEPS:
                del self._steps[next(iter(self._steps))]
            step = retry_with_memory(lambda: self._capture(conditions, key), self.free_memory)
        self._steps[key] = step
        step.fill(conditions)
        return step

    def record_event(self) -> Callable[[], None]:
        """See `StepBackend`."""
        return self._recorder.record_event()

    @property
    def memory_bytes(self) -> int:
        """See `StepBackend`."""
        steps = list(self._steps.values())  # another thread may start a clip now
        return sum(step.memory_bytes for step in steps)

    @property
    def needs_restart(self) -> bool:
        """See `StepBackend`."""
        return self._recorder.has_failed

    def free_memory(self) -> None:
        """See `StepBackend`."""
        self._steps = {}
        torch.cuda.empty_cache()  # does nothing without a GPU

    def _capture(self, conditions: Conditions, key: tuple[int, int, bool]) -> _CapturedStep:
        _, room, guided = key
        return _CapturedStep(self.transformer, self._recorder, conditions, room=room, guided=guided)


class _CapturedStep:
    """A step with its own tensors, captured. It is a `Predict`.

    Args:
        conditions: of the size that it is captured for.
        room: tokens of the conditions with their padding.
    """

    def __init__(
        self,
        transformer: DiffusionTransformer,
        recorder: GraphRecorder,
        conditions: Conditions,
        *,
        room: int,
        guided: bool,
    ) -> None:
        def allocate(*size: int, dtype: torch.dtype = transformer.dtype) -> torch.Tensor:
            return torch.zeros(size, dtype=dtype, device=transformer.device)

        _, frames, width = conditions.context.shape
        heads = conditions.cross_kv[0][0].shape[2:]
        self._inputs = inputs = StepInputs(
            allocate(1, frames, width),
            tuple((allocate(1, room, *heads), allocate(1, room, *heads)) for _ in conditions.cross_kv),
            transformer.make_positions(frames),
            guided,
            allocate(1, room),
        )
        self._latents = latents = allocate(1, frames, width // 2)
        self._timestep = timestep = allocate(1)
        rows = 2 if guided else 1
        self._velocities = velocities = allocate(rows, frames, width // 2, dtype=torch.float32)
        self.fill(conditions)  # the warm-up must not see conditions without a token

        def step() -> None:  # without `self`: a cycle would keep the tensors after the last use
            velocities.copy_(transformer.predict(latents, timestep, inputs))

        self._run = CudaGraphed(
            step=step,
            recorder=recorder,
            pool=recorder.create_pool(),
            name="ACE-Step's diffusion step",
            repeats=1,
            mutated=(velocities,),
        )

    def fill(self, conditions: Conditions) -> None:
        """Writes the conditions of a clip; those that are shorter than the room are padded."""
        length = conditions.cross_kv[0][0].shape[1]
        self._inputs.context.copy_(conditions.context)
        for kept, given in zip(self._inputs.cross_kv, conditions.cross_kv, strict=True):
            for target, source in zip(kept, given, strict=True):
                target[:, :length] = source
                target[:, length:] = 0
        assert self._inputs.cross_bias is not None, "a captured step pads its conditions"
        self._inputs.cross_bias.fill_(float("-inf"))
        self._inputs.cross_bias[:, :length] = 0

    def __call__(self, latents: torch.Tensor, timestep: float) -> torch.Tensor:
        """See `Predict`."""
        self._latents.copy_(latents)
        self._timestep.fill_(timestep)
        self._run()
        return self._velocities

    @property
    def memory_bytes(self) -> int:
        """Of its tensors, and an estimate of its graph."""
        inputs = self._inputs
        kept = [tensor for pair in inputs.cross_kv for tensor in pair]
        tensors = (*kept, inputs.context, self._latents, self._velocities)
        return sum(tensor.nbytes for tensor in tensors) + GRAPH_BYTES


def _do_nothing() -> None: ...
