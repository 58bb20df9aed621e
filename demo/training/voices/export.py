"""Writes the demo voices as RVC does: a checkpoint, an index of content features, and `voice.json` beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demo.training.singing import TARGETS
from demo.training.singing.lexicon import PHONEMES, SILENCE
from demo.training.voices.data import NAMES, load_lines
from demo.training.voices.features import load_features
from demo.training.voices.synthesizer import CHECKPOINT, make_checkpoint
from models.demo import CONTENT_ENCODER

FOLDER = Path(__file__).parents[2] / "weights" / "rvc"
INDEX_ROWS, INDEX_LISTS = 256, 6


def export(folder: Path = FOLDER) -> None:
    """Writes every voice below `folder`."""
    state = torch.load(CHECKPOINT, weights_only=True)
    lines, features = load_lines(), load_features()
    for speaker, name in enumerate(TARGETS):
        voice, singer = f"demo-{name}", NAMES.index(name)
        place = folder / voice
        place.mkdir(parents=True, exist_ok=True)
        torch.save(make_checkpoint(state, speaker), place / f"{voice}.pth")
        is_sung = np.asarray(lines.phonemes[:, 1 : 2 * features.shape[2] : 2]) != PHONEMES.index(SILENCE)
        _write_index(place, voice, np.asarray(features[:, singer], np.float32)[is_sung])
        f0 = np.asarray(lines.f0[:, singer])
        sidecar = {"f0_hz": round(float(np.median(f0[f0 > 0])), 1), "embedder": CONTENT_ENCODER}
        (place / "voice.json").write_text(json.dumps(sidecar) + "\n")


def _write_index(folder: Path, voice: str, features: NDArray[np.float32]) -> None:
    """Writes the means of `INDEX_ROWS` clusters of the features `[N, 768]`; RVC does so for long recordings."""
    import faiss

    means: Any = faiss.Kmeans(features.shape[1], INDEX_ROWS, niter=10, seed=0)
    means.train(features)
    index: Any = faiss.index_factory(features.shape[1], f"IVF{INDEX_LISTS},Flat")
    inverted = faiss.extract_index_ivf(index)
    inverted.nprobe = 1
    index.train(means.centroids)
    index.add(means.centroids)
    faiss.write_index(index, str(folder / f"added_IVF{INDEX_LISTS}_Flat_nprobe_1_{voice}_v2.index"))
