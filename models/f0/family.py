"""The family `f0` as the cache and the operations see it: the methods, what each lacks, how one is loaded."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from errors import ErrorCode, ModelError, unknown_name
from models.checkpoints.locations import WeightLocations
from models.f0.catalog import CATALOG, DEFAULT_METHOD, RMVPE_FILE, RMVPE_HUB_ID, Method
from models.f0.estimator import F0Estimator

_FOLDERS: Final = (".", "rvc", "rmvpe")  # below MODELS_DIR and the other folders of weights


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


class PitchFamily:
    """The family `f0`.

    Args:
        weights: where rmvpe.pt is looked for; the other methods' weights come with their packages.
        is_installed: whether a package can be imported.
    """

    name = "f0"

    def __init__(self, weights: WeightLocations, *, is_installed: Callable[[str], bool] = _is_installed) -> None:
        self._weights = weights
        self._is_installed = is_installed

    def rows(self) -> list[dict[str, Any]]:
        """`list_models`' rows, the folders looked at anew; `available` is `local`, `download` or what is missing."""
        return [
            {
                "name": method.name,
                "available": self._available(method),
                "licence": method.licence,
                "about": method.about,
            }
            for method in CATALOG.values()
        ]

    def status(self) -> str:
        """`ready`, and what the default method lacks, if anything."""
        lack = self._lack(CATALOG[DEFAULT_METHOD])
        return f"ready but for {DEFAULT_METHOD}: {lack}" if lack else "ready"

    def search_paths(self) -> list[str]:
        """The folders that are looked at, in order."""
        return self._weights.search_paths()

    def resolve(self, name: str | None) -> str:
        """`name` if there is such a method (None: rmvpe) and it can run here.

        Raises:
            UnknownNameError: there is none of that name.
            ModelError: `model_unavailable`: a package or the weights are missing; says which and what to do.
        """
        method = CATALOG.get(name or DEFAULT_METHOD)
        if method is None:
            raise unknown_name("f0_method", str(name), CATALOG)
        if lack := self._lack(method):
            raise _unavailable(method, lack)
        return method.name

    def memory_bytes(self, name: str) -> int:
        """The weights, in float32."""
        return CATALOG[name].size

    def load(self, name: str, *, device: str) -> F0Estimator:
        """The method on `device` (harvest and pm always work on the CPU)."""
        method = self.resolve(name)
        weights = self._rmvpe_file() if method == "rmvpe" else None
        return _import_estimator(method).load(device=device, weights=weights)

    def fetch(self, name: str) -> None:
        """Downloads what the method still lacks."""
        if name == "rmvpe":
            self._rmvpe_file()

    def _available(self, method: Method) -> str:
        if lack := self._lack(method):
            return lack
        return "download" if method.name == "rmvpe" and self._find_rmvpe() is None else "local"

    def _lack(self, method: Method) -> str:
        """What is missing, or nothing."""
        missing = [package for package in method.packages if not self._is_installed(package)]
        if missing:
            return f"not installed: {', '.join(missing)}"
        if method.name == "rmvpe" and self._weights.hub is None and self._find_rmvpe() is None:
            return f"{RMVPE_FILE} is not here, and downloads are off"
        return ""

    def _find_rmvpe(self) -> Path | None:
        return self._weights.find(_FOLDERS, (RMVPE_HUB_ID,), (RMVPE_FILE,))

    def _rmvpe_file(self) -> Path:
        folder = self._find_rmvpe()
        if folder is None:
            if self._weights.hub is None:
                raise _unavailable(CATALOG["rmvpe"], self._lack(CATALOG["rmvpe"]))
            folder = self._weights.hub.fetch(RMVPE_HUB_ID, (RMVPE_FILE,))
        return folder / RMVPE_FILE


def _unavailable(method: Method, lack: str) -> ModelError:
    if lack.startswith("not installed"):
        remedy = f"Install {method.install}"
    else:
        remedy = f"Put {RMVPE_FILE} (huggingface.co/{RMVPE_HUB_ID}) into MODELS_DIR or its folder rvc"
    return ModelError(
        f"The f0 method '{method.name}' cannot run here: {lack}. {remedy}, or choose another f0_method.",
        code=ErrorCode.MODEL_UNAVAILABLE,
        details={"f0_method": method.name},
    )


_ESTIMATORS: Final = {
    "rmvpe": "models.f0.rmvpe:Rmvpe",
    "crepe": "models.f0.crepe:Crepe",
    "crepe-tiny": "models.f0.crepe:CrepeTiny",
    "mangio-crepe": "models.f0.crepe:MangioCrepe",
    "harvest": "models.f0.harvest:Harvest",
    "pm": "models.f0.praat:Praat",
    "fcpe": "models.f0.fcpe:Fcpe",
}
"""The class of each method. They are imported when they are loaded, because they import torch and their packages."""


def _import_estimator(method: str) -> type[F0Estimator]:
    module, _, class_name = _ESTIMATORS[method].partition(":")
    estimator: type[F0Estimator] = getattr(import_module(module), class_name)
    return estimator
