"""Builds an engine from a described checkpoint with audiocraft's builders; unpickles tensors and settings only."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from errors import ModelError
from models.cache import is_out_of_memory
from models.device import require
from models.musicgen.audiocraft_import import import_audiocraft
from models.musicgen.describe import Codec, Description, TextEncoder, text_width
from models.musicgen.generate import GPU_BATCH, Engine
from models.musicgen.melody import melody_conditioner
from models.musicgen.peek import SETTINGS_CLASSES
from models.musicgen.weights import CODEC_FILE, LM_FILE

if TYPE_CHECKING:
    import torch

MELODY = "self_wav"


def load_engine(description: Description, *, device: str) -> Engine:
    """The engine of a checkpoint whose parts are all here.

    Language model in float32 on the CPU, float16 elsewhere; codec and text encoder in float32.

    Raises:
        ModelError: a part does not build or does not fit; the message names it.
    """
    assert not description.to_fetch, description.to_fetch
    require(device)
    import_audiocraft()
    with _without_progress_bars(), translated(description.folder, LM_FILE):
        lm, settings = _language_model(description, device)
    with _without_progress_bars(), translated(description.folder, CODEC_FILE):
        codec = _codec(description.folder, description.codec, device)
        builders = importlib.import_module("audiocraft.models.builders")
        codec = builders.get_wrapped_compression_model(codec, settings)
    max_batch = 1 if device == "cpu" else GPU_BATCH
    return Engine(lm=lm, codec=codec, window=description.window, device=device, max_batch=max_batch)


def read_package(path: Path) -> Mapping[Any, Any]:
    """The dict in a torch file: tensors, plain values and omegaconf's settings, nothing else."""
    import torch

    allowed = [getattr(importlib.import_module(module), name) for module, name in SETTINGS_CLASSES]
    with torch.serialization.safe_globals(allowed):
        package = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    assert isinstance(package, Mapping), "describe() has seen to that"
    return package


def _language_model(description: Description, device: str) -> tuple[torch.nn.Module, Any]:
    """audiocraft's LMModel, and its settings. Melody conditioning is ours, see `melody.py`."""
    from omegaconf import OmegaConf, open_dict

    builders = importlib.import_module("audiocraft.models.builders")
    package = read_package(description.folder / LM_FILE)
    settings = OmegaConf.create(package["xp.cfg"])
    melody = None
    with open_dict(settings):
        settings.device = device
        settings.dtype = "float32" if device == "cpu" else "float16"
        for encoder in description.text_encoders:
            settings.conditioners[encoder.conditioner].t5.name = _allowed_t5(encoder)
        if "melody" in description.conditioning:
            melody = cast(
                Mapping[str, Any], OmegaConf.to_container(settings.conditioners.pop(MELODY).chroma_stem, resolve=True)
            )
    lm = builders.get_lm_model(settings)
    if melody is not None:
        conditioner = melody_conditioner(melody, width=lm.dim, window=description.window, device=device)
        lm.condition_provider.conditioners[MELODY] = conditioner.to(device)
    lm.load_state_dict(package["best_state"])
    return lm.eval(), settings


def _allowed_t5(encoder: TextEncoder) -> str:
    """The folder of a T5, entered into audiocraft's list of the names that its conditioner takes."""
    conditioners = importlib.import_module("audiocraft.modules.conditioners")
    name = str(encoder.folder)
    if name not in conditioners.T5Conditioner.MODELS:
        conditioners.T5Conditioner.MODELS.append(name)
    conditioners.T5Conditioner.MODELS_DIMS[name] = text_width(encoder)
    return name


def _codec(folder: Path, codec: Codec, device: str) -> torch.nn.Module:
    """The codec, in float32: transformers' where the checkpoint points at one, else audiocraft's own format."""
    model: torch.nn.Module
    if codec.folder is not None:
        encodec = importlib.import_module("audiocraft.models.encodec")
        model = encodec.HFEncodecCompressionModel(encodec.HFEncodecModel.from_pretrained(codec.folder))
        return model.to(device).eval()
    from omegaconf import OmegaConf, open_dict

    package = read_package(folder / CODEC_FILE)
    settings = OmegaConf.create(package["xp.cfg"])
    with open_dict(settings):
        settings.device = device
    model = importlib.import_module("audiocraft.models.builders").get_compression_model(settings)
    model.load_state_dict(package["best_state"])
    return model.eval()


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """transformers draws one on stderr for every part that it reads, which a log of lines has no use for."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def translated(folder: Path, part: str) -> Iterator[None]:
    """The one place where what audiocraft, omegaconf and torch raise at a bad checkpoint becomes our error."""
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
            code="broken_checkpoint",
            details={"part": part},
        ) from error
