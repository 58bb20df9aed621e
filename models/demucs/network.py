"""One submodel on its device: input lengths, batch size, precision, halved batches on out-of-memory. Knows no mixes."""

from __future__ import annotations

import logging
from typing import Any, Final

import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from torch import Tensor

from models.cache import is_out_of_memory
from models.demucs.attention import replace_attention
from models.demucs.parts import work_in_parts
from models.demucs.precision import Precision, choose_precision, reduce_precision
from models.demucs.transform import streamline
from models.runtime.cuda_graph import CudaGraphed, CudaGraphRecorder

logger = logging.getLogger(__name__)

# A float32 forward pass holds about 2 GB for the 7.8 s of htdemucs (its issue 498); the others are near enough.
_BYTES_PER_SECOND: Final = 260_000_000
_MEMORY_FRACTION: Final = 0.4
_LARGEST_BATCH: Final = 16
_EAGER_CALLS: Final = 2  # of a batch shape before it is captured
_MAX_GRAPHS: Final = 2
_GRAPH_TOLERANCE: Final = 1e-3  # of the largest magnitude


class Network:
    """A Demucs network, ready to run on batches.

    Args:
        module: an HTDemucs, HDemucs or Demucs in evaluation mode, on the CPU; taken over and changed.
        device: where it is to run.
        precision: `float32` for the reference's figures; `bfloat16`; `auto`: what is faster here.
        segment: seconds, in place of the network's own, as demucs's bags set it.
        cuda_graphs: whether a GPU replays the forward pass as a CUDA graph once a batch shape has come up before.
    """

    def __init__(
        self,
        module: Any,
        device: torch.device,
        precision: Precision = "auto",
        *,
        segment: float | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        _set_segment(module, segment)
        self.stems: tuple[str, ...] = tuple(module.sources)
        self.sample_rate = int(module.samplerate)
        self.segment = float(module.segment)
        self.precision = choose_precision(precision, device)
        self.device = device
        module = module.to(device)
        if self.precision == "bfloat16":
            reduce_precision(module)
        streamline(module, device)
        replace_attention(module)
        if device.type == "cpu":
            work_in_parts(module)
        self._module = module
        self._batch_limit = _LARGEST_BATCH
        self._graphed: CudaGraphed | None = None
        if device.type == "cuda":
            self._graphed = CudaGraphed(
                module,
                CudaGraphRecorder(device),
                name="a Demucs network",
                enabled=cuda_graphs,
                eager_calls=_EAGER_CALLS,
                max_graphs=_MAX_GRAPHS,
                tolerance=_GRAPH_TOLERANCE,
            )

    @property
    def max_segment(self) -> float | None:
        """Seconds of the longest segment that the network takes; None where there is no limit."""
        return self.segment if self._is_fixed_length else None

    @property
    def memory_bytes(self) -> int:
        """What its weights hold."""
        return sum(weight.nbytes for weight in (*self._module.parameters(), *self._module.buffers()))

    def segment_length(self, segment: float | None) -> int:
        """Samples of a segment of `segment` seconds, or of the network's own."""
        return int(self.sample_rate * (self.segment if segment is None else segment))

    def input_length(self, length: int, segment: float | None) -> int:
        """Samples to be given for `length` to come out, as demucs.apply pads them: half of the rest on either side."""
        if isinstance(self._module, HTDemucs):
            return self.segment_length(segment) if self._is_fixed_length else length
        if isinstance(self._module, HDemucs):
            return length
        return int(self._module.valid_length(length))

    def batch_size(self, length: int) -> int:
        """How many inputs of `length` samples to run at once; by the device's size, so the same at every call.

        A processor gains nothing from batches, and its caches lose.
        """
        if self.device.type != "cuda":
            return 1
        total = torch.cuda.get_device_properties(self.device).total_memory
        affordable = int(_MEMORY_FRACTION * total / (_BYTES_PER_SECOND * length / self.sample_rate))
        return max(1, min(affordable, self._batch_limit))

    def __call__(self, batch: Tensor) -> Tensor:
        """Mixes `[B, 2, T]` to stems `[B, S, 2, T]`, float32. Halves the batch where memory does not suffice."""
        try:
            return self._forward(batch)
        except RuntimeError as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        # Out of the except block, so that the failed attempt's tensors are gone.
        half = (len(batch) + 1) // 2
        self._batch_limit = min(self._batch_limit, half)
        logger.warning("Out of memory with %d segments at once; going on with %d", len(batch), half)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return torch.cat([self(batch[:half]), self(batch[half:])])

    def _forward(self, batch: Tensor) -> Tensor:
        stems: Tensor | None = self._module(batch) if self._graphed is None else self._graphed(batch)
        assert stems is not None, "a network returns its stems"
        return stems

    @property
    def _is_fixed_length(self) -> bool:
        return isinstance(self._module, HTDemucs) and self._module.use_train_segment


def _set_segment(module: Any, segment: float | None) -> None:
    """A network that was trained on a fixed length takes a shorter one, never a longer."""
    if segment is not None and (not isinstance(module, HTDemucs) or segment <= module.segment):
        module.segment = segment
