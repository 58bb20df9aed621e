"""One Demucs network on its device: input lengths, batch sizes, precision, CUDA graphs, out-of-memory handling."""

from __future__ import annotations

import logging
from typing import Any

import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs

from models.demucs.optimizations import optimize_network
from models.device import is_out_of_memory
from models.runtime.cuda_graph import CudaGraphed, CudaGraphRecorder
from models.runtime.dtype import DEMUCS, Precision, inference_dtype

logger = logging.getLogger(__name__)

# A float32 forward pass takes about 2 GB for the 7.8 s of htdemucs (its issue 498), and about as much a second for the
# other networks.
_BYTES_PER_SECOND = 260_000_000
_MEMORY_FRACTION = 0.4
_MAX_BATCH_SIZE = 16
_EAGER_CALLS = 2  # of a batch shape before it is captured
_MAX_GRAPHS = 2
_GRAPH_TOLERANCE = 1e-3  # of the largest magnitude


class Network:
    """A Demucs network, ready to run on batches.

    Args:
        module: an HTDemucs, HDemucs or Demucs in evaluation mode, on the CPU. It is changed in place.
        device: where it runs.
        precision: `float32` for the reference's results; `bfloat16`; `auto`: the faster one on this device.
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
        # A network that was trained on a fixed length takes shorter segments and no longer ones.
        if segment is not None and (not isinstance(module, HTDemucs) or segment <= module.segment):
            module.segment = segment
        self.stems: tuple[str, ...] = tuple(module.sources)
        self.sample_rate = int(module.samplerate)
        self.segment = float(module.segment)
        self.device = device
        module = module.to(device)
        optimize_network(module, device, inference_dtype(DEMUCS, device, precision))
        self._module = module
        self._batch_limit = _MAX_BATCH_SIZE
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
        """Seconds of the longest segment that the network takes; None if there is no limit."""
        return self.segment if self._has_fixed_length else None

    @property
    def memory_bytes(self) -> int:
        """Bytes of its weights."""
        return sum(weight.nbytes for weight in (*self._module.parameters(), *self._module.buffers()))

    def segment_length(self, segment: float | None) -> int:
        """Samples of a segment of `segment` seconds; None: of the network's own length."""
        return int(self.sample_rate * (self.segment if segment is None else segment))

    def input_length(self, length: int, segment: float | None) -> int:
        """Samples of input for `length` samples of output: demucs.apply adds half of the difference on either side."""
        if isinstance(self._module, HTDemucs):
            return self.segment_length(segment) if self._has_fixed_length else length
        if isinstance(self._module, HDemucs):
            return length
        return int(self._module.valid_length(length))

    def batch_size(self, length: int) -> int:
        """How many inputs of `length` samples to run at once; depends on the device's size, not on its free memory.

        On a CPU it is 1: batches gain nothing there and no longer fit into the caches.
        """
        if self.device.type != "cuda":
            return 1
        total = torch.cuda.get_device_properties(self.device).total_memory
        affordable = int(_MEMORY_FRACTION * total / (_BYTES_PER_SECOND * length / self.sample_rate))
        return max(1, min(affordable, self._batch_limit))

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Separates mixes `[B, 2, T]` into stems `[B, S, 2, T]`, float32. Halves the batch if memory runs out.

        Raises:
            RuntimeError: the device has too little memory for a batch of one.
        """
        assert batch.ndim == 3 and batch.shape[1] == 2, f"mixes are [B, 2, T], not {list(batch.shape)}"
        try:
            return self._forward(batch)
        except RuntimeError as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        # Outside the except block, so that the failed attempt's tensors have been freed.
        half = (len(batch) + 1) // 2
        self._batch_limit = min(self._batch_limit, half)
        logger.warning("Out of memory with a batch of %d segments; continuing with %d", len(batch), half)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return torch.cat([self(batch[:half]), self(batch[half:])])

    def _forward(self, batch: torch.Tensor) -> torch.Tensor:
        stems: torch.Tensor | None = self._module(batch) if self._graphed is None else self._graphed(batch)
        assert stems is not None, "a network returns its stems"
        return stems

    @property
    def _has_fixed_length(self) -> bool:
        return isinstance(self._module, HTDemucs) and self._module.use_train_segment
