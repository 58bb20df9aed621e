"""health_check and list_models, with stub families and with the real registry."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PosixPath
from typing import Any

import pytest

from models import Models
from models.checkpoints.locations import WeightLocations
from models.cuda_driver import find_cuda_driver
from models.demucs import DemucsFamily
from models.demucs.engine import DemucsSeparator
from models.device import GIBIBYTE, Gpu
from models.f0 import PitchFamily
from models.family import LOCAL, READY, Readiness, unavailable
from models.hubert.family import HubertFamily
from models.musicgen.family import MusicGenFamily, MusicModelInfo
from models.registry import build, find_weights, list_published_models
from models.runtime.progress import UNATTENDED, Observer
from models.rvc import RvcFamily, Voices
from models.rvc.voices import Voice, VoiceInfo
from models.separation import SeparationModelInfo, Separator
from models.separation_models import SeparationModels
from operations import health_check, list_models
from operations.operation import load_operations
from testing.dispatch import answer
from testing.models import empty_families, make_models
from testing.repository import ROOT
from worker.job import Job
from worker.settings import Settings

WEIGHTS = WeightLocations(folders=(Path("/weights"),))


def voice_info(name: str, *, usable: bool = True) -> VoiceInfo:
    if not usable:
        return VoiceInfo(name=name, availability=unavailable("the checkpoint is broken"))
    return VoiceInfo.of(Voice(name, Path("a.pth"), None, "v2", 40_000, f0=True, size=7))


class StubMusic(MusicGenFamily):
    def __init__(self, readiness: Readiness) -> None:
        super().__init__(WEIGHTS)
        self._readiness = readiness

    def readiness(self) -> Readiness:
        return self._readiness

    def list_models(self) -> list[MusicModelInfo]:
        return [MusicModelInfo(name="music-1", availability=LOCAL, family="musicgen", licence="MIT")]


class StubSeparation(DemucsFamily):
    def __init__(self) -> None:
        super().__init__(WEIGHTS)

    def readiness(self) -> Readiness:
        return READY

    def list_models(self) -> list[SeparationModelInfo]:
        return [SeparationModelInfo(name="separation-1", availability=LOCAL)]

    def describe(self, name: str) -> SeparationModelInfo:
        return SeparationModelInfo(name=name, availability=LOCAL)

    def memory_bytes(self, name: str) -> int:
        return 1

    def engine_bytes(self, engine: Separator) -> int:
        return 1

    def load(self, name: str, *, device: str) -> DemucsSeparator:
        return DemucsSeparator.__new__(DemucsSeparator)

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        """Everything is here."""

    def warm_up(self, engine: Separator) -> None:
        """There is nothing to run."""


class StubVoices(RvcFamily):
    def __init__(self) -> None:
        super().__init__(Voices([Path("/voices")]))

    def list_models(self) -> list[VoiceInfo]:
        return [voice_info("broken", usable=False), voice_info("voice-1")]


def worker(gpu: Gpu | None = None, *, music: Readiness = READY) -> Models:
    families = replace(
        empty_families(), music=StubMusic(music), separation=SeparationModels([StubSeparation()]), voices=StubVoices()
    )
    return Models(families, device="auto", budget_bytes=10, gpu_finder=lambda: gpu)


def health(models: Models) -> dict[str, Any]:
    return dict(health_check.run(None, Job(id="test"), models).fields)


def lists(models: Models, **params: Any) -> dict[str, Any]:
    return dict(list_models.run(list_models.Params.parse(params), Job(id="test"), models).fields)


def test_a_healthy_worker_reports_what_is_loaded() -> None:
    models = worker()
    models.preload("demucs/htdemucs")
    reply = health(models)
    assert reply["status"] == "healthy"
    assert reply["operations"]["generate_music"] == "ready" and set(reply["operations"]) == set(load_operations())
    assert reply["loaded_models"] == ["demucs/htdemucs"] and reply["available_models"] == ["voice-1"]
    assert reply["device"] in ("cpu", "mps") and reply["gpu"] is None and reply["gpu_available"] is False
    assert reply["uptime_s"] >= 0


def test_a_worker_without_music_is_degraded_and_says_why() -> None:
    reply = health(worker(music=Readiness("no model here")))
    assert reply["status"] == "degraded" and reply["operations"]["generate_music"] == "no model here"


def test_checks_name_what_is_missing_and_a_missing_volume_degrades_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(volume_dirs=(tmp_path / "absent",), output_dir=tmp_path / "file" / "out", device="cpu")
    reply = dict(health_check.run(None, Job(id="test", settings=settings), worker()).fields)
    assert reply["checks"]["volume"] == "no volume is mounted" and reply["status"] == "healthy"
    assert "OUTPUT_DIR cannot be written" in reply["checks"]["output_folder"]
    assert reply["checks"]["device"] == reply["checks"]["temporary_folder"] == "ready"


def test_folders_that_can_be_written_are_ready(tmp_path: Path) -> None:
    settings = Settings(volume_dirs=(tmp_path,), output_dir=tmp_path / "new" / "out")
    checks = dict(health_check.run(None, Job(id="test", settings=settings), worker()).fields)["checks"]
    assert checks["volume"] == checks["output_folder"] == "ready"


def test_a_device_that_is_required_and_not_there_degrades_the_worker() -> None:
    if find_cuda_driver() is not None:
        pytest.skip("this machine has a CUDA driver")
    reply = dict(health_check.run(None, Job(id="test", settings=Settings(device="cuda")), worker()).fields)
    assert reply["status"] == "degraded" and "no NVIDIA GPU" in reply["checks"]["device"]


def test_the_dispatcher_hands_the_settings_to_health_check(tmp_path: Path) -> None:
    settings = Settings(volume_dirs=(tmp_path,), device="cpu")
    reply = answer({"input": {"operation": "health_check"}}, settings=settings, models=worker())
    assert reply["checks"]["volume"] == "ready"


def test_a_worker_without_demucs_is_healthy_and_says_what_is_missing() -> None:
    """Covers from separate audio, and music, need no separation."""
    reply = health(
        Models(replace(worker().families, separation=SeparationModels([DemucsFamily(WeightLocations())])), device="cpu")
    )
    assert reply["status"] == "healthy" and "no model that can be used is here" in reply["operations"]["separate"]


def test_the_gpu_is_reported_with_its_memory() -> None:
    reply = health(worker(Gpu("A card", 24 * GIBIBYTE, 6 * GIBIBYTE)))
    assert reply["device"] == "cuda" and reply["gpu"] == {"name": "A card", "total_gb": 24.0, "free_gb": 6.0}


def test_the_version_is_the_one_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert health(worker())["version"] == project["version"]


def test_health_is_reported_while_a_model_runs() -> None:
    models = worker()
    reply = models.run(models.families.separation.resolve(None), lambda engine: health(models))
    assert reply["loaded_models"] == ["demucs/htdemucs"]


def test_every_family_has_its_list_and_each_search_path_is_listed_once() -> None:
    reply = lists(worker())
    assert reply["models"] == ["voice-1"] and reply["count"] == 1
    assert reply["voices"] == [
        {"name": "broken", "available": "the checkpoint is broken"},
        {"name": "voice-1", "version": "v2", "sample_rate": 40_000, "f0": True, "has_index": False, "size": 7}
        | {"available": "local"},
    ]
    assert [row["name"] for row in reply["separation"]] == ["separation-1"]
    assert [row["name"] for row in reply["music"] if row["family"] == "musicgen"] == ["music-1"]
    assert "acestep-v15-turbo" in [row["name"] for row in reply["music"]]
    assert "acestep-5Hz-lm-0.6B" in [row["name"] for row in reply["planners"]]
    assert {row["available"] for row in reply["suno"]} == {"SUNO_API_TOKEN is not set"}
    assert reply["search_paths"] == ["/weights", "/voices"]
    assert "schemas" not in reply


def test_the_lists_of_an_empty_worker_say_that_nothing_can_be_used() -> None:
    reply = lists(make_models())
    assert reply["models"] == reply["voices"] == [] and reply["count"] == 0
    assert not {row["available"] for row in reply["music"] + reply["separation"]} & {"local", "download", "remote"}


def test_schemas_of_every_operation_are_added_on_request() -> None:
    reply = lists(worker(), schemas=True)
    assert set(reply["schemas"]) == set(load_operations())
    assert reply["schemas"]["generate_music"]["properties"]["duration"]["anyOf"][0]["maximum"] == 600


class UnusedPath(PosixPath):
    """A path that no function of the operating system may be called with."""

    def __fspath__(self) -> str:
        raise AssertionError(f"{self} was used")


def test_the_registry_builds_without_reading_any_folder(tmp_path: Path) -> None:
    folder = UnusedPath(tmp_path)
    with pytest.raises(AssertionError):
        (folder / "volume").exists()
    models = build(models_dir=folder / "models", volume_dirs=(folder / "volume",), voices_dir=folder / "voices")
    assert [family.name for family in models.families] == [
        "suno",
        "musicgen",
        "acestep",
        "acestep_planner",
        "demucs",
        "roformer",
        "rvc",
        "hubert",
        "f0",
        "encodec",
        "beat_this",
    ]
    assert models.list_loaded() == []


def test_models_dir_is_searched_first_and_the_platforms_cache_before_volumes(tmp_path: Path) -> None:
    paths = find_weights(models_dir=tmp_path / "mine", volume_dirs=(tmp_path / "volume",)).search_paths()
    volume = tmp_path / "volume"
    order = (tmp_path / "mine", volume / "huggingface-cache" / "hub", volume / "models")
    assert [paths.index(str(place)) for place in order] == sorted(paths.index(str(place)) for place in order)
    assert paths[0] == str(tmp_path / "mine") and paths[-1] == str(ROOT / "weights")


def test_the_table_of_models_has_a_row_for_every_published_model() -> None:
    rows = {row["name"]: row for row in list_published_models()}
    assert rows["small"]["licence"] == "CC-BY-NC 4.0" and rows["small"]["engine"] == "generate_music"
    assert "stereo" in rows["stereo-large"]["about"] and "not run" in rows["style"]["about"]


class NoHub:
    """A hub that must not be asked."""

    def fetch(self, hub_id: str, files: Sequence[str], observer: Observer = UNATTENDED) -> Path:
        raise AssertionError(f"{hub_id} was fetched")


def test_list_models_tells_about_how_many_bytes_the_first_use_downloads() -> None:
    weights = WeightLocations(hub=NoHub())
    families = replace(
        empty_families(),
        music=MusicGenFamily(weights),
        separation=SeparationModels([DemucsFamily(weights)]),
        content_encoders=HubertFamily(weights),
        f0=PitchFamily(weights),
    )
    reply = lists(Models(families))
    rows = {
        row["name"]: row for field in ("music", "separation", "content_encoders", "f0_methods") for row in reply[field]
    }
    assert rows["large"]["download_bytes"] == pytest.approx(6.5e9 + 0.89e9 + 0.24e9, rel=0.01)
    assert "download_bytes" not in rows["style"]
    assert rows["htdemucs"]["download_bytes"] == pytest.approx(84_025_440, rel=0.01)
    assert rows["contentvec"]["download_bytes"] == pytest.approx(378e6, rel=0.01)
    assert rows["rmvpe"]["download_bytes"] == 181_184_272
    assert "download_bytes" not in rows["harvest"]
    offline = lists(Models(empty_families()))
    assert not [row for row in offline["music"] + offline["separation"] if "download_bytes" in row]
