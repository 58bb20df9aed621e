"""`generate_cover` with tiny voices in the real files: everything but the size of the networks is as users have it."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from errors import ModelError, UnknownNameError
from models import Models, registry
from testing import tiny_rvc
from testing.dispatch import answer
from worker.settings import Settings

RATE = 44_100
FLOAT = {"output_format": "wav", "bit_depth": 32, "reverb_wet": 0.0, "reverb_dry": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worker")
    tiny_rvc.write_voice(folder / "voices", "my_voice", index_rows=200)
    tiny_rvc.write_voice(folder / "voices", "flat", f0=False, version="v1", sample_rate=32_000)
    (folder / "voices" / "empty").mkdir()
    tiny_rvc.write_hubert_file(folder / "models" / "hubert_base.pt")
    return folder


@pytest.fixture(scope="module")
def models(folder: Path) -> Models:
    return registry.build(device="cpu", models_dir=folder / "models", voices_dir=folder / "voices")


def encode_wav(waveform: NDArray[np.floating], sample_rate: int = RATE) -> str:
    file = io.BytesIO()
    soundfile.write(file, np.atleast_2d(waveform).T, sample_rate, format="WAV", subtype="FLOAT")
    return base64.b64encode(file.getvalue()).decode()


def make_vocals(seconds: float, sample_rate: int = RATE) -> NDArray[np.float64]:
    """A note with overtones."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    return np.asarray(0.1 * sum(np.sin(2 * np.pi * 220 * n * times) / n for n in range(1, 8)))


def call(models: Models, vocal: str, band: str, **params: Any) -> dict[str, Any]:
    params = {"voice_model": "my_voice", "f0_method": "pm", "voice_audio": vocal, "instrument_audio": band, **params}
    job = {"id": "job", "input": {"operation": "generate_cover", "params": params}}
    return answer(job, settings=Settings(), models=models)


def decode_audio(artefact: Any) -> NDArray[np.float32]:
    waveform, _ = soundfile.read(
        io.BytesIO(base64.b64decode(artefact["output_audio"])), dtype="float32", always_2d=True
    )
    return np.asarray(waveform.T)


@pytest.mark.parametrize("voice", ["my_voice", "flat"])
def test_converted_vocals_are_in_time_and_silent_with_the_source(models: Models, voice: str) -> None:
    vocal = make_vocals(3.0)
    vocal[RATE : 2 * RATE] = 0
    band = 0.05 * np.random.default_rng(0).standard_normal((2, 4 * RATE))
    reply = call(models, encode_wav(vocal), encode_wav(band), voice_model=voice, return_stems=True, **FLOAT)
    lead, cover = decode_audio(reply["stems"]["vocals"]), decode_audio(reply)
    assert cover.shape == lead.shape == (2, 4 * RATE) and reply["model_used"] == voice
    assert np.abs(lead[:, : RATE // 2]).max() > 0.01 and np.abs(lead[:, 5 * RATE // 2 : 3 * RATE]).max() > 0.01
    assert np.abs(lead[:, round(1.5 * RATE) : round(1.8 * RATE)]).max() < 1e-3
    assert np.abs(lead[:, round(3.5 * RATE) :]).max() < 1e-3
    np.testing.assert_allclose(lead + decode_audio(reply["stems"]["instrumental"]), cover, atol=1e-6)
    assert reply["parameters"]["index_rate"] == (0.5 if voice == "my_voice" else 0.0)


def test_the_same_request_gives_the_same_bytes_and_another_seed_does_not(models: Models) -> None:
    vocal, band = encode_wav(make_vocals(0.5)), encode_wav(np.zeros((2, RATE // 2)))
    first, second, other = (call(models, vocal, band, seed=seed, **FLOAT)["sha256"] for seed in (3, 3, 4))
    assert first == second != other


@pytest.mark.parametrize(
    ("vocal", "rate"), [(np.zeros(RATE), RATE), (make_vocals(0.02), RATE), (make_vocals(0.3, 8000), 8000)]
)
def test_silence_short_audio_and_low_sample_rates_work(models: Models, vocal: NDArray[np.float64], rate: int) -> None:
    band = np.zeros((2, len(vocal) * RATE // rate))
    cover = decode_audio(call(models, encode_wav(vocal, rate), encode_wav(band), **FLOAT))
    assert cover.shape == band.shape and np.isfinite(cover).all()
    assert cover.any() == vocal.any()


def test_a_voice_that_is_added_while_the_worker_runs_is_found(models: Models, folder: Path) -> None:
    vocal, band = encode_wav(make_vocals(0.2)), encode_wav(np.zeros(RATE // 5))
    with pytest.raises(UnknownNameError, match="^Voice model not found") as caught:
        call(models, vocal, band, voice_model="new")
    assert "my_voice" in caught.value.message
    shutil.copytree(folder / "voices" / "my_voice", folder / "voices" / "new")
    assert call(models, vocal, band, voice_model="new")["filename"] == "cover_new.mp3"


def test_a_folder_without_a_checkpoint_is_reported(models: Models) -> None:
    with pytest.raises(ModelError, match="^No model file exists"):
        call(models, encode_wav(make_vocals(0.2)), encode_wav(np.zeros(RATE // 5)), voice_model="empty")


def test_what_is_left_out_of_a_voice_is_a_warning_of_the_reply(models: Models, folder: Path) -> None:
    shutil.copytree(folder / "voices" / "my_voice", folder / "voices" / "copied")
    for index in (folder / "voices" / "copied").glob("*.index"):
        index.rename(index.with_name("trained_IVF4.index"))
    (folder / "voices" / "copied" / "G_2333333.pth").write_bytes(b"state")
    saved = tiny_rvc.make_checkpoint() | {"version": "v1"}
    torch.save(saved, folder / "voices" / "copied" / "my_voice.pth")
    reply = call(models, encode_wav(make_vocals(0.2)), encode_wav(np.zeros(RATE // 5)), voice_model="copied")
    for part in ("'trained_IVF4.index'", "'G_2333333.pth'", "it is run as v2"):
        assert sum(part in warning for warning in reply["warnings"]) == 1, part


def test_whole_numbers_come_back_as_whole_numbers_and_an_alias_as_the_operations_own_name(models: Models) -> None:
    """The callers of AICoverGen read integers; `operation` is the same whichever of its names was asked for."""
    params = {
        "voice_model": "flat",
        "pitch_adjust": 0,
        "main_gain": -2,
        "reverb_wet": 0.25,
        "voice_audio": encode_wav(make_vocals(0.2)),
        "instrument_audio": encode_wav(np.zeros(RATE // 5)),
    }
    job = {"id": "job", "input": {"operation": "generate_cover_from_separate_audio", "params": params}}
    reply = answer(job, settings=Settings(), models=models)
    assert reply["operation"] == "generate_cover"
    shown = json.dumps({name: reply["parameters"][name] for name in ("pitch_adjust", "main_gain", "inst_gain")})
    assert shown == '{"pitch_adjust": 0, "main_gain": -2, "inst_gain": 0}'
    assert reply["parameters"]["reverb_wet"] == 0.25


def test_a_voice_is_converted_with_the_encoder_that_it_was_trained_with(folder: Path, models: Models) -> None:
    vocal, band = encode_wav(make_vocals(0.5)), encode_wav(np.zeros((2, RATE // 2)))
    voice = tiny_rvc.write_voice(folder / "voices", "spun")
    plain = call(models, vocal, band, voice_model="spun")
    assert plain["parameters"]["embedder"] == "contentvec"
    with pytest.raises(ModelError, match="'spin' is not on this worker"):
        call(models, vocal, band, voice_model="spun", embedder="spin")
    tiny_rvc.write_hubert_folder(folder / "models" / "spin", seed=9)
    spun = call(models, vocal, band, voice_model="spun", embedder="spin")
    assert spun["parameters"]["embedder"] == "spin" and spun["sha256"] != plain["sha256"]
    (voice / "voice.json").write_text('{"embedder": "spin"}')
    assert call(models, vocal, band, voice_model="spun")["sha256"] == spun["sha256"]
    assert call(models, vocal, band, voice_model="spun", embedder="contentvec")["sha256"] == plain["sha256"]


def test_a_voice_whose_weights_give_no_numbers_is_named_as_damaged(folder: Path, models: Models) -> None:
    content = tiny_rvc.make_checkpoint()
    content["weight"]["dec.conv_pre.bias"].fill_(60_000.0)  # finite in half precision, and far beyond it in the network
    content["weight"]["dec.conv_post.weight"].fill_(60_000.0)
    for key, value in content["weight"].items():
        if key.endswith("weight_g") or "dec.ups" in key:
            value.fill_(60_000.0)
    (folder / "voices" / "damaged").mkdir(exist_ok=True)
    torch.save(content, folder / "voices" / "damaged" / "damaged.pth")
    vocal = encode_wav(make_vocals(0.3))
    with pytest.raises(ModelError, match="The voice 'damaged' cannot be used: .* not finite") as caught:
        call(models, vocal, vocal, voice_model="damaged")
    assert caught.value.error_code == "broken_checkpoint" and caught.value.details["model"] == "damaged"
    assert "/" not in caught.value.message
