"""The family `roformer`: which RoFormer models there are, what they are for, how one is loaded."""

from __future__ import annotations

from collections.abc import Hashable
from importlib.util import find_spec

from errors import ModelError, unknown_name_error
from models.checkpoints.locations import WeightLocations
from models.device import prepare_device
from models.family import LOCAL, READY, Availability, ModelHandle, Readiness, describe_each, stamp_files, unavailable
from models.roformer.catalog import ALIASES, CATALOG, DEFAULT_MODEL, ModelCard
from models.roformer.checkpoint import ModelFiles, RoformerCheckpoint, read_model_config
from models.roformer.repository import RoformerRepository, canonical_name, choose_role
from models.separation import SeparationFamily, SeparationModelInfo, Separator

_NEEDED = ("torch", "safetensors", "yaml")
_USUAL_STEMS = 4  # that one request computes of a model with many
_MOST_PARTS = 8  # a model of more stems gives some of them and their parts: vocals, and lead vocals
_LOCAL_LICENCE = "unknown"
_LOCAL_NOTE = "Its files do not state a licence: ask whoever published them."


class RoformerFamily(SeparationFamily):
    """Mel-Band and BS RoFormer models: local folders, among them those that the catalogue knows. Nothing is downloaded.

    Args:
        weights: where weights are looked for.
    """

    name = "roformer"

    def __init__(self, weights: WeightLocations) -> None:
        self._weights = weights
        self._folders = RoformerRepository(weights)

    def names(self) -> list[str]:
        return [*self._folders.names(), *ALIASES]

    def knows(self, name: str) -> bool:
        return canonical_name(name) in CATALOG or self._folders.find_folder(name) is not None

    def list_models(self) -> list[SeparationModelInfo]:
        return describe_each(self._folders.names(), self.describe, _describe_without_files)

    def readiness(self) -> Readiness:
        if missing := [package for package in _NEEDED if find_spec(package) is None]:
            return Readiness(f"not installed: {', '.join(missing)}")
        if not any(model.availability.is_usable for model in self.list_models()):
            return Readiness("no RoFormer that can be used is here: put the folder of one into MODELS_DIR")
        return READY

    def search_paths(self) -> list[str]:
        return self._weights.search_paths()

    def resolve(self, name: str | None) -> ModelHandle[Separator]:
        """The model called `name`, or by one of its aliases; None: the published one with a clear licence.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: it is not here.
        """
        name = canonical_name(DEFAULT_MODEL if name is None else name)
        if not self.knows(name):
            raise unknown_name_error("model", name, self.names())
        self._find(name)
        return ModelHandle(self, name)

    def describe(self, name: str) -> SeparationModelInfo:
        """What the model called `name` can do; reads the yaml, and the names and shapes of the tensors.

        Raises:
            ModelError: its files are here and broken, or are those of a network that is not run.
        """
        name = canonical_name(name)
        files = self._folders.find(name)
        if files is None:
            return _describe_without_files(name, unavailable(_explain_missing(name)))
        config = read_model_config(files)
        card = _find_card(name, files)
        return SeparationModelInfo(
            name=name,
            availability=LOCAL,
            stems=config.outputs,
            role=choose_role(files, config),
            overlap=1 - 1 / config.num_overlap,
            is_partition=len(config.stems) <= _MOST_PARTS,
            sample_rate=config.sample_rate,
            licence=card.licence if card else _LOCAL_LICENCE,
            licence_note=card.licence_note if card else _LOCAL_NOTE,
            about=card.about if card else "A model folder of this worker.",
        )

    def version_key(self, name: str) -> Hashable:
        files = self._find(name)
        return stamp_files((files.weights, files.settings))

    def memory_bytes(self, name: str) -> int:
        """The size of the file; of a model with many stems, the part of it that four stems need."""
        files = self._find(name)
        stems = len(read_model_config(files).stems)
        return files.weights.stat().st_size * min(_USUAL_STEMS, stems) // stems

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
                f"The separation model '{name}' cannot be used: {_explain_missing(name)}.", details={"model": name}
            )
        return files


def _describe_without_files(name: str, availability: Availability) -> SeparationModelInfo:
    """What is known of a model without its files: what is on record about a published one."""
    if (card := CATALOG.get(name)) is None:
        return SeparationModelInfo(
            name=name, availability=availability, licence=_LOCAL_LICENCE, licence_note=_LOCAL_NOTE
        )
    return SeparationModelInfo(
        name=name,
        availability=availability,
        role=card.role,
        licence=card.licence,
        licence_note=card.licence_note,
        about=card.about,
    )


def _find_card(name: str, files: ModelFiles) -> ModelCard | None:
    """The catalogue's entry of a model, by the name of its folder or of its weights. Other weights under the name of a
    published model are told by their size, as far as it is on record."""
    card = CATALOG.get(name) or CATALOG.get(canonical_name(files.weights.stem))
    if card is None or card.size and files.weights.stat().st_size != card.size:
        return None
    return card


def _explain_missing(name: str) -> str:
    card = CATALOG.get(name)
    source = f" (published at {card.source})" if card and card.source else ""
    return f"not here: put its .ckpt and its .yaml{source} into a folder {name} below MODELS_DIR"
