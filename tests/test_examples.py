"""Every request in examples/ runs through the handler: on tiny weights in real formats, and on the demo models."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import handler
from audio import Audio
from audio.files.formats import Encoding
from operations.operation import load_operations
from testing.repository import ROOT
from testing.signals import encode_file
from testing.suno_provider import TOKEN, Provider, serve_provider
from testing.suno_scenarios import SCENARIOS
from testing.tiny_acestep import write_tiny_acestep
from testing.tiny_volume import MUSIC, SEPARATION, SONGS, VOICE, list_settings, write_volume
from worker.job import build_job
from worker.request_file import replace_references
from worker.settings import Settings

EXAMPLES = sorted((ROOT / "examples").glob("*.json"))
ACESTEP = ("edit_music", "release_task")
SECONDS = 2.0  # of each sound that goes in
REFUSED_IN_A_FRESH_CLONE = {
    "extend_via_suno": "not_configured",
    "extract_drums": "option_unsupported",  # the demo of ACE-Step was not trained for it
    "format_input": "model_unavailable",  # there is no demo of a planner
    "plan_song": "model_unavailable",
    "planned_song": "model_unavailable",
}
USE_NO_MODEL = ("analyze", "create_random_sample", "health_check", "list_models", "mix_audio", "random_song")
TINY_MODELS = {"demo": MUSIC, "demo-htdemucs": SEPARATION, "demo-alto": VOICE, "demo-baritone": VOICE}


def read_example(path: Path, volume: Path) -> dict[str, Any]:
    """The request with short inputs, and with the models of a volume in place of demo models."""

    def read(name: str) -> str:
        if "weights" in name:  # a voice that is added
            return read_short(next((volume / "uploads" / "new").glob(f"*{Path(name).suffix}")))
        return read_short(path.parent / name)

    text = json.dumps(replace_references(json.loads(path.read_text()), read))
    for demo, tiny in TINY_MODELS.items():
        text = text.replace(f'"{demo}"', f'"{tiny}"')
    request: dict[str, Any] = json.loads(text)
    return request


def read_short(path: Path) -> str:
    """A file as base64; of a sound, its first seconds."""
    if path.suffix != ".flac":
        return base64.b64encode(path.read_bytes()).decode()
    waveform, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    short = Audio(np.ascontiguousarray(waveform[: round(SECONDS * sample_rate)].T), sample_rate)
    return base64.b64encode(encode_file(short, Encoding("flac"))).decode()


def shorten(request: dict[str, Any]) -> dict[str, Any]:
    """The request for less sound and fewer steps."""
    limits = {"duration": 2, "audioDuration": 2, "inference_steps": 2, "inferenceSteps": 2, "repainting_end": 4}

    def limit(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: min(item, limits[key]) if key in limits else limit(item) for key, item in value.items()}
        return [limit(item) for item in value] if isinstance(value, list) else value

    shorter: dict[str, Any] = limit(request)
    return shorter


def needs_acestep(path: Path) -> bool:
    given = json.loads(path.read_text())["input"]
    return given["operation"] in ACESTEP or (given["operation"] == "generate_music" and "lyrics" in given["params"])


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    volume = write_volume(tmp_path_factory.mktemp("volume"))
    (volume / "rvc_models" / VOICE / "voice.json").write_text('{"f0_hz": 220}')  # for `pitch_adjust: auto`
    return volume


@pytest.fixture(scope="module")
def diffusers_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffusers")
    write_tiny_acestep(folder / "models", layout="diffusers", name=SONGS, is_turbo=False)
    return folder


@pytest.fixture(scope="module")
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the tests, so that they share the loaded models."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def suno() -> Iterator[dict[str, str]]:
    """The settings of a worker that has a Suno provider."""
    with serve_provider(Provider(SCENARIOS["quick_start"])) as provider:
        yield {
            "SUNO_API_TOKEN": TOKEN,
            "SUNO_API_BASE_URL": provider.url,
            "SUNO_UPLOAD_BASE_URL": provider.url,
            "ALLOW_PRIVATE_URLS": "1",
        }


def run_example(request: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    settings = Settings.from_env(environment)
    return dict(handler.run_job(build_job(request, job_id="job", timeout_s=0), settings))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_runs_offline(path: Path, volume: Path, suno: Mapping[str, str]) -> None:
    request = read_example(path, volume)
    reply = run_example(request, {**list_settings(volume), **suno})
    assert reply.get("success") is True, reply
    if (wanted := request["input"]["params"].get("steps")) is not None:
        assert [(step["id"], step["operation"]) for step in reply["steps"]] == [
            (s["id"], s["operation"]) for s in wanted
        ]
        assert all(step["timings"]["total_s"] > 0 for step in reply["steps"])


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if path.stem not in USE_NO_MODEL], ids=lambda path: path.stem
)
def test_every_example_runs_on_the_demo_models_of_a_fresh_clone_or_is_known_to_need_more(
    path: Path, empty_folder: Path
) -> None:
    text = json.loads(path.read_text())
    request = shorten(replace_references(text, lambda name: read_short(path.parent / name)))
    environment = {"VOLUME_DIRS": str(empty_folder), "RVC_MODELS_DIR": str(empty_folder), "ALLOW_VOICE_UPLOAD": "1"}
    reply = run_example(request, environment)
    assert reply.get("error_code", "") == REFUSED_IN_A_FRESH_CLONE.get(path.stem, ""), reply
    named = {name for name in re.findall(r'"(?:model|voice_model|separation_model)": "(demo[\w-]*)"', path.read_text())}
    assert all(any(f"'{name}' is a demo model" in warning for warning in reply["warnings"]) for name in named)


@pytest.mark.parametrize(
    "path",
    [path for path in EXAMPLES if needs_acestep(path) and "thinking" not in path.read_text()],
    ids=lambda path: path.stem,
)
def test_every_example_of_acestep_runs_on_the_layout_of_diffusers(path: Path, diffusers_volume: Path) -> None:
    reply = run_example(read_example(path, diffusers_volume), list_settings(diffusers_volume))
    assert reply.get("success") is True, reply
    assert reply["model_used"] == SONGS


def test_every_operation_has_an_example() -> None:
    assert {json.loads(path.read_text())["input"]["operation"] for path in EXAMPLES} == set(load_operations())
