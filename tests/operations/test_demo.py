"""Requests that name no model on a worker with demo models alone: what answers, and how the reply says so."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from audio.files.formats import Encoding
from errors import InvalidRequestError, ModelError
from models import Models
from models.checkpoints.locations import WeightLocations
from models.demo import CONTENT_ENCODER, LICENCE
from operations.build_models import models_for
from testing.dispatch import answer
from testing.fake_hub import FolderHub
from testing.models import make_models
from testing.signals import encode_file, make_tone
from testing.tiny_acestep import write_tiny_acestep
from testing.tiny_demo import VOICE, make_demo_models, write_demos
from testing.tiny_rvc import write_rmvpe
from worker.settings import Settings


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demos(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def models(demos: Path) -> Models:
    return make_demo_models(demos)


@pytest.fixture(scope="module")
def song() -> str:
    return base64.b64encode(encode_file(make_tone(1.5), Encoding("wav"))).decode()


def call(models: Models, operation: str, **params: Any) -> dict[str, Any]:
    job = {"id": "job", "input": {"operation": operation, "params": params}}
    return answer(job, settings=Settings(volume_dirs=()), models=models)


def list_demo_warnings(reply: dict[str, Any]) -> list[str]:
    return [warning.split("'")[1] for warning in reply["warnings"] if "is a demo model" in warning]


def test_health_check_says_which_operations_have_only_a_demo(models: Models) -> None:
    reply = call(models, "health_check")
    demo = ("generate_music", "edit_music", "separate", "generate_cover", "encode_audio", "release_task")
    assert {reply["operations"][name] for name in demo} == {"ready (demo)"}
    assert reply["operations"]["mix_audio"] == "ready" and reply["status"] == "healthy"
    assert reply["available_models"] == [VOICE]


def test_list_models_marks_demo_models_with_licence_and_description(models: Models) -> None:
    reply = call(models, "list_models")
    rows = {row["name"]: row for field in ("music", "separation", "voices", "content_encoders") for row in reply[field]}
    for name in (
        "demo",
        "demo-acestep",
        "demo-htdemucs",
        "demo-mel-band-roformer",
        "demo-karaoke",
        VOICE,
        CONTENT_ENCODER,
    ):
        row = rows[name]
        assert row["demo"] is True and row["licence"] == LICENCE and "of this project" in row["about"], name
        assert row["available"] == "local"
    assert rows["demo-mel-band-roformer"]["licence_note"] == ""
    assert not [name for name, row in rows.items() if "demo" in row and not name.startswith("demo")]
    assert [row["demo"] for row in reply["codecs"] if row["name"] == "demo"] == [True]


def test_separate_uses_the_demo_and_warns(models: Models, song: str) -> None:
    reply = call(models, "separate", audio=song)
    assert reply["model_used"] == "demo-htdemucs" and list_demo_warnings(reply) == ["demo-htdemucs"]


def test_a_cover_with_a_demo_voice_needs_nothing_that_is_downloaded(models: Models, song: str) -> None:
    reply = call(models, "generate_cover", audio=song, voice_model=VOICE)
    used = reply["parameters"]
    assert (used["embedder"], used["f0_method"], used["separation_model"]) == (
        CONTENT_ENCODER,
        "fcpe",
        "demo-htdemucs",
    )
    assert set(list_demo_warnings(reply)) == {VOICE, "demo-htdemucs"}


def test_a_demo_voice_takes_the_f0_method_that_the_request_names(models: Models, song: str) -> None:
    parts = {"voice_audio": song, "instrument_audio": song}
    reply = call(models, "generate_cover", voice_model=VOICE, f0_method="pm", **parts)
    assert reply["parameters"]["f0_method"] == "pm"
    with pytest.raises(ModelError, match="rmvpe"):
        call(models, "generate_cover", voice_model=VOICE, f0_method="rmvpe", **parts)


def test_covers_are_ready_with_demo_voices_alone_whatever_else_is_missing(demos: Path, tmp_path: Path) -> None:
    def readiness(models: Models) -> str:
        return str(call(models, "health_check")["operations"]["generate_cover"])

    assert readiness(make_demo_models(tmp_path)).startswith("no voice is here")
    write_rmvpe(tmp_path / "rmvpe.pt")
    assert readiness(make_demo_models(demos, weights=WeightLocations(explicit=tmp_path))) == "ready (demo)"
    without_encoder = make_demo_models(demos).families
    online = make_models(
        voices=without_encoder.voices,
        content_encoders=make_demo_models(tmp_path).families.content_encoders,
        f0=without_encoder.f0,
    )
    assert readiness(online) not in ("ready", "ready (demo)")


def test_music_without_lyrics_is_made_by_the_demo_of_musicgen_and_with_lyrics_by_that_of_acestep(
    models: Models,
) -> None:
    music = call(models, "generate_music", prompt="piano", duration=1)
    assert music["model_used"] == "demo" and list_demo_warnings(music) == ["demo"]
    song = call(models, "generate_music", prompt="folk", lyrics="[Verse]\nA line", duration=10, inference_steps=1)
    assert song["model_used"] == "demo-acestep" and list_demo_warnings(song) == ["demo-acestep"]
    assert song["licence"] == LICENCE


def test_edits_are_made_by_the_demo_only_without_a_real_model_even_for_a_task_that_the_real_one_lacks(
    demos: Path, models: Models, song: str, tmp_path: Path
) -> None:
    edit = {"audio": song, "prompt": "jazz", "inference_steps": 1}
    assert list_demo_warnings(call(models, "edit_music", task="cover", **edit)) == ["demo-acestep"]
    write_tiny_acestep(tmp_path, name="mine", layout="diffusers")
    real = make_demo_models(demos, weights=WeightLocations(explicit=tmp_path))
    assert call(real, "edit_music", task="cover", **edit)["model_used"] == "mine"
    with pytest.raises(InvalidRequestError, match="'mine' was not trained"):
        call(real, "edit_music", task="extract", track="drums", audio=song)


def test_codes_are_made_by_the_demo_codec_which_warns(models: Models, song: str) -> None:
    reply = call(models, "encode_audio", audio=song)
    assert reply["model_used"] == "demo" and list_demo_warnings(reply) == ["demo"]


def test_a_pipeline_names_the_demo_of_each_step(models: Models, song: str) -> None:
    steps = [
        {"id": "music", "operation": "generate_music", "params": {"prompt": "piano", "duration": 1}},
        {"id": "parts", "operation": "separate", "params": {"audio": "$music"}},
    ]
    reply = call(models, "pipeline", steps=steps)
    text = " ".join(reply["warnings"])
    assert "'demo' is a demo model" in text and "'demo-htdemucs' is a demo model" in text


def test_a_worker_that_can_download_is_ready_to_separate_and_has_demo_music(demos: Path) -> None:
    online = make_demo_models(demos, weights=WeightLocations(hub=FolderHub({}, Path("nothing"))))
    reply = call(online, "health_check")["operations"]
    assert reply["separate"] == "ready" and reply["generate_music"] == "ready (demo)"


def test_a_worker_without_its_demo_models_lists_none() -> None:
    families = models_for(Settings(volume_dirs=(), demo_models=False)).families
    assert not [info.name for family in families for info in family.list_models() if family.find_demo(info.name)]
