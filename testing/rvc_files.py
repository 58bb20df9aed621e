"""RVC checkpoints and indexes in the real files: by torch.save and by faiss, tiny, with random weights."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.rvc.config import FEATURE_WIDTHS, SynthesizerConfig, expected_shapes

TINY: dict[str, Any] = {
    "spec_channels": 1025,
    "segment_frames": 32,
    "inter_channels": 8,
    "hidden_channels": 8,
    "filter_channels": 16,
    "n_heads": 2,
    "n_layers": 1,
    "kernel_size": 3,
    "p_dropout": 0.0,
    "resblock": "1",
    "resblock_kernel_sizes": (3,),
    "resblock_dilation_sizes": ((1, 3, 5),),
    "upsample_rates": (10, 10, 2, 2),
    "upsample_initial_channel": 16,
    "upsample_kernel_sizes": (16, 16, 4, 4),
    "n_speakers": 1,
    "gin_channels": 4,
    "sample_rate": 40_000,
}


def make_config(**changes: Any) -> SynthesizerConfig:
    return SynthesizerConfig(**TINY | changes)


def make_weights(
    config: SynthesizerConfig, version: str = "v2", f0: bool = True, *, seed: int = 0, dtype: torch.dtype = torch.half
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = expected_shapes(config, version, f0)
    return {name: (0.1 * torch.randn(shape, generator=generator)).to(dtype) for name, shape in shapes.items()}


def list_shapes(config: SynthesizerConfig, version: str = "v2") -> dict[str, tuple[int, ...]]:
    return expected_shapes(config, version, True)


def list_config(config: SynthesizerConfig) -> list[Any]:
    """The config as a checkpoint holds it, and as rvc-python's networks take it: lists, no tuples."""
    values: list[Any] = json.loads(json.dumps(list(asdict(config).values())))
    return values


def make_content(version: str = "v2", f0: bool = True, *, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """What RVC's training saves as the small model."""
    config = make_config()
    return {
        "weight": OrderedDict(make_weights(config, version, f0, seed=seed)),
        "config": list_config(config),
        "info": "200epoch",
        "sr": "40k",
        "f0": int(f0),
        "version": version,
    } | changes


def save(path: Path, saved: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(saved, path)
    return path


def save_voice(folder: Path, name: str, *, index: bool = True, file: str = "model", **changes: Any) -> Path:
    """A voice folder `folder/name`."""
    saved = make_content(**changes)
    path = save(folder / name / f"{file}.pth", saved)
    if index:
        save_index(folder / name / "added_IVF.index", width=FEATURE_WIDTHS[saved["version"]])
    return path


def make_vectors(count: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def save_index(
    path: Path,
    *,
    width: int = 768,
    count: int = 200,
    clusters: int | None = 4,
    train: int | None = None,
    **changes: Any,
) -> Any:
    """Writes an index by faiss and returns faiss's own object.

    Args:
        clusters: None: an index without clusters.
        train: number of vectors that the clusters are made from; None: `count`, all that are added.
        changes: attributes of the index.
    """
    import faiss

    data = make_vectors(count, width)
    index: Any = faiss.index_factory(width, "Flat" if clusters is None else f"IVF{clusters},Flat")
    if clusters is not None:
        index.cp.min_points_per_centroid = 1
        index.train(data if train is None else make_vectors(train, width))
    index.add(data)
    for name, value in changes.items():
        setattr(index, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    faiss.write_index(index, str(path))
    return index


def drop_keys(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}
