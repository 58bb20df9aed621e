"""The operation `separate` with RoFormer models, from JSON to reply, with tiny models in the published files."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from errors import ErrorCode, InvalidRequestError, ModelError, UnknownNameError
from models import Models, registry
from models.separation_models import SeparationModels
from testing.dispatch import answer
from testing.tiny_roformer import Shape, make_state, write_roformer
from worker.settings import Settings

Waveform = NDArray[np.float32]
RATE = 44_100
MANY = [f"stem {index}" for index in range(9)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A model of one stem and its complement, one of four stems, and one of many."""
    folder = tmp_path_factory.mktemp("models")
    write_roformer(folder / "target", target="vocals", num_overlap=4)
    write_roformer(folder / "separators" / "four", "bs", stems=("drums", "bass", "other", "vocals"), normalize=True)
    write_roformer(folder / "many", "bs", stems=MANY)
    return registry.build(device="cpu", models_dir=folder)


def make_song(duration: float, sample_rate: int = RATE, channels: int = 2) -> Waveform:
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal((channels, round(duration * sample_rate)))).astype(np.float32)


def run_separate(models: Models, song: Waveform, sample_rate: int = RATE, **params: Any) -> dict[str, Any]:
    file = io.BytesIO()
    soundfile.write(file, song.T, sample_rate, format="WAV", subtype="FLOAT")
    audio = base64.b64encode(file.getvalue()).decode()
    params = {"audio": audio, "output_format": "wav", "bit_depth": 32} | params
    job = {"id": "a", "input": {"operation": "separate", "params": params}}
    return answer(job, settings=Settings(inline_budget_bytes=1 << 28), models=models)


def read_stems(reply: dict[str, Any]) -> dict[str, Waveform]:
    files = {name: io.BytesIO(base64.b64decode(stem["output_audio"])) for name, stem in reply["stems"].items()}
    return {name: soundfile.read(file, dtype="float32", always_2d=True)[0].T for name, file in files.items()}


def test_a_model_of_one_stem_gives_it_and_the_rest_which_sum_to_the_song(models: Models) -> None:
    song = make_song(2.5)
    reply = run_separate(models, song, model="target")
    stems = read_stems(reply)
    assert reply["model_used"] == "target" and list(stems) == ["vocals", "other"]
    assert np.abs(stems["vocals"] + stems["other"] - song).max() < 1e-6
    assert np.abs(stems["vocals"]).max() > 1e-3
    assert reply["parameters"]["overlap"] == 0.75 and reply["parameters"]["residual"] is True


def test_two_stems_name_the_instrumental(models: Models) -> None:
    song = make_song(1.2)
    stems = read_stems(run_separate(models, song, model="target", two_stems="vocals"))
    assert list(stems) == ["vocals", "no_vocals", "instrumental"]
    assert np.abs(stems["vocals"] + stems["no_vocals"] - song).max() < 1e-6


def test_all_stems_of_a_model_sum_to_the_song_and_one_alone_is_the_same(models: Models) -> None:
    song = make_song(1.2)
    reply = run_separate(models, song, model="four", overlap=0.3, segment=1.0, shifts=1)
    stems = read_stems(reply)
    assert np.abs(np.sum(list(stems.values()), axis=0) - song).max() < 1e-6
    assert reply["parameters"]["overlap"] == 0.3
    alone = read_stems(run_separate(models, song, model="four", stems=["bass"], overlap=0.3, segment=1.0, shifts=1))
    assert list(alone) == ["bass"] and np.allclose(alone["bass"], stems["bass"], atol=1e-6)


def test_stems_that_contain_each_other_are_not_made_to_sum_to_the_song(models: Models) -> None:
    """Models of many stems give vocals, and lead vocals."""
    reply = run_separate(models, make_song(1.1), model="many")
    assert list(reply["stems"]) == MANY and reply["parameters"]["residual"] is False


@pytest.mark.parametrize(
    ("duration", "sample_rate", "channels"), [(0.1, RATE, 2), (1.3, 8000, 2), (1.3, RATE, 1), (0.05, 48_000, 1)]
)
def test_short_low_rate_and_mono_songs_keep_their_length_rate_and_channels(
    models: Models, duration: float, sample_rate: int, channels: int
) -> None:
    song = make_song(duration, sample_rate, channels)
    reply = run_separate(models, song, sample_rate, model="target")
    stems = read_stems(reply)
    assert {stem["sample_rate"] for stem in reply["stems"].values()} == {sample_rate}
    assert all(stem.shape == song.shape and np.isfinite(stem).all() for stem in stems.values())
    assert np.abs(stems["vocals"] + stems["other"] - song).max() < 1e-6


@pytest.mark.parametrize("model", ["target", "four"])
def test_silence_gives_silent_stems(models: Models, model: str) -> None:
    stems = read_stems(run_separate(models, np.zeros((2, 50_000), np.float32), model=model))
    assert all(stem.shape == (2, 50_000) and not stem.any() for stem in stems.values())


def test_a_stem_that_the_model_does_not_give_is_refused_with_its_stems(models: Models) -> None:
    with pytest.raises(InvalidRequestError, match="Its stems: vocals, other") as caught:
        run_separate(models, make_song(0.1), model="target", stems=["drums"])
    assert caught.value.error_code == ErrorCode.UNKNOWN_STEM


def test_a_published_model_that_is_not_here_is_refused_with_what_to_do(models: Models) -> None:
    with pytest.raises(ModelError, match="below MODELS_DIR") as caught:
        run_separate(models, make_song(0.1), model="karaoke")
    assert caught.value.error_code == ErrorCode.MODEL_UNAVAILABLE


@pytest.mark.parametrize(("name", "nearest"), [("targat", "target"), ("htdemucz", "htdemucs")])
def test_an_unknown_name_is_refused_with_the_nearest_model_of_all_families(
    models: Models, name: str, nearest: str
) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean '{nearest}'"):
        run_separate(models, make_song(0.1), model=name)


def test_list_models_tells_role_and_licence_of_models_that_are_here_and_of_published_ones(models: Models) -> None:
    reply = answer({"id": "a", "input": {"operation": "list_models"}}, settings=Settings(), models=models)
    rows = {row["name"]: row for row in reply["separation"]}
    assert rows["target"]["role"] == "vocals" and rows["target"]["available"] == "local"
    assert rows["four"]["role"] == "stems" and rows["htdemucs"]["role"] == "stems"
    published = rows["mvsep_mega_model_bs_roformer_53_stems_v1"]
    assert published["licence"] == "MIT" and "issue 245" in published["licence_note"]
    assert published["hub_id"] is None and published["source"].endswith("releases/tag/v1.0.21")
    assert published["size"] == 1_368_919_887 and published["sha256"].startswith("c62820893bbf86d4")
    assert published["available"] == rows["kim"]["available"] == "download"
    assert rows["kim"]["hub_id"] == "KimberleyJSN/melbandroformer" and rows["kim"]["size"] == 913_106_900
    unknown = rows["model_bs_roformer_ep_368_sdr_12.9628"]
    assert unknown["available"].startswith("not here") and unknown["sha256"] is unknown["size"] is None
    assert rows["target"]["sha256"] is rows["target"]["hub_id"] is None and rows["target"]["size"] > 0


def test_the_default_model_stays_htdemucs_while_the_hub_answers(models: Models) -> None:
    families = models.families.separation.families
    assert SeparationModels(families, is_hub_reachable=lambda: True).resolve(None).name == "htdemucs"


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "'bad.ckpt'"), (3e38, "'bad' cannot be used: its stems")])
def test_weights_that_give_no_sound_are_named_whether_they_are_numbers_or_not(
    models: Models, tmp_path: Path, value: float, said: str
) -> None:
    state = make_state(Shape())
    state["band_split.to_features.3.1.weight"].fill_(value)  # 3e38 is a number, and overflows in the network
    write_roformer(tmp_path / "bad", target="vocals", state=state)
    with pytest.raises(ModelError, match="not finite") as caught:
        run_separate(registry.build(device="cpu", models_dir=tmp_path), make_song(0.5), model="bad")
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT and said in caught.value.message
