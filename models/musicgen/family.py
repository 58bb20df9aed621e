"""The family `musicgen`: names, descriptions, checks before loading. Importable without torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import ErrorCode, InvalidRequestError, ModelError, unknown_name_error
from models.checkpoints.hf_folder import REQUIRED_FILES
from models.checkpoints.locations import WeightLocations
from models.demo import LICENCE, MUSIC, list_demos
from models.device import cpu_multiplies_bfloat16
from models.family import (
    DOWNLOAD,
    LOCAL,
    READY,
    ModelFamily,
    ModelHandle,
    ModelInfo,
    Readiness,
    choose_default,
    stamp_files,
    unavailable,
)
from models.musicgen.catalog import (
    BY_NAME,
    CATALOG,
    DIFFUSION_FILE,
    DIFFUSION_HUB_ID,
    NON_COMMERCIAL,
    find_catalog_name,
)
from models.musicgen.inspect import (
    CODEC_FILE,
    LM_FILE,
    T5_FILES,
    CheckpointInfo,
    inspect_checkpoint,
    inspect_diffusion,
)
from models.runtime.progress import UNATTENDED, Observer

if TYPE_CHECKING:
    from models.musicgen.engine import Engine
    from models.musicgen.multiband_diffusion import MultiBandDiffusion

TEXT_ENCODER_FILES = (*T5_FILES, "tokenizer_config.json?", "special_tokens_map.json?")
_NO_DIFFUSION_FILE = (
    f"The weights of Multi-Band Diffusion are not here: put {DIFFUSION_FILE} into a folder 'multiband-diffusion' below "
    "MODELS_DIR, or leave 'mbd' out."
)
_DIFFUSION_BYTES = 700_000_000  # until its file is here


@dataclass(frozen=True, slots=True, kw_only=True)
class MusicModelInfo(ModelInfo):
    """What a music model can do. A local model that cannot be used has only its name, family and licence.

    Args:
        family: `musicgen` or `audiogen`.
        licence: of the weights.
        sample_rate: of the output, Hz; 0: unknown.
        channels: of the output; 0: unknown.
        conditioning: `text`, `melody`; empty: unknown.
        window: s, the longest clip generated at once; 0: unknown.
        hub_id: of a published model.
    """

    family: str
    licence: str
    sample_rate: int = 0
    channels: int = 0
    conditioning: tuple[str, ...] = ()
    window: float = 0.0
    hub_id: str = ""

    def to_json(self) -> dict[str, Any]:
        known = {
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "conditioning": list(self.conditioning),
            "window_s": self.window,
            "hub_id": self.hub_id,
        }
        return {
            "name": self.name,
            "family": self.family,
            "licence": self.licence,
            "available": self.availability.to_json(),
        } | {key: value for key, value in known.items() if value}


class MusicGenFamily(ModelFamily["Engine"]):
    """MusicGen, AudioGen, local checkpoints in their format, and the demo that comes with the worker.

    Args:
        weights: where checkpoints are looked for.
        demo: folder of the demo checkpoint; None: there is none.
        on_gpu: whether engines are loaded onto a GPU, on which a weight takes 2 bytes; on most CPUs it takes 4.
        cuda_graphs: whether a GPU replays decoding steps as CUDA graphs.

    Attributes:
        diffusion: Multi-Band Diffusion, which can decode in place of the codec.
    """

    name = "musicgen"
    downloadable = True
    demos = list_demos(name)

    def __init__(
        self,
        weights: WeightLocations,
        *,
        demo: Path | None = None,
        on_gpu: Callable[[], bool] = lambda: False,
        cuda_graphs: bool = True,
    ) -> None:
        self._weights = weights
        self._demo = demo
        self._on_gpu = on_gpu
        self._cuda_graphs = cuda_graphs
        self.diffusion = MultiBandDiffusionFamily(weights)

    def list_models(self) -> list[MusicModelInfo]:
        """The catalogue, then local checkpoints, then the demo; local ones are described by their files."""
        return [self.describe(name) for name in self._list_names()]

    def readiness(self) -> Readiness:
        if importlib.util.find_spec("transformers") is None:
            return Readiness("transformers is not installed")
        no_model = "no music model is here: set MODELS_DIR, or let the worker download from the Hugging Face hub"
        return self.judge_local(self.list_local_names(), otherwise=READY if self._weights.hub else Readiness(no_model))

    def search_paths(self) -> list[str]:
        return self._weights.search_paths()

    def resolve(self, name: str | None, *, conditioning: str = "text") -> ModelHandle[Engine]:
        """The model called `name`; None: the best local model with that conditioning. Reads no weights.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: it is not here and cannot be fetched, or one of its parts is missing, broken or unsafe; if no
                model is named, all that are here are so.
        """
        if name is None:
            return self._choose_default(conditioning)
        canonical = find_catalog_name(name)
        folder = self._find_folder(canonical)
        if folder is None and canonical not in BY_NAME:
            raise unknown_name_error("model", name, self._list_names())
        if error := self._find_problem(canonical, folder):
            raise error
        return ModelHandle(self, canonical)

    def describe(self, name: str) -> MusicModelInfo:
        """What the model with the canonical `name` can do, or why it cannot be used; read from its files if local."""
        folder, card = self._find_folder(name), BY_NAME.get(name)
        problem = self._find_problem(name, folder)
        published = MusicModelInfo(
            name=name,
            availability=unavailable(problem.message) if problem else DOWNLOAD,
            download_bytes=card.download_bytes if card and not problem else 0,
            family=card.family if card else "musicgen",
            licence=NON_COMMERCIAL if card else LICENCE if name in self.demos else "unknown: see its author's terms",
            sample_rate=card.sample_rate if card else 0,
            channels=card.channels if card else 0,
            conditioning=card.conditioning if card else (),
            window=card.window if card else 0.0,
            hub_id=card.hub_id if card else "",
        )
        if problem is not None or folder is None:
            return published
        checkpoint = self._describe(folder)
        return replace(
            published,
            availability=DOWNLOAD if checkpoint.to_fetch else LOCAL,
            download_bytes=0,
            sample_rate=checkpoint.sample_rate,
            channels=checkpoint.channels,
            conditioning=checkpoint.conditioning,
            window=checkpoint.window,
        )

    def list_local_names(self) -> list[str]:
        """The canonical names of the models whose checkpoints are on this machine, intact or not."""
        return [name for name in self._list_names() if self._find_folder(name)]

    def find_checkpoint(self, name: str) -> CheckpointInfo | None:
        """The checkpoint with the canonical `name`; None: it is not on this machine.

        Raises:
            ModelError: it is broken.
        """
        folder = self._find_folder(name)
        return None if folder is None else self._describe(folder)

    def resolve_diffusion(self, name: str) -> ModelHandle[MultiBandDiffusion]:
        """Multi-Band Diffusion for the model with the canonical `name`.

        Raises:
            InvalidRequestError: it does not fit that model.
            ModelError: its weights cannot be had.
        """
        folder, card = self._find_folder(name), BY_NAME.get(name)
        if folder is None and card is not None and card.sample_rate != 32_000:
            raise _make_mismatch_error(name)
        handle = self.diffusion.resolve(None)
        if folder is not None and not self.diffusion.fits(self._describe(folder)):
            raise _make_mismatch_error(name)
        return handle

    def version_key(self, name: str) -> Hashable:
        folder = self._find_folder(name)
        return stamp_files(sorted(path for path in folder.rglob("*") if path.is_file())) if folder else None

    def memory_bytes(self, name: str) -> int:
        """Estimate from the files, or from the model's dimensions if they are not here yet."""
        weight_bytes = 2 if self._on_gpu() or cpu_multiplies_bfloat16() else 4
        folder = self._find_folder(name)
        if folder is None:
            return BY_NAME[name].memory_bytes(weight_bytes=weight_bytes)
        return self._describe(folder).memory_bytes(weight_bytes=weight_bytes)

    def load(self, name: str, *, device: str) -> Engine:
        """The engine of the model, after downloading what is missing."""
        from models.musicgen.load import load_engine

        return load_engine(self._fetch_missing(name), device=device, cuda_graphs=self._cuda_graphs)

    def engine_bytes(self, engine: Engine) -> int:
        return engine.memory_bytes

    def free_memory(self, engine: Engine) -> None:
        engine.backend.free_memory()

    def needs_restart(self, engine: Engine) -> bool:
        return engine.backend.needs_restart

    def warm_up(self, engine: Engine) -> None:
        engine.warm_up()

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        self._fetch_missing(name, observer)

    def _list_names(self) -> list[str]:
        local = [
            name for name in map(find_catalog_name, self._weights.list_folder_names(LM_FILE)) if name not in BY_NAME
        ]
        demos = [name for name in self.demos if self._find_folder(name)]
        return list(dict.fromkeys([*BY_NAME, *local, *demos]))

    def _find_folder(self, name: str) -> Path | None:
        """The model's folder; None if it is not on this machine."""
        if name in BY_NAME:
            hub_id = BY_NAME[name].hub_id
            names = (name, hub_id.rpartition("/")[2], hub_id)
            complete = self._weights.find(names, (hub_id,), (LM_FILE, CODEC_FILE))
            return complete or self._weights.find(names, (hub_id,), (LM_FILE,))
        if found := self._weights.find_named(name, (LM_FILE,)):
            return found
        is_demo = name in self.demos and self._demo is not None and (self._demo / LM_FILE).is_file()
        return self._demo if is_demo else None

    def _describe(self, folder: Path) -> CheckpointInfo:
        return inspect_checkpoint(folder, self._weights)

    def _find_problem(self, name: str, folder: Path | None) -> ModelError | None:
        """Why the model cannot be used; None if it can."""
        card = BY_NAME.get(name)
        if card is not None and card.unsupported:
            return ModelError(
                f"The model '{name}' cannot be run: it {card.unsupported}.", code=ErrorCode.MODEL_UNSUPPORTED
            )
        if folder is None:
            return None if self._weights.hub else _make_missing_error(name)
        try:
            absent = self._describe(folder).to_fetch
        except ModelError as error:
            return error
        if absent and self._weights.hub is None:
            return ModelError(
                f"The model '{name}' is here, but its part {absent[0]} is not: put it beside the checkpoint (folder "
                f"'{'t5' if 't5' in absent[0] else absent[0].rpartition('/')[2]}') or into the Hugging Face cache.",
                code=ErrorCode.MODEL_INCOMPLETE,
                details={"part": absent[0]},
            )
        return None

    def _choose_default(self, conditioning: str) -> ModelHandle[Engine]:
        """The best model that is here; the demo only if there is no other."""
        complete: list[tuple[str, ModelError | None]] = []
        incomplete: list[tuple[str, ModelError | None]] = []
        for name in self._list_names():
            folder, card = self._find_folder(name), BY_NAME.get(name)
            fits = card is None or (card.family == "musicgen" and conditioning in card.conditioning)
            if folder is None or not fits or name in self.demos:
                continue
            problem = self._find_problem(name, folder)
            if problem is not None:
                complete.append((name, problem))
            elif conditioning in (description := self._describe(folder)).conditioning:
                (incomplete if description.to_fetch else complete).append((name, None))
        if chosen := choose_default([*complete, *incomplete]):
            return ModelHandle(self, *chosen)
        if conditioning == "text" and (folder := self._find_folder(MUSIC.name)):
            if error := self._find_problem(MUSIC.name, folder):
                raise error
            return ModelHandle(self, MUSIC.name)
        raise ModelError(
            f"No music model with {conditioning} conditioning is here. Name one to download (list_models shows them), "
            "or put its checkpoint folder below MODELS_DIR.",
            code=ErrorCode.MODEL_UNAVAILABLE,
        )

    def _fetch_missing(self, name: str, observer: Observer = UNATTENDED) -> CheckpointInfo:
        """The description of the checkpoint, after downloading the parts that are not here."""
        folder = self._find_folder(name) or self._fetch(BY_NAME[name].hub_id, (LM_FILE, CODEC_FILE), observer)
        description = self._describe(folder)
        if not description.to_fetch:
            return description
        for hub_id in description.to_fetch:
            is_codec = hub_id == description.codec.hub_id
            self._fetch(hub_id, REQUIRED_FILES if is_codec else TEXT_ENCODER_FILES, observer)
        description = self._describe(folder)
        if description.to_fetch:
            raise ModelError(
                f"The part {description.to_fetch[0]} was downloaded incompletely.", code=ErrorCode.MODEL_INCOMPLETE
            )
        return description

    def _fetch(self, hub_id: str, files: tuple[str, ...], observer: Observer) -> Path:
        if self._weights.hub is None:
            raise _make_missing_error(hub_id)
        return self._weights.hub.fetch(hub_id, files, observer)


class MultiBandDiffusionFamily(ModelFamily["MultiBandDiffusion"]):
    """Multi-Band Diffusion, a second decoder for the codes of MusicGen's 32 kHz codec.

    It is no model that a request names, so it lists none; the cache shows it as `musicgen/mbd`.

    Args:
        weights: where its file is looked for.
    """

    name = "musicgen"

    def __init__(self, weights: WeightLocations) -> None:
        self._weights = weights

    def list_models(self) -> list[ModelInfo]:
        return []

    def readiness(self) -> Readiness:
        return READY if self._find_file() or self._weights.hub else Readiness(_NO_DIFFUSION_FILE)

    def search_paths(self) -> list[str]:
        return self._weights.search_paths()

    def resolve(self, name: str | None) -> ModelHandle[MultiBandDiffusion]:
        """The only model, `mbd`; raises `ModelError` if its weights cannot be had."""
        if not (readiness := self.readiness()).is_ready:
            raise ModelError(readiness.reason, code=ErrorCode.MODEL_UNAVAILABLE)
        return ModelHandle(self, "mbd")

    def fits(self, checkpoint: CheckpointInfo) -> bool:
        """Whether the diffusion models take what the checkpoint's codec gives."""
        if (path := self._find_file()) is None:
            return checkpoint.codec.dimension == 128  # as the published one does, which is still to be downloaded
        trained = inspect_diffusion(path)
        return (trained.sample_rate, trained.codec_dimension) == (checkpoint.sample_rate, checkpoint.codec.dimension)

    def memory_bytes(self, name: str) -> int:
        path = self._find_file()
        return path.stat().st_size if path else _DIFFUSION_BYTES

    def load(self, name: str, *, device: str) -> MultiBandDiffusion:
        from models.musicgen.multiband_diffusion import load_diffusion

        return load_diffusion(self._find_file() or self._fetch(UNATTENDED), device=device)

    def engine_bytes(self, engine: MultiBandDiffusion) -> int:
        return engine.memory_bytes

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        if self._find_file() is None:
            self._fetch(observer)

    def _fetch(self, observer: Observer) -> Path:
        if self._weights.hub is None:
            raise ModelError(_NO_DIFFUSION_FILE, code=ErrorCode.MODEL_UNAVAILABLE)
        return self._weights.hub.fetch(DIFFUSION_HUB_ID, (DIFFUSION_FILE,), observer) / DIFFUSION_FILE

    def _find_file(self) -> Path | None:
        folder = self._weights.find(("multiband-diffusion",), (DIFFUSION_HUB_ID,), (DIFFUSION_FILE,))
        return folder / DIFFUSION_FILE if folder else None


def _make_missing_error(name: str) -> ModelError:
    return ModelError(
        f"The model '{name}' is not here and cannot be downloaded: the worker is offline (HF_HUB_OFFLINE). Put its "
        "folder below MODELS_DIR, or choose one that list_models shows as local.",
        code=ErrorCode.MODEL_UNAVAILABLE,
    )


def _make_mismatch_error(name: str) -> InvalidRequestError:
    fitting = ", ".join(card.name for card in CATALOG if card.sample_rate == 32_000 and not card.unsupported)
    return InvalidRequestError(
        f"'mbd' does not fit the model '{name}': Multi-Band Diffusion decodes the codes of MusicGen's 32 kHz codec. "
        f"Leave 'mbd' out, or use one of {fitting}.",
        code=ErrorCode.OPTION_UNSUPPORTED,
    )
