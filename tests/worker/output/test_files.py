"""Files that are not audio: delivered as they are, inline, in a bucket and on a volume."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import requests

from testing.delivery import (
    INLINE,
    catch_error,
    compute_base64_size,
    make_noise,
    make_settings_with_budget,
    make_tone,
    read_artefact,
    run_delivery,
)
from worker.job import Job
from worker.reply import FileOutput, Output, Reply
from worker.runpod.cli import run_local_job
from worker.settings import Settings

PICTURE = bytes(range(256)) * 40  # 10 kB
FILE_KEYS = {"filename", "format", "size", "sha256"}


def make_file(content: bytes = PICTURE, name: str = "waveform", **options: Any) -> FileOutput:
    return FileOutput(io.BytesIO(content), name, options.pop("format", "png"), **options)


def test_a_file_is_in_the_reply_by_its_name() -> None:
    result = run_delivery(Reply(files={"picture": make_file(extra={"width": 800})}))
    artefact = result["files"]["picture"]
    assert artefact.keys() == FILE_KEYS | {"output_file", "width"}
    assert base64.b64decode(artefact["output_file"], validate=True) == PICTURE
    assert (artefact["filename"], artefact["format"], artefact["size"]) == ("waveform.png", "png", len(PICTURE))
    assert artefact["sha256"] == hashlib.sha256(PICTURE).hexdigest()
    assert result["parameters"] == {"output_format": "auto", "delivery": "inline", "bitrate": None, "seed": 3}
    assert "delivery_s" in result["timings"] and "outputs" not in result and "filename" not in result


def test_a_file_stands_beside_the_audio_of_the_reply() -> None:
    result = run_delivery(Reply(outputs=[Output(make_tone(0.1), "song")], files={"picture": make_file(name="song")}))
    read_artefact(result)
    assert result["filename"] == "song.wav" and result["files"]["picture"]["filename"] == "song.png"
    assert result["parameters"]["output_format"] == "wav"


def test_files_of_one_name_get_numbers_and_no_name_is_a_path() -> None:
    files = {"a": make_file(b"a", "../x"), "b": make_file(b"b", "../x"), "c": make_file(b"c", "../x", format="npz")}
    artefacts = run_delivery(Reply(files=files))["files"]
    assert [artefact["filename"] for artefact in artefacts.values()] == ["_x.png", "_x-2.png", "_x-3.npz"]


def test_the_audio_gets_the_room_in_the_reply_that_the_files_leave() -> None:
    limit = compute_base64_size(44 + 2 * 2 * 44100) + 6000  # a second of wav, and not much more
    audio = [Output(make_noise(1), "song")]
    assert run_delivery(Reply(outputs=audio), make_settings_with_budget(limit))["format"] == "wav"
    files = {"picture": make_file()}
    assert run_delivery(Reply(outputs=audio, files=files), make_settings_with_budget(limit))["format"] != "wav"


def test_a_file_that_does_not_fit_inline_is_an_error_that_names_what_would_fit(tmp_path: Path) -> None:
    reply = Reply(files={"codes": make_file()})
    error = catch_error(reply, make_settings_with_budget(5000))
    assert error.error_code == "reply_too_large" and error.details["size"] > compute_base64_size(len(PICTURE))
    assert "A bucket" in error.message and "format" not in error.message
    error = catch_error(reply, Settings(volume_dirs=(tmp_path,), inline_budget_bytes=5000))
    assert "What would fit: delivery volume." in error.message


def test_a_file_goes_to_the_volume(tmp_path: Path) -> None:
    files = {"codes": make_file(name="codes", format="npz")}
    reply = Reply(outputs=[Output(make_tone(0.1), "codes")], files=files)
    result = run_delivery(reply, Settings(volume_dirs=(tmp_path,)), delivery="volume")
    artefact = result["files"]["codes"]
    assert Path(artefact["output_path"]) == tmp_path / "output" / "job-1" / "codes.npz"
    assert Path(artefact["output_path"]).read_bytes() == PICTURE and "output_file" not in artefact
    assert Path(result["output_path"]).name == "codes.wav" and result["parameters"]["delivery"] == "volume"


def test_a_file_goes_to_the_bucket_with_its_content_type(s3: str) -> None:
    import boto3

    boto3.client(
        "s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    ).create_bucket(Bucket="files")
    settings = Settings(
        volume_dirs=(),
        bucket_endpoint_url=s3,
        bucket_access_key_id="x",
        bucket_secret_access_key="y",
        bucket_name="files",
    )
    result = run_delivery(Reply(files={"picture": make_file(content_type="image/png")}), settings)
    response = requests.get(result["files"]["picture"]["output_url"], timeout=10)
    assert response.content == PICTURE and response.headers["Content-Type"] == "image/png"
    assert result["parameters"]["delivery"] == "bucket"


def test_after_an_upload_that_failed_the_whole_file_is_inline() -> None:
    settings = Settings(
        volume_dirs=(),
        bucket_endpoint_url="http://127.0.0.1:9",
        bucket_access_key_id="x",
        bucket_secret_access_key="y",
        bucket_name="files",
    )
    result = run_delivery(Reply(files={"picture": make_file()}), settings)
    assert base64.b64decode(result["files"]["picture"]["output_file"]) == PICTURE
    assert len(result["warnings"]) == 1


def test_a_local_run_writes_the_file_into_the_output_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(job: Job, settings: Settings) -> dict[str, Any]:
        return run_delivery(Reply(files={"picture": make_file()}), INLINE, job=job)

    settings = Settings(volume_dirs=(), output_dir=tmp_path / "out")
    assert run_local_job(run, '{"input": {"operation": "analyze"}}', settings=settings, root=tmp_path) == 0
    assert (tmp_path / "out" / "waveform.png").read_bytes() == PICTURE
    shown = capsys.readouterr().out
    assert str(tmp_path / "out" / "waveform.png") in shown and len(shown) < 2000
