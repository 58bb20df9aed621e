"""The operation `add_voice`: off by default; what it takes, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import base64
import io
import os
import shutil
import stat
import struct
import threading
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from errors import CancelledError, InvalidRequestError, ModelError, RequestError, SourceError
from models import Models, registry
from models.checkpoints.zip_directory import ArchiveError, Entry
from models.family import LOCAL
from models.rvc import Voices, install
from operations.build_models import models_for
from testing import rvc_files
from testing.dispatch import answer
from testing.loopback import respond_with, serve
from testing.models import list_as_json
from worker.settings import Settings


@pytest.fixture(scope="module")
def voice_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a v2 voice, of a v1 voice, and of their indexes."""
    folder = tmp_path_factory.mktemp("made")
    rvc_files.save(folder / "v2.pth", rvc_files.make_content())
    rvc_files.save(folder / "v1.pth", rvc_files.make_content("v1"))
    rvc_files.save_index(folder / "v2.index", count=20)
    rvc_files.save_index(folder / "v1.index", width=256, count=20)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "rvc_models"
    path.mkdir()
    return path


@pytest.fixture
def models(folder: Path) -> Models:
    return registry.build(device="cpu", voices_dir=folder, voice_uploads=True, demo_dir=None)


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def make_zip(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def call(models: Models, settings: Settings | None = None, **params: Any) -> dict[str, Any]:
    job = {"id": "job", "input": {"operation": "add_voice", "params": params}}
    return answer(job, settings=settings or Settings(volume_dirs=()), models=models)


def catch_error(models: Models, settings: Settings | None = None, **params: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call(models, settings, **params)
    assert "rvc_models" not in caught.value.message and len(caught.value.message) < 600
    return caught.value


def test_uploads_are_off_unless_the_setting_allows_them(folder: Path, voice_files: Mapping[str, bytes]) -> None:
    assert not Settings().allow_voice_upload
    models = models_for(Settings(rvc_models_dir=folder))
    reply = answer({"input": {"operation": "health_check"}}, settings=Settings(), models=models)
    assert reply["operations"]["add_voice"] == "off: set ALLOW_VOICE_UPLOAD=1"
    with serve(respond_with(voice_files["v2.pth"])) as server:
        private = Settings(allow_private_urls=True)
        error = catch_error(models, private, name="alice", checkpoint=server.url())
        assert error.error_code == "voice_upload_off" and "ALLOW_VOICE_UPLOAD=1" in error.message
        assert server.requests == [], "nothing is downloaded in vain"
    allowed = models_for(Settings.from_env({"RVC_MODELS_DIR": str(folder), "ALLOW_VOICE_UPLOAD": "1"}))
    assert call(allowed, name="alice", checkpoint=encode_base64(voice_files["v2.pth"]))["success"] is True
    assert list(folder.iterdir()) == [folder / "alice"]


def test_a_voice_is_added_from_its_files(models: Models, folder: Path, voice_files: Mapping[str, bytes]) -> None:
    reply = call(
        models,
        name="Alice (v2)",
        checkpoint=encode_base64(voice_files["v2.pth"]),
        index=encode_base64(voice_files["v2.index"]),
    )
    assert reply["success"] is True and reply["name"] == "Alice (v2)"
    assert [reply["voice"]] == list_as_json(models.families.voices)
    assert reply["voice"]["has_index"] is True and reply["voice"]["version"] == "v2"
    assert reply["parameters"] == {"name": "Alice (v2)", "replace": False}
    assert reply["timings"]["install_s"] >= 0
    assert {path.name for path in (folder / "Alice (v2)").iterdir()} == {"Alice (v2).pth", "Alice (v2).index"}
    listed = answer({"input": {"operation": "list_models"}}, settings=Settings(), models=models)
    assert listed["models"] == ["Alice (v2)"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("index", [True, False])
def test_a_voice_is_added_from_a_zip(
    models: Models, folder: Path, voice_files: Mapping[str, bytes], method: int, index: bool
) -> None:
    files = {
        "Alice/Alice_e200.pth": voice_files["v2.pth"],
        "Alice/readme.txt": b"hello",
        "__MACOSX/Alice/._Alice_e200.pth": b"left over",
        "Alice/.DS_Store": b"left over",
        "Alice/empty/": b"",
        "./": b"",
    }
    if index:
        files |= {"Alice/added_IVF.index": voice_files["v2.index"], "Alice/trained_IVF.index": b"not searched"}
    reply = call(models, name="alice", archive=f"data:application/zip;base64,{encode_base64(make_zip(files, method))}")
    assert reply["voice"]["has_index"] is index
    assert (folder / "alice" / "alice.pth").read_bytes() == voice_files["v2.pth"]
    assert sorted(path.suffix for path in (folder / "alice").iterdir()) == [".index"] * index + [".pth"]


def test_a_zip_with_backslashes_as_separators_is_read(models: Models, voice_files: Mapping[str, bytes]) -> None:
    assert call(models, name="alice", archive=encode_base64(make_zip({"Alice\\model.pth": voice_files["v1.pth"]})))[
        "success"
    ]


def test_a_voice_is_added_from_urls_and_from_the_volume(
    models: Models, folder: Path, voice_files: Mapping[str, bytes], tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "a.index").write_bytes(voice_files["v2.index"])
    settings = Settings(allow_private_urls=True, volume_dirs=(volume,))
    with serve(respond_with(voice_files["v2.pth"])) as server:
        reply = call(models, settings, name="alice", checkpoint=server.url("/a.pth"), index=str(volume / "a.index"))
        assert reply["voice"]["has_index"] is True
        error = catch_error(models, name="bob", checkpoint=server.url("/a.pth"))
        assert isinstance(error, SourceError) and error.error_code == "private_url"
    assert [path.name for path in folder.iterdir()] == ["alice"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "'archive' or 'checkpoint' is required"),
        ({"archive": "eA==", "checkpoint": "eA=="}, "exactly one of them"),
        ({"archive": "eA==", "index": "eA=="}, "can only be sent with 'checkpoint'"),
        ({"archive": 3}, "string"),
        ({"checkpoint": "eA==", "replace": "yes"}, "'replace'"),
        ({"checkpoint": "eA==", "name": None}, "'name' is required"),
    ],
)
def test_invalid_parameters_are_reported(models: Models, params: dict[str, Any], message: str) -> None:
    assert message in catch_error(models, **({"name": "alice"} | params)).message


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "../up",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        " a",
        "a ",
        "x" * 65,
        "__MACOSX",
        "a:b",
        "𐐀" * 64,
    ],
)
def test_a_name_that_is_not_a_plain_name_is_refused(models: Models, folder: Path, name: str) -> None:
    error = catch_error(models, name=name, checkpoint="!!!")
    assert error.error_code in ("invalid_voice_name", "invalid_request") and "name" in error.message
    assert list(folder.parent.iterdir()) == [folder] and list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("", "empty_file"),
        ("!!!", "invalid_base64"),
        ("data:text/plain,hello", "invalid_base64"),
        ("ftp://example.com/a.zip", "unsupported_url"),
        ("file:///etc/passwd", "unsupported_url"),
        ("/etc/passwd", "path_not_allowed"),
        ("../voice.zip", "path_not_allowed"),
        (encode_base64(bytes(2000)), "input_too_large"),
    ],
)
@pytest.mark.parametrize("field", ["archive", "checkpoint"])
def test_a_file_that_cannot_be_read_is_reported_with_its_field(
    models: Models, field: str, source: str, code: str
) -> None:
    params: dict[str, Any] = {"name": "alice", field: source}
    error = catch_error(models, Settings(volume_dirs=(), max_input_bytes=1000), **params)
    assert error.error_code == code and field in error.message and "audio data" not in error.message


def test_a_file_on_the_volume_that_is_too_large_is_refused(models: Models, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(bytes(2000))
    settings = Settings(volume_dirs=(tmp_path,), max_input_bytes=1000)
    assert (
        catch_error(models, settings, name="alice", checkpoint=str(tmp_path / "a.pth")).error_code == "input_too_large"
    )


def voice_with_code() -> bytes:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("I was run",)

    file = io.BytesIO()
    torch.save(rvc_files.make_content() | {"info": Code()}, file)
    return file.getvalue()


def make_link_entry(target: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("model.pth")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return file.getvalue()


def patch_bytes(data: bytes, offset: int, layout: str, *values: int) -> bytes:
    """The first entry of a zip's directory with some of its numbers changed."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, data.find(b"PK\x01\x02") + offset, *values)
    return bytes(changed)


def bad_archives(voice_files: Mapping[str, bytes]) -> dict[str, tuple[bytes, str]]:
    voice = voice_files["v2.pth"]
    return {
        "no zip": (b"Rar!" + bytes(100), "not a zip file"),
        "cut short": (make_zip({"a.pth": voice})[:-50], "cut short"),
        "empty": (make_zip({}), "0 .pth"),
        "no checkpoint": (make_zip({"a.index": voice_files["v2.index"]}), "0 .pth and 1 .index"),
        "two checkpoints": (make_zip({"a.pth": voice, "b.pth": voice}), "2 .pth"),
        "two indexes": (make_zip({"a.pth": voice, "a.index": b"", "b.index": b""}), "2 .index"),
        "the same twice": (make_zip({"a.pth": voice, "./a.pth": voice}), "same name"),
        "slip": (make_zip({"../../model.pth": voice}), "leads out"),
        "slip with backslashes": (make_zip({"..\\model.pth": voice}), "leads out"),
        "slip of another file": (make_zip({"a.pth": voice, "x/../../y.txt": b""}), "leads out"),
        "absolute": (make_zip({"/etc/model.pth": voice}), "leads out"),
        "drive": (make_zip({"C:/model.pth": voice}), "leads out"),
        "link": (make_link_entry("/etc/passwd"), "link"),
        "encrypted": (patch_bytes(make_zip({"a.pth": voice}), 8, "<H", 1), "encrypted"),
        "two sidecars": (
            make_zip({"a.pth": voice, "voice.json": b"", "b/voice.json": b""}),
            "2 files called voice.json",
        ),
        "large sidecar": (make_zip({"a.pth": voice, "voice.json": b"x" * 70_000}), "more than a voice can have"),
        "nested": (make_zip({"a.pth": voice, "more.zip": b""}), "another archive"),
        "many files": (make_zip({f"{number}.txt": b"" for number in range(1001)}), "more than 1000"),
        "bomb": (make_zip({"a.pth": bytes(50 << 20)}), "more than a voice can have"),
        "forged size": (patch_bytes(make_zip({"a.pth": voice}), 24, "<L", 100), "larger than it states"),
        "forged larger": (patch_bytes(make_zip({"a.pth": voice}), 24, "<L", len(voice) + 1), "damaged"),
        "checksum": (patch_bytes(make_zip({"a.pth": voice}), 16, "<L", 1), "damaged"),
        "method": (patch_bytes(make_zip({"a.pth": voice}), 10, "<H", 12), "not read"),
        "spoilt": (make_zip({"a.pth": voice}).replace(make_zip({"a.pth": voice})[100:140], b"\xff" * 40), "damaged"),
    }


BAD_ARCHIVES = list(bad_archives({"v2.pth": b"x" * 500, "v2.index": b""}))


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_an_archive_that_is_not_a_voice_or_is_hostile_is_refused(
    models: Models, folder: Path, voice_files: Mapping[str, bytes], case: str
) -> None:
    data, message = bad_archives(voice_files)[case]
    error = catch_error(models, name="alice", archive=encode_base64(data))
    assert message in error.message and error.error_code == "invalid_archive"
    assert list(folder.iterdir()) == []


def test_the_voice_json_of_an_archive_is_installed_with_the_voice(
    models: Models, folder: Path, voice_files: Mapping[str, bytes]
) -> None:
    archive = make_zip({"a/a.pth": voice_files["v2.pth"], "a/voice.json": b'{"f0_hz": 196, "embedder": "spin"}'})
    voice = call(models, name="alice", archive=encode_base64(archive))["voice"]
    assert (voice["f0_hz"], voice["embedder"]) == (196, "spin")
    assert sorted(path.name for path in (folder / "alice").iterdir()) == ["alice.pth", "voice.json"]


def test_a_trained_index_alone_in_an_archive_is_left_out_with_a_warning(
    models: Models, folder: Path, voice_files: Mapping[str, bytes]
) -> None:
    rvc_files.save_index(folder.parent / "trained_IVF4.index", count=0, train=200)
    trained = (folder.parent / "trained_IVF4.index").read_bytes()
    archive = make_zip({"logs/a.pth": voice_files["v2.pth"], "logs/trained_IVF4.index": trained})
    reply = call(models, name="alice", archive=encode_base64(archive))
    assert reply["voice"]["has_index"] is False and reply["voice"]["available"] == "local"
    assert len(reply["warnings"]) == 1 and "'trained_IVF4.index'" in reply["warnings"][0]
    assert reply["voice"]["warnings"] == reply["warnings"]
    assert [path.name for path in (folder / "alice").iterdir()] == ["alice.pth"]


def test_the_state_of_a_training_run_in_an_archive_is_left_out_with_a_warning(
    models: Models, folder: Path, voice_files: Mapping[str, bytes]
) -> None:
    files = {"a/G_2333333.pth": b"state", "a/D_2333333.pth": b"state", "a/model.pth": voice_files["v2.pth"]}
    reply = call(
        models, name="alice", archive=encode_base64(make_zip(files | {"a/added_x.index": voice_files["v2.index"]}))
    )
    assert reply["voice"]["has_index"] is True
    assert "'G_2333333.pth', 'D_2333333.pth'" in reply["warnings"][0]
    assert (folder / "alice" / "alice.pth").read_bytes() == voice_files["v2.pth"]


def test_a_voice_with_a_wrong_label_is_installed_with_a_warning(models: Models) -> None:
    file = io.BytesIO()
    torch.save(rvc_files.make_content() | {"version": "v1"}, file)
    reply = call(models, name="alice", checkpoint=encode_base64(file.getvalue()))
    assert reply["voice"]["version"] == "v2" and "it is run as v2" in reply["warnings"][0]


PARTS = ["a", "..", ".", "", "__MACOSX", "C:", "x.pth", "y.index", "z.zip"]
NAMES = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4)


@effort(max_examples=200, deadline=None)
@given(st.lists(NAMES.map("/".join) | NAMES.map("\\".join) | st.text(min_size=1, max_size=9), max_size=4, unique=True))
def test_any_names_in_an_archive_are_accepted_or_refused(names: list[str]) -> None:
    entries = [Entry(name, 0, 10, 10, 0, 0, 0, 0, encrypted=False) for name in names]
    try:
        chosen, selected = install._choose_entries(entries)
    except ArchiveError as error:
        assert str(error)
    else:
        assert 1 <= len(chosen) <= 2 and len(selected.checkpoints) == 1


@pytest.mark.parametrize(
    ("checkpoint", "index", "code"),
    [
        (b"no model", None, "broken_checkpoint"),
        (voice_with_code(), None, "broken_checkpoint"),
        ("v1.pth", "v2.index", "broken_checkpoint"),
        ("v2.pth", "v1.index", "broken_checkpoint"),
        ("v2.pth", b"no index", "broken_checkpoint"),
        ("v2.index", "v2.pth", "broken_checkpoint"),
    ],
)
@pytest.mark.parametrize("as_zip", [True, False])
def test_broken_files_are_never_installed(  # noqa: PLR0913
    models: Models, folder: Path, voice_files: Mapping[str, bytes], checkpoint: Any, index: Any, code: str,
    as_zip: bool, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    files = {
        suffix: voice_files[given] if isinstance(given, str) else given
        for suffix, given in (("pth", checkpoint), ("index", index))
        if given is not None
    }
    params: dict[str, Any] = {"checkpoint": encode_base64(files["pth"])} | (
        {"index": encode_base64(files["index"])} if index else {}
    )
    if as_zip:
        params = {"archive": encode_base64(make_zip({f"a.{suffix}": data for suffix, data in files.items()}))}
    assert catch_error(models, name="alice", **params).error_code == code
    assert list(folder.iterdir()) == [] and "I was run" not in capfd.readouterr().out


def test_an_existing_voice_is_replaced_only_on_request(
    models: Models, folder: Path, voice_files: Mapping[str, bytes]
) -> None:
    call(
        models,
        name="alice",
        checkpoint=encode_base64(voice_files["v2.pth"]),
        index=encode_base64(voice_files["v2.index"]),
    )
    error = catch_error(models, name="alice", checkpoint=encode_base64(voice_files["v1.pth"]))
    assert isinstance(error, InvalidRequestError) and error.error_code == "voice_exists"
    assert list_as_json(models.families.voices)[0]["version"] == "v2"
    row = call(models, name="alice", checkpoint=encode_base64(voice_files["v1.pth"]), replace=True)["voice"]
    assert (row["version"], row["has_index"]) == ("v1", False)
    assert [path.name for path in folder.iterdir()] == ["alice"]
    assert [path.name for path in (folder / "alice").iterdir()] == ["alice.pth"]


def test_a_broken_replacement_leaves_the_voice_unchanged(
    models: Models, folder: Path, voice_files: Mapping[str, bytes]
) -> None:
    call(models, name="alice", checkpoint=encode_base64(voice_files["v2.pth"]))
    catch_error(models, name="alice", checkpoint=encode_base64(b"no model"), replace=True)
    assert (folder / "alice" / "alice.pth").read_bytes() == voice_files["v2.pth"]
    assert [path.name for path in folder.iterdir()] == ["alice"]


def test_a_voice_file_and_a_link_are_replaced(
    models: Models, folder: Path, voice_files: Mapping[str, bytes], tmp_path: Path
) -> None:
    (folder / "loose.pth").write_bytes(voice_files["v2.pth"])
    catch_error(models, name="loose", checkpoint=encode_base64(voice_files["v1.pth"]))
    assert (
        call(models, name="loose", checkpoint=encode_base64(voice_files["v1.pth"]), replace=True)["voice"]["version"]
        == "v1"
    )
    outside = rvc_files.save_voice(tmp_path / "outside", "alice").parent
    (folder / "alice").symlink_to(outside)
    catch_error(models, name="alice", checkpoint=encode_base64(voice_files["v1.pth"]))
    assert (
        call(models, name="alice", checkpoint=encode_base64(voice_files["v1.pth"]), replace=True)["voice"]["version"]
        == "v1"
    )
    assert len(list(outside.iterdir())) == 2 and not (folder / "alice").is_symlink()


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_the_exchange_in_two_steps_does_the_same(tmp_path: Path, kind: str) -> None:
    new, target, outside = tmp_path / "staging" / "new", tmp_path / "voice", tmp_path / "outside"
    for path in (new, outside):
        path.mkdir(parents=True)
    (new / "file").write_text("new")
    if kind == "folder":
        target.mkdir()
        (target / "file").write_text("old")
    elif kind == "link":
        target.symlink_to(outside)
    else:
        target.write_text("old")
    install._exchange_in_steps(new, target)
    assert (target / "file").read_text() == "new" and not new.exists()


def test_the_exchange_in_two_steps_is_undone_if_it_fails(tmp_path: Path) -> None:
    staging, target = tmp_path / "staging", tmp_path / "voice"
    staging.mkdir()
    target.mkdir()
    with pytest.raises(FileNotFoundError):
        install._exchange_in_steps(staging / "new", target)
    assert target.is_dir() and list(staging.iterdir()) == []


def test_readers_always_find_a_whole_voice_while_it_is_replaced(
    models: Models, folder: Path, voice_files: Mapping[str, bytes]
) -> None:
    call(models, name="alice", checkpoint=encode_base64(voice_files["v2.pth"]))
    done = threading.Event()

    def read() -> int:
        count = 0
        while not done.is_set():
            Voices([folder]).find("alice")
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        reads = pool.submit(read)
        try:
            for number in range(10):
                call(
                    models, name="alice", checkpoint=encode_base64(voice_files[f"v{number % 2 + 1}.pth"]), replace=True
                )
        finally:
            done.set()
        assert reads.result() > 0


def test_a_reader_never_sees_a_voice_half_deleted_however_often_it_is_replaced(folder: Path, tmp_path: Path) -> None:
    """The folder that was listed may be the one that another just took the place of."""
    rvc_files.save(folder / "alice" / "alice.pth", rvc_files.make_content())
    done = threading.Event()

    def replace() -> None:
        try:
            for number in range(400):
                new = tmp_path / f"new-{number}"
                shutil.copytree(folder / "alice", new)
                install._exchange(new, folder / "alice")
                shutil.rmtree(new)
        finally:
            done.set()

    with ThreadPoolExecutor(1) as pool:
        replaced = pool.submit(replace)
        voices = Voices([folder])
        while not done.is_set():
            assert voices.find("alice").version == "v2"
            assert [voice.availability for voice in voices.list_voices()] == [LOCAL]
        replaced.result()


def test_one_of_two_simultaneous_uploads_of_a_voice_succeeds(
    models: Models, folder: Path, voice_files: Mapping[str, bytes]
) -> None:
    start = threading.Barrier(2)

    def add(_: int) -> str:
        start.wait()
        try:
            call(models, name="alice", checkpoint=encode_base64(voice_files["v2.pth"]))
        except InvalidRequestError as error:
            return error.error_code
        return "added"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(add, range(2))) == ["added", "voice_exists"]
    assert [path.name for path in folder.iterdir()] == ["alice"]


def test_a_cancelled_job_leaves_no_files(models: Models, folder: Path, voice_files: Mapping[str, bytes]) -> None:
    def cancel() -> None:
        raise CancelledError("The job was cancelled.")

    with pytest.raises(CancelledError):
        models.families.voices.install("alice", checkpoint=io.BytesIO(voice_files["v2.pth"]), check=cancel)
    assert list(folder.iterdir()) == []


def test_files_of_a_killed_worker_are_removed_later(
    models: Models, folder: Path, voice_files: Mapping[str, bytes]
) -> None:
    for name, age in (("old", 2 * install._ABANDONED_S), ("young", 0.0)):
        left = folder / f"{install._STAGING}{name}"
        left.mkdir()
        changed = left.stat().st_mtime - age
        os.utime(left, (changed, changed))
    call(models, name="alice", checkpoint=encode_base64(voice_files["v2.pth"]))
    assert sorted(path.name for path in folder.iterdir()) == [f"{install._STAGING}young", "alice"]
    assert [voice.availability for voice in models.families.voices.list_models()] == [LOCAL]


def test_the_folder_of_voices_is_created_if_it_is_missing(tmp_path: Path, voice_files: Mapping[str, bytes]) -> None:
    models = registry.build(device="cpu", voices_dir=tmp_path / "voices", voice_uploads=True)
    assert call(models, name="alice", checkpoint=encode_base64(voice_files["v2.pth"]))["voice"]["available"] == "local"
    nowhere = registry.build(device="cpu", voices_dir=tmp_path / "no" / "where", voice_uploads=True)
    error = catch_error(nowhere, name="alice", checkpoint=encode_base64(voice_files["v2.pth"]))
    assert "RVC_MODELS_DIR" in error.message


def test_a_folder_of_voices_that_is_a_file_is_reported(tmp_path: Path, voice_files: Mapping[str, bytes]) -> None:
    (tmp_path / "voices").write_text("no folder")
    models = registry.build(device="cpu", voices_dir=tmp_path / "voices", voice_uploads=True)
    with pytest.raises(ModelError) as caught:
        call(models, name="alice", checkpoint=encode_base64(voice_files["v2.pth"]))
    assert caught.value.error_code == "voice_folder_unavailable" and str(tmp_path) not in caught.value.message


def test_a_replaced_voice_is_not_used_from_the_cache(
    folder: Path, models: Models, voice_files: Mapping[str, bytes]
) -> None:
    family = models.families.voices
    call(models, name="alice", checkpoint=encode_base64(voice_files["v2.pth"]))
    before = family.version_key("alice")
    assert family.version_key("alice") == before
    call(models, name="alice", checkpoint=encode_base64(voice_files["v2.pth"]), replace=True)
    assert family.version_key("alice") != before
    shutil.rmtree(folder / "alice")
    assert family.version_key("alice") == ()
