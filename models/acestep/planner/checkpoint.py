"""What a planner's folder holds: its sizes and every tensor. Reads headers, without torch."""

from __future__ import annotations

import functools
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from errors import ErrorCode, ModelError, sanitize
from models.acestep.planner.config import MODEL_TYPE, PlannerConfig
from models.acestep.planner.vocabulary import FIRST_CODE
from models.checkpoints.errors import CheckpointError, report_broken
from models.checkpoints.hf_folder import CONFIG_FILE, TOKENIZER_FILE, read_config
from models.checkpoints.safetensors_shards import Tensors, check_shapes, find_tensors, list_weight_files

STEM: Final = "model"  # of the files of weights
_REMEDY = "Download or copy its folder again as it was published."


@dataclass(frozen=True, slots=True)
class PlannerCheckpoint:
    """A planner's files, whose sizes and tensors fit together."""

    folder: Path
    config: PlannerConfig
    tensors: Tensors


def read_checkpoint(folder: Path) -> PlannerCheckpoint:
    """Reads what a planner's folder holds; raises `ModelError` if a file is missing or broken."""
    with report_planner(folder):
        config = PlannerConfig.from_settings(read_config(folder))
        if missing := list_missing_files(folder):
            raise ModelError(
                f"The planner '{sanitize(folder.name)}' cannot be used: its file {missing[0]} is missing. {_REMEDY}",
                code=ErrorCode.MODEL_INCOMPLETE,
                details={"planner": sanitize(folder.name), "file": missing[0]},
            )
        tensors = find_tensors(folder, STEM)
        prefix = "model." if "model.embed_tokens.weight" in tensors else ""
        last = f"{prefix}layers.{config.num_layers - 1}"
        queries = config.num_heads * config.head_dim
        keys = config.num_kv_heads * config.head_dim
        shapes = {
            f"{prefix}embed_tokens.weight": (config.vocab_size, config.hidden_size),
            f"{prefix}norm.weight": (config.hidden_size,),
            f"{last}.self_attn.q_proj.weight": (queries, config.hidden_size),
            f"{last}.self_attn.k_proj.weight": (keys, config.hidden_size),
            f"{last}.mlp.gate_proj.weight": (config.intermediate_size, config.hidden_size),
        }
        check_shapes(tensors, shapes, "network")
        if f"{prefix}layers.{config.num_layers}.mlp.gate_proj.weight" in tensors:
            raise CheckpointError(f"its network has more layers than the {config.num_layers} that {CONFIG_FILE} states")
        return PlannerCheckpoint(folder, config, tensors)


def list_missing_files(folder: Path) -> tuple[str, ...]:
    """Returns the files that a planner's folder lacks; raises `CheckpointError` if its index of shards is broken."""
    needed = (CONFIG_FILE, TOKENIZER_FILE, *list_weight_files(folder, STEM))
    return tuple(file for file in needed if not (folder / file).is_file())


def holds_planner(folder: Path) -> bool:
    """Whether a folder holds a planner, intact or not: a Qwen3 model whose tokenizer has audio codes."""
    try:
        if read_config(folder).get("model_type") != MODEL_TYPE:
            return False
        status = (folder / TOKENIZER_FILE).stat()
    except (CheckpointError, OSError):
        return False
    return _has_codes(folder / TOKENIZER_FILE, (status.st_ino, status.st_mtime_ns, status.st_size))


@contextmanager
def report_planner(folder: Path) -> Iterator[None]:
    """Raises `ModelError`, which names the planner, in place of a `CheckpointError` inside."""
    subject = f"The planner '{sanitize(folder.name)}'"
    with report_broken(subject, _REMEDY, details={"planner": sanitize(folder.name)}):
        yield


@functools.lru_cache(maxsize=64)
def _has_codes(path: Path, version: tuple[int, int, int]) -> bool:
    """Searches one version of a file, once: that of a published planner has 20 MB."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(FIRST_CODE.encode()) >= 0
    except (OSError, ValueError):  # ValueError: the file is empty
        return False
