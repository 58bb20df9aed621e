"""health_check and list_models: what the worker tells of itself, from fakes and from the real registry."""

from __future__ import annotations

import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import Models
from models.device import GIBIBYTE, Gpu
from models.registry import build, catalog_rows, find_weights
from operations import health_check, list_models
from operations.operation import load_operations
from testing.repository import ROOT
from worker.job import Job


@dataclass
class FakeFamily:
    name: str
    listed: list[dict[str, Any]] = field(default_factory=list)
    word: str = "ready"

    def rows(self) -> list[dict[str, Any]]:
        return self.listed

    def status(self) -> str:
        return self.word

    def search_paths(self) -> list[str]:
        return ["/shelf", f"/{self.name}"]

    def resolve(self, name: str | None, *, conditioning: str = "text") -> str:
        return name or "default"

    def memory_bytes(self, name: str) -> int:
        return 1

    def load(self, name: str, *, device: str) -> str:
        return name


def worker(gpu: Gpu | None = None, **words: str) -> Models:
    names = ("musicgen", "demucs", "rvc", "suno")
    families = {name: FakeFamily(name, [{"name": f"{name}-1"}], words.get(name, "ready")) for name in names}
    return Models(families, device="auto", budget_bytes=10, gpu_finder=lambda: gpu)


def health(models: Models) -> dict[str, Any]:
    return dict(health_check.run(health_check.Params(), Job(id="test"), models).fields)


def test_a_sound_worker_is_healthy_and_tells_what_is_loaded() -> None:
    models = worker()
    models.preload(["demucs/htdemucs"])
    told = health(models)
    assert told["status"] == "healthy"
    assert told["operations"]["generate_music"] == "ready" and set(told["operations"]) == set(load_operations())
    assert told["loaded_models"] == ["demucs/htdemucs"] and told["available_models"] == ["rvc-1"]
    assert told["device"] in ("cpu", "mps") and told["gpu"] is None and told["gpu_available"] is False
    assert told["uptime_s"] >= 0


def test_a_worker_without_music_is_degraded_and_says_why() -> None:
    told = health(worker(musicgen="no model here"))
    assert told["status"] == "degraded" and told["operations"]["generate_music"] == "no model here"


def test_the_gpu_is_told_with_its_memory() -> None:
    told = health(worker(Gpu("A card", 24 * GIBIBYTE, 6 * GIBIBYTE)))
    assert told["device"] == "cuda" and told["gpu"] == {"name": "A card", "total_gb": 24.0, "free_gb": 6.0}


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert health(worker())["version"] == project["version"]


def test_health_is_answered_while_a_model_is_at_work() -> None:
    models = worker()
    told = models.run("musicgen", "x", lambda engine: health(models))
    assert told["loaded_models"] == ["musicgen/x"]


def test_lists_show_every_familys_rows_and_each_path_once() -> None:
    told = dict(list_models.run(list_models.Params.parse({}), Job(id="test"), worker()).fields)
    assert told["models"] == ["rvc-1"] and told["count"] == 1
    assert [told[key] for key in ("voices", "music", "separation", "suno")] == [
        [{"name": f"{name}-1"}] for name in ("rvc", "musicgen", "demucs", "suno")
    ]
    assert told["search_paths"] == ["/shelf", "/musicgen", "/demucs", "/rvc", "/suno"]
    assert "schemas" not in told


def test_lists_answer_for_families_that_are_not_built_in() -> None:
    told = dict(list_models.run(list_models.Params.parse({}), Job(id="test"), Models({})).fields)
    assert told["models"] == told["voices"] == told["music"] == told["separation"] == told["suno"] == []


def test_schemas_of_every_operation_come_when_asked_for() -> None:
    told = dict(list_models.run(list_models.Params.parse({"schemas": True}), Job(id="test"), worker()).fields)
    assert set(told["schemas"]) == set(load_operations())
    assert told["schemas"]["generate_music"]["properties"]["duration"]["maximum"] == 600


def test_the_registry_builds_without_looking_at_anything(tmp_path: Path) -> None:
    started = time.process_time()
    models = build(models_dir=tmp_path / "absent", volume_dirs=(tmp_path / "volume",))
    assert "musicgen" in models.families and models.loaded() == []
    assert time.process_time() - started < 5


def test_weights_are_looked_for_below_models_dir_first_and_in_the_platforms_cache(tmp_path: Path) -> None:
    paths = find_weights(models_dir=tmp_path / "mine", volume_dirs=(tmp_path / "volume",)).search_paths()
    volume = tmp_path / "volume"
    order = (tmp_path / "mine", volume / "huggingface-cache" / "hub", volume / "models")
    assert [paths.index(str(place)) for place in order] == sorted(paths.index(str(place)) for place in order)
    assert paths[0] == str(tmp_path / "mine") and paths[-1] == str(ROOT / "weights")


def test_the_readmes_table_has_a_line_for_every_published_model() -> None:
    rows = {row["name"]: row for row in catalog_rows()}
    assert rows["small"]["licence"] == "CC-BY-NC 4.0" and rows["small"]["engine"] == "generate_music"
    assert "stereo" in rows["stereo-large"]["about"] and "not run" in rows["style"]["about"]
