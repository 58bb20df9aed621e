"""The demo MusicGen: small, in audiocraft's format, loadable by audiocraft itself, and audible."""

from typing import Any

import pytest
import torch

from testing.repository import ROOT

FOLDER = ROOT / "demo/weights/musicgen"


@pytest.fixture(scope="module")
def model() -> Any:
    from demo.training.music.checkpoint import load_musicgen

    return load_musicgen(FOLDER)


def test_folder_is_at_most_15_mb() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 15_000_000


@pytest.mark.parametrize("name", ["state_dict.bin", "compression_state_dict.bin"])
def test_package_has_the_four_keys_and_no_code(name: str) -> None:
    package = torch.load(FOLDER / name, weights_only=True)
    assert set(package) == {"best_state", "xp.cfg", "version", "exported"}
    assert isinstance(package["xp.cfg"], str)
    assert not any(".t5." in key for key in package["best_state"])


def test_audiocraft_loads_it_strictly(model: Any) -> None:
    assert model.sample_rate == 32_000
    assert model.audio_channels == 1
    assert model.frame_rate == 50
    assert model.compression_model.num_codebooks == model.lm.n_q == 4
    assert model.compression_model.cardinality == model.lm.card


def test_unknown_words_and_capitals_are_understood(model: Any) -> None:
    tokenizer = model.lm.condition_provider.conditioners["description"].t5_tokenizer
    assert "▁128" in tokenizer.tokenize("TECHNO at 128 bpm, xylorimba & 東京")
    embedding = model.lm.condition_provider.conditioners["description"].t5.shared.weight
    lower, upper = (tokenizer.convert_tokens_to_ids(word) for word in ("▁techno", "▁TECHNO"))
    assert torch.equal(embedding[lower], embedding[upper])


def test_short_clip_is_sound_and_not_noise(model: Any) -> None:
    from demo.training.measures import measure_flatness

    torch.manual_seed(0)
    model.set_generation_params(duration=2.5)
    audio = model.generate(["upbeat techno, 128 bpm, drums and synth bass"])[0, 0].numpy()
    assert audio.shape == (80_000,)
    assert (audio**2).mean() ** 0.5 > 0.01
    assert abs(audio).max() <= 1.0
    assert measure_flatness(audio) < 0.3
