"""The image's command under the image's own environment and user: one request of every operation.

Docker is not needed: the environment, the user and the files are those that the Dockerfile names, and packages that
the image does not install cannot be imported. The code cannot be written to, and the volume belongs to root, except for
its folder of voices.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audio.files.formats import Encoding
from models.f0.catalog import METHODS
from models.musicgen.catalog import DIFFUSION_FILE
from operations.operation import load_operations
from testing.control_plane import ControlPlane, start_control_plane
from testing.image import (
    as_image_user,
    block_unlocked_packages,
    copy_code,
    read_command,
    read_environment,
    read_user,
    why_not_possible,
)
from testing.processes import Worker, start_process
from testing.repository import ROOT
from testing.signals import encode_file, make_tone
from testing.suno_provider import TOKEN, Provider, serve_provider
from testing.suno_scenarios import SCENARIOS
from testing.tiny_volume import write_volume

pytestmark = pytest.mark.skipif(bool(why_not_possible()), reason=why_not_possible())


@dataclass(frozen=True)
class Endpoint:
    """A worker as the image runs it, and the platform that it takes its jobs from."""

    plane: ControlPlane
    worker: Worker
    volume: Path

    def run(self, operation: str, **params: Any) -> dict[str, Any]:
        """The reply to a request."""
        return self.submit({"operation": operation, **params})

    def submit(self, job_input: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a job with this input; the SDK posts its `error` beside the rest."""
        body = self.plane.result(self.plane.submit(job_input), timeout=120)
        return dict(body["output"]) | {key: body[key] for key in ("error",) if key in body}

    def assert_success(self, reply: Mapping[str, Any]) -> None:
        assert reply.get("success") is True, f"{reply}\n{self.worker.read_output()[-2000:]}"


def prepare_volume(volume: Path) -> None:
    """A volume for every operation, with a melody model and Multi-Band Diffusion; the voices are the image user's."""
    from testing.tiny_musicgen import Shape, write_checkpoint, write_diffusion

    models = write_volume(volume) / "models"
    write_checkpoint(models / "tiny-melody", Shape(melody=True))
    write_diffusion(models / "multiband-diffusion" / DIFFUSION_FILE, sample_rate=16_000)
    os.chown(volume / "rvc_models", *read_user())


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with tempfile.TemporaryDirectory() as folder, start_control_plane() as plane:
        root = Path(folder)
        root.chmod(0o755)  # pytest's own temporary folders are root's alone
        app, volume, log = root / "app", root / "volume", root / "worker.log"
        for path in (app, volume):
            path.mkdir()
        copy_code(app)
        prepare_volume(volume)
        with serve_provider(Provider(SCENARIOS["happy"])) as provider, log.open("wb") as sink:
            settings = {
                "VOLUME_DIRS": str(volume),
                "ALLOW_VOICE_UPLOAD": "1",
                "ALLOW_PRIVATE_URLS": "1",
                "SUNO_API_TOKEN": TOKEN,
                "SUNO_API_BASE_URL": provider.url,
                "SUNO_UPLOAD_BASE_URL": provider.url,
                "OMP_NUM_THREADS": "1",
            }
            block_unlocked_packages(root / "python")
            environment = read_environment() | plane.environment() | settings | {"PYTHONPATH": str(root / "python")}
            command = as_image_user(read_command())
            with start_process(command, cwd=app, env=environment, output=sink, errors=sink) as process:
                yield Endpoint(plane, Worker(process, log), volume)


def make_song(seconds: float = 1.0) -> str:
    """A stereo tone as base64."""
    return base64.b64encode(encode_file(make_tone(seconds), Encoding("wav"))).decode()


def build_requests(volume: Path) -> Mapping[str, dict[str, Any]]:
    """The request of each operation."""
    song = make_song()
    return {
        "add_voice": {"name": "new", "checkpoint": str(volume / "uploads" / "new" / "new.pth")},
        "analyze": {"audio": song, "picture": True},
        "decode_audio": {"codes": [[1, 2, 3]] * 4, "model": "tiny"},
        "encode_audio": {"audio": song, "model": "tiny", "return_audio": True},
        "create_random_sample": {},
        "edit_music": {"audio": song, "task": "extract", "track": "drums", "inference_steps": 2},
        "extend_via_suno": {"audio_id": "audio-1", "mode": "submit"},
        "format_input": {"prompt": "piano", "param_obj": {"duration": 10}},
        "generate_cover": {"audio": song, "voice_model": "my_voice"},
        "generate_music": {"prompt": "piano", "model": "tiny-melody", "duration": 1, "melody_audio": song},
        "health_check": {},
        "list_models": {"schemas": True},
        "mix_audio": {"tracks": [{"audio": song}, {"audio": song, "semitones": 2}], "master": "loud"},
        "pipeline": {
            "steps": [
                {"id": "parts", "operation": "separate", "params": {"audio": song}},
                {"id": "facts", "operation": "analyze", "params": {"audio": "$parts.stems.drums"}},
            ]
        },
        "plan_music": {"mode": "sample", "prompt": "piano", "duration": 10},
        "release_task": {"prompt": "piano", "audio_duration": 5, "inference_steps": 2},
        "separate": {"audio": song, "model": "htdemucs", "output_format": "mp3"},
    }


@pytest.mark.parametrize("name", load_operations())
def test_every_operation_succeeds_as_the_images_user(endpoint: Endpoint, name: str) -> None:
    reply = endpoint.run(name, **build_requests(endpoint.volume)[name])
    endpoint.assert_success(reply)


@pytest.mark.parametrize("method", METHODS)
def test_every_f0_method_works_as_the_images_user(endpoint: Endpoint, method: str) -> None:
    stems = {"voice_audio": make_song(0.3), "instrument_audio": make_song(0.3)}
    reply = endpoint.run("generate_cover", voice_model="my_voice", f0_method=method, **stems)
    endpoint.assert_success(reply)


HUB_TESTS = json.loads((ROOT / ".runpod" / "tests.json").read_text())["tests"]


@pytest.mark.parametrize("case", HUB_TESTS, ids=lambda case: case["name"])
def test_every_request_of_the_hubs_tests_succeeds_in_the_image(endpoint: Endpoint, case: dict[str, Any]) -> None:
    endpoint.assert_success(endpoint.submit(case["input"]))


def test_multi_band_diffusion_works_with_the_packages_of_the_image(endpoint: Endpoint) -> None:
    reply = endpoint.run("generate_music", prompt="piano", model="tiny", duration=1, mbd=True)
    endpoint.assert_success(reply)


def test_a_volume_that_cannot_be_written_is_told_by_health_check_and_refused_before_any_work(
    endpoint: Endpoint,
) -> None:
    health = endpoint.run("health_check")
    assert "uid 65532" in health["checks"]["volume"] and health["status"] == "healthy"
    assert {name for name, state in health["checks"].items() if state == "ready"} >= {"device", "temporary_folder"}
    reply = endpoint.run("separate", audio="not base64", delivery="volume")
    assert reply["error_code"] == "volume_unavailable" and "uid 65532" in reply["error"]


def test_add_voice_is_not_ready_if_the_folder_of_voices_cannot_be_written(endpoint: Endpoint) -> None:
    folder = endpoint.volume / "rvc_models"
    os.chown(folder, 0, 0)
    try:
        health = endpoint.run("health_check")
        assert health["checks"]["voice_folder"] == health["operations"]["add_voice"] != "ready"
        reply = endpoint.run("add_voice", name="late", checkpoint="not base64")
        assert reply["error_code"] == "voice_folder_unavailable" and "uid 65532" in reply["error"]
    finally:
        os.chown(folder, *read_user())
    assert endpoint.run("health_check")["operations"]["add_voice"] == "ready"
