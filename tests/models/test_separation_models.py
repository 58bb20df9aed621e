"""The list of all separation models: which family has a name, and which model is taken for a role."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from errors import ModelError, UnknownNameError
from models.family import DOWNLOAD, LOCAL, READY, Availability, ModelHandle, Readiness, unavailable
from models.separation import Role, SeparationFamily, SeparationModelInfo, Separator
from models.separation_models import SeparationModels
from testing.models import make_models


class StubFamily(SeparationFamily):
    """Models with the given roles and availabilities."""

    def __init__(self, name: str, models: dict[str, tuple[Role, Availability]], readiness: Readiness = READY) -> None:
        self.name = name
        self._models, self._readiness = models, readiness

    def names(self) -> Sequence[str]:
        return list(self._models)

    def list_models(self) -> list[SeparationModelInfo]:
        return [self.describe(name) for name in self._models]

    def describe(self, name: str) -> SeparationModelInfo:
        role, availability = self._models[name]
        return SeparationModelInfo(name=name, availability=availability, role=role)

    def readiness(self) -> Readiness:
        return self._readiness

    def search_paths(self) -> Sequence[str]:
        return [f"/{self.name}"]

    def resolve(self, name: str | None) -> ModelHandle[Separator]:
        name = name or self.names()[0]
        if name == "refused":
            raise ModelError("The weights are quantised.")
        return ModelHandle(self, name)

    def memory_bytes(self, name: str) -> int:
        return 1

    def load(self, name: str, *, device: str) -> Separator:
        raise AssertionError("nothing is loaded")


FIRST = StubFamily("first", {"all": ("stems", DOWNLOAD), "twice": ("stems", LOCAL)})
SECOND = StubFamily(
    "second",
    {
        "far": ("karaoke", DOWNLOAD),
        "broken": ("karaoke", unavailable("it is damaged")),
        "refused": ("karaoke", LOCAL),
        "near": ("karaoke", LOCAL),
        "nearer": ("karaoke", LOCAL),
        "twice": ("vocals", LOCAL),
    },
)
MODELS = SeparationModels([FIRST, SECOND])


def test_a_name_is_resolved_and_described_by_the_first_family_that_knows_it() -> None:
    assert MODELS.resolve("near") == ModelHandle(SECOND, "near") and MODELS.describe("near").role == "karaoke"
    assert MODELS.resolve("twice") == ModelHandle(FIRST, "twice") and MODELS.describe("twice").role == "stems"


def test_without_a_name_the_first_familys_default_is_taken() -> None:
    assert MODELS.resolve(None) == ModelHandle(FIRST, "all")


def test_a_model_that_is_here_stands_in_for_the_default_while_the_hub_cannot_be_reached() -> None:
    handle = SeparationModels([FIRST, SECOND], is_hub_reachable=lambda: False).resolve(None)
    assert handle == ModelHandle(FIRST, "twice")
    assert "hub cannot be reached" in handle.warnings[0] and "'all'" in handle.warnings[0]


def test_broken_files_are_no_hindrance_for_a_default_that_can_be_downloaded() -> None:
    class BrokenFamily(StubFamily):
        def list_models(self) -> list[SeparationModelInfo]:
            return [super(BrokenFamily, self).describe(name) for name in self.names()]

        def describe(self, name: str) -> SeparationModelInfo:
            raise ModelError("It is damaged.")

    default = StubFamily("first", {"all": ("stems", DOWNLOAD)})
    broken = BrokenFamily("second", {"broken": ("stems", unavailable("it is damaged"))})
    assert SeparationModels([default, broken]).resolve(None) == ModelHandle(default, "all")
    with pytest.raises(ModelError, match="It is damaged"):
        SeparationModels([default, broken], is_hub_reachable=lambda: False).resolve(None)


def test_the_hub_is_not_asked_if_nothing_here_could_stand_in() -> None:
    def ask() -> bool:
        raise AssertionError("asked")

    alone = StubFamily("first", {"all": ("stems", DOWNLOAD)})
    assert SeparationModels([alone], is_hub_reachable=ask).resolve(None) == ModelHandle(alone, "all")


def test_an_unknown_name_is_refused_with_the_nearest_of_all_families() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'nearer'"):
        MODELS.resolve("nearerr")
    with pytest.raises(UnknownNameError):
        MODELS.describe("nothing")


def test_a_role_is_taken_by_the_first_model_that_is_here_and_can_be_used() -> None:
    assert MODELS.find_role("karaoke") == ModelHandle(SECOND, "near")
    assert MODELS.find_role("dereverb") is None


def test_separation_is_ready_if_one_family_is() -> None:
    broken, why = StubFamily("broken", {}, Readiness("not installed")), Readiness("not installed")
    assert SeparationModels([broken, SECOND]).readiness() == READY
    assert SeparationModels([broken]).readiness() == why


def test_all_families_of_separation_models_are_among_the_workers_families() -> None:
    families = make_models(separation=MODELS).families
    names = [family.name for family in families]
    assert names[names.index("first") :][:2] == ["first", "second"]
    assert families.find("second") is SECOND
    assert [model.name for model in families.separation.list_models()][:3] == ["all", "twice", "far"]
