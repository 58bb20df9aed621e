"""The music models as the cache and the operations see them: names, rows, checks before loading. Without torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from errors import ErrorCode, InvalidRequestError, ModelError, unknown_name
from models.checkpoints.locations import CODEC_FILE, LM_FILE, WeightLocations
from models.device import cpu_multiplies_bfloat16
from models.musicgen.catalog import (
    BY_NAME,
    CATALOG,
    DEMO,
    DEMO_LICENCE,
    DIFFUSION_FILE,
    DIFFUSION_HUB_ID,
    NON_COMMERCIAL,
    Entry,
    catalog_name,
)
from models.musicgen.describe import T5_FILES, Description, describe
from models.musicgen.peek import peek

DIFFUSION = "mbd"
_ALTERNATIVES = tuple(name for need in T5_FILES for name in need.split("|"))
PART_FILES = tuple(dict.fromkeys((*_ALTERNATIVES, "tokenizer_config.json", "special_tokens_map.json")))
PARTS_BYTES = 700_000_000  # a T5-base encoder and a codec, where they are still to be fetched


class MusicGenFamily:
    """MusicGen, AudioGen, local checkpoints in their format, and our own demo.

    Args:
        weights: where checkpoints lie.
        demo: folder of the demo checkpoint.
        on_gpu: whether engines go to a GPU, where a weight takes 2 bytes; on most CPUs it takes 4.
    """

    name = "musicgen"

    def __init__(self, weights: WeightLocations, *, demo: Path, on_gpu: Callable[[], bool] = lambda: False) -> None:
        self._weights = weights
        self._demo = demo
        self._on_gpu = on_gpu

    def rows(self) -> list[dict[str, Any]]:
        """Every model of the catalog, then local checkpoints, then the demo; what is here is described by its files."""
        return [self._row(name) for name in self._names()]

    def status(self) -> str:
        """`ready`, or what to do so that it is."""
        if importlib.util.find_spec("transformers") is None:
            return "transformers is not installed"
        if self._weights.hub is None and not any(map(self._folder, self._names())):
            return "no music model is here: set MODELS_DIR, or let the worker download from the Hugging Face hub"
        return "ready"

    def search_paths(self) -> list[str]:
        """Every place where checkpoints are looked for."""
        return self._weights.search_paths()

    def resolve(self, name: str | None, *, conditioning: str = "text") -> str:
        """The canonical name of `name`, or the best model here with that conditioning; reads indices of files only.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: it is not here and cannot be fetched, or one of its parts is missing, broken or unsafe.
        """
        if name is None:
            return self._default(conditioning)
        canonical = catalog_name(name)
        folder = self._folder(canonical)
        if folder is None and canonical not in BY_NAME:
            raise unknown_name("model", name, self._names())
        if why := self._why_not(canonical, folder):
            raise why
        return canonical

    def row(self, name: str) -> Mapping[str, Any]:
        """The row of the model with the canonical `name`."""
        return self._row(name)

    def check_diffusion(self, name: str) -> None:
        """Raises `ModelError` unless the model `name` can be decoded by Multi-Band Diffusion here."""
        folder = self._folder(name)
        entry = BY_NAME.get(name)
        path = self._diffusion_file()
        if folder is None and entry is not None and entry.sample_rate != 32_000:
            raise _no_diffusion(name)
        if path is None:
            if self._weights.hub is None:
                raise ModelError(
                    f"The weights of Multi-Band Diffusion are not here: put {DIFFUSION_FILE} into a folder "
                    "'multiband-diffusion' below MODELS_DIR, or leave 'mbd' out.",
                    code=ErrorCode.MODEL_UNAVAILABLE,
                )
            if folder is not None and self._describe(folder).codec.dimension != 128:
                raise _no_diffusion(name)
        elif folder is not None and not _fits(path, self._describe(folder)):
            raise _no_diffusion(name)

    def memory_bytes(self, name: str) -> int:
        """Estimate from the files, or from the model's dimensions where they are not here yet."""
        if name == DIFFUSION:
            path = self._diffusion_file()
            return path.stat().st_size if path else PARTS_BYTES
        weight_bytes = 2 if self._on_gpu() or cpu_multiplies_bfloat16() else 4
        folder = self._folder(name)
        if folder is None:
            return BY_NAME[name].parameters * 1_000_000 * weight_bytes + PARTS_BYTES
        return self._describe(folder).memory_bytes(weight_bytes=weight_bytes)

    def load(self, name: str, *, device: str) -> Any:
        """The `Engine` called `name` (or, for `mbd`, a `MultiBandDiffusion`); fetches what is not here."""
        if name == DIFFUSION:
            from models.musicgen.multiband_diffusion import load_diffusion

            return load_diffusion(self._diffusion_file() or self._fetch_diffusion(), device=device)
        from models.musicgen.load import load_engine

        return load_engine(self._complete(name), device=device)

    def fetch(self, name: str) -> None:
        """Downloads what the model still lacks."""
        self._complete(name)

    def _names(self) -> list[str]:
        local = [name for name in map(catalog_name, self._weights.checkpoint_names()) if name not in BY_NAME]
        demo = [DEMO] if self._folder(DEMO) else []
        return list(dict.fromkeys([*BY_NAME, *local, *demo]))

    def _folder(self, name: str) -> Path | None:
        """Where the model is; None where it is nowhere."""
        if name in BY_NAME:
            hub_id = BY_NAME[name].hub_id
            names = (name, hub_id.rpartition("/")[2], hub_id)
            complete = self._weights.find(names, (hub_id,), (LM_FILE, CODEC_FILE))
            return complete or self._weights.find(names, (hub_id,), (LM_FILE,))
        if found := self._weights.checkpoint(name):
            return found
        return self._demo if name == DEMO and (self._demo / LM_FILE).is_file() else None

    def _describe(self, folder: Path) -> Description:
        return describe(folder, self._weights)

    def _why_not(self, name: str, folder: Path | None) -> ModelError | None:
        """Why the model cannot be had, or None."""
        entry = BY_NAME.get(name)
        if entry is not None and entry.unsupported:
            return ModelError(
                f"The model '{name}' cannot be run: it {entry.unsupported}.", code=ErrorCode.MODEL_UNSUPPORTED
            )
        if folder is None:
            return None if self._weights.hub else _not_here(name)
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

    def _default(self, conditioning: str) -> str:
        """The best model whose parts are all here; a local checkpoint before the demo."""
        for name in self._names():
            folder = self._folder(name)
            if folder is None or getattr(BY_NAME.get(name), "family", "musicgen") != "musicgen":
                continue
            if self._why_not(name, folder) is None:
                description = self._describe(folder)
                if conditioning in description.conditioning and not description.to_fetch:
                    return name
        raise ModelError(
            f"No music model with {conditioning} conditioning is here. Name one to download (list_models shows them), "
            "or put its checkpoint folder below MODELS_DIR.",
            code=ErrorCode.MODEL_UNAVAILABLE,
        )

    def _row(self, name: str) -> dict[str, Any]:
        folder, entry = self._folder(name), BY_NAME.get(name)
        why = self._why_not(name, folder)
        row = {
            "name": name,
            "family": entry.family if entry else "musicgen",
            "licence": NON_COMMERCIAL if entry else _licence(name),
            "available": "download" if folder is None else "local",
            **(_published(entry) if entry else {}),
        }
        if why is not None:
            return row | {"available": why.message}
        if folder is not None:
            description = self._describe(folder)
            row |= {
                "sample_rate": description.sample_rate,
                "channels": description.channels,
                "conditioning": list(description.conditioning),
                "window_s": description.window,
                "available": "download" if description.to_fetch else "local",
            }
        return row

    def _complete(self, name: str) -> Description:
        """The description of a checkpoint whose parts are all here, after fetching those that were not."""
        folder = self._folder(name) or self._fetch(BY_NAME[name].hub_id, (LM_FILE, CODEC_FILE))
        description = self._describe(folder)
        if not description.to_fetch:
            return description
        for hub_id in description.to_fetch:
            self._fetch(hub_id, PART_FILES)
        description = self._describe(folder)
        if description.to_fetch:
            raise ModelError(
                f"The part {description.to_fetch[0]} was downloaded incompletely.", code=ErrorCode.MODEL_INCOMPLETE
            )
        return description

    def _fetch(self, hub_id: str, files: tuple[str, ...]) -> Path:
        if self._weights.hub is None:
            raise _not_here(hub_id)
        return self._weights.hub.fetch(hub_id, files)

    def _diffusion_file(self) -> Path | None:
        folder = self._weights.find(("multiband-diffusion",), (DIFFUSION_HUB_ID,), (DIFFUSION_FILE,))
        return folder / DIFFUSION_FILE if folder else None

    def _fetch_diffusion(self) -> Path:
        return self._fetch(DIFFUSION_HUB_ID, (DIFFUSION_FILE,)) / DIFFUSION_FILE


def _published(entry: Entry) -> dict[str, Any]:
    return {
        "sample_rate": entry.sample_rate,
        "channels": entry.channels,
        "conditioning": list(entry.conditioning),
        "window_s": entry.window,
        "hub_id": entry.hub_id,
    }


def _licence(name: str) -> str:
    return DEMO_LICENCE if name == DEMO else "unknown: as its maker says"


def _fits(path: Path, description: Description) -> bool:
    """Whether the diffusion models in `path` take what the checkpoint's codec gives."""
    package = peek(path)
    first = package.get(0)
    width = first["cfg"]["diffusion_unet"].get("codec_dim") if isinstance(first, Mapping) else None
    return bool(package.get("sample_rate") == description.sample_rate and width == description.codec.dimension)


def _not_here(name: str) -> ModelError:
    return ModelError(
        f"The model '{name}' is not here and cannot be downloaded: the worker is offline (HF_HUB_OFFLINE). Put its "
        "folder below MODELS_DIR, or choose one that list_models shows as local.",
        code=ErrorCode.MODEL_UNAVAILABLE,
    )


def _no_diffusion(name: str) -> InvalidRequestError:
    fitting = ", ".join(entry.name for entry in CATALOG if entry.sample_rate == 32_000 and not entry.unsupported)
    return InvalidRequestError(
        f"'mbd' does not fit the model '{name}': Multi-Band Diffusion decodes the codes of MusicGen's 32 kHz codec. "
        f"Leave 'mbd' out, or use one of {fitting}.",
        code=ErrorCode.OPTION_UNSUPPORTED,
    )
