"""The family `demucs`: which separation models there are, what they can do, how one is loaded."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from errors import ErrorCode, ModelError, unknown_name_error
from models.checkpoints.locations import WeightLocations
from models.demo import list_demos
from models.demucs.bag import broken_model
from models.demucs.catalog import CATALOG, DEFAULT_MODEL
from models.demucs.repository import ModelFiles, ModelRepository
from models.demucs.spec import read_spec
from models.device import prepare_device
from models.family import (
    DOWNLOAD,
    LOCAL,
    READY,
    Availability,
    ModelHandle,
    Readiness,
    describe_each,
    stamp_files,
    unavailable,
)
from models.runtime.progress import UNATTENDED, Observer
from models.separation import SeparationFamily, SeparationModelInfo, Separator

if TYPE_CHECKING:
    from torch import nn

    from models.demucs.engine import DemucsSeparator, Runtime

logger = logging.getLogger(__name__)

_FLOAT_BYTES = 4
_PUBLISHED_BYTES = 2  # of a weight in the repositories on the hub
_UNKNOWN_BYTES = 700_000_000


class DemucsFamily(SeparationFamily):
    """Demucs models: those of the catalogue, and local folders in their format.

    Args:
        weights: where weights are looked for.
        demo: folder of the demo models; None: there is none.
        torch_cache: the folder that `torch.hub` downloads checkpoints to, which is looked at last.
    """

    name = "demucs"
    downloadable = True
    demos = list_demos(name)

    def __init__(self, weights: WeightLocations, *, demo: Path | None = None, torch_cache: Path | None = None) -> None:
        self._folders = ModelRepository(weights.add_folder(demo), torch_cache)

    def names(self) -> list[str]:
        return self._folders.names()

    def knows(self, name: str) -> bool:
        return name in CATALOG or name in self.names()

    def list_models(self) -> list[SeparationModelInfo]:
        return describe_each(self._folders.names(), self.describe, _describe_without_files)

    def readiness(self) -> Readiness:
        missing = [package for package in ("torch", "demucs", "safetensors") if find_spec(package) is None]
        if missing:
            return Readiness(f"not installed: {', '.join(missing)}")
        if self._folders.weights.hub is not None:
            return READY
        usable = [model.name for model in self.list_models() if model.availability.is_usable]
        no_model = "no model that can be used is here, and downloads are off: put one below MODELS_DIR"
        return self.judge_local(usable, otherwise=Readiness(no_model))

    def search_paths(self) -> list[str]:
        last = [str(self._folders.torch_cache)] if self._folders.torch_cache else []
        return [*self._folders.weights.search_paths(), *last]

    def resolve(self, name: str | None) -> ModelHandle[Separator]:
        """The model called `name`; None: htdemucs.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: `model_unsupported`: its weights are quantised.
        """
        name = DEFAULT_MODEL if name is None else name
        if not self.knows(name):
            raise unknown_name_error("model", name, self.names())
        if error := _build_unsupported_error(name):
            raise error
        return ModelHandle(self, name)

    def describe(self, name: str) -> SeparationModelInfo:
        if error := _build_unsupported_error(name):
            raise error
        files = self._folders.find(name)
        specs = [read_spec(path) for path in (files.submodels if files else ()) if path is not None]
        availability = self._availability(name, files)
        if name in CATALOG:
            return _describe_without_files(name, availability)
        if not specs:
            raise broken_model("a weights file that its yaml names is missing")
        return SeparationModelInfo(
            name=name,
            availability=availability,
            stems=specs[0].stems,
            max_segment=min((spec.max_segment for spec in specs if spec.max_segment is not None), default=None),
            sample_rate=specs[0].sample_rate,
        )

    def version_key(self, name: str) -> Hashable:
        files = self._folders.find(name)
        return (files.bag, stamp_files(path for path in files.submodels if path)) if files else None

    def memory_bytes(self, name: str) -> int:
        """The weights of all submodels in float32."""
        if (card := CATALOG.get(name)) is not None:
            return card.parameters * _FLOAT_BYTES
        files = self._folders.find(name)
        sizes = [path.stat().st_size for path in files.submodels if path] if files else []
        return 2 * sum(sizes) or _UNKNOWN_BYTES

    def load(self, name: str, *, device: str) -> DemucsSeparator:
        """The model; the submodels of a bag are downloaded and loaded when a stem first needs them."""
        from models.demucs.engine import Runtime

        return load_separator(self._folders, name, Runtime(device))

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        bag = self._folders.fetch(name, observer=observer).bag
        if name in CATALOG and self._folders.weights.hub is not None:  # else a stem whose submodel is here still works
            self._folders.fetch(name, range(len(bag.signatures)), observer=observer)

    def _availability(self, name: str, files: ModelFiles | None) -> Availability:
        if files is not None and files.is_complete:
            return LOCAL
        if name not in CATALOG:
            return unavailable("a weights file that its yaml names is missing")
        return DOWNLOAD if self._folders.weights.hub is not None else unavailable("not here, and downloads are off")


def _describe_without_files(name: str, availability: Availability) -> SeparationModelInfo:
    """What is known of a model without its files: all of a published one."""
    if (card := CATALOG.get(name)) is None:
        return SeparationModelInfo(name=name, availability=availability)
    return SeparationModelInfo(
        name=name,
        availability=availability,
        download_bytes=card.parameters * _PUBLISHED_BYTES if availability == DOWNLOAD else 0,
        stems=card.stems,
        max_segment=card.max_segment,
        sample_rate=card.sample_rate,
        licence=card.licence,
        about=card.about,
        hub_id=card.repository,
        source=f"https://huggingface.co/{card.repository}",
    )


def _build_unsupported_error(name: str) -> ModelError | None:
    """Why the published model `name` is not run; None if it is."""
    if name not in CATALOG or not (reason := CATALOG[name].unsupported):
        return None
    return ModelError(f"The model '{name}' cannot be run: it {reason}.", code=ErrorCode.MODEL_UNSUPPORTED)


def load_separator(folders: ModelRepository, name: str, runtime: Runtime) -> DemucsSeparator:
    """The model `name`. A single network is loaded at once, those of a bag when they are needed."""
    from models.demucs.engine import DemucsSeparator, SeparationModel
    from models.demucs.load import load_network

    prepare_device(runtime.device)
    files = folders.fetch(name)

    def load(submodel: int) -> nn.Module:
        path = folders.fetch(name, [submodel]).submodels[submodel]
        if path is None:
            raise broken_model("a weights file that its yaml names is missing")
        logger.info("Loading submodel %d of %s", submodel + 1, name)
        return load_network(path)

    stems, sample_rate = _stems_and_sample_rate(files, name)
    separator = DemucsSeparator(SeparationModel(files.bag, load, stems, sample_rate), runtime)
    if len(files.bag.signatures) == 1:
        separator.prepare()
    return separator


def _stems_and_sample_rate(files: ModelFiles, name: str) -> tuple[tuple[str, ...], int]:
    if (card := CATALOG.get(name)) is not None:
        return card.stems, card.sample_rate
    if (path := files.submodels[0]) is None:
        raise broken_model("a weights file that its yaml names is missing")
    spec = read_spec(path)
    return spec.stems, spec.sample_rate
