"""Every separation model that a request can name, of every family of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from errors import ErrorCode, ModelError, unknown_name_error
from models.family import LOCAL, ModelHandle, Readiness, choose_default, choose_readiness
from models.separation import Role, SeparationFamily, SeparationModelInfo, Separator

_WHOLE_SONG: tuple[Role, ...] = ("stems", "vocals")  # roles of the models that separate a song, the best default first


class SeparationModels:
    """The families of separation models as one list.

    Args:
        families: the default of the first is the default of all, if it is here or can be downloaded. A name that two of
            them know is that of the first.
        is_hub_reachable: whether a download may succeed now. Asked only for a default that would have to be downloaded
            while another model is here.
    """

    def __init__(
        self, families: Sequence[SeparationFamily], *, is_hub_reachable: Callable[[], bool] = lambda: True
    ) -> None:
        self.families = tuple(families)
        self._is_hub_reachable = is_hub_reachable

    def list_models(self) -> list[SeparationModelInfo]:
        """Every model, the families' in order; looks at the folders anew at each call."""
        return [model for family in self.families for model in family.list_models()]

    def readiness(self) -> Readiness:
        """Ready if one of the families is; else why the first is not."""
        return choose_readiness([family.readiness() for family in self.families])

    def resolve(self, name: str | None) -> ModelHandle[Separator]:
        """The model called `name`.

        None: the first family's default if it is here or can be downloaded now; else the first model here that
        separates whole songs, a demo model only if there is no other.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: it cannot be used here.
        """
        return self._choose_default() if name is None else self._find_family(name).resolve(name)

    def describe(self, name: str) -> SeparationModelInfo:
        """What the model called `name` can do.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: its files are here and broken, or it is not supported.
        """
        return self._find_family(name).describe(name)

    def find_role(self, role: Role) -> ModelHandle[Separator] | None:
        """The first model for `role` whose files are on this machine and can be used; None if there is none.

        Nothing is downloaded because of a role, and no demo model is taken for one: a request names it.
        """
        for family in self.families:
            for model in family.list_models():
                if model.role == role and model.availability == LOCAL and family.find_demo(model.name) is None:
                    with suppress(ModelError):
                        return family.resolve(model.name)
        return None

    def _choose_default(self) -> ModelHandle[Separator]:
        first = self.families[0].resolve(None)
        availability = self.families[0].describe(first.name).availability
        if availability == LOCAL:
            return first
        local = [candidate for role in _WHOLE_SONG for candidate in self._list_local(role)]
        if availability.is_usable and (not local or self._is_hub_reachable()):
            return first
        real = [name for name, _ in local if self._find_family(name).find_demo(name) is None]
        chosen = choose_default((name, error) for name, error in local if name in real or not real)
        if chosen is None:
            return first
        name, warnings = chosen
        if availability.is_usable:
            warnings += (
                f"The model '{first.name}' is not on this worker, and the Hugging Face hub cannot be reached to "
                f"download it, so '{name}' was used.",
            )
        return replace(self.resolve(name), warnings=warnings)

    def _list_local(self, role: Role) -> Iterator[tuple[str, ModelError | None]]:
        """The models for `role` that are here, each with the error that using it would raise; what files that cannot
        be read are for is not known, so they count for `stems`."""
        for family in self.families:
            for info in family.list_models():
                if info.availability == LOCAL and info.role == role:
                    yield info.name, None
                elif not info.availability.is_usable and role == "stems":
                    try:
                        family.describe(info.name)
                    except ModelError as error:
                        if error.error_code is not ErrorCode.MODEL_UNSUPPORTED:
                            yield info.name, error

    def _find_family(self, name: str) -> SeparationFamily:
        known: list[str] = []
        for family in self.families:
            if family.knows(name):
                return family
            known += family.names()
        raise unknown_name_error("model", name, known)
