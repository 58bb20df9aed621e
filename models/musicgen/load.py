"""Builds an engine from a checkpoint that was inspected. Tensors are mapped from disk and copied to the device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings
from models.checkpoints.tensor_loader import TensorLoader
from models.checkpoints.torch_file import open_torch_file
from models.device import prepare_device
from models.encodec.codec import Codec
from models.encodec.load import from_audiocraft, from_folder
from models.musicgen.conditioning import (
    ChromaConditioner,
    ConditioningProvider,
    LUTConditioner,
    OutputProjection,
    T5Conditioner,
    TextConditioner,
)
from models.musicgen.decode import CudaGraphBackend, DecodeBackend, EagerBackend
from models.musicgen.engine import GPU_BATCH, Engine
from models.musicgen.inspect import (
    AUDIOCRAFT_LIMITS,
    CODEC_FILE,
    CODEC_FOLDER,
    LM_FILE,
    CheckpointInfo,
    Package,
    check_package,
    report_part,
)
from models.musicgen.lm import LMConfig, choose_weight_dtype, load_language_model


def load_engine(
    info: CheckpointInfo, *, device: str, dtype: torch.dtype | None = None, cuda_graphs: bool = True
) -> Engine:
    """Loads the engine of a checkpoint whose parts are all on this machine.

    Args:
        dtype: of the language model's weights; None: `choose_weight_dtype(device)`. All else is in float32.
        cuda_graphs: whether a GPU replays decoding steps as CUDA graphs; False launches their kernels one by one.

    Raises:
        ModelError: a part is broken or not supported; the message names it.
    """
    assert not info.to_fetch, f"parts have to be downloaded before loading: {info.to_fetch}"
    prepare_device(device)
    dtype = dtype or choose_weight_dtype(device)
    with report_part(info.folder, LM_FILE):
        package, state = read_weights(info.folder / LM_FILE)
        settings = package.settings
        config = LMConfig.from_settings(settings)
        lm = load_language_model(state, config, device=device, dtype=dtype)
        conditioning = _load_conditioning(info, settings, state, config, device)
        if info.is_interleaved:
            settings.require("interleave_stereo_codebooks.per_timestep", None, False)
    codec = load_codec(info, device)
    backend: DecodeBackend = EagerBackend(lm)
    if cuda_graphs and lm.device.type == "cuda":
        backend = CudaGraphBackend(lm, window_frames=int(info.window * codec.frame_rate))
    max_batch = 1 if device == "cpu" and dtype == torch.float32 else GPU_BATCH
    codec_batch = 1 if device == "cpu" else GPU_BATCH
    return Engine(lm, backend, conditioning, codec, info.window, max_batch, codec_batch)


def read_weights(path: Path) -> tuple[Package, dict[str, torch.Tensor]]:
    """Reads one of a checkpoint's files: its content, and the tensors of `best_state`, mapped from disk.

    Raises:
        CheckpointError: it is missing, broken, or holds more than tensors and settings.
    """
    with open_torch_file(path, AUDIOCRAFT_LIMITS) as file:
        package = check_package(file.content)
        return package, file.map(package.state)


def _load_conditioning(
    info: CheckpointInfo, settings: Settings, state: Mapping[str, torch.Tensor], config: LMConfig, device: str
) -> ConditioningProvider:
    folders = {encoder.conditioner: encoder.folder for encoder in info.text_encoders}
    conditioners = settings.section("conditioners")
    texts: dict[str, TextConditioner] = {}
    melody = None
    for name in conditioners:
        if name == "args":
            continue
        prefix = f"condition_provider.conditioners.{name}."
        kind, projection = conditioners.text(f"{name}.model"), OutputProjection(state, name, device)
        own = conditioners.section(f"{name}.{kind}")
        if kind == "chroma_stem":
            melody = ChromaConditioner(own, projection, window=info.window, device=device)
        elif kind == "lut":
            own.require("tokenizer", "noop")  # audiocraft's other one is spaCy's
            texts[name] = LUTConditioner(TensorLoader(state, device, prefix)("embed.weight", -1, -1), projection)
        else:
            own.require("normalize_text", None, False)  # audiocraft does it with spaCy
            folder = folders.get(name)
            if folder is None:
                raise CheckpointError(f"its conditioner '{name}' was not there when it was inspected")
            tuned = {key.removeprefix(f"{prefix}t5."): state[key] for key in state if key.startswith(f"{prefix}t5.")}
            with report_part(info.folder, "t5"):
                texts[name] = T5Conditioner(folder, projection, tuned=tuned)
    biased = any(".cross_attention." in name and name.endswith("bias") for name in state)
    return ConditioningProvider(config, texts, melody, info.window, biased)


def load_codec(info: CheckpointInfo, device: str) -> Codec:
    """Loads the codec of a checkpoint, in float32, with as many codebooks as the language model predicts.

    Raises:
        ModelError: it is broken or not supported.
    """
    with report_part(info.folder, CODEC_FOLDER if info.codec.folder else CODEC_FILE):
        if info.codec.folder is not None:
            model = from_folder(info.codec.folder, device)
        else:
            package, state = read_weights(info.folder / CODEC_FILE)
            model = from_audiocraft(state, package.settings, device)
        codebooks = info.codebooks // (2 if info.is_interleaved else 1)
        tables = model.codebooks[:codebooks]
        if len(tables) < codebooks or any(len(table) != info.cardinality for table in tables):
            raise CheckpointError(f"its tensors hold other codebooks than {codebooks} of {info.cardinality} codes")
        return Codec(model, codebooks=codebooks, stereo=info.is_interleaved)
