"""The family `demucs`: which separation models there are, what they can do, how one is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from errors import ModelError, unknown_name_error
from models.checkpoints.locations import WeightLocations
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
    ModelFamily,
    ModelHandle,
    ModelInfo,
    Readiness,
    unavailable,
)
from models.runtime.progress import UNATTENDED, Observer

if TYPE_CHECKING:
    from torch import nn

    from models.demucs.engine import Runtime, Separator

logger = logging.getLogger(__name__)

_FLOAT_BYTES = 4
_PUBLISHED_BYTES = 2  # of a weight in the repositories on the hub
_UNKNOWN_BYTES = 700_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationModelInfo(ModelInfo):
    """What a separation model can do.

    Args:
        stems: in the order of the model's output; None: only its weights say (demucs 4.0's `.th`).
        max_segment: the longest `segment` in seconds; None: no limit.
        sample_rate: in Hz.
        licence: of the weights.
        about: one sentence.
    """

    stems: tuple[str, ...] | None = None
    max_segment: float | None = None
    sample_rate: int = 44_100
    licence: str = "unknown"
    about: str = "A model folder of this worker."

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "stems": list(self.stems or ()),
            "sample_rate": self.sample_rate,
            "channels": 2,
            "max_segment_s": self.max_segment,
            "licence": self.licence,
            "about": self.about,
            "available": self.availability.to_json(),
        }


class DemucsFamily(ModelFamily["Separator"]):
    """Demucs models: those of the catalogue, and local folders in their format.

    Args:
        weights: where weights are looked for.
    """

    name = "demucs"
    downloadable = True

    def __init__(self, weights: WeightLocations) -> None:
        self._folders = ModelRepository(weights)

    def list_models(self) -> list[SeparationModelInfo]:
        return [self._describe_or_report(name) for name in self._folders.names()]

    def readiness(self) -> Readiness:
        missing = [package for package in ("torch", "demucs", "safetensors") if find_spec(package) is None]
        if missing:
            return Readiness(f"not installed: {', '.join(missing)}")
        if self._folders.weights.hub is None and not any(self._availability(name) == LOCAL for name in CATALOG):
            return Readiness("no model is here, and downloads are off: put one below MODELS_DIR")
        return READY

    def search_paths(self) -> list[str]:
        return self._folders.weights.search_paths()

    def resolve(self, name: str | None) -> ModelHandle[Separator]:
        """The model called `name`; None: htdemucs. Raises `UnknownNameError` if there is none."""
        name = DEFAULT_MODEL if name is None else name
        if name not in CATALOG and name not in (known := self._folders.names()):
            raise unknown_name_error("model", name, known)
        return ModelHandle(self, name)

    def describe(self, name: str) -> SeparationModelInfo:
        """What the model called `name` can do; reads at most the header of a file.

        Raises:
            ModelError: it is a local folder whose files are missing or broken.
        """
        if name in CATALOG:
            card, availability = CATALOG[name], self._availability(name)
            return SeparationModelInfo(
                name=name,
                availability=availability,
                download_bytes=card.parameters * _PUBLISHED_BYTES if availability == DOWNLOAD else 0,
                stems=card.stems,
                max_segment=card.max_segment,
                sample_rate=card.sample_rate,
                licence=card.licence,
                about=card.about,
            )
        files = self._folders.fetch(name)
        blueprints = [read_spec(path) for path in files.submodels if path and path.suffix == ".safetensors"]
        availability = self._availability(name)
        if not blueprints:
            return SeparationModelInfo(name=name, availability=availability)
        return SeparationModelInfo(
            name=name,
            availability=availability,
            stems=blueprints[0].stems,
            max_segment=min((b.max_segment for b in blueprints if b.max_segment is not None), default=None),
            sample_rate=blueprints[0].sample_rate,
        )

    def memory_bytes(self, name: str) -> int:
        """The weights of all submodels in float32."""
        if (card := CATALOG.get(name)) is not None:
            return card.parameters * _FLOAT_BYTES
        files = self._folders.find(name)
        sizes = [path.stat().st_size for path in files.submodels if path] if files else []
        return 2 * sum(sizes) or _UNKNOWN_BYTES

    def load(self, name: str, *, device: str) -> Separator:
        """The model; the submodels of a bag are downloaded and loaded when a stem first needs them."""
        from models.demucs.engine import Runtime

        return load_separator(self._folders, name, Runtime(device))

    def engine_bytes(self, engine: Separator) -> int:
        return engine.memory_bytes

    def warm_up(self, engine: Separator) -> None:
        engine.warm_up()

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        bag = self._folders.fetch(name, observer=observer).bag
        if name in CATALOG and self._folders.weights.hub is not None:  # else a stem whose submodel is here still works
            self._folders.fetch(name, range(len(bag.signatures)), observer=observer)

    def _describe_or_report(self, name: str) -> SeparationModelInfo:
        try:
            return self.describe(name)
        except ModelError as error:
            return SeparationModelInfo(name=name, availability=unavailable(error.message))

    def _availability(self, name: str) -> Availability:
        try:
            if self._folders.is_local(name):
                return LOCAL
        except ModelError as error:
            return unavailable(error.message)
        if name not in CATALOG:
            return unavailable("a weights file that its yaml names is missing")
        return DOWNLOAD if self._folders.weights.hub is not None else unavailable("not here, and downloads are off")


def load_separator(folders: ModelRepository, name: str, runtime: Runtime) -> Separator:
    """The model `name`. A single network is loaded at once, those of a bag when they are needed."""
    from models.demucs.engine import SeparationModel, Separator
    from models.demucs.load import load_network

    prepare_device(runtime.device)
    files = folders.fetch(name)

    def load(submodel: int) -> nn.Module:
        path = folders.fetch(name, [submodel]).submodels[submodel]
        if path is None:
            raise broken_model("a weights file that its yaml names is missing")
        logger.info("Loading submodel %d of %s", submodel + 1, name)
        return load_network(path)

    stems, sample_rate = _stems_and_sample_rate(files, name, load)
    separator = Separator(SeparationModel(files.bag, load, stems, sample_rate), runtime)
    if len(files.bag.signatures) == 1:
        separator.prepare()
    return separator


def _stems_and_sample_rate(
    files: ModelFiles, name: str, load: Callable[[int], nn.Module]
) -> tuple[tuple[str, ...], int]:
    """From the catalogue, else from a header, else (demucs 4.0's files) from the first network itself."""
    if (card := CATALOG.get(name)) is not None:
        return card.stems, card.sample_rate
    path = files.submodels[0]
    if path is not None and path.suffix == ".safetensors":
        blueprint = read_spec(path)
        return blueprint.stems, blueprint.sample_rate
    network: Any = load(0)
    return tuple(network.sources), int(network.samplerate)
