"""What an audio field takes, and how much of it a request carries."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PATIENCE, open_async
from fake_platform import KEY, Answer, Drop, FakePlatform, completed, make_artefact, make_reply, make_wav

from music_worker import Bucket, Client, Samples, UploadLink, errors
from music_worker.exchange import SyncRunner
from music_worker.files import find_input_fields, prepare
from music_worker.results import read_result
from music_worker.transport import Endpoint

WAV = make_wav()


def prepare_now(operation: str, params: Any, **options: Any) -> dict[str, Any]:
    return SyncRunner().run(prepare(operation, params, **{"limit_bytes": None, **options}))


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(WAV)
    return path


MAKERS: dict[str, Callable[[Path], Any]] = {
    "a path": lambda path: path,
    "a path as text": str,
    "bytes": lambda path: path.read_bytes(),
    "a bytearray": lambda path: bytearray(path.read_bytes()),
    "a memoryview": lambda path: memoryview(path.read_bytes()),
    "a file in memory": lambda path: io.BytesIO(path.read_bytes()),
    "an open file": lambda path: path.open("rb"),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_audio_field_takes(song: Path, make: Callable[[Path], Any]) -> None:
    assert prepare_now("analyze", {"audio": make(song)}) == {"audio": encode(WAV)}


def test_an_audio_field_takes_an_array_with_its_sample_rate() -> None:
    array = np.linspace(-1, 1, 100, dtype=np.float32)
    prepared = prepare_now("analyze", {"audio": Samples(array, 8000)})
    assert base64.b64decode(prepared["audio"])[:4] == b"RIFF"
    with pytest.raises(errors.InputError, match="audio: an array needs its sample rate"):
        prepare_now("analyze", {"audio": array})


@pytest.mark.parametrize(
    "value", ["https://example.com/a.wav", "data:audio/wav;base64,AAAA", "/runpod-volume/a.wav", "/workspace/a.wav"]
)
def test_what_the_worker_reads_by_itself_is_sent_as_it_is(value: str) -> None:
    assert prepare_now("separate", {"audio": value}) == {"audio": value}


def test_a_result_is_the_input_of_the_next_job(song: Path) -> None:
    inline = read_result(make_reply(), job_id="a")
    assert prepare_now("separate", {"audio": inline}) == {"audio": encode(WAV)}
    assert prepare_now("separate", {"audio": inline.outputs[0]}) == {"audio": encode(WAV)}
    link = read_result(make_reply(**make_artefact(WAV, url="https://bucket/a?sig")), job_id="a")
    assert prepare_now("separate", {"audio": link}) == {"audio": "https://bucket/a?sig"}
    on_volume = {"filename": "a.wav", "output_path": "/runpod-volume/output/a.wav"}
    stored = read_result(make_reply(**on_volume), job_id="a")
    assert prepare_now("separate", {"audio": stored}) == {"audio": "/runpod-volume/output/a.wav"}


def test_inputs_in_tracks_and_steps_are_found_and_references_stay(song: Path) -> None:
    tracks = [{"name": "a", "audio": song}, {"audio": "https://example.com/b.wav", "gain_db": -3.0}]
    assert prepare_now("mix_audio", {"tracks": tracks})["tracks"][0] == {"name": "a", "audio": encode(WAV)}
    steps = [
        {"id": "a", "operation": "separate", "params": {"audio": str(song)}},
        {"id": "b", "operation": "mix_audio", "params": {"tracks": [{"audio": "$a.stems.drums"}]}},
    ]
    prepared = prepare_now("pipeline", {"steps": steps, "return": ["$b"]})
    assert prepared["steps"][0]["params"] == {"audio": encode(WAV)}
    assert prepared["steps"][1]["params"] == steps[1]["params"]


def test_text_that_is_no_input_is_never_read_as_a_path(song: Path) -> None:
    params = {"prompt": str(song), "title": "/etc/passwd"}
    assert prepare_now("generate_music", params) == params


def test_the_fields_that_take_files_come_from_the_schemas() -> None:
    assert find_input_fields("generate_cover") >= {"audio", "voice_audio", "instrument_audio", "backup_audio"}
    assert find_input_fields("add_voice") == {"archive", "checkpoint", "index"}
    assert "audio" in find_input_fields("mix_audio") and "codes" in find_input_fields("decode_audio")
    assert find_input_fields("health_check") == frozenset()
    assert find_input_fields("pipeline") == find_input_fields("an operation of a newer worker")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a path that does not exist": (lambda folder: str(folder / "none.wav"), "none.wav cannot be read"),
    "a folder": (lambda folder: folder, "is not a file"),
    "an empty file": (lambda folder: shutil.copy("/dev/null", folder / "empty"), "is empty"),
    "no bytes": (lambda folder: b"", "is empty"),
    "base64 in place of bytes": (lambda folder: encode(WAV), r"\(2192 characters\) cannot be read"),
    "a file of text": (lambda folder: io.StringIO("x"), 'mode "rb"'),
    "a null character": (lambda folder: "a\0b", "null character"),
}


@pytest.mark.parametrize(("make", "sentence"), BROKEN.values(), ids=BROKEN)
def test_an_input_that_cannot_be_read_is_refused_with_its_field(
    tmp_path: Path, platform: FakePlatform, client: Client, make: Callable[[Path], Any], sentence: str
) -> None:
    with pytest.raises(errors.InputError, match=f"voice_audio: .*{sentence}"):
        client.run("generate_cover", {"voice_audio": make(tmp_path)})
    assert platform.requests == []


def test_too_large_an_input_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    large = tmp_path / "long.wav"
    large.write_bytes(bytes(16_000_000))
    with pytest.raises(errors.InputTooLargeError, match=r"long.wav has 16.0 MB.*15.0 MB.*Configure a bucket") as caught:
        prepare_now("separate", {"audio": large}, limit_bytes=20_000_000)
    assert caught.value.details["field"] == "audio"
    large.write_bytes(bytes(14_990_000))
    assert len(prepare_now("separate", {"audio": large}, limit_bytes=20_000_000)["audio"]) == 19_986_668


def submit_sized(platform: FakePlatform, size: int) -> str:
    """The route that a request with a text of `size` characters takes."""
    endpoint = Endpoint(platform.url, KEY, patience=PATIENCE)
    SyncRunner().run(endpoint.submit({"operation": "echo", "params": {"text": "x" * size}}))
    return platform.requests[-1].path.rpartition("/")[2]


def test_a_request_takes_the_route_that_carries_its_size(platform: FakePlatform) -> None:
    assert submit_sized(platform, 9_999_000) == "run"
    assert submit_sized(platform, 10_001_000) == "runsync?wait=1000"
    with pytest.raises(errors.InputTooLargeError, match="20 MB. Nothing was sent"):
        submit_sized(platform, 20_001_000)
    assert len(platform.jobs) == 2


def make_bucket(platform: FakePlatform) -> Bucket:
    return Bucket(
        endpoint_url=platform.origin, name="bucket", access_key_id="AKIAEXAMPLE", secret_access_key="secret-of-bucket"
    )


def test_the_largest_input_goes_to_the_bucket_and_the_rest_stays_inline(
    tmp_path: Path, song: Path, platform: FakePlatform
) -> None:
    large = tmp_path / "long song.wav"
    large.write_bytes(bytes(40_000))
    platform.plan_faults("put", Drop(), Answer(503))
    params = {"voice_audio": large, "instrument_audio": song}
    prepared = prepare_now("generate_cover", params, limit_bytes=20_000, upload=make_bucket(platform))
    assert prepared["instrument_audio"] == encode(WAV)
    puts = platform.list_requests("put")
    assert len(puts) == 3 and puts[-1].body == bytes(40_000) and puts[-1].headers["content-length"] == "40000"
    url = prepared["voice_audio"]
    assert url.startswith(f"{platform.origin}/bucket/music-worker-inputs/") and "long%20song.wav?X-Amz-Alg" in url
    assert url.partition("?")[0].endswith(puts[-1].path.partition("?")[0]) and "secret-of-bucket" not in url


def test_links_of_ones_own_are_used_for_the_upload(song: Path, platform: FakePlatform) -> None:
    def upload(filename: str, size: int) -> UploadLink:
        assert filename.endswith("/song.wav") and size == len(WAV)
        return UploadLink(f"{platform.origin}/bucket/a", "https://cdn/a.wav", {"Content-Type": "audio/wav"})

    async def run() -> dict[str, Any]:
        async with open_async(platform) as client:
            return await client._runner.run(prepare("separate", {"audio": song}, limit_bytes=2500, upload=upload))

    assert asyncio.run(run()) == {"audio": "https://cdn/a.wav"}
    assert platform.requests[0].headers["content-type"] == "audio/wav" and platform.requests[0].body == WAV


def test_a_bucket_that_refuses_is_an_error_and_no_job_starts(song: Path, platform: FakePlatform) -> None:
    platform.plan_faults("put", Answer(403, b"<Error/>"))
    with pytest.raises(errors.UploadError, match="HTTP status 403.*No job was started") as caught:
        prepare_now("separate", {"audio": song}, limit_bytes=2500, upload=make_bucket(platform))
    assert "Signature" not in str(caught.value) and len(platform.requests) == 1


def test_a_request_keeps_unicode_and_refuses_what_json_cannot_carry(platform: FakePlatform, client: Client) -> None:
    platform.script(completed())
    client.run("generate_music", {"prompt": "Für Elise \u266b"})
    assert "Für Elise ♫".encode() in platform.requests[0].body
    assert json.loads(platform.requests[0].body)["input"]["params"]["prompt"] == "Für Elise ♫"
    with pytest.raises(errors.RequestRejectedError, match="cannot be written as JSON"):
        client.run("generate_music", {"duration": float("nan")})
    assert client.run("generate_music", {"duration": np.float32(1.5), "seed": np.int64(3)}).outputs
    assert platform.list_requests("run")[-1].input["params"] == {"duration": 1.5, "seed": 3}
