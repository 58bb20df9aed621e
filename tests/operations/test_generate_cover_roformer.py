"""A whole song's cover with tiny random RoFormers of every role and an RVC voice, in the files that users have."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from errors import InvalidRequestError
from models import Models
from models.checkpoints.locations import WeightLocations
from models.f0 import PitchFamily
from models.hubert.family import HubertFamily
from models.roformer.family import RoformerFamily
from models.rvc import RvcFamily, Voices
from testing import tiny_rvc
from testing.dispatch import answer
from testing.models import make_models
from testing.tiny_roformer import write_roformer
from testing.vocals import make_vocal
from worker.settings import Settings

Waveform = NDArray[np.float32]
RATE = 44_100
SIZES: dict[str, Any] = {"chunk_size": 22_050, "num_overlap": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("worker")
    tiny_rvc.write_voice(folder / "voices", "my_voice", index_rows=100)
    tiny_rvc.write_hubert_file(folder / "models" / "hubert_base.pt")
    separators = folder / "models" / "separators"
    write_roformer(separators / "my_vocals", "mel", stems=("vocals", "other"), target="vocals", seed=1, **SIZES)
    write_roformer(separators / "my_karaoke", "bs", stems=("Vocals", "Instrumental"), seed=2, **SIZES)
    write_roformer(separators / "my_room", "mel", stems=("noreverb", "reverb"), target="noreverb", seed=3, **SIZES)
    heads = ("back-vocal", "bass", "drums", "lead-vocal", "vocal")
    write_roformer(separators / "many", "bs", stems=heads, seed=4, suffix=".safetensors", **SIZES)
    weights = WeightLocations(explicit=folder / "models")
    return make_models(
        voices=RvcFamily(Voices([folder / "voices"])),
        content_encoders=HubertFamily(weights),
        f0=PitchFamily(weights),
        separation=RoformerFamily(weights),
    )


def make_song(seconds: float = 1.5) -> Waveform:
    voice = make_vocal(seconds, sample_rate=RATE)
    band = 0.1 * np.random.default_rng(1).standard_normal((2, len(voice)))
    return np.asarray(0.5 * voice + band, np.float32)


def encode_wav(waveform: Waveform, sample_rate: int) -> str:
    file = io.BytesIO()
    soundfile.write(file, waveform.T, sample_rate, format="WAV", subtype="FLOAT")
    return base64.b64encode(file.getvalue()).decode()


def decode_audio(artefact: Mapping[str, Any]) -> Waveform:
    data = base64.b64decode(artefact["output_audio"])
    waveform, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return np.asarray(waveform.T)


def cover(models: Models, song: Waveform, sample_rate: int = RATE, **params: Any) -> dict[str, Any]:
    values = {
        "operation": "generate_cover",
        "audio": encode_wav(song, sample_rate),
        "voice_model": "my_voice",
        "f0_method": "pm",
        "output_format": "wav",
        "bit_depth": 32,
        "return_stems": True,
        **params,
    }
    return answer({"id": "job", "input": values}, settings=Settings(), models=models)


@pytest.mark.parametrize(
    ("params", "route", "karaoke_model"),
    [
        ({"separation_model": "my_vocals"}, "chain", "my_karaoke"),
        ({"separation_model": "many"}, "heads", "many"),
        ({"separation_model": "many", "karaoke_model": "my_karaoke"}, "chain", "my_karaoke"),
    ],
)
def test_a_whole_song_is_split_converted_and_mixed_with_every_part_returned(
    models: Models, params: dict[str, Any], route: str, karaoke_model: str
) -> None:
    song = make_song()
    reply = cover(models, song, convert_backup=True, reverb_return=0.3, pitch_adjust="auto", voice_f0_hz=220, **params)
    assert reply["split"]["route"] == route and reply["split"]["karaoke_model"] == karaoke_model
    assert reply["split"]["dereverb_model"] == "my_room"
    parts = {"vocals", "backup", "reverb_return", "instrumental", "lead_source", "lead_dry", "reverb"}
    assert set(reply["stems"]) == parts | {"lead", "backing"}
    stems = {name: decode_audio(reply["stems"][name]) for name in parts}
    assert all(stem.shape == song.shape and np.isfinite(stem).all() for stem in stems.values())
    assert all(np.abs(stem).max() > 1e-5 for stem in stems.values())
    mixed = sum(stems[name] for name in ("vocals", "backup", "reverb_return", "instrumental"))
    np.testing.assert_allclose(decode_audio(reply), mixed, atol=1e-6)
    np.testing.assert_allclose(stems["lead_dry"] + stems["reverb"], stems["lead_source"], atol=1e-5)


@pytest.mark.parametrize("name", ["my_vocals", "many"])
@pytest.mark.parametrize(("seconds", "sample_rate", "channels"), [(1.5, 44_100, 2), (0.1, 44_100, 1), (0.4, 8000, 2)])
def test_the_parts_of_a_song_sum_to_it(
    models: Models, name: str, seconds: float, sample_rate: int, channels: int
) -> None:
    song = make_song()[:channels, : round(seconds * sample_rate)]
    reply = cover(models, song, sample_rate, separation_model=name)
    stems = {key: decode_audio(stem) for key, stem in reply["stems"].items()}
    assert reply["split"] is not None
    if sample_rate < RATE:  # the mix is at 44.1 kHz, and its stems are resampled
        assert stems["lead_dry"].shape == song.shape
        return
    total = stems["instrumental"] * 10 ** (7 / 20) + stems["lead_dry"]
    total = total + stems["backup"] * 10 ** (6 / 20) if "backup" in stems else total
    np.testing.assert_allclose(total + stems["reverb"] if "reverb" in stems else total, song, atol=1e-5)


@pytest.mark.parametrize("name", ["my_vocals", "many"])
def test_a_silent_song_gives_a_silent_cover(models: Models, name: str) -> None:
    song = np.zeros((2, RATE // 2), np.float32)
    reply = cover(models, song, separation_model=name, reverb_wet=0.0)
    assert decode_audio(reply).shape == song.shape and not decode_audio(reply).any()
    assert reply["split"]["backing_skipped"]


def test_a_model_of_another_role_is_refused(models: Models) -> None:
    with pytest.raises(InvalidRequestError, match="'vocals' and not 'karaoke'"):
        cover(models, make_song(0.1), karaoke_model="my_vocals")
