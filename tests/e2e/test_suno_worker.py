"""Suno through the whole worker: settings, inputs, delivery, health, and a paid task's id in every error."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from handler import run_job
from testing.suno_provider import TOKEN, Provider, make_tone, start_server
from testing.suno_scenarios import SCENARIOS
from worker.job import Job
from worker.output.error_reply import build_error_reply
from worker.settings import Settings


@pytest.fixture(scope="module")
def install() -> Iterator[Any]:
    with start_server() as install:
        yield install


def make_settings(provider: Provider) -> Settings:
    return Settings.from_env(
        {
            "SUNO_API_TOKEN": TOKEN,
            "SUNO_API_BASE_URL": provider.url,
            "SUNO_UPLOAD_BASE_URL": provider.url,
            "ALLOW_PRIVATE_URLS": "1",
            "DEVICE": "cpu",
        }
    )


def send(settings: Settings, operation: str, **params: Any) -> dict[str, Any]:
    return run_job(Job(f"job-{operation}", {"operation": operation, "params": params}), settings)


def test_a_song_is_submitted_paid_once_and_returned(install: Any) -> None:
    provider = install(Provider(SCENARIOS["quick_start"]))
    settings = make_settings(provider)
    source = base64.b64encode(make_tone(10.0, 440.0)).decode()
    started = send(settings, "extend_via_suno", audio=source, prompt="grows", continue_at=5, mode="submit")
    assert (started["success"], started["status"], started["outputs"]) == (True, "PENDING", [])
    done = send(settings, "extend_via_suno", task_id=started["task_id"], mode="poll", output_format="wav", bit_depth=16)
    assert [output["index"] for output in done["outputs"]] == [0, 1]
    with wave.open(io.BytesIO(base64.b64decode(done["outputs"][1]["output_audio"]))) as file:
        assert file.getnframes() == 3 * 16_000
    assert done["output_audio"] == done["outputs"][0]["output_audio"]
    assert done["outputs"][0]["source_url"].startswith(provider.url)
    assert (done["task_id"], done["credits_left"]) == (started["task_id"], 88)
    assert started["parameters"]["model"] == "V4_5" and "audio" not in started["parameters"]
    assert (len(provider.posts), provider.violations) == (1, [])


def test_a_single_clip_is_in_the_list_of_outputs_too(install: Any) -> None:
    settings = make_settings(install(Provider(SCENARIOS["quick_start"])))
    task_id = send(settings, "extend_via_suno", audio_id="a", mode="submit")["task_id"]
    reply = send(settings, "extend_via_suno", task_id=task_id, mode="poll", select="first", output_format="mp3")
    assert len(reply["outputs"]) == 1 and reply["output_audio"]


def test_an_error_about_a_reply_that_is_too_large_names_the_task(install: Any) -> None:
    settings = replace(make_settings(install(Provider(SCENARIOS["quick_start"]))), inline_budget_bytes=20_000)
    task_id = send(settings, "extend_via_suno", audio_id="a", mode="submit")["task_id"]
    reply = send(settings, "extend_via_suno", task_id=task_id, mode="poll", output_format="wav")
    assert reply["error_code"] == "reply_too_large"
    assert reply["details"]["task_id"] == task_id


def test_an_internal_error_names_the_task() -> None:
    reply = build_error_reply(ValueError("private"), {"task_id": "task-7"})
    assert (reply["error_code"], reply["details"]["task_id"]) == ("internal_error", "task-7")


def test_without_a_key_only_suno_is_unavailable() -> None:
    settings = Settings.from_env({"DEVICE": "cpu"})
    reply = send(settings, "extend_via_suno", audio_id="a")
    assert reply["error_code"] == "not_configured" and "SUNO_API_TOKEN is not set" in reply["error"]
    health = send(settings, "health_check")
    assert health["operations"]["extend_via_suno"] == "SUNO_API_TOKEN is not set"
    assert send(settings, "list_models")["suno"][0]["available"] == "SUNO_API_TOKEN is not set"
    other = send(settings, "generate_music", model="suno/V5", prompt="calm piano")
    assert other["error_code"] == "not_configured"


def test_with_a_key_suno_is_ready(install: Any) -> None:
    settings = make_settings(install(Provider(SCENARIOS["happy"])))
    assert send(settings, "health_check")["operations"]["extend_via_suno"] == "ready"
    rows = send(settings, "list_models")["suno"]
    assert {"V4", "V4_5", "V5"} <= {row["name"] for row in rows}
    assert TOKEN not in str(rows)


@pytest.mark.parametrize("url", ["http://10.0.0.1/song.mp3", "http://169.254.169.254/latest", "file:///etc/passwd"])
def test_a_source_at_a_private_address_is_refused_before_anything_is_sent(install: Any, url: str) -> None:
    provider = install(Provider(SCENARIOS["happy"]))
    settings = replace(make_settings(provider), allow_private_urls=False)
    reply = send(settings, "extend_via_suno", audio=url)
    assert reply["error_code"] in ("private_url", "unsupported_url")
    assert provider.calls == []
