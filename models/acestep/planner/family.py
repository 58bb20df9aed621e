"""The family `acestep_planner`: which planners there are, how one is loaded. A family of its own, so that a planner can
leave the GPU's memory before the model that makes the song is loaded. Importable without torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from errors import ErrorCode, ModelError, unknown_name_error
from models.acestep.catalog import LOCAL_LICENCE
from models.acestep.planner.catalog import BY_NAME, CATALOG, find_catalog_name
from models.acestep.planner.checkpoint import PlannerCheckpoint, read_checkpoint
from models.acestep.planner.config import CACHE_BYTES, PlannerConfig
from models.acestep.planner.info import PlannerModelInfo
from models.acestep.planner.repository import PlannerRepository, fetch_planner
from models.checkpoints.locations import WeightLocations
from models.device import Gpu, cpu_multiplies_bfloat16
from models.family import (
    DOWNLOAD,
    LOCAL,
    READY,
    Availability,
    ModelFamily,
    ModelHandle,
    Readiness,
    choose_default,
    describe_each,
    stamp_files,
)
from models.runtime.progress import UNATTENDED, Observer

if TYPE_CHECKING:
    from models.acestep.planner.engine import PlannerEngine

_TEXT_TOKENS = 6144  # of a long plan, prompt included, whose keys and values are kept, too
_GRAPH_BYTES = 300_000_000  # of the CUDA graphs of a song of four minutes
_NEEDED = ("torch", "safetensors", "tokenizers", "yaml")


class PlannerFamily(ModelFamily["PlannerEngine"]):
    """The planners of ACE-Step: the published ones, and others in their format.

    Args:
        weights: where weights are looked for.
        gpu_finder: finds the GPU that engines are loaded onto; None: there is none, they run on the CPU.
        cuda_graphs: whether a GPU replays decoding steps as CUDA graphs.
    """

    name = "acestep_planner"
    downloadable = True

    def __init__(
        self, weights: WeightLocations, *, gpu_finder: Callable[[], Gpu | None] = lambda: None, cuda_graphs: bool = True
    ) -> None:
        self._weights = weights
        self._folders = PlannerRepository(weights)
        self._gpu_finder = gpu_finder
        self._cuda_graphs = cuda_graphs

    def list_models(self) -> list[PlannerModelInfo]:
        """The catalogue, then local planners."""
        return describe_each(self._folders.list_names(), self.describe, _describe)

    def readiness(self) -> Readiness:
        if missing := [package for package in _NEEDED if find_spec(package) is None]:
            return Readiness(f"not installed: {', '.join(missing)}")
        if not any(model.availability.is_usable for model in self.list_models()):
            return Readiness("no planner is here: set MODELS_DIR, or let the worker download from the Hugging Face hub")
        return READY

    def search_paths(self) -> list[str]:
        return self._weights.search_paths()

    def resolve(self, name: str | None) -> ModelHandle[PlannerEngine]:
        """The planner called `name`; None: the best one here that leaves the GPU room for the model of the song.

        Raises:
            UnknownNameError: there is no such planner.
            ModelError: it is not here and cannot be fetched, or is broken; if no planner is named, all that are here
                are so, or there are none.
        """
        if name is None:
            return self._choose_default()
        canonical = find_catalog_name(name)
        if canonical not in BY_NAME and self._folders.find(canonical) is None:
            raise unknown_name_error("planner", name, self._folders.list_names())
        self.describe(canonical)
        return ModelHandle(self, canonical)

    def describe(self, name: str) -> PlannerModelInfo:
        """What is known of the planner with the canonical `name`.

        Raises:
            ModelError: its files are broken, or not here while none can be downloaded.
        """
        if self._read(name) is not None:
            return _describe(name, LOCAL)
        if self._weights.hub is None:
            raise _make_missing_error(name)
        return _describe(name, DOWNLOAD)

    def version_key(self, name: str) -> Hashable:
        folder = self._folders.find(name)
        return stamp_files(sorted(path for path in folder.iterdir() if path.is_file())) if folder else None

    def memory_bytes(self, name: str) -> int:
        """Estimate from the planner's sizes, with room for keys and values."""
        checkpoint = self._read(name)
        config = checkpoint.config if checkpoint else BY_NAME[name].config
        gpu = self._gpu_finder()
        weight_bytes = 2 if (gpu.multiplies_bfloat16 if gpu else cpu_multiplies_bfloat16()) else 4
        return estimate_memory(config, weight_bytes=weight_bytes, on_gpu=gpu is not None)

    def load(self, name: str, *, device: str) -> PlannerEngine:
        """The engine of the planner, after downloading what is missing."""
        from models.acestep.planner.load import load_engine

        return load_engine(self._fetch_missing(name), device=device, cuda_graphs=self._cuda_graphs)

    def engine_bytes(self, engine: PlannerEngine) -> int:
        return engine.memory_bytes

    def free_memory(self, engine: PlannerEngine) -> None:
        engine.backend.free_memory()

    def needs_restart(self, engine: PlannerEngine) -> bool:
        return engine.backend.needs_restart

    def warm_up(self, engine: PlannerEngine) -> None:
        engine.warm_up()

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        self._fetch_missing(name, observer)

    def _choose_default(self) -> ModelHandle[PlannerEngine]:
        gpu = self._gpu_finder()
        memory = gpu.total_bytes if gpu else 0
        fitting = [card.name for card in CATALOG if card.least_gpu_bytes <= memory]
        larger = [card.name for card in reversed(CATALOG) if card.name not in fitting]
        others = [name for name in self._folders.list_names() if name not in BY_NAME]
        here = [name for name in (*fitting, *larger, *others) if self._folders.find(name)]
        if chosen := choose_default((name, self._find_problem(name)) for name in here):
            return ModelHandle(self, *chosen)
        raise ModelError(
            "No planner is here. Name one to download (list_models shows them), or put its folder below MODELS_DIR.",
            code=ErrorCode.MODEL_UNAVAILABLE,
        )

    def _find_problem(self, name: str) -> ModelError | None:
        try:
            self.describe(name)
        except ModelError as error:
            return error
        return None

    def _read(self, name: str) -> PlannerCheckpoint | None:
        """What the planner's folder holds; None if it is not here, or incomplete and can be downloaded."""
        folder = self._folders.find(name)
        if folder is None:
            return None
        try:
            return read_checkpoint(folder)
        except ModelError as error:
            if error.error_code is ErrorCode.MODEL_INCOMPLETE and name in BY_NAME and self._weights.hub is not None:
                return None
            raise

    def _fetch_missing(self, name: str, observer: Observer = UNATTENDED) -> PlannerCheckpoint:
        if (checkpoint := self._read(name)) is not None:
            return checkpoint
        if self._weights.hub is None:
            raise _make_missing_error(name)
        return read_checkpoint(fetch_planner(self._weights.hub, BY_NAME[name], observer))


def estimate_memory(config: PlannerConfig, *, weight_bytes: int, on_gpu: bool) -> int:
    """Bytes that a loaded planner takes: weights, keys and values of a long plan and of songs with guidance, and on a
    GPU its graphs; on a CPU the head is stored a second time, in the layout of a product."""
    weights = config.parameters * weight_bytes
    text_cache = _TEXT_TOKENS * config.cache_numbers * weight_bytes
    extra = _GRAPH_BYTES if on_gpu else config.vocab_size * config.hidden_size * weight_bytes
    return weights + CACHE_BYTES + text_cache + extra


def _describe(name: str, availability: Availability) -> PlannerModelInfo:
    card = BY_NAME.get(name)
    return PlannerModelInfo(
        name=name,
        availability=availability,
        download_bytes=card.download_bytes if card and availability == DOWNLOAD else 0,
        licence=card.licence if card else LOCAL_LICENCE,
        hub_id=card.hub_id if card else "",
    )


def _make_missing_error(name: str) -> ModelError:
    return ModelError(
        f"The planner '{name}' is not here and cannot be downloaded: the worker is offline (HF_HUB_OFFLINE). Put its "
        "folder below MODELS_DIR, or choose one that list_models shows as local.",
        code=ErrorCode.MODEL_UNAVAILABLE,
    )
