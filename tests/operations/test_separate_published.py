"""`separate` with tiny networks of every published model's shape, as `.th` files in torch's cache, against demucs."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import demucs
import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from torch import nn

from errors import ModelError
from models.demucs.catalog import CATALOG
from models.demucs.repository import read_published_bag
from operations.build_models import models_for
from testing import tiny_demucs as tiny
from testing.dispatch import answer
from worker.settings import Settings

RATE = 44_100
SHAPES: dict[str, list[Callable[[], nn.Module]]] = {
    "htdemucs": [tiny.htdemucs],
    "htdemucs_ft": [partial(tiny.htdemucs, seed=seed) for seed in range(4)],
    "htdemucs_6s": [tiny.htdemucs_6s],
    "hdemucs_mmi": [tiny.hdemucs],
    "mdx": [
        partial(tiny.demucs, seed=0),
        partial(tiny.demucs, seed=1),
        partial(tiny.hdemucs, seed=2, hybrid_old=True),
        partial(tiny.hdemucs, seed=3),
    ],
    "mdx_extra": [partial(tiny.hdemucs, seed=seed) for seed in range(4)],
}
MIN_SNR_DB = 40.0  # on a CPU that multiplies bfloat16, from 42.6 to 78; the float32 engine's parity has its own tests


def separate(settings: Settings, **params: Any) -> dict[str, Any]:
    job = {"id": "job", "input": {"operation": "separate", "params": params}}
    return answer(job, settings=settings, models=models_for(settings))


def run_reference(name: str, folder: Path, mix: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The stems that demucs makes of the same files, loaded by its own code."""
    from demucs.apply import apply_model
    from demucs.pretrained import get_model

    shutil.copy(Path(demucs.__file__).parent / "remote" / f"{name}.yaml", folder)
    model = get_model(name, repo=folder)
    waveform = torch.from_numpy(mix)
    mean, std = waveform.mean(0).mean(), waveform.mean(0).std() + 1e-8
    with torch.no_grad():
        stems = apply_model(model, ((waveform - mean) / std)[None], shifts=0, overlap=0.25)[0] * std + mean
    return dict(zip(model.sources, stems.numpy(), strict=True))


@pytest.mark.parametrize("name", SHAPES)
def test_a_published_shape_in_torchs_cache_gives_the_stems_of_demucs(tmp_path: Path, name: str) -> None:
    folder, bag = tmp_path / "hub" / "checkpoints", read_published_bag(name)
    assert bag is not None
    for signature, make in zip(bag.signatures, SHAPES[name], strict=True):
        tiny.save_package(make(), folder, signature)
    generator = np.random.default_rng(0)
    mix = (0.2 * generator.standard_normal((2, RATE // 2))).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, mix.T, RATE, format="WAV", subtype="FLOAT")
    settings = Settings.from_env({"TORCH_HOME": str(tmp_path), "VOLUME_DIRS": str(tmp_path / "none")})
    audio = base64.b64encode(file.getvalue()).decode()
    reply = separate(settings, audio=audio, model=name, output_format="wav", bit_depth=32, residual=False)
    expected = run_reference(name, folder, mix)
    assert reply["model_used"] == name and list(reply["stems"]) == list(expected)
    for stem, artefact in reply["stems"].items():
        found, _ = soundfile.read(io.BytesIO(base64.b64decode(artefact["output_audio"])), dtype="float32")
        noise = np.square(found.T - expected[stem]).mean()
        assert 10 * np.log10(np.square(expected[stem]).mean() / noise) > MIN_SNR_DB, stem


def test_every_published_model_that_is_run_has_its_shape_here() -> None:
    assert SHAPES.keys() == {name for name, card in CATALOG.items() if not card.unsupported}


@pytest.mark.parametrize("name", ["mdx_q", "mdx_extra_q"])
def test_a_quantised_model_is_refused_by_name(name: str) -> None:
    with pytest.raises(ModelError, match=rf"'{name}' cannot be run: it has quantised weights.*use 'mdx") as caught:
        separate(Settings(volume_dirs=()), audio="", model=name)
    assert caught.value.error_code == "model_unsupported"
