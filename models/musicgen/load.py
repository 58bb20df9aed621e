"""Builds an engine from a described checkpoint; unpickles tensors and settings only, and maps them from disk."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from errors import ErrorCode, ModelError
from models.cache import is_out_of_memory
from models.checkpoints.locations import CODEC_FILE, LM_FILE
from models.checkpoints.tensor_loader import copy_to
from models.device import require
from models.encodec.codec import Codec, from_audiocraft, from_folder
from models.musicgen.conditioning.conditioners import (
    ChromaConditioner,
    LUTConditioner,
    OutputProjection,
    T5Conditioner,
    TextConditioner,
)
from models.musicgen.conditioning.provider import ConditioningProvider
from models.musicgen.decode import CudaGraphBackend, DecodeBackend, EagerBackend
from models.musicgen.describe import Description
from models.musicgen.engine import GPU_BATCH, Engine
from models.musicgen.linear import choose_weight_dtype
from models.musicgen.lm import LanguageModel, LMConfig, load_language_model
from models.musicgen.peek import SETTINGS_CLASSES


def load_engine(description: Description, *, device: str, dtype: torch.dtype | None = None) -> Engine:
    """The engine of a checkpoint whose parts are all here.

    Args:
        dtype: of the language model's weights; None: `choose_weight_dtype(device)`. All else is in float32.

    Raises:
        ModelError: a part does not build or does not fit; the message names it.
    """
    assert not description.to_fetch, description.to_fetch
    require(device)
    dtype = dtype or choose_weight_dtype(device)
    with translated(description.folder, LM_FILE):
        package = read_package(description.folder / LM_FILE)
        settings, state = plain_settings(package["xp.cfg"]), package["best_state"]
        config = LMConfig.from_settings(settings)
        lm = load_language_model(state, config, device=device, dtype=dtype)
        conditioning = _conditioning(description, settings, state, config, device)
    with translated(description.folder, CODEC_FILE):
        codec = _codec(description, settings, device)
    max_batch = 1 if device == "cpu" and dtype == torch.float32 else GPU_BATCH
    codec_batch = 1 if device == "cpu" else GPU_BATCH
    return Engine(lm, _backend(lm), conditioning, codec, description.window, max_batch, codec_batch)


def read_package(path: Path) -> Mapping[Any, Any]:
    """The dict in a torch file: tensors, plain values and omegaconf's settings, nothing else."""
    allowed = [getattr(importlib.import_module(module), name) for module, name in SETTINGS_CLASSES]
    with torch.serialization.safe_globals(allowed):
        package = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    assert isinstance(package, Mapping), "describe() has seen to that"
    return package


def plain_settings(settings: Any) -> Mapping[str, Any]:
    """`xp.cfg` as plain values, from YAML (as exported) or omegaconf (as older exports have it)."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
    assert isinstance(plain, dict), "describe() has seen to that"
    return {str(name): value for name, value in plain.items()}


def _backend(lm: LanguageModel) -> DecodeBackend:
    return CudaGraphBackend(lm) if lm.device.type == "cuda" else EagerBackend(lm)


def _conditioning(
    description: Description,
    settings: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    config: LMConfig,
    device: str,
) -> ConditioningProvider:
    folders = {encoder.conditioner: encoder.folder for encoder in description.text_encoders}
    texts: dict[str, TextConditioner] = {}
    melody = None
    for name, conditioner in (settings.get("conditioners") or {}).items():
        if name == "args":
            continue
        kind, projection = conditioner["model"], OutputProjection(state, name, device)
        own = conditioner[kind]
        if kind == "chroma_stem":
            melody = ChromaConditioner(own, projection, window=description.window, device=device)
        elif kind == "lut":
            texts[name] = _word_table(own, state[f"condition_provider.conditioners.{name}.embed.weight"], projection)
        else:
            texts[name] = _t5(
                own, folders[name], _below(state, f"condition_provider.conditioners.{name}.t5."), projection
            )
    return ConditioningProvider(config, texts, melody, description.window)


def _word_table(settings: Mapping[str, Any], table: torch.Tensor, projection: OutputProjection) -> LUTConditioner:
    if settings.get("tokenizer") != "noop":
        raise ValueError("a table of words with spaCy's tokenizer")
    return LUTConditioner(copy_to(table, projection.weight.device), projection)


def _t5(
    settings: Mapping[str, Any], folder: Path | None, tuned: Mapping[str, torch.Tensor], projection: OutputProjection
) -> T5Conditioner:
    if settings.get("normalize_text"):
        raise ValueError("a text encoder with spaCy's normalisation")
    assert folder is not None, "nothing is to be fetched any more"
    return T5Conditioner(folder, projection, tuned=tuned)


def _below(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _codec(description: Description, settings: Mapping[str, Any], device: str) -> Codec:
    """The codec, in float32, with as many codebooks as the language model predicts."""
    interleaved = dict(settings.get("interleave_stereo_codebooks") or {})
    stereo = bool(interleaved.get("use"))
    if stereo and interleaved.get("per_timestep"):
        raise ValueError("sides interleaved by time")
    if description.codec.folder is not None:
        model = from_folder(description.codec.folder, device)
    else:
        package = read_package(description.folder / CODEC_FILE)
        model = from_audiocraft(package["best_state"], plain_settings(package["xp.cfg"]), device)
    return Codec(model, codebooks=description.codebooks // (2 if stereo else 1), stereo=stereo)


@contextmanager
def translated(folder: Path, part: str) -> Iterator[None]:
    """The one place where what libraries raise at a bad checkpoint becomes our error."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (
        OmegaConfBaseException,
        RuntimeError,
        pickle.UnpicklingError,
        OSError,
        ImportError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        AssertionError,
    ) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"The checkpoint '{folder.name}' cannot be loaded: its part {part} does not build "
            f"({type(error).__name__}). Download or export it again.",
            code=ErrorCode.BROKEN_CHECKPOINT,
            details={"part": part},
        ) from error
