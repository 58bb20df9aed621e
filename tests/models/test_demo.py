"""When each family takes its demo model, and what it says about it, on tiny weights in the layout of demo/weights/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from errors import ModelError
from models import Models
from models.checkpoints.locations import WeightLocations
from models.demo import CATALOG, CONTENT_ENCODER, LICENCE
from models.family import READY, READY_AS_DEMO, ModelFamily, ModelHandle, Readiness, choose_readiness
from models.registry import list_published_models
from models.separation_models import SeparationModels
from testing.fake_hub import FolderHub
from testing.tiny_acestep import write_tiny_acestep
from testing.tiny_demo import VOICE, make_demo_models, write_demos
from testing.tiny_demucs import htdemucs, save_bag
from testing.tiny_musicgen import write_checkpoint
from testing.tiny_roformer import write_roformer
from testing.tiny_rvc import write_voice

NOTHING = Path("no demo")


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demos(tmp_path_factory.mktemp("demo"))


def write_htdemucs(models_dir: Path) -> Path:
    return save_bag(models_dir / "htdemucs", {"tiny": htdemucs()})


@pytest.mark.parametrize(
    ("field", "write", "real", "demo"),
    [
        ("music", lambda root: write_checkpoint(root / "mine"), "mine", "demo"),
        ("songs", lambda root: write_tiny_acestep(root, name="mine", layout="diffusers"), "mine", "demo-acestep"),
        ("separation", write_htdemucs, "htdemucs", "demo-htdemucs"),
    ],
)
def test_a_demo_model_is_the_default_only_without_a_real_one_and_can_always_be_named(  # noqa: PLR0913  (fixtures)
    demos: Path, tmp_path: Path, field: str, write: Callable[[Path], object], real: str, demo: str
) -> None:
    weights = WeightLocations(explicit=tmp_path)
    family: ModelFamily[Any] | SeparationModels = getattr(make_demo_models(demos, weights=weights).families, field)
    assert family.resolve(None).name == demo and family.readiness().to_json() == "ready (demo)"
    write(tmp_path)
    assert family.resolve(None).name == real and family.readiness() == READY
    handle = family.resolve(demo)
    assert handle.name == demo and handle.demo is not None and family.resolve(real).demo is None


def test_every_demo_model_of_the_tiny_set_loads_by_its_familys_own_code(demos: Path) -> None:
    models = make_demo_models(demos)
    families = models.families
    for family, name in (
        (families.music, "demo"),
        (families.songs, "demo-acestep"),
        (families.separation, "demo-htdemucs"),
        (families.separation, "demo-mel-band-roformer"),
        (families.separation, "demo-karaoke"),
        (families.voices, VOICE),
        (families.content_encoders, CONTENT_ENCODER),
    ):
        handle: ModelHandle[Any] = family.resolve(name)
        assert models.run(handle, lambda engine: engine is not None)
    assert len(models.list_loaded()) == 7


class RecordingObserver:
    """Keeps the warnings that a job would get."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def check(self) -> None: ...

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)

    def report_download(self, model: str, done_bytes: int, total_bytes: int) -> None: ...


def run_and_list_warnings(models: Models, handle: ModelHandle[Any]) -> list[str]:
    observer = RecordingObserver()
    models.run(handle, lambda engine: None, observer=observer)
    return observer.warnings


def test_running_a_demo_model_warns_the_job_and_running_a_real_one_does_not(demos: Path, tmp_path: Path) -> None:
    write_htdemucs(tmp_path)
    models = make_demo_models(demos, weights=WeightLocations(explicit=tmp_path))
    (warning,) = run_and_list_warnings(models, models.families.separation.resolve("demo-htdemucs"))
    assert warning.startswith("'demo-htdemucs' is a demo model") and "MODELS_DIR" in warning
    assert run_and_list_warnings(models, models.families.separation.resolve("htdemucs")) == []


def test_the_content_encoder_of_the_demo_voices_says_nothing_because_its_voice_does(demos: Path) -> None:
    models = make_demo_models(demos)
    assert run_and_list_warnings(models, models.families.content_encoders.resolve(CONTENT_ENCODER)) == []


def test_htdemucs_is_downloaded_rather_than_replaced_by_the_demo(demos: Path) -> None:
    online = make_demo_models(demos, weights=WeightLocations(hub=FolderHub({}, NOTHING)))
    assert online.families.separation.resolve(None).name == "htdemucs"
    assert online.families.separation.readiness() == READY


def test_a_local_roformer_for_vocals_comes_before_the_demo_and_one_for_another_role_does_not(
    demos: Path, tmp_path: Path
) -> None:
    separation = make_demo_models(demos, weights=WeightLocations(explicit=tmp_path)).families.separation
    write_roformer(tmp_path / "my-karaoke")
    assert separation.resolve(None).name == "demo-htdemucs"
    write_roformer(tmp_path / "my-vocals")
    assert separation.resolve(None).name == "my-vocals"


def test_a_broken_separation_model_is_reported_instead_of_a_reply_by_the_demo(demos: Path, tmp_path: Path) -> None:
    separation = make_demo_models(demos, weights=WeightLocations(explicit=tmp_path)).families.separation
    weights = write_roformer(tmp_path / "my-vocals")
    weights.write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(ModelError, match="my-vocals"):
        separation.resolve(None)
    write_roformer(tmp_path / "other-vocals")
    handle = separation.resolve(None)
    assert handle.name == "other-vocals" and "'my-vocals' is here but cannot be used" in handle.warnings[0]


def test_no_demo_model_is_taken_for_a_role(demos: Path, tmp_path: Path) -> None:
    separation = make_demo_models(demos, weights=WeightLocations(explicit=tmp_path)).families.separation
    assert separation.find_role("vocals") is None and separation.find_role("karaoke") is None
    write_roformer(tmp_path / "my-vocals")
    found = separation.find_role("vocals")
    assert found is not None and found.name == "my-vocals"


def test_demo_voices_are_listed_with_the_others_and_a_voice_of_the_same_name_is_no_demo(
    demos: Path, tmp_path: Path
) -> None:
    family = make_demo_models(demos, voices=tmp_path).families.voices
    assert family.readiness() == READY_AS_DEMO and family.voices.names() == [VOICE]
    assert family.find_demo(VOICE) is not None and family.find(VOICE).embedder == CONTENT_ENCODER
    write_voice(tmp_path, "mine")
    assert family.readiness() == READY and family.voices.names() == [VOICE, "mine"]
    write_voice(tmp_path, VOICE)
    assert family.find_demo(VOICE) is None and family.find(VOICE).embedder is None


def test_without_demo_models_a_family_without_models_says_so() -> None:
    families = make_demo_models(NOTHING).families
    for family in (families.music, families.songs, families.separation, families.voices, families.content_encoders):
        assert not family.readiness().is_ready and "(demo)" not in family.readiness().to_json()


def test_a_real_model_makes_the_whole_ready_and_a_reason_counts_only_alone() -> None:
    reason = Readiness("no model")
    assert choose_readiness([reason, READY_AS_DEMO, READY]) == READY
    assert choose_readiness([reason, READY_AS_DEMO]) == READY_AS_DEMO
    assert choose_readiness([reason, Readiness("neither")]) == reason


def test_every_demo_model_has_a_row_in_the_table_of_models() -> None:
    rows = {row["name"]: row for row in list_published_models()}
    assert {rows[card.name]["licence"] for card in CATALOG} == {LICENCE}
    assert all(card.about.endswith(".") and card.name.startswith("demo") for card in CATALOG)
