"""From a reply with audio to the JSON that is sent: keys, formats, volume, bucket."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import boto3
import numpy as np
import pytest
import requests
import soundfile

from audio.files.formats import Encoding
from errors import CancelledError, DeliveryError, DiskFullError, InternalError, InvalidRequestError
from testing.delivery import (
    INLINE,
    RATE,
    catch_error,
    make_noise,
    make_reply,
    make_settings_with_budget,
    make_tone,
    read_artefact,
    run_delivery,
)
from testing.open_files import list_open_files
from worker.input.load import load_audio
from worker.job import Job
from worker.output.artefacts import Artefact, OutputEncoder
from worker.output.deliver import check_delivery, write_artefacts
from worker.reply import AudioOut, Output, Reply
from worker.settings import Settings

ARTEFACT_KEYS = {"filename", "format", "size", "sample_rate", "channels", "duration", "sha256"}


def test_a_local_run_whose_audio_could_not_be_kept_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "output", Path("/proc/output")):
        for delivery in ("auto", "inline"):
            with pytest.raises(DeliveryError, match=f"cannot be written to {folder}: .* Set OUTPUT_DIR") as caught:
                check_delivery(AudioOut(delivery=delivery), job=Job(id="j", output_dir=folder), settings=INLINE)
            assert caught.value.error_code == "delivery_failed"
    job = Job(id="j", output_dir=Path("/proc/output"))
    bucket = dataclasses.replace(
        INLINE,
        bucket_endpoint_url="https://s3.example.com",
        bucket_access_key_id="a",
        bucket_secret_access_key="b",
        bucket_name="results",
    )
    check_delivery(AudioOut(delivery="auto"), job=job, settings=bucket)
    check_delivery(AudioOut(), job=Job(id="j", output_dir=tmp_path / "a" / "b"), settings=INLINE)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_without_a_temporary_folder_a_request_for_audio_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    with pytest.raises(DiskFullError, match="TMPDIR"):
        check_delivery(AudioOut(), job=Job(id="j"), settings=INLINE)


def test_a_cancelled_job_stops_encoding_in_the_middle_of_a_file() -> None:
    class CancelledLater(threading.Event):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks >= 3

    for encoding in (Encoding("wav"), Encoding("flac"), Encoding("mp3"), Encoding("ogg"), Encoding("opus")):
        job = Job(id="j", cancel=CancelledLater())
        reply = Reply(outputs=[Output(make_tone(30.0), "song")])
        with pytest.raises(CancelledError):  # noqa: SIM117  (what is raised is raised on entering)
            with OutputEncoder(reply, AudioOut(), job).encode(encoding):
                pass
        assert job.cancel.looks == 3  # type: ignore[attr-defined]


def test_a_single_output_is_at_the_top_level() -> None:
    result = run_delivery(make_reply(make_tone(1.0), steps=7))
    assert list(result)[:2] == ["success", "operation"]
    assert result["success"] is True and result["operation"] == "generate_music"
    assert result.keys() >= ARTEFACT_KEYS | {"output_audio", "parameters", "timings", "warnings"}
    assert "outputs" not in result and "stems" not in result
    assert result["steps"] == 7 and result["warnings"] == []
    assert (result["filename"], result["format"]) == ("song.wav", "wav")
    waveform, _ = read_artefact(result)
    assert np.abs(waveform - make_tone(1.0).waveform).max() < 2 / 32768


def test_several_outputs_are_a_list_and_the_first_is_at_the_top_level_as_well() -> None:
    outputs = [Output(make_noise(0.2, seed=seed), "clip", {"index": seed}) for seed in range(3)]
    result = run_delivery(Reply(outputs=outputs, fields={"model_used": "demo"}))
    assert [item["index"] for item in result["outputs"]] == [0, 1, 2]
    assert [item["filename"] for item in result["outputs"]] == ["clip.wav", "clip-2.wav", "clip-3.wav"]
    assert {key: result[key] for key in result["outputs"][0]} == result["outputs"][0]
    assert result["model_used"] == "demo"
    assert len({item["sha256"] for item in result["outputs"]}) == 3


def test_always_list_makes_a_list_of_one_output() -> None:
    result = run_delivery(dataclasses.replace(make_reply(make_tone(0.1)), always_list=True))
    assert len(result["outputs"]) == 1
    assert result["outputs"][0]["output_audio"] == result["output_audio"]


def test_stems_are_keyed_by_name() -> None:
    stems = {name: Output(make_noise(0.2, seed=seed), f"song_{name}") for seed, name in enumerate(("vocals", "drums"))}
    result = run_delivery(Reply(stems=stems))
    assert list(result["stems"]) == ["vocals", "drums"]
    assert result["stems"]["drums"]["filename"] == "song_drums.wav"
    assert "output_audio" not in result
    for seed, stem in enumerate(result["stems"].values()):
        assert np.abs(read_artefact(stem)[0] - make_noise(0.2, seed=seed).waveform).max() < 2 / 32768


def test_an_output_and_its_stems_are_in_one_reply() -> None:
    result = run_delivery(
        Reply(outputs=[Output(make_tone(0.1), "cover")], stems={"vocals": Output(make_noise(0.1), "vocals")})
    )
    assert result["filename"] == "cover.wav"
    assert result["stems"]["vocals"]["filename"] == "vocals.wav"
    assert result["sha256"] != result["stems"]["vocals"]["sha256"]


def test_a_reply_without_audio_has_its_fields_and_the_common_keys() -> None:
    result = run_delivery(Reply(fields={"models": [], "count": 0}), used={})
    assert result.keys() == {"success", "operation", "models", "count", "parameters", "timings", "warnings"}


def test_the_timings_have_every_stage_and_the_total() -> None:
    job = Job(id="j", started=time.monotonic() - 1.0)
    with job.stage("generate"):
        pass
    timings = run_delivery(make_reply(make_tone(0.1)), job=job)["timings"]
    assert set(timings) == {"generate_s", "delivery_s", "total_s"}
    assert timings["total_s"] >= 1.0


def test_the_parameters_have_the_values_that_were_really_used() -> None:
    assert run_delivery(make_reply(make_tone(0.1)))["parameters"] == {
        "output_format": "wav",
        "delivery": "inline",
        "bitrate": None,
        "seed": 3,
    }
    used = {"output_format": "mp3", "bitrate": None, "seed": 3}
    assert run_delivery(make_reply(make_tone(0.1)), used=used, output_format="mp3")["parameters"] == {
        **used,
        "bitrate": 320,
    }


@pytest.mark.parametrize(
    "bad",
    [
        {"x": math.nan},
        {"x": [math.inf]},
        {"x": b"bytes"},
        {"x": Path("/etc")},
        {"x": np.float32(1)},
        {"x": np.int64(1)},
        {"x": np.zeros(2)},
        {"x": "\ud800"},
        {"\udfff": 1},
        {"x": {1, 2}},
        {"x": object()},
        {(1, 2): 3},
    ],
    ids=lambda bad: "object" if type(bad.get("x")) is object else repr(bad),
)
def test_a_value_that_json_cannot_represent_is_an_internal_error(bad: dict[Any, Any]) -> None:
    with pytest.raises(InternalError):
        run_delivery(Reply(fields=bad))
    with pytest.raises(InternalError):
        run_delivery(dataclasses.replace(make_reply(make_tone(0.1)), fields=bad))


def test_a_reply_without_audio_over_the_budget_is_an_error() -> None:
    error = catch_error(Reply(fields={"x": "ä" * 600}), dataclasses.replace(INLINE, inline_budget_bytes=1200), used={})
    assert error.error_code == "reply_too_large"
    assert error.details["size"] > error.details["limit"] == 1200


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "opus"])
def test_a_requested_format_is_the_format_of_the_file(kind: str) -> None:
    result = run_delivery(make_reply(make_tone(1.0)), output_format=kind)
    assert (result["format"], result["filename"]) == (kind, f"song.{kind}")
    waveform, rate = read_artefact(result)
    assert rate == (48000 if kind == "opus" else RATE)
    assert 0.4 < np.abs(waveform[:, rate // 4 : rate // 2]).max() < 0.6


@pytest.mark.parametrize(("bit_depth", "subtype"), [(16, "PCM_16"), (24, "PCM_24"), (32, "FLOAT")])
def test_a_wav_has_the_requested_bit_depth(bit_depth: int, subtype: str) -> None:
    result = run_delivery(make_reply(make_tone(0.2)), output_format="wav", bit_depth=bit_depth)
    assert soundfile.info(io.BytesIO(base64.b64decode(result["output_audio"]))).subtype == subtype


def test_the_requested_bitrate_is_used() -> None:
    small, large = (
        run_delivery(make_reply(make_noise(5)), output_format="mp3", bitrate=kbits)["size"] for kbits in (64, 256)
    )
    assert 3.5 < large / small < 4.5


def test_a_sample_rate_that_the_format_does_not_have_is_a_warning() -> None:
    result = run_delivery(make_reply(make_noise(1.0, rate=96000)), output_format="mp3")
    assert result["sample_rate"] == 48000
    assert any("48000" in warning for warning in result["warnings"])


@pytest.mark.parametrize(
    "out",
    [
        {"output_format": "flac", "bit_depth": 32},
        {"output_format": "mp3", "bitrate": 100},
        {"output_format": "ogg", "bitrate": 32},
        {"output_format": "opus", "bitrate": 600},
    ],
)
def test_an_encoding_that_does_not_exist_is_refused_before_any_work(out: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        check_delivery(AudioOut(**out), job=Job(id="j"), settings=INLINE)


def test_a_delivery_that_is_not_configured_is_refused_before_any_work() -> None:
    refused: tuple[tuple[Literal["bucket", "volume"], str], ...]
    refused = (("bucket", "bucket_not_configured"), ("volume", "volume_unavailable"))
    for name, code in refused:
        with pytest.raises(DeliveryError) as caught:
            check_delivery(AudioOut(delivery=name), job=Job(id="j"), settings=INLINE)
        assert caught.value.error_code == code
    check_delivery(AudioOut(), job=Job(id="j"), settings=INLINE)


def test_a_cancelled_job_delivers_nothing(tmp_path: Path) -> None:
    job = Job(id="j")
    job.cancel.set()
    with pytest.raises(CancelledError):
        run_delivery(make_reply(make_tone(1)), Settings(volume_dirs=(tmp_path,)), job=job, delivery="volume")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def mounted(tmp_path: Path) -> Settings:
    (tmp_path / "volume").mkdir()
    return Settings(volume_dirs=(tmp_path / "absent", tmp_path / "volume"), inline_budget_bytes=20_000)


def test_a_result_on_the_volume_can_be_an_input_again(mounted: Settings, tmp_path: Path) -> None:
    result = run_delivery(make_reply(make_noise(10), "song"), mounted, delivery="volume")
    path = Path(result["output_path"])
    assert path == tmp_path / "volume" / "output" / "job-1" / "song.wav"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == result["sha256"]
    assert path.stat().st_size == result["size"]
    assert result["parameters"]["delivery"] == "volume"
    audio = load_audio(str(path), field="audio", job=Job(id="k"), settings=mounted)
    assert np.abs(audio.read(0, 10 * RATE) - make_noise(10).waveform).max() < 2 / 32768


def test_a_second_run_and_a_similar_job_id_overwrite_nothing(mounted: Settings) -> None:
    paths = [
        run_delivery(make_reply(make_tone(0.1, frequency=100 * (1 + i))), mounted, job=Job(id=name), delivery="volume")[
            "output_path"
        ]
        for i, name in enumerate(("a/b", "a/b", "a?b", "../../a", "..", "\ud800", "a" * 500))
    ]
    assert len(set(paths)) == len(paths)
    assert len({Path(path).read_bytes() for path in paths}) == len(paths)
    folder = mounted.volume_dirs[1] / "output"
    assert all(Path(path).parent.parent == folder for path in paths)


def test_any_output_name_becomes_one_visible_file_in_the_jobs_folder(mounted: Settings) -> None:
    for name in ("../../x", "/etc/passwd", ".hidden", "", "CON\0", "a" * 400, "歌" * 300, "Zoë's – «take»", "\ud800"):
        path = Path(run_delivery(make_reply(make_tone(0.1), name), mounted, delivery="volume")["output_path"])
        assert path.is_file() and path.parent.parent == mounted.volume_dirs[1] / "output"
        assert not path.name.startswith(".")


def test_a_full_volume_leaves_nothing_behind(mounted: Settings) -> None:
    """The second file fails while it is copied; the first one and the folder are removed."""

    class FullDisk(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(28, "No space left on device")

    folder = mounted.volume_dirs[1] / "folder"
    folder.mkdir()
    files = [
        Artefact(file, "audio/wav", {"filename": f"{i}.wav"}, [])
        for i, file in enumerate((io.BytesIO(b"x"), FullDisk()))
    ]
    with pytest.raises(OSError):
        write_artefacts(folder, files)
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_volume_that_is_not_writable_is_skipped(mounted: Settings, tmp_path: Path) -> None:
    (tmp_path / "volume").chmod(0o500)
    assert catch_error(make_reply(make_tone(0.1)), mounted, delivery="volume").error_code == "volume_unavailable"


def test_an_output_folder_that_is_a_file_is_a_clear_error(mounted: Settings) -> None:
    (mounted.volume_dirs[1] / "output").write_text("in the way")
    error = catch_error(make_reply(make_tone(0.1)), mounted, delivery="volume")
    assert error.error_code == "volume_unavailable"
    assert str(mounted.volume_dirs[1]) not in error.message


def test_an_output_folder_that_links_out_of_the_volume_is_not_used(mounted: Settings, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (mounted.volume_dirs[1] / "output").symlink_to(tmp_path / "outside")
    assert catch_error(make_reply(make_tone(0.1)), mounted, delivery="volume").error_code == "volume_unavailable"
    assert not list((tmp_path / "outside").iterdir())


@pytest.fixture
def with_bucket(s3: str) -> Settings:
    name = f"results-{uuid.uuid4().hex[:8]}"
    access = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=s3, **access).create_bucket(Bucket=name)
    return Settings(
        volume_dirs=(),
        bucket_endpoint_url=s3,
        bucket_access_key_id="AKIAGEHEIM",
        bucket_secret_access_key="geheim",
        bucket_name=name,
        inline_budget_bytes=100_000,
    )


def download(artefact: Mapping[str, Any]) -> requests.Response:
    answer = requests.get(artefact["output_url"], timeout=10)
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == artefact["sha256"]
    assert len(answer.content) == artefact["size"]
    return answer


def test_auto_uses_the_bucket_if_one_is_configured(with_bucket: Settings) -> None:
    result = run_delivery(make_reply(make_noise(5)), with_bucket)
    assert download(result).headers["Content-Type"] == "audio/wav"
    assert result["format"] == "wav" and "output_audio" not in result
    assert result["parameters"]["delivery"] == "bucket"
    assert "geheim" not in str(result)


def test_every_stem_is_uploaded_with_its_content_type(with_bucket: Settings) -> None:
    stems = {name: Output(make_noise(1, seed=seed), name) for seed, name in enumerate(("vocals", "drums", "bass"))}
    result = run_delivery(Reply(stems=stems), with_bucket, delivery="bucket", output_format="mp3")
    assert {download(stem).headers["Content-Type"] for stem in result["stems"].values()} == {"audio/mpeg"}
    assert len({stem["output_url"].rpartition("/")[0] for stem in result["stems"].values()}) == 1


def test_inline_stays_inline_if_a_bucket_is_configured(with_bucket: Settings) -> None:
    assert "output_audio" in run_delivery(make_reply(make_noise(0.1)), with_bucket, delivery="inline")
    error = catch_error(make_reply(make_noise(5)), with_bucket, delivery="inline", output_format="wav")
    assert error.details["deliveries"] == ["bucket"]


def test_jobs_with_the_same_id_do_not_overwrite_each_other_in_the_bucket(with_bucket: Settings) -> None:
    first, second = (run_delivery(make_reply(make_noise(0.1, seed=seed)), with_bucket) for seed in (1, 2))
    download(first)
    download(second)


def test_the_requests_own_bucket_is_used_if_private_addresses_are_allowed(with_bucket: Settings) -> None:
    s3_config = {
        "accessId": "a",
        "accessSecret": "b",
        "bucketName": with_bucket.bucket_name,
        "endpointUrl": with_bucket.bucket_endpoint_url,
    }
    job = Job(id="j", s3_config=s3_config)
    download(run_delivery(make_reply(make_noise(1)), Settings(volume_dirs=(), allow_private_urls=True), job=job))
    error = catch_error(make_reply(make_noise(1)), INLINE, job=Job(id="j", s3_config=s3_config), delivery="bucket")
    assert error.error_code == "private_url"


def test_a_bucket_that_fails_with_auto_is_a_warning_if_the_result_fits_inline(with_bucket: Settings) -> None:
    broken = dataclasses.replace(with_bucket, bucket_name="nowhere")
    result = run_delivery(make_reply(make_noise(0.1)), broken)
    read_artefact(result)
    assert result["parameters"]["delivery"] == "inline"
    assert any("NoSuchBucket" in warning and "in this reply" in warning for warning in result["warnings"])


def test_a_bucket_that_fails_with_auto_is_an_error_if_the_result_does_not_fit_inline(with_bucket: Settings) -> None:
    broken = dataclasses.replace(with_bucket, bucket_name="nowhere")
    error = catch_error(make_reply(make_noise(5)), broken, output_format="wav")
    assert error.error_code == "bucket_upload_failed"
    assert "NoSuchBucket" in error.message and error.details["limit"] == 100_000


def test_a_requested_bucket_that_fails_is_an_error(with_bucket: Settings) -> None:
    broken = dataclasses.replace(with_bucket, bucket_name="nowhere")
    assert catch_error(make_reply(make_noise(0.1)), broken, delivery="bucket").error_code == "bucket_upload_failed"


def test_an_incomplete_bucket_configuration_is_a_warning_with_auto() -> None:
    half = dataclasses.replace(INLINE, bucket_endpoint_url="https://s3.example.com")
    result = run_delivery(make_reply(make_noise(0.1)), half)
    assert any("BUCKET_NAME" in warning for warning in result["warnings"])


def test_no_file_is_left_open_or_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run_delivery(make_reply(make_tone(0.1)), output_format="mp3")
    before = list_open_files()
    for kind in ("wav", "mp3", "flac"):
        catch_error(
            Reply(outputs=[Output(make_noise(2), "a"), Output(make_noise(2), "b")]),
            make_settings_with_budget(5000),
            output_format=kind,
        )
    assert not list_open_files() - before
    assert not list(tmp_path.iterdir())


def test_a_reply_without_audio_imports_no_encoder_and_no_torch() -> None:
    script = (
        "import sys; from worker.output.deliver import deliver; from worker.job import Job\n"
        "from worker.reply import *\n"
        "from worker.settings import Settings\n"
        "deliver(Reply(), operation='health_check', used={}, audio_out=AudioOut(), job=Job(id='j'),"
        " settings=Settings())\n"
        "sys.exit(bool({'torch', 'boto3', 'soundfile', 'pedalboard', 'runpod'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=60).returncode == 0
