"""The random checkpoints have the real formats and give audible sound; rvc-python's own pipeline runs on them."""

from __future__ import annotations

import pickletools
import sys
import zipfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from testing.rvc_reference import Noise, RvcPython, rvc_python
from testing.tiny_rvc import (
    FEATURE_WIDTH,
    make_checkpoint,
    make_config,
    make_synthesizer,
    write_hubert_file,
    write_hubert_folder,
    write_rmvpe,
    write_voice,
)
from testing.vocals import make_vocal

VOICES = [(version, rate, f0) for version in ("v1", "v2") for rate in (32_000, 40_000, 48_000) for f0 in (True, False)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rvc")


@pytest.fixture(scope="module")
def reference(folder: Path) -> RvcPython:
    with rvc_python(write_hubert_file(folder / "hubert_base.pt"), write_rmvpe(folder / "rmvpe.pt")) as loaded:
        return loaded


def list_globals(path: Path) -> set[str]:
    """The globals that the pickle in a torch file names."""
    with zipfile.ZipFile(path) as archive:
        data = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    return {str(argument).replace(" ", ".") for op, argument, _ in pickletools.genops(data) if op.name == "GLOBAL"}


@pytest.mark.parametrize(("version", "sample_rate", "f0"), VOICES)
def test_a_random_voice_is_neither_silent_nor_saturated(version: str, sample_rate: int, f0: bool) -> None:
    network = make_synthesizer(make_config(version, sample_rate, tiny=True), version=version, f0=f0, seed=3)
    frames = 60
    features, lengths = torch.randn(1, frames, FEATURE_WIDTH[version]), torch.tensor([frames])
    pitch = (torch.full((1, frames), 80), torch.full((1, frames), 220.0)) if f0 else ()
    with torch.no_grad():
        sound = network.infer(features, lengths, *pitch, torch.tensor([0]))[0]  # type: ignore[operator]
    assert sound.shape == (1, 1, frames * sample_rate // 100)
    assert 0.05 < sound.square().mean().sqrt() < 0.5
    assert sound.abs().max() < 0.99


def test_a_voice_file_has_the_keys_and_dtypes_that_rvc_writes(tmp_path: Path) -> None:
    path = write_voice(tmp_path, "anna", version="v1", sample_rate=32_000) / "anna.pth"
    package = torch.load(path, weights_only=True)
    assert {key: package[key] for key in ("version", "sr", "f0")} == {"version": "v1", "sr": "32k", "f0": 1}
    assert len(package["config"]) == 18 and package["config"][-1] == 32_000
    weights = package["weight"]
    assert all(weight.dtype == torch.float16 for weight in weights.values())
    assert not any(key.startswith("enc_q.") for key in weights)
    assert {"dec.ups.0.weight_g", "dec.ups.0.weight_v", "enc_p.emb_pitch.weight"} <= set(weights)
    assert weights["emb_g.weight"].shape[0] == package["config"][-3]


def test_the_same_seed_makes_the_same_voice_and_another_seed_makes_another() -> None:
    one, same, other = (make_checkpoint(seed=seed)["weight"]["dec.conv_pre.weight"] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_faiss_reads_an_index_that_probes_one_list(tmp_path: Path) -> None:
    [path] = write_voice(tmp_path, "anna", version="v1", index_rows=400).glob("*.index")
    index: Any = faiss.read_index(str(path))
    assert (index.ntotal, index.d, index.nlist, index.nprobe) == (400, 256, 10, 1)


def test_a_hubert_file_names_classes_that_are_not_installed(folder: Path) -> None:
    path = write_hubert_file(folder / "again" / "hubert_base.pt")
    assert {"fairseq.data.dictionary.Dictionary", "argparse.Namespace"} <= list_globals(path)
    with pytest.raises(Exception, match="weights_only|Unsupported"):
        torch.load(path, weights_only=True)


def test_a_hubert_folder_has_the_weights_of_the_file_under_other_names(folder: Path, reference: RvcPython) -> None:
    from transformers import HubertModel

    model: Any = HubertModel.from_pretrained(write_hubert_folder(folder / "content-vec"))
    waveform = make_vocal(1.0)
    with torch.no_grad():
        states = model(torch.from_numpy(waveform)[None], output_hidden_states=True).hidden_states
    assert np.abs(states[12][0].numpy() - reference.extract_features(waveform, "v2")).max() < 1e-4


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_features_vary_with_the_sound(version: str, reference: RvcPython) -> None:
    features = reference.extract_features(make_vocal(2.0), version)
    assert features.shape == (99, FEATURE_WIDTH[version])
    assert 0.5 < features.std(0).mean() < 2


@pytest.mark.parametrize("method", ["rmvpe", "pm", "harvest"])
def test_the_reference_estimates_f0_and_finds_pauses(method: str, reference: RvcPython) -> None:
    coarse, f0 = reference.f0(make_vocal(3.0), method)
    assert 300 <= len(f0) <= 301 and coarse.min() >= 1 and coarse.max() <= 255
    assert 0.2 < (f0 > 0).mean() < 0.95


@pytest.mark.parametrize("f0", [True, False])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_reference_converts_and_loses_its_last_frames(
    version: str, f0: bool, folder: Path, reference: RvcPython
) -> None:
    voice = write_voice(folder, f"{version}{f0}", version=version, f0=f0, index_rows=200)
    seconds = 2.0
    sound = reference.convert(voice, make_vocal(seconds), noise=Noise(0))
    assert 0.01 <= seconds - len(sound) / 40_000 <= 0.04
    assert 0.02 < np.sqrt(np.mean((sound / 32_768) ** 2)) < 0.6


def test_the_reference_is_reproducible_only_with_the_same_noise(folder: Path, reference: RvcPython) -> None:
    voice = write_voice(folder, "repeats", index_rows=200)
    one, same, other = (reference.convert(voice, make_vocal(1.0), noise=Noise(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_noise_is_drawn_for_the_latents_and_then_for_the_excitation(folder: Path, reference: RvcPython) -> None:
    noise = Noise(0)
    reference.convert(write_voice(folder, "noisy"), make_vocal(1.0), noise=noise)
    latents, excitation = noise.drawn
    assert latents.shape == (1, 32, excitation.shape[1] // 400) and excitation.shape[2] == 1


def test_the_reference_leaves_no_module_in_sys_modules(folder: Path) -> None:
    before = set(sys.modules)
    path = list(sys.path)
    with rvc_python(write_hubert_file(folder / "hubert_base.pt")):
        assert "fairseq" in sys.modules
    assert not {name.partition(".")[0] for name in set(sys.modules) - before} & {"rvc_python", "fairseq"}
    assert sys.path == path
