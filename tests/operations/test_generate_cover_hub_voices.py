"""`generate_cover` with voices that a request names by their repository on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import CancelledError, ErrorCode, RequestError
from models import Models
from models.checkpoints.hub import HuggingFaceHub
from models.checkpoints.locations import WeightLocations
from models.f0 import PitchFamily
from models.hubert.family import HubertFamily
from models.runtime.progress import Unattended
from models.rvc import RvcFamily, Voices
from models.rvc.hub_voices import parse_name
from testing import rvc_files, tiny_rvc
from testing.dispatch import answer
from testing.fake_hub import FakeHub, Refusal, start_fake_hub
from testing.models import make_models
from tests.operations.test_generate_cover_voices import encode_wav, make_vocals
from worker.settings import Settings

NAME = "hf://singer/my-voice"
OTHER_COMMIT = "f" * 40


@pytest.fixture(scope="module")
def voice_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a v2 voice with its index, and of an index that does not fit it."""
    folder = tmp_path_factory.mktemp("made")
    tiny_rvc.write_voice(folder, "voice", index_rows=200)
    rvc_files.save_index(folder / "voice" / "other.index", width=256, count=20)
    next((folder / "voice").glob("added_*.index")).rename(folder / "voice" / "voice.index")
    return {path.name: path.read_bytes() for path in (folder / "voice").iterdir()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_rvc.write_hubert_file(folder / "hubert_base.pt")
    return folder


@pytest.fixture
def server(voice_files: dict[str, bytes]) -> Iterator[FakeHub]:
    files = {"README.md": b"# A voice", "weights/voice.pth": voice_files["voice.pth"]}
    with start_fake_hub(files | {"weights/added_voice.index": voice_files["voice.index"]}) as hub:
        yield hub


def build_models(server: FakeHub, cache: Path, weights: Path, *, uploads: bool = True) -> Models:
    locations = WeightLocations(explicit=weights)
    hub = HuggingFaceHub(cache=cache, endpoint=server.endpoint, retry_s=0.01)
    return make_models(
        voices=RvcFamily(Voices([]), uploads=uploads, hub=hub),
        content_encoders=HubertFamily(locations),
        f0=PitchFamily(locations),
    )


@pytest.fixture
def models(server: FakeHub, tmp_path: Path, weights: Path) -> Models:
    return build_models(server, tmp_path / "cache", weights)


def call(models: Models, voice: str = NAME, **params: Any) -> dict[str, Any]:
    audio = encode_wav(make_vocals(0.2))
    params = {"voice_model": voice, "f0_method": "pm", "voice_audio": audio, "instrument_audio": audio} | params
    return answer(
        {"id": "job", "input": {"operation": "generate_cover", "params": params}}, settings=Settings(), models=models
    )


def catch_error(models: Models, voice: str = NAME, **params: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call(models, voice, **params)
    assert "127.0.0.1" not in caught.value.message and "Traceback" not in caught.value.message
    return caught.value


def list_cached(folder: Path) -> set[str]:
    """The files of repositories in a hub cache, and their contents."""
    return {path.name for part in ("snapshots", "blobs") for path in folder.glob(f"*/{part}/**/*") if path.is_file()}


def test_a_voice_on_the_hub_is_downloaded_checked_and_used_with_its_index(models: Models, server: FakeHub) -> None:
    reply = call(models, pitch_adjust="auto", voice_f0_hz=220)
    assert reply["model_used"] == reply["parameters"]["voice_model"] == NAME
    assert reply["parameters"]["index_rate"] == 0.5 and "/" not in reply["filename"]
    assert sorted(server.sent) == ["weights/added_voice.index", "weights/voice.pth"]
    assert reply["timings"]["voice_s"] >= 0


def test_it_is_downloaded_once_for_each_revision(
    models: Models, server: FakeHub, tmp_path: Path, weights: Path, voice_files: dict[str, bytes]
) -> None:
    call(models)
    call(models, convert_backup=True, backup_audio=encode_wav(make_vocals(0.2)), backup_voice_model=NAME)
    call(build_models(server, tmp_path / "cache", weights))  # as after a restart
    assert len(server.sent) == 2
    server.commit, before = OTHER_COMMIT, models.families.voices.version_key(NAME)
    server.files["weights/voice.json"] = json.dumps({"f0_hz": 196}).encode()
    reply = call(models, pitch_adjust="auto")
    assert len(server.sent) == 3, "the two files have not changed, so the cache has their content"
    assert models.families.voices.version_key(NAME) != before
    assert reply["parameters"]["voice_f0_hz"] is None and reply["parameters"]["pitch_adjust"] <= 12


def test_the_copy_that_is_here_serves_while_the_hub_does_not_answer(models: Models, server: FakeHub) -> None:
    call(models)
    server.refusal = Refusal("503 Service Unavailable")
    reply = call(models)
    assert any("downloaded before (0123456)" in warning for warning in reply["warnings"])


def test_a_worker_that_takes_no_voices_refuses_before_the_hub_is_asked(
    server: FakeHub, tmp_path: Path, weights: Path
) -> None:
    off = build_models(server, tmp_path, weights, uploads=False)
    for params in ({}, {"voice": "any", "backup_voice_model": NAME}):
        error = catch_error(off, **params)
        assert error.error_code == ErrorCode.VOICE_UPLOAD_OFF and "ALLOW_VOICE_UPLOAD=1" in error.message
    assert server.asked == []


def test_a_worker_that_is_offline_says_so(weights: Path) -> None:
    locations = WeightLocations(explicit=weights)
    offline = make_models(voices=RvcFamily(Voices([]), uploads=True), content_encoders=HubertFamily(locations))
    assert "HF_HUB_OFFLINE=0" in catch_error(offline).message


@pytest.mark.parametrize(
    "name",
    [
        "hf://",
        "hf://singer",
        "hf://singer/voice/weights.pth",
        "hf://singer/../voice",
        "hf://../../etc/passwd",
        "hf:///etc/passwd",
        "hf://singer/voice@main",
        "hf://singer/voice?x=1",
        "hf://singer/a--b",
        "hf://singer/a..b",
        "hf://-singer/voice",
        "hf://singer/voice.git",
        "hf://singer/vo\u200bice",
        "HF://singer/voice",
        f"hf://singer/{'a' * 97}",
    ],
)
def test_another_form_of_address_is_refused_before_the_hub_is_asked(models: Models, server: FakeHub, name: str) -> None:
    error = catch_error(models, name)
    assert error.error_code == ErrorCode.INVALID_VOICE_NAME and "hf://<user>/<repo>" in error.message
    assert server.asked == []


def test_every_address_that_is_accepted_is_one_that_the_hubs_client_accepts() -> None:
    from huggingface_hub.utils._validators import validate_repo_id

    for hub_id in ("a/b", "user_1/My.Voice-v2", "A-1/x_-_y", "0/_", f"{'u' * 40}/{'r' * 55}"):
        validate_repo_id(parse_name(f"hf://{hub_id}"))


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"README.md": b"x"}, ErrorCode.NO_MODEL_FILE, "holds no .pth"),
        ({"My Voice.zip": b"x"}, ErrorCode.NO_MODEL_FILE, "to add_voice"),
        ({"a.pth": b"x", "b/b.pth": b"x"}, ErrorCode.AMBIGUOUS_VOICE, "2 .pth files ('a.pth', 'b/b.pth')"),
        ({"a.pth": b"x", "b.index": b"x", "c.index": b"x"}, ErrorCode.AMBIGUOUS_VOICE, "2 .index files"),
        ({"../a.pth": b"x", "/b.pth": b"x", ".c/c.pth": b"x", "d|e.pth": b"x"}, ErrorCode.NO_MODEL_FILE, "no .pth"),
    ],
    ids=["none", "archive", "several", "indexes", "names that lead elsewhere"],
)
def test_a_repository_that_does_not_hold_one_voice_is_refused_before_anything_is_downloaded(
    models: Models, server: FakeHub, files: dict[str, bytes], code: ErrorCode, said: str
) -> None:
    server.files = files
    error = catch_error(models)
    assert error.error_code == code and said in error.message and server.sent == []


@pytest.mark.parametrize(("name", "size"), [("weights/voice.pth", 513 << 20), ("weights/added_voice.index", 3 << 30)])
def test_a_file_that_is_too_large_is_refused_before_it_is_downloaded(
    models: Models, server: FakeHub, name: str, size: int
) -> None:
    server.announced[name] = size
    error = catch_error(models)
    assert error.error_code == ErrorCode.INPUT_TOO_LARGE and server.sent == []


def test_what_training_leaves_beside_a_voice_is_left_out_with_a_warning(models: Models, server: FakeHub) -> None:
    server.files |= {"G_2333.pth": b"state", "trained_IVF.index": b"empty"}
    assert any("G_2333.pth" in warning for warning in call(models)["warnings"])
    assert "G_2333.pth" not in server.sent


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize(
    ("damage", "said"),
    [("hostile", "exec', which may be code"), ("cut", "'voice.pth'"), ("index", "'added_voice.index'")],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_and_leaves_nothing_in_the_cache(  # noqa: PLR0913
    models: Models, server: FakeHub, tmp_path: Path, voice_files: dict[str, bytes], damage: str, said: str
) -> None:
    if damage == "hostile":
        torch.save({"weight": _Hostile()}, tmp_path / "hostile.pth")
        server.files["weights/voice.pth"] = (tmp_path / "hostile.pth").read_bytes()
    elif damage == "cut":
        server.files["weights/voice.pth"] = voice_files["voice.pth"][:5000]
    else:
        server.files["weights/added_voice.index"] = voice_files["other.index"]
    error = catch_error(models)
    assert error.error_code == ErrorCode.BROKEN_CHECKPOINT and said in error.message
    assert list_cached(tmp_path / "cache") == set()


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refusal("404 Not Found", "RepoNotFound"), "HTTP 404"),
        (Refusal("403 Forbidden", "GatedRepo"), "gated"),
        (Refusal("500 Internal Server Error"), "HTTP 500"),
    ],
    ids=["missing", "gated", "failing"],
)
def test_a_refusal_of_the_hub_is_told(models: Models, server: FakeHub, refusal: Refusal, said: str) -> None:
    server.refusal = refusal
    error = catch_error(models)
    assert error.error_code == ErrorCode.MODEL_UNAVAILABLE and said in error.message


def test_a_cancelled_job_does_not_wait_for_the_download(models: Models, server: FakeHub) -> None:
    def cancel() -> None:
        raise CancelledError("The job was cancelled.")

    server.go_on.clear()
    with pytest.raises(CancelledError):
        models.families.voices.fetch(NAME, Unattended(cancel))
    server.go_on.set()
    models.families.voices.fetch(NAME)
    assert models.families.voices.find(NAME).version == "v2" and len(server.sent) == 2


def test_the_song_is_not_read_before_the_voice_is_checked(models: Models, server: FakeHub) -> None:
    server.files = {}
    assert catch_error(models, voice_audio="not audio").error_code == ErrorCode.NO_MODEL_FILE
