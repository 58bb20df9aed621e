"""The family `beat_this`: how its files are found, which model is the best, what is said of those that are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from errors import ErrorCode, ModelError, UnknownNameError
from models.beat_this import BeatThisFamily
from models.beat_this.catalog import CATALOG
from models.checkpoints.locations import WeightLocations
from testing.tiny_beat_this import make_state, write_checkpoint


def make_family(folder: Path, *, on_gpu: bool = False) -> BeatThisFamily:
    return BeatThisFamily(
        WeightLocations(explicit=folder / "models"), torch_cache=folder / "torch", on_gpu=lambda: on_gpu
    )


@pytest.mark.parametrize(
    "place",
    [
        "models/final0.ckpt",
        "models/beat_this/final0.ckpt",
        "models/beat_this-final0.ckpt",
        "torch/beat_this-final0.ckpt",
    ],
)
def test_a_file_is_found_and_loaded(place: str, tmp_path: Path) -> None:
    family = make_family(tmp_path)
    assert not family.readiness().is_ready and family.find_best() is None
    write_checkpoint(tmp_path / place, make_state())
    best = family.find_best()
    assert best is not None and best.name == "final0" and family.readiness().is_ready
    assert [info.name for info in family.list_models() if info.availability.is_usable] == ["final0"]
    tracker = family.load("final0", device="cpu")
    assert family.engine_bytes(tracker) == tracker.memory_bytes > 100_000
    family.warm_up(tracker)


def test_a_cpu_takes_a_small_model_first_and_a_gpu_a_large_one(tmp_path: Path) -> None:
    for name in ("final1", "small2", "small1"):
        write_checkpoint(tmp_path / "models" / f"{name}.ckpt", make_state())
    on_cpu, on_gpu = (make_family(tmp_path, on_gpu=on_gpu).resolve(None).name for on_gpu in (False, True))
    assert (on_cpu, on_gpu) == ("small1", "final1")


def test_a_missing_model_is_named_with_what_to_do(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    for name in (None, "small0"):
        with pytest.raises(ModelError, match="put .*\\.ckpt .* into MODELS_DIR") as raised:
            family.resolve(name)
        assert raised.value.error_code == ErrorCode.MODEL_UNAVAILABLE
    with pytest.raises(UnknownNameError, match="small0"):
        family.resolve("smal0")
    assert {info.to_json()["licence"] for info in family.list_models()} == {"MIT"} and len(CATALOG) == 6


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "models" / "final0.ckpt"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ModelError, match="final0") as raised:
        make_family(tmp_path).load("final0", device="cpu")
    assert raised.value.error_code == ErrorCode.BROKEN_CHECKPOINT


def test_a_file_that_is_replaced_has_another_version(tmp_path: Path) -> None:
    family, path = make_family(tmp_path), tmp_path / "models" / "final0.ckpt"
    write_checkpoint(path, make_state())
    before = family.version_key("final0")
    path.unlink()
    write_checkpoint(path, make_state(depth=2))
    assert family.version_key("final0") != before
