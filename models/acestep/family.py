"""The family `acestep`: names, descriptions, checks before loading. Importable without torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from errors import ErrorCode, ModelError, sanitize, unknown_name_error
from models.acestep.catalog import (
    BY_NAME,
    GUIDED,
    LICENCE,
    LOCAL_LICENCE,
    MAIN_HUB_ID,
    MAX_STEPS,
    MAX_TURBO_STEPS,
    TEXT_ENCODER_FOLDER,
    TEXT_ENCODER_PARAMETERS,
    TURBO,
    VAE_FOLDER,
    VAE_PARAMETERS,
    find_catalog_name,
    list_tasks,
)
from models.acestep.checkpoint import (
    ModelPart,
    TextEncoderPart,
    VaePart,
    list_missing_files,
    read_model,
    read_text_encoder,
    read_vae,
)
from models.acestep.config import SamplingDefaults
from models.acestep.info import AceStepModelInfo
from models.acestep.repository import AceStepRepository, fetch_model, fetch_shared
from models.checkpoints.locations import WeightLocations
from models.checkpoints.safetensors_shards import count_elements
from models.demo import LICENCE as DEMO_LICENCE
from models.demo import list_demos
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
    stamp_files,
    unavailable,
)
from models.runtime.progress import UNATTENDED, Observer

if TYPE_CHECKING:
    from models.acestep.engine import AceStepEngine

_NEEDED = ("torch", "diffusers", "transformers", "safetensors")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is here of a model that can be used.

    Args:
        model: None: it has to be downloaded.
        vae, text_encoder: as `model`.
    """

    model: ModelPart | None = None
    vae: VaePart | None = None
    text_encoder: TextEncoderPart | None = None

    @property
    def availability(self) -> Availability:
        return LOCAL if self.model and self.vae and self.text_encoder else DOWNLOAD


class AceStepFamily(ModelFamily["AceStepEngine"]):
    """ACE-Step 1.5: the published models, and local ones in their format or in diffusers'.

    Args:
        weights: where checkpoints are looked for.
        demo: folder of the demo model's folder; None: there is none.
        gpu_finder: finds the GPU that engines are loaded onto; None: there is none.
        cuda_graphs: whether a GPU replays the steps of short songs as CUDA graphs.
    """

    name = "acestep"
    downloadable = True
    demos = list_demos(name)

    def __init__(
        self,
        weights: WeightLocations,
        *,
        demo: Path | None = None,
        gpu_finder: Callable[[], Gpu | None] = lambda: None,
        cuda_graphs: bool = True,
    ) -> None:
        self._weights = weights.add_folder(demo)
        self._gpu_finder = gpu_finder
        self._cuda_graphs = cuda_graphs
        self._repository = AceStepRepository(self._weights)

    def list_models(self) -> list[AceStepModelInfo]:
        """The catalogue, then local models; local ones are described by their files."""
        return [self.describe(name) for name in self._repository.list_names()]

    def readiness(self) -> Readiness:
        if missing := [package for package in _NEEDED if importlib.util.find_spec(package) is None]:
            return Readiness(f"not installed: {', '.join(missing)}")
        local = [info.name for info in self.list_models() if info.availability.is_usable and self._is_here(info.name)]
        no_model = (
            "no ACE-Step model that can be used is here: put one below MODELS_DIR, or let the worker download from the "
            "Hugging Face hub"
        )
        return self.judge_local(local, otherwise=READY if self._weights.hub else Readiness(no_model))

    def search_paths(self) -> list[str]:
        return self._weights.search_paths()

    def resolve(self, name: str | None) -> ModelHandle[AceStepEngine]:
        """The model called `name`; None: the best one that is here. Reads no weights.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: it is not here and cannot be fetched, or one of its parts is missing, broken or unsafe; if no
                model is named, all that are here are so.
        """
        if name is None:
            return self._choose_default()
        canonical = find_catalog_name(name)
        if canonical not in BY_NAME and self._repository.find(canonical) is None:
            raise unknown_name_error("model", name, self._repository.list_names())
        self._inspect(canonical)
        return ModelHandle(self, canonical)

    def describe(self, name: str) -> AceStepModelInfo:
        """What the model with the canonical `name` can do, or why it cannot be used; read from its files if local."""
        card = BY_NAME.get(name)
        published = AceStepModelInfo(
            name=name,
            availability=DOWNLOAD,
            licence=LICENCE if card else DEMO_LICENCE if name in self.demos else LOCAL_LICENCE,
            hub_id=card.hub_id if card else "",
            tasks=card.tasks if card else (),
        )
        published = _set_defaults(published, card.defaults if card else TURBO)
        try:
            parts = self._inspect(name)
        except ModelError as error:
            return replace(published, availability=unavailable(error.message))
        if parts.model is None:
            return replace(published, download_bytes=card.download_bytes if card else 0)
        config, takes_codes = parts.model.config, parts.model.takes_codes
        has_track_tasks = card.has_track_tasks if card else "base" in f"{config.version} {name}"
        info = replace(
            published,
            availability=parts.availability,
            tasks=list_tasks(has_track_tasks=has_track_tasks, takes_codes=takes_codes),
            takes_codes=takes_codes,
        )
        return _set_defaults(info, _find_defaults(name, parts.model))

    def version_key(self, name: str) -> Hashable:
        folders = self._repository.find(name)
        if folders is None:
            return None
        own = {folder for folder in (folders.model, folders.vae, folders.text_encoder) if folder}
        return stamp_files(sorted({path for folder in own for path in folder.rglob("*") if path.is_file()}))

    def memory_bytes(self, name: str) -> int:
        """Estimate from the files, or from the published sizes of what is not here yet."""
        is_published = name in BY_NAME and self._repository.find(name) is None
        parts = _Parts() if is_published else self._inspect(name)
        gpu = self._gpu_finder()
        weight_bytes = 2 if (gpu.multiplies_bfloat16 if gpu else cpu_multiplies_bfloat16()) else 4
        model = parts.model.elements if parts.model else BY_NAME[name].parameters
        text = count_elements(parts.text_encoder.tensors) if parts.text_encoder else TEXT_ENCODER_PARAMETERS
        vae = count_elements(parts.vae.tensors) if parts.vae else VAE_PARAMETERS
        return (model + text) * weight_bytes + vae * (weight_bytes if gpu else 4)

    def load(self, name: str, *, device: str) -> AceStepEngine:
        """The engine of the model, after downloading what is missing."""
        from models.acestep.engine import AceStepEngine
        from models.acestep.load import load_components

        parts = self._fetch_missing(name, UNATTENDED)
        assert parts.model and parts.vae and parts.text_encoder, "everything has been downloaded"
        defaults = _find_defaults(name, parts.model)
        components = load_components(parts.model, parts.vae, parts.text_encoder, defaults=defaults, device=device)
        return AceStepEngine(components, cuda_graphs=self._cuda_graphs)

    def engine_bytes(self, engine: AceStepEngine) -> int:
        return engine.memory_bytes

    def free_memory(self, engine: AceStepEngine) -> None:
        engine.backend.free_memory()

    def needs_restart(self, engine: AceStepEngine) -> bool:
        return engine.backend.needs_restart

    def warm_up(self, engine: AceStepEngine) -> None:
        engine.warm_up()

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        self._fetch_missing(name, observer)

    def _inspect(self, name: str) -> _Parts:
        """What is here of the model, checked; what is missing can be downloaded.

        Raises:
            ModelError: a part is broken, or missing and cannot be downloaded.
        """
        folders = self._repository.find(name)
        if folders is None:
            if self._weights.hub is None:
                raise _make_missing_error(name)
            return _Parts()
        if missing := list_missing_files(folders):
            if self._weights.hub is None or name not in BY_NAME:
                raise _make_incomplete_error(name, missing)
            return _Parts()
        model = read_model(folders)
        if card := BY_NAME.get(name):
            model = replace(model, config=replace(model.config, is_turbo=card.is_turbo))
        shared = {VAE_FOLDER: folders.vae, TEXT_ENCODER_FOLDER: folders.text_encoder}
        absent = [part for part, folder in shared.items() if folder is None]
        if absent and self._weights.hub is None:
            raise _make_incomplete_error(name, absent)
        return _Parts(
            model,
            read_vae(folders, model.config) if folders.vae else None,
            read_text_encoder(folders, model.config) if folders.text_encoder else None,
        )

    def _choose_default(self) -> ModelHandle[AceStepEngine]:
        """The best model that is here, with all of its parts if there is one; the demo only if there is no other."""
        complete: list[tuple[str, ModelError | None]] = []
        incomplete: list[tuple[str, ModelError | None]] = []
        names = [name for name in self._repository.list_names() if self._is_here(name)]
        for name in [name for name in names if name not in self.demos] or names:
            try:
                parts = self._inspect(name)
            except ModelError as error:
                complete.append((name, error))
                continue
            (complete if parts.availability == LOCAL else incomplete).append((name, None))
        if chosen := choose_default([*complete, *incomplete]):
            return ModelHandle(self, *chosen)
        raise ModelError(
            "No ACE-Step model is here. Name one to download (list_models shows them), or put its folder below "
            "MODELS_DIR.",
            code=ErrorCode.MODEL_UNAVAILABLE,
        )

    def _is_here(self, name: str) -> bool:
        """Whether the model's own folder is on this machine, intact or not."""
        return self._repository.find(name) is not None

    def _fetch_missing(self, name: str, observer: Observer) -> _Parts:
        """What is here of the model after downloading the rest."""
        parts = self._inspect(name)
        if parts.availability == LOCAL:
            return parts
        assert self._weights.hub is not None, "without a hub, a missing part is an error"
        if parts.model is None:
            fetch_model(self._weights.hub, BY_NAME[name], observer)
        folders = self._repository.find(name)
        if folders is not None:
            fetch_shared(self._weights.hub, folders, observer)
            parts = self._inspect(name)
        if parts.availability != LOCAL:
            raise ModelError(f"The model '{name}' was downloaded incompletely.", code=ErrorCode.MODEL_INCOMPLETE)
        return parts


def _find_defaults(name: str, model: ModelPart) -> SamplingDefaults:
    """The catalogue's, or those of the published models of the same kind."""
    if card := BY_NAME.get(name):
        return card.defaults
    return TURBO if model.config.is_turbo else GUIDED


def _set_defaults(info: AceStepModelInfo, defaults: SamplingDefaults) -> AceStepModelInfo:
    return replace(
        info,
        is_turbo=defaults.is_turbo,
        num_steps=defaults.num_steps,
        max_steps=MAX_TURBO_STEPS if defaults.is_turbo else MAX_STEPS,
        shift=defaults.shift,
        cfg_coef=defaults.cfg_coef,
    )


def _make_missing_error(name: str) -> ModelError:
    hub_id = BY_NAME[name].hub_id if name in BY_NAME else name
    return ModelError(
        f"The model '{name}' is not here, and the worker does not download. Put its folder '{name}', and the folders "
        f"'{VAE_FOLDER}' and '{TEXT_ENCODER_FOLDER}' of {MAIN_HUB_ID}, below MODELS_DIR, or {hub_id} into the Hugging "
        "Face cache.",
        code=ErrorCode.MODEL_UNAVAILABLE,
        details={"model": name},
    )


def _make_incomplete_error(name: str, missing: tuple[str, ...] | list[str]) -> ModelError:
    shown = ", ".join(sanitize(file) for file in missing[:3]) + (" and more" if len(missing) > 3 else "")  # noqa: PLR2004
    return ModelError(
        f"The model '{name}' is here, but these parts of it are not: {shown}. Put them into or beside its folder, or "
        f"into the Hugging Face cache ('{VAE_FOLDER}' and '{TEXT_ENCODER_FOLDER}' are in {MAIN_HUB_ID}).",
        code=ErrorCode.MODEL_INCOMPLETE,
        details={"part": missing[0], "missing": list(missing)},
    )
