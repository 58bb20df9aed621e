"""Every separation model that a request can name, of every family of them."""

from __future__ import annotations

from collections.abc import Sequence

from errors import ModelError, unknown_name_error
from models.family import LOCAL, READY, ModelHandle, Readiness
from models.separation import Role, SeparationFamily, SeparationModelInfo, Separator


class SeparationModels:
    """The families of separation models as one list.

    Args:
        families: the first has the default model. A name that two of them know is that of the first.
    """

    def __init__(self, families: Sequence[SeparationFamily]) -> None:
        self.families = tuple(families)

    def list_models(self) -> list[SeparationModelInfo]:
        """Every model, the families' in order; looks at the folders anew at each call."""
        return [model for family in self.families for model in family.list_models()]

    def readiness(self) -> Readiness:
        """Ready if one of the families is; else why the first is not."""
        found = [family.readiness() for family in self.families]
        return READY if any(one.is_ready for one in found) else found[0]

    def resolve(self, name: str | None) -> ModelHandle[Separator]:
        """The model called `name`; None: the default.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: it cannot be used here.
        """
        return (self.families[0] if name is None else self._find_family(name)).resolve(name)

    def describe(self, name: str) -> SeparationModelInfo:
        """What the model called `name` can do.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: its files are here and broken, or it is not supported.
        """
        return self._find_family(name).describe(name)

    def find_role(self, role: Role) -> ModelHandle[Separator] | None:
        """The first model for `role` whose files are on this machine and can be used; None if there is none.

        Nothing is downloaded because of a role.
        """
        for family in self.families:
            for model in family.list_models():
                if model.role == role and model.availability == LOCAL:
                    try:
                        return family.resolve(model.name)
                    except ModelError:
                        continue
        return None

    def _find_family(self, name: str) -> SeparationFamily:
        known: list[str] = []
        for family in self.families:
            if family.knows(name):
                return family
            known += family.names()
        raise unknown_name_error("model", name, known)
