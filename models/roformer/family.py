"""The family `roformer`: which RoFormer models there are, what they are for, how one is loaded."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from errors import ModelError, unknown_name_error
from models.checkpoints.locations import WeightLocations
from models.demo import list_demos
from models.device import prepare_device
from models.family import (
    DOWNLOAD,
    LOCAL,
    Availability,
    ModelHandle,
    Readiness,
    describe_each,
    stamp_files,
    unavailable,
)
from models.roformer.catalog import CATALOG, DEFAULT_MODEL, ModelCard
from models.roformer.checkpoint import ModelFiles, RoformerCheckpoint, read_model_config
from models.roformer.repository import RoformerRepository
from models.roformer.role import choose_role
from models.runtime.progress import UNATTENDED, Observer
from models.separation import SeparationFamily, SeparationModelInfo, Separator

_NEEDED = ("torch", "safetensors", "yaml")
_USUAL_STEMS = 4  # that one request computes of a model with many
_MOST_PARTS = 8  # a model of more stems gives some of them and their parts: vocals, and lead vocals
_LOCAL_LICENCE = "unknown"
_LOCAL_NOTE = "Its files do not state a licence: ask whoever published them."


class _Source(TypedDict):
    hub_id: str | None
    source: str | None
    sha256: str | None


class RoformerFamily(SeparationFamily):
    """Mel-Band and BS RoFormer models: local folders, and those of the catalogue.

    A model of the catalogue is downloaded when a request names it, if the checksums of its files are on record.

    Args:
        weights: where weights are looked for.
        catalog: the published models.
        demo: folder of the demo models; None: there is none.
    """

    name = "roformer"
    downloadable = True
    demos = list_demos(name)

    def __init__(
        self, weights: WeightLocations, catalog: Mapping[str, ModelCard] = CATALOG, *, demo: Path | None = None
    ) -> None:
        self._weights, self._catalog = weights.add_folder(demo), catalog
        self._folders = RoformerRepository(self._weights, catalog)

    def names(self) -> list[str]:
        return [*self._folders.names(), *(alias for card in self._catalog.values() for alias in card.aliases)]

    def knows(self, name: str) -> bool:
        return self._folders.canonical_name(name) in self._catalog or self._folders.is_here(name)

    def list_models(self) -> list[SeparationModelInfo]:
        return describe_each(self._folders.names(), self.describe, self._report)

    def readiness(self) -> Readiness:
        if missing := [package for package in _NEEDED if find_spec(package) is None]:
            return Readiness(f"not installed: {', '.join(missing)}")
        usable = [model.name for model in self.list_models() if model.availability.is_usable]
        no_model = "no RoFormer that can be used is here: put the folder of one into MODELS_DIR"
        return self.judge_local(usable, otherwise=Readiness(no_model))

    def search_paths(self) -> list[str]:
        return self._weights.search_paths()

    def resolve(self, name: str | None) -> ModelHandle[Separator]:
        """The model called `name`, or by one of its aliases; None: the published one with a clear licence.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: it is not here, and is not downloaded.
        """
        name = self._folders.canonical_name(DEFAULT_MODEL if name is None else name)
        if not self.knows(name):
            raise unknown_name_error("model", name, self.names())
        if not self._folders.can_download(name):
            self._find(name)
        return ModelHandle(self, name)

    def describe(self, name: str) -> SeparationModelInfo:
        """What the model called `name` can do; reads the yaml, and the names and shapes of the tensors.

        Raises:
            ModelError: its files are here and broken, or are those of a network that is not run.
        """
        name = self._folders.canonical_name(name)
        files = self._folders.find(name)
        if files is None:
            can_download = self._folders.can_download(name)
            return self._report(name, DOWNLOAD if can_download else unavailable(self._explain_missing(name)))
        config = read_model_config(files)
        card = self._folders.find_card(name, files.weights)
        return SeparationModelInfo(
            name=name,
            availability=LOCAL,
            stems=config.outputs,
            role=choose_role(files, config),
            overlap=1 - 1 / config.num_overlap,
            is_partition=len(config.stems) <= _MOST_PARTS,
            sample_rate=config.sample_rate,
            licence=card.licence if card else _LOCAL_LICENCE,
            licence_note=card.licence_note if card else "" if name in self.demos else _LOCAL_NOTE,
            about=card.about if card else "A model folder of this worker.",
            size=files.weights.stat().st_size,
            **_describe_source(card),
        )

    def version_key(self, name: str) -> Hashable:
        return stamp_files(self._find(name).paths)

    def memory_bytes(self, name: str) -> int:
        """The size of the file; of a model with many stems, the part of it that four stems need."""
        if self._folders.can_download(name) and not self._folders.is_here(name):
            size, stems = self._catalog[name].size, len(self._catalog[name].stems)
        else:
            files = self._find(name)
            size, stems = files.weights.stat().st_size, len(read_model_config(files).stems)
        return size * min(_USUAL_STEMS, stems) // stems

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        self._folders.download(name, observer)

    def load(self, name: str, *, device: str) -> Separator:
        """The network on the device. The weights of a stem are read when the stem is first asked for.

        Raises:
            ModelError: a file is missing or broken.
        """
        from models.roformer.engine import RoformerSeparator
        from models.roformer.network import RoformerNetwork

        prepare_device(device)
        checkpoint = RoformerCheckpoint(self._find(name))
        with checkpoint.report_broken():
            return RoformerSeparator(RoformerNetwork(checkpoint.config, checkpoint.read, device))

    def _find(self, name: str) -> ModelFiles:
        """The files of a model; raises `ModelError` if they are not here."""
        if (files := self._folders.find(name)) is None:
            raise ModelError(
                f"The separation model '{name}' cannot be used: {self._explain_missing(name)}.", details={"model": name}
            )
        return files

    def _report(self, name: str, availability: Availability) -> SeparationModelInfo:
        return _describe_by_card(name, self._catalog.get(name), availability)

    def _explain_missing(self, name: str) -> str:
        """Why a model that is not here is not downloaded, and what to do, as a clause."""
        card = self._catalog.get(name)
        source = f" (published at {card.source})" if card and card.source else ""
        reason = "not here, and downloads are off" if card and card.files else "not here"
        return f"{reason}: put its .ckpt and its .yaml{source} into a folder {name} below MODELS_DIR"


def _describe_by_card(name: str, card: ModelCard | None, availability: Availability) -> SeparationModelInfo:
    """What is known of a model without its files: what is on record about a published one."""
    if card is None:
        return SeparationModelInfo(
            name=name, availability=availability, licence=_LOCAL_LICENCE, licence_note=_LOCAL_NOTE
        )
    return SeparationModelInfo(
        name=name,
        availability=availability,
        download_bytes=card.size if availability == DOWNLOAD else 0,
        stems=card.stems,
        role=card.role,
        overlap=card.overlap,
        is_partition=len(card.stems) <= _MOST_PARTS,
        licence=card.licence,
        licence_note=card.licence_note,
        about=card.about,
        size=card.size or None,
        **_describe_source(card),
    )


def _describe_source(card: ModelCard | None) -> _Source:
    """Where a published model comes from, as far as it is on record."""
    if card is None:
        return {"hub_id": None, "source": None, "sha256": None}
    return {"hub_id": card.hub_id or None, "source": card.source or None, "sha256": card.sha256 or None}
