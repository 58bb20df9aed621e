"""The family `f0`: which methods of f0 estimation there are, what each lacks, how one is loaded."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from errors import ErrorCode, ModelError, unknown_name_error
from models.checkpoints.locations import WeightLocations
from models.f0.catalog import CATALOG, DEFAULT_METHOD, RMVPE_FILE, RMVPE_FILE_BYTES, RMVPE_HUB_ID, ModelCard
from models.f0.estimator import F0Estimator
from models.family import (
    DOWNLOAD,
    LOCAL,
    READY,
    Availability,
    ModelFamily,
    ModelHandle,
    ModelInfo,
    Readiness,
    stamp_files,
    unavailable,
)
from models.runtime.progress import UNATTENDED, Observer

_FOLDERS = (".", "rvc", "rmvpe")  # below MODELS_DIR and the other folders of weights


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class F0MethodInfo(ModelInfo):
    """An f0 method: its licence, and one sentence about it."""

    licence: str
    about: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "available": self.availability.to_json(),
            "licence": self.licence,
            "about": self.about,
        }


class PitchFamily(ModelFamily[F0Estimator]):
    """The f0 methods of the catalogue.

    Args:
        weights: where rmvpe.pt is looked for; the weights of other methods come with their packages.
        is_installed: whether a package can be imported.
    """

    name = "f0"
    downloadable = True

    def __init__(self, weights: WeightLocations, *, is_installed: Callable[[str], bool] = _is_installed) -> None:
        self._weights = weights
        self._is_installed = is_installed

    def list_models(self) -> list[F0MethodInfo]:
        return [
            F0MethodInfo(
                name=card.name,
                availability=(availability := self._availability(card)),
                download_bytes=RMVPE_FILE_BYTES if availability == DOWNLOAD else 0,
                licence=card.licence,
                about=card.about,
            )
            for card in CATALOG.values()
        ]

    def readiness(self) -> Readiness:
        """Whether the default method can be used; other methods may work even if it cannot."""
        missing = self._missing_reason(CATALOG[DEFAULT_METHOD])
        return Readiness(f"the default f0 method {DEFAULT_METHOD} is not available: {missing}") if missing else READY

    def search_paths(self) -> list[str]:
        return self._weights.search_paths()

    def resolve(self, name: str | None) -> ModelHandle[F0Estimator]:
        """The method called `name`; None: rmvpe.

        Raises:
            UnknownNameError: there is no such method.
            ModelError: `model_unavailable`: a package or the weights are missing; names what to do.
        """
        card = CATALOG.get(name or DEFAULT_METHOD)
        if card is None:
            raise unknown_name_error("f0_method", str(name), CATALOG)
        if missing := self._missing_reason(card):
            raise _unavailable_error(card, missing)
        return ModelHandle(self, card.name)

    def version_key(self, name: str) -> Hashable:
        folder = self._find_rmvpe() if name == "rmvpe" else None
        return stamp_files([folder / RMVPE_FILE]) if folder else None

    def memory_bytes(self, name: str) -> int:
        """The weights in float32."""
        return CATALOG[name].size

    def load(self, name: str, *, device: str) -> F0Estimator:
        """The method on `device` (harvest and pm always work on the CPU)."""
        card = CATALOG[self.resolve(name).name]
        module, _, class_name = card.estimator.partition(":")
        estimator: type[F0Estimator] = getattr(import_module(module), class_name)
        return estimator.load(device=device, weights=self._rmvpe_file() if card.name == "rmvpe" else None)

    def engine_bytes(self, engine: F0Estimator) -> int:
        return engine.memory_bytes

    def warm_up(self, engine: F0Estimator) -> None:
        engine.warm_up()

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        if name == "rmvpe":
            self._rmvpe_file(observer)

    def _availability(self, card: ModelCard) -> Availability:
        if missing := self._missing_reason(card):
            return unavailable(missing)
        return DOWNLOAD if card.name == "rmvpe" and self._find_rmvpe() is None else LOCAL

    def _missing_reason(self, card: ModelCard) -> str:
        """What the method lacks here; empty if nothing."""
        missing = [package for package in card.packages if not self._is_installed(package)]
        if missing:
            return f"not installed: {', '.join(missing)}"
        if card.name == "rmvpe" and self._weights.hub is None and self._find_rmvpe() is None:
            return f"{RMVPE_FILE} is not here, and downloads are off"
        return ""

    def _find_rmvpe(self) -> Path | None:
        return self._weights.find(_FOLDERS, (RMVPE_HUB_ID,), (RMVPE_FILE,))

    def _rmvpe_file(self, observer: Observer = UNATTENDED) -> Path:
        folder = self._find_rmvpe()
        if folder is None:
            if self._weights.hub is None:
                raise _unavailable_error(CATALOG["rmvpe"], self._missing_reason(CATALOG["rmvpe"]))
            folder = self._weights.hub.fetch(RMVPE_HUB_ID, (RMVPE_FILE,), observer)
        return folder / RMVPE_FILE


def _unavailable_error(card: ModelCard, missing: str) -> ModelError:
    if missing.startswith("not installed"):
        remedy = f"Install {card.install}"
    else:
        remedy = f"Put {RMVPE_FILE} (huggingface.co/{RMVPE_HUB_ID}) into MODELS_DIR or its folder rvc"
    return ModelError(
        f"The f0 method '{card.name}' cannot run here: {missing}. {remedy}, or choose another f0_method.",
        code=ErrorCode.MODEL_UNAVAILABLE,
        details={"f0_method": card.name},
    )
