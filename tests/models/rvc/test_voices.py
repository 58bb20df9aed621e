"""Voices are found by rescanning: what counts as a voice, how it is described, how a broken one is reported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from errors import InvalidRequestError, ModelError, UnknownNameError
from models import Models, registry
from models.family import ModelHandle
from models.rvc import RvcFamily, Voices
from operations.build_models import models_for
from testing import rvc_files
from testing.dispatch import answer
from testing.models import make_models
from testing.processes import build_environment
from testing.repository import ROOT
from worker.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "rvc_models"
    path.mkdir()
    return path


def list_rows(voices: Voices) -> list[dict[str, Any]]:
    return [voice.to_json() for voice in voices.list_voices()]


def write_file(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_voice_is_a_folder_with_a_checkpoint_and_perhaps_an_index(folder: Path) -> None:
    rvc_files.save_voice(folder, "Alice (v2)")
    rvc_files.save_voice(folder, "bob", version="v1", f0=False, index=False)
    voices = Voices([folder])
    assert voices.names() == ["Alice (v2)", "bob"]
    alice, bob = list_rows(voices)
    assert rvc_files.drop_keys(alice, "size") == {
        "name": "Alice (v2)",
        "version": "v2",
        "sample_rate": 40_000,
        "f0": True,
        "has_index": True,
        "available": "local",
    }
    assert alice["size"] == sum(file.stat().st_size for file in (folder / "Alice (v2)").iterdir())
    assert (bob["version"], bob["f0"], bob["has_index"]) == ("v1", False, False)
    found = voices.find("Alice (v2)")
    assert found.checkpoint == folder / "Alice (v2)" / "model.pth" and found.index is not None


def test_a_voice_that_comes_or_goes_is_found_at_the_next_scan(folder: Path) -> None:
    voices = Voices([folder])
    assert voices.list_voices() == []
    rvc_files.save_voice(folder, "alice")
    assert voices.names() == ["alice"] and voices.find("alice").f0
    rvc_files.save_voice(folder, "alice", f0=False)
    assert not voices.find("alice").f0
    shutil.rmtree(folder / "alice")
    assert voices.names() == []


def test_a_file_is_read_again_only_if_it_has_changed(folder: Path) -> None:
    path = rvc_files.save_voice(folder, "alice")
    voices = Voices([folder])
    first = voices.list_voices()
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert voices.list_voices() == first, "the same name, time and size: not opened again"
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert "cannot be used" in list_rows(voices)[0]["available"]


def test_the_first_folder_that_exists_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    rvc_files.save_voice(second, "bob")
    voices = Voices([first, second])
    assert voices.folder == second and voices.names() == ["bob"]
    rvc_files.save_voice(first, "alice")
    assert voices.folder == first and voices.names() == ["alice"]
    assert Voices([]).names() == [] and Voices([]).folder is None


def test_loose_checkpoints_are_voices_too_and_a_folder_comes_before_one(folder: Path) -> None:
    rvc_files.save(folder / "carol.pth", rvc_files.make_content("v1"))
    rvc_files.save_index(folder / "carol.index", width=256)
    rvc_files.save_index(folder / "other.index", width=256)
    rvc_files.save(folder / "alice.pth", rvc_files.make_content("v1"))
    rvc_files.save_voice(folder, "alice")
    voices = Voices([folder])
    assert voices.names() == ["alice", "carol"]
    assert voices.find("alice").version == "v2"
    assert voices.find("carol").index == folder / "carol.index"


def test_hidden_files_and_what_archives_leave_are_no_voices(folder: Path) -> None:
    rvc_files.save_voice(folder, "alice")
    for name in (".hidden", "__MACOSX", "with\nline", " blank", "x" * 200):
        rvc_files.save_voice(folder, name, index=False)
    write_file(folder / "alice" / "._model.pth")
    write_file(folder / "alice" / "notes.txt")
    write_file(folder / "readme.md")
    assert Voices([folder]).names() == ["alice"] and Voices([folder]).find("alice")


def test_links_that_lead_out_are_not_followed(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    rvc_files.save_voice(outside, "secret")
    (folder / "linked").symlink_to(outside / "secret")
    (folder / "loose.pth").symlink_to(outside / "secret" / "model.pth")
    (folder / "half").mkdir()
    (folder / "half" / "model.pth").symlink_to(outside / "secret" / "model.pth")
    (folder / "loop").symlink_to(folder / "loop")
    rvc_files.save_voice(folder, "alice")
    (folder / "alias").symlink_to(folder / "alice")
    voices = Voices([folder])
    assert voices.names() == ["alias", "alice"]
    with pytest.raises(ModelError, match="No model file exists"):
        voices.find("half")


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    rvc_files.save_voice(folder, "alice")
    (tmp_path / "link").symlink_to(folder)
    assert Voices([tmp_path / "link"]).find("alice")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc", "alice/../alice", "alice/model.pth", ".", "..", "", "a" * 999, "\0"]
)
def test_a_name_is_looked_up_and_never_used_as_a_path(folder: Path, name: str) -> None:
    rvc_files.save_voice(folder, "alice")
    rvc_files.save_voice(folder.parent, "secret")
    with pytest.raises(UnknownNameError) as caught:
        Voices([folder]).find(name)
    assert caught.value.message.startswith("Voice model not found: '")
    assert caught.value.error_code == "voice_not_found" and len(caught.value.message) < 300


def test_an_unknown_voice_is_reported_with_the_nearest_and_every_name(folder: Path) -> None:
    for name in ("alice", "bob"):
        rvc_files.save_voice(folder, name, index=False)
    with pytest.raises(UnknownNameError) as caught:
        Voices([folder]).find("Alise")
    message = "Voice model not found: 'Alise'. Did you mean 'alice'? Voices here: alice, bob."
    assert caught.value.message == message and caught.value.details["valid"] == ["alice", "bob"]


def test_the_error_names_only_folders_that_hold_a_voice(folder: Path) -> None:
    rvc_files.save_voice(folder, "alice")
    write_file(folder / "broken" / "model.pth", "no model")
    (folder / "empty").mkdir()
    write_file(folder / "notes" / "readme.txt")
    with pytest.raises(UnknownNameError, match=r"Voices here: alice, broken\.$") as caught:
        Voices([folder]).find("bob")
    assert caught.value.details["valid"] == ["alice", "broken"]
    assert [row["name"] for row in list_rows(Voices([folder]))] == ["alice", "broken", "empty", "notes"]


def test_without_any_voice_the_error_says_where_to_put_one(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"^Voice model not found: 'x'\. There are none here.*RVC_MODELS_DIR"):
        Voices([folder]).find("x")


def test_the_error_names_at_most_fifty_voices(folder: Path) -> None:
    for number in range(100):
        write_file(folder / f"voice {number}" / "model.pth")
    with pytest.raises(UnknownNameError, match="and 50 more"):
        Voices([folder]).find("x")


@pytest.mark.parametrize("inside", [(), ("notes.txt",), ("inner/model.pth",), ("model.index",), ("model.pth.zip",)])
def test_a_folder_without_a_checkpoint_is_reported_as_that(folder: Path, inside: tuple[str, ...]) -> None:
    (folder / "empty").mkdir()
    for name in inside:
        write_file(folder / "empty" / name)
    with pytest.raises(ModelError) as caught:
        Voices([folder]).find("empty")
    assert caught.value.message.startswith("No model file exists for 'empty'")
    assert caught.value.error_code == "no_model_file"


@pytest.mark.parametrize("ending", [".pth", ".index"])
def test_two_of_a_kind_in_one_folder_are_reported_by_name(folder: Path, ending: str) -> None:
    rvc_files.save_voice(folder, "alice")
    write_file(folder / "alice" / f"added_other{ending}")
    with pytest.raises(ModelError, match=rf"2 {ending} files \(.*added_other") as caught:
        Voices([folder]).find("alice")
    assert caught.value.error_code == "ambiguous_voice"


def test_the_trained_index_beside_the_added_one_is_left_out(folder: Path) -> None:
    rvc_files.save_voice(folder, "alice")
    write_file(folder / "alice" / "trained_IVF.index")
    voice = Voices([folder]).find("alice")
    assert voice.index is not None and voice.index.name == "added_IVF.index" and voice.warnings == ()


def test_a_trained_index_alone_is_left_out_with_a_warning(folder: Path) -> None:
    rvc_files.save_voice(folder, "alice", index=False)
    rvc_files.save_index(folder / "alice" / "trained_IVF.index", count=0, train=200)
    voice = Voices([folder]).find("alice")
    assert voice.index is None
    assert "'trained_IVF.index'" in voice.warnings[0] and "'added_'" in voice.warnings[0]
    (row,) = list_rows(Voices([folder]))
    assert row["has_index"] is False and row["available"] == "local" and row["warnings"] == list(voice.warnings)
    assert row["size"] == voice.checkpoint.stat().st_size


def test_the_state_of_a_training_run_beside_a_voice_is_left_out_with_a_warning(folder: Path) -> None:
    rvc_files.save_voice(folder, "alice")
    for name in ("G_2333333.pth", "D_2333333.pth", "g_20.PTH"):
        write_file(folder / "alice" / name)
    voice = Voices([folder]).find("alice")
    assert voice.checkpoint.name == "model.pth"
    for name in ("G_2333333.pth", "D_2333333.pth", "g_20.PTH"):
        assert f"'{name}'" in voice.warnings[0]
    assert list_rows(Voices([folder]))[0]["warnings"] == list(voice.warnings)


def test_the_state_of_a_training_run_alone_is_reported_as_that(folder: Path) -> None:
    state = {"model": {}, "iteration": 3, "optimizer": {}, "learning_rate": 1e-4}
    for name in ("G_200.pth", "D_200.pth"):
        rvc_files.save(folder / "alice" / name, state)
    with pytest.raises(ModelError, match="a checkpoint of a training run") as caught:
        Voices([folder]).find("alice")
    assert caught.value.error_code == "broken_checkpoint"


def test_a_wrong_label_is_a_warning_of_the_voice(folder: Path) -> None:
    rvc_files.save_voice(folder, "alice", index=False).unlink()
    rvc_files.save(folder / "alice" / "alice.pth", rvc_files.make_content() | {"version": "v1", "f0": 0})
    voices = Voices([folder])
    assert len(voices.find("alice").warnings) == 2 and voices.find("alice").version == "v2"
    assert len(list_rows(voices)[0]["warnings"]) == 2, "also when the file is not read again"


def test_endings_may_be_in_capitals(folder: Path) -> None:
    path = rvc_files.save_voice(folder, "alice")
    path.rename(path.with_suffix(".PTH"))
    assert Voices([folder]).find("alice").index is not None


def test_a_broken_voice_is_listed_with_the_reason(folder: Path) -> None:
    rvc_files.save_voice(folder, "alice")
    write_file(folder / "broken" / "model.pth", "no model")
    (folder / "empty").mkdir()
    alice, broken, empty = list_rows(Voices([folder]))
    assert alice["available"] == "local"
    assert broken["name"] == "broken" and "'model.pth' cannot be used" in broken["available"]
    assert "No model file exists" in empty["available"]


def test_a_voice_that_is_replaced_thirty_times_while_it_is_read_is_found(folder: Path) -> None:
    """Each reading sees the folder of which another has just taken the place: listed while it is being deleted."""
    rvc_files.save_voice(folder, "alice")
    replacements = 30

    class ReplacedVoices(Voices):
        def _list_files(self, place: Path) -> Any:
            nonlocal replacements
            if not replacements:
                return super()._list_files(place)
            replacements -= 1
            copy = Path(shutil.copytree(place, folder.parent / "copy"))  # with the times of the original
            shutil.rmtree(place)
            files = super()._list_files(place)
            copy.rename(place)
            return files

    assert ReplacedVoices([folder]).find("alice").version == "v2"
    assert replacements == 0


def call(models: Models, operation: str) -> dict[str, Any]:
    return answer({"input": {"operation": operation}}, settings=Settings(), models=models)


def test_list_models_and_health_check_show_the_voices(folder: Path) -> None:
    rvc_files.save_voice(folder, "alice")
    write_file(folder / "broken" / "model.pth", "no model")
    models = registry.build(device="cpu", voices_dir=folder, demo_dir=None)
    listed = call(models, "list_models")
    assert listed["models"] == ["alice"] and listed["count"] == 1
    assert [row["name"] for row in listed["voices"]] == ["alice", "broken"]
    assert str(folder) in listed["search_paths"]
    assert call(models, "health_check")["available_models"] == ["alice"]


def test_the_settings_give_the_folder_of_voices(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    rvc_files.save_voice(volume / "rvc_models", "on-volume")
    rvc_files.save_voice(tmp_path / "mine", "mine")
    on_volume = models_for(Settings(volume_dirs=(tmp_path / "none", volume), demo_models=False))
    assert [voice.name for voice in on_volume.families.voices.list_models()] == ["on-volume"]
    chosen = models_for(Settings(volume_dirs=(volume,), rvc_models_dir=tmp_path / "mine", demo_models=False))
    assert [voice.name for voice in chosen.families.voices.list_models()] == ["mine"]
    default = models_for(Settings(demo_models=False)).families.voices.search_paths()
    assert default == ["/runpod-volume/rvc_models", "/workspace/rvc_models", "rvc_models"]


def test_the_family_resolves_names_and_estimates_memory(folder: Path) -> None:
    path = rvc_files.save_voice(folder, "alice")
    family = RvcFamily(Voices([folder]))
    assert family.resolve("alice").name == "alice" and family.readiness().is_ready
    index = folder / "alice" / "added_IVF.index"
    assert family.memory_bytes("alice") == 2 * path.stat().st_size + index.stat().st_size
    with pytest.raises(InvalidRequestError, match="must be named"):
        family.resolve(None)
    with pytest.raises(UnknownNameError):
        family.resolve("bob")
    assert "no voice is here" in RvcFamily(Voices([folder / "none"])).readiness().reason


LIGHT = """
import sys
from pathlib import Path
from models.rvc import RvcFamily, Voices
family = RvcFamily(Voices([Path(sys.argv[1])]))
assert family.list_models()[0].to_json()["version"] == "v2"
assert family.resolve("alice") and family.readiness().is_ready
family.memory_bytes("alice")
print(*[name for name in ("torch", "faiss", "rvc_python", "transformers") if name in sys.modules])
"""


def test_listing_and_resolving_import_no_torch(folder: Path, tmp_path: Path) -> None:
    rvc_files.save_voice(folder, "alice")
    command = [sys.executable, "-c", LIGHT, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=build_environment(tmp_path), check=True)
    assert run.stdout.split() == []


class ReplacedVoice(RvcFamily):
    """A voice whose files change, as the cache sees it; its engines are the numbers of their loads."""

    def __init__(self) -> None:
        super().__init__(Voices([]))
        self.loads = 0
        self.files = 1

    def handle(self) -> ModelHandle[Any]:
        return ModelHandle(self, "alice")

    def version_key(self, name: str) -> int:
        return self.files

    def memory_bytes(self, name: str) -> int:
        return 1

    def engine_bytes(self, engine: object) -> int:
        return 1

    def load(self, name: str, *, device: str) -> Any:
        self.loads += 1
        return self.loads


def test_an_engine_is_loaded_again_after_its_files_changed() -> None:
    family = ReplacedVoice()
    models, alice = make_models(voices=family, budget_bytes=100), family.handle()
    assert models.run(alice, lambda engine: engine) == 1
    assert models.run(alice, lambda engine: engine) == 1

    def replaced_meanwhile(engine: int) -> tuple[int, int]:
        family.files = 2
        return engine, models.run(alice, lambda newer: newer)

    assert models.run(alice, replaced_meanwhile) == (1, 2)
    assert models.run(alice, lambda engine: engine) == 2
    assert models.list_loaded() == ["rvc/alice"]


@pytest.mark.parametrize(
    ("own", "requested", "chosen"),
    [
        (None, None, None),
        ("spin", None, "spin"),
        ("spin", "contentvec", "contentvec"),
        (None, "unknown", "unknown"),  # which the family of encoders refuses
        ("demo-content-encoder", None, "demo-content-encoder"),
        ("demo-content-encoder", "Demo-Content-Encoder", "Demo-Content-Encoder"),
    ],
)
def test_a_voice_takes_its_own_content_encoder_or_the_requested_one(
    folder: Path, own: str | None, requested: str | None, chosen: str | None
) -> None:
    rvc_files.save_voice(folder, "alice")
    if own:
        write_file(folder / "alice" / "voice.json", f'{{"embedder": "{own}"}}')
    assert Voices([folder]).find("alice").choose_encoder(requested) == chosen


@pytest.mark.parametrize(
    ("own", "requested"),
    [(None, "demo-content-encoder"), ("spin", "demo content encoder"), ("demo-content-encoder", "contentvec")],
)
def test_the_demo_content_encoder_is_for_demo_voices_alone(folder: Path, own: str | None, requested: str) -> None:
    rvc_files.save_voice(folder, "alice")
    if own:
        write_file(folder / "alice" / "voice.json", f'{{"embedder": "{own}"}}')
    with pytest.raises(InvalidRequestError, match="Leave out 'embedder'") as refused:
        Voices([folder]).find("alice").choose_encoder(requested)
    assert refused.value.error_code == "option_unsupported"
