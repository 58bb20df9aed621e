"""The family `beat_this`: which of its models are on this worker, and how one is loaded. Importable without torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import ErrorCode, ModelError, unknown_name_error
from models.beat_this.catalog import CATALOG, LICENCE, SOURCE, ModelCard
from models.checkpoints.locations import WeightLocations
from models.family import (
    LOCAL,
    READY,
    ModelFamily,
    ModelHandle,
    ModelInfo,
    Readiness,
    stamp_files,
    unavailable,
)

if TYPE_CHECKING:
    from models.beat_this.tracker import BeatTracker

_FOLDERS = (".", "beat_this")  # below MODELS_DIR and the other folders of weights


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatThisInfo(ModelInfo):
    """A beat tracker: its licence, and one sentence about it."""

    licence: str
    about: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "available": self.availability.to_json(),
            "licence": self.licence,
            "about": self.about,
        }


class BeatThisFamily(ModelFamily["BeatTracker"]):
    """The published models of Beat This!, from files that are here: they are on no hub.

    Args:
        weights: where files are looked for.
        torch_cache: the folder to which `torch.hub` downloads; None: there is none.
        on_gpu: whether models run on a GPU. On a CPU a large one takes longer than the whole rest of an analysis.
    """

    name = "beat_this"

    def __init__(
        self, weights: WeightLocations, *, torch_cache: Path | None = None, on_gpu: Callable[[], bool] = lambda: False
    ) -> None:
        self._weights, self._torch_cache, self._on_gpu = weights, torch_cache, on_gpu

    def list_models(self) -> list[BeatThisInfo]:
        return [
            BeatThisInfo(
                name=card.name,
                availability=LOCAL if self._find(card) else unavailable(_describe_missing(card)),
                licence=LICENCE,
                about=card.about,
            )
            for card in CATALOG.values()
        ]

    def readiness(self) -> Readiness:
        here = any(self._find(card) for card in CATALOG.values())
        return READY if here else Readiness("no model of Beat This! is on this worker")

    def search_paths(self) -> list[str]:
        return self._weights.search_paths()

    def find_best(self) -> ModelHandle[BeatTracker] | None:
        """The best model that is here, on a CPU the best of the small ones; None if there is none."""
        here = [card for card in CATALOG.values() if self._find(card)]
        if not self._on_gpu():
            here.sort(key=lambda card: card.size)
        return ModelHandle(self, here[0].name) if here else None

    def resolve(self, name: str | None) -> ModelHandle[BeatTracker]:
        """The model called `name`; None: the best that is here.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: `model_unavailable`: its file is not here; says where to put it.
        """
        if name is None and (best := self.find_best()) is not None:
            return best
        card = CATALOG.get(name or next(iter(CATALOG)))
        if card is None:
            raise unknown_name_error("beat_model", str(name), CATALOG)
        self._require(card)
        return ModelHandle(self, card.name)

    def version_key(self, name: str) -> Hashable:
        path = self._find(CATALOG[name])
        return stamp_files([path]) if path else None

    def memory_bytes(self, name: str) -> int:
        """The weights in float32."""
        return CATALOG[name].size

    def load(self, name: str, *, device: str) -> BeatTracker:
        from models.beat_this.tracker import BeatTracker
        from models.checkpoints.errors import CheckpointError

        path = self._require(CATALOG[name])
        try:
            return BeatTracker.load(path, device=device)
        except CheckpointError as error:
            raise ModelError(
                f"The beat model '{name}' cannot be loaded: {error}. Put the published file {path.name} in its place "
                f"({SOURCE}), or send 'beat_model': 'none'.",
                code=ErrorCode.BROKEN_CHECKPOINT,
                details={"beat_model": name},
            ) from error

    def engine_bytes(self, engine: BeatTracker) -> int:
        return engine.memory_bytes

    def warm_up(self, engine: BeatTracker) -> None:
        engine.warm_up()

    def _find(self, card: ModelCard) -> Path | None:
        for file in card.files:
            if folder := self._weights.find(_FOLDERS, (), (file,)):
                return folder / file
            if self._torch_cache is not None and (self._torch_cache / file).is_file():
                return self._torch_cache / file
        return None

    def _require(self, card: ModelCard) -> Path:
        path = self._find(card)
        if path is None:
            raise ModelError(
                f"The beat model '{card.name}' cannot run here: {_describe_missing(card)}.",
                code=ErrorCode.MODEL_UNAVAILABLE,
                details={"beat_model": card.name},
            )
        return path


def _describe_missing(card: ModelCard) -> str:
    return f"put {card.files[0]} ({SOURCE}) into MODELS_DIR or its folder beat_this"
