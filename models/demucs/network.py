"""One Demucs network on its device: input lengths, batch sizes, precision."""

from __future__ import annotations

from typing import Any

import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs

from models.demucs.optimizations import optimize_network
from models.runtime.dtype import DEMUCS, Precision, convolves_bfloat16, inference_dtype

# A float32 forward pass takes about 2 GB for the 7.8 s of htdemucs (its issue 498), and about as much a second for the
# other networks.
_BYTES_PER_SECOND = 260_000_000
_MEMORY_FRACTION = 0.4
# Segments in a batch on a GPU. One fixed size, with a smaller last batch, so that songs of all lengths share a few
# shapes. At this size the device and not the launching of kernels takes the time, so CUDA graphs would gain little,
# and each would keep its activations for ever.
BATCH_SIZE = 8


class Network:
    """A Demucs network, ready to run on batches.

    Args:
        module: an HTDemucs, HDemucs or Demucs in evaluation mode, on the CPU. It is changed in place.
        device: where it runs.
        precision: `float32` for the reference's results; `bfloat16`; `auto`: the faster one on this device.
        segment: seconds, in place of the network's own, as demucs's bags set it.
        reduces_outer: see `reduce_precision`.
    """

    def __init__(
        self,
        module: Any,
        device: torch.device,
        precision: Precision = "auto",
        *,
        segment: float | None = None,
        reduces_outer: bool = False,
    ) -> None:
        # A network that was trained on a fixed length takes shorter segments and no longer ones.
        if segment is not None and (not isinstance(module, HTDemucs) or segment <= module.segment):
            module.segment = segment
        self.stems: tuple[str, ...] = tuple(module.sources)
        self.sample_rate = int(module.samplerate)
        self.segment = float(module.segment)
        self.device = device
        module = module.to(device)
        optimize_network(
            module,
            device,
            inference_dtype(DEMUCS, device, precision),
            reduces_outer=reduces_outer,
            reduces_convolutions=precision != "auto" or convolves_bfloat16(device),
        )
        self._module = module

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
        return choose_batch_size(total, length / self.sample_rate)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Separates mixes `[B, 2, T]` into stems `[B, S, 2, T]`, float32."""
        assert batch.ndim == 3 and batch.shape[1] == 2, f"mixes are [B, 2, T], not {list(batch.shape)}"
        stems: torch.Tensor = self._module(batch)
        return stems

    @property
    def _has_fixed_length(self) -> bool:
        return isinstance(self._module, HTDemucs) and self._module.use_train_segment


def choose_batch_size(device_bytes: int, seconds: float) -> int:
    """How many segments of `seconds` a GPU with `device_bytes` of memory runs at once, beside other engines."""
    return max(1, min(int(_MEMORY_FRACTION * device_bytes / (_BYTES_PER_SECOND * seconds)), BATCH_SIZE))
