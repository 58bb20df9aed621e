"""Builds a planner from its folder. Tensors are read from disk one by one and copied to the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from safetensors import SafetensorError, safe_open

from errors import sanitize
from models.acestep.planner.checkpoint import PlannerCheckpoint, report_planner
from models.acestep.planner.constraint import PlanGrammars
from models.acestep.planner.decode import CudaGraphBackend, DecodeBackend, EagerBackend
from models.acestep.planner.engine import PlannerEngine
from models.acestep.planner.lm import choose_weight_dtype, load_language_model
from models.acestep.planner.vocabulary import Vocabulary
from models.checkpoints.errors import CheckpointError
from models.checkpoints.hf_folder import read_tokenizer_file
from models.checkpoints.safetensors_shards import Tensors
from models.device import prepare_device

MAX_CLIPS = 8  # whose audio codes are drawn together: as many as a request has


def load_engine(
    checkpoint: PlannerCheckpoint, *, device: str, dtype: torch.dtype | None = None, cuda_graphs: bool = True
) -> PlannerEngine:
    """Loads a planner whose files are all on this machine.

    Args:
        dtype: of the weights; None: `choose_weight_dtype(device)`.
        cuda_graphs: whether a GPU replays decoding steps as CUDA graphs; False launches their kernels one by one.

    Raises:
        ModelError: a file is broken, or its tokenizer is not that of a planner.
    """
    prepare_device(device)
    dtype = dtype or choose_weight_dtype(device)
    with report_planner(checkpoint.folder):
        vocabulary = Vocabulary(read_tokenizer_file(checkpoint.folder), checkpoint.config.vocab_size)
        vocabulary.trees  # noqa: B018 - built now, so that a tokenizer that does not fit is found now
        lm = load_language_model(
            _StoredTensors(checkpoint.tensors), checkpoint.config, vocabulary=vocabulary, device=device, dtype=dtype
        )
    backend: DecodeBackend = EagerBackend(lm)
    if cuda_graphs and lm.device.type == "cuda":
        backend = CudaGraphBackend(lm)
    max_clips = 1 if device == "cpu" and dtype == torch.float32 else MAX_CLIPS
    return PlannerEngine(lm, vocabulary, PlanGrammars(vocabulary), backend, max_clips)


class _StoredTensors(Mapping[str, torch.Tensor]):
    """Tensors by name, each read from its file when it is asked for."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        stored = self._tensors[name]
        try:
            with safe_open(stored.path, framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(stored.name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"its file {sanitize(stored.path.name)} is broken, or is cut short") from error
        if not tensor.is_floating_point():
            raise CheckpointError(f"'{sanitize(name)}' holds no floating-point numbers")
        if not bool(torch.stack(tensor.aminmax()).isfinite().all()):
            raise CheckpointError(f"'{sanitize(name)}' holds values that are not finite")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
