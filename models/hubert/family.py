"""The family `hubert`: where the content encoders' weights are, and how they are loaded. Importable without torch."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import ErrorCode, ModelError, unknown_name_error
from models.checkpoints.hf_folder import REQUIRED_FILES
from models.checkpoints.locations import WeightLocations
from models.demo import list_demos
from models.family import (
    DOWNLOAD,
    LOCAL,
    READY,
    Availability,
    ModelFamily,
    ModelHandle,
    ModelInfo,
    Readiness,
    stamp_files,
    unavailable,
)
from models.hubert.catalog import DEFAULT_ENCODER, ENCODERS, OTHER_ENCODERS, find_encoder
from models.runtime.progress import UNATTENDED, Observer

if TYPE_CHECKING:
    from models.hubert.encoder import ContentEncoder

FAIRSEQ_FILE = "hubert_base.pt"
HUB_ID = "lengyue233/content-vec-best"
LICENCE = "MIT"
_NEEDED = ("torch", "transformers")
_FILE_FOLDERS = (".", "rvc", "hubert", "hubert_base", "contentvec")
_FOLDERS = ("contentvec", "content-vec-best", "rvc/contentvec", "hubert_base", "hubert")
_BYTES = 378_300_000
_NOT_HERE = f"{FAIRSEQ_FILE} is not here, and downloads are off"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentEncoderInfo(ModelInfo):
    """A content encoder.

    Args:
        licence: of the weights.
        about: one sentence.
    """

    licence: str
    about: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "available": self.availability.to_json(),
            "licence": self.licence,
            "about": self.about,
        }


class HubertFamily(ModelFamily["ContentEncoder"]):
    """ContentVec's HuBERT-base, with which nearly every RVC voice was trained, others of its layout, and the demo's.

    Args:
        weights: where its files are looked for.
        demo: folder of the demo encoder's folder; None: there is none.
    """

    name = "hubert"
    downloadable = True
    demos = list_demos(name)

    def __init__(self, weights: WeightLocations, *, demo: Path | None = None) -> None:
        self._weights = weights.add_folder(demo)

    def list_models(self) -> list[ContentEncoderInfo]:
        availability = self._availability()
        default = ContentEncoderInfo(
            name=DEFAULT_ENCODER,
            availability=availability,
            download_bytes=_BYTES if availability == DOWNLOAD else 0,
            licence=LICENCE,
            about="Content encoder of RVC voices: HuBERT-base as trained by ContentVec.",
        )
        others = [
            ContentEncoderInfo(
                name=name,
                availability=LOCAL if self._find_folder(name) else unavailable(f"no folder '{name}' is in MODELS_DIR"),
                licence="as its author states",
                about=about,
            )
            for name, about in OTHER_ENCODERS.items()
            if name not in self.demos or self._find_folder(name)
        ]
        return [default, *others]

    def readiness(self) -> Readiness:
        if missing := [package for package in _NEEDED if find_spec(package) is None]:
            return Readiness(f"not installed: {', '.join(missing)}")
        if self._weights.hub or self._find():
            return READY
        return self.judge_local(list(filter(self._find_folder, self.demos)), otherwise=Readiness(_NOT_HERE))

    def search_paths(self) -> list[str]:
        return self._weights.search_paths()

    def resolve(self, name: str | None) -> ModelHandle[ContentEncoder]:
        """The encoder called `name`; None: `contentvec`.

        Raises:
            UnknownNameError: there is no such encoder.
            ModelError: its files are not here, and cannot be downloaded.
        """
        encoder = find_encoder(name or DEFAULT_ENCODER)
        if encoder is None:
            raise unknown_name_error("content encoder", str(name), ENCODERS)
        if encoder != DEFAULT_ENCODER:
            self._require_folder(encoder)
        elif not self._availability().is_usable:
            raise _missing_error()
        return ModelHandle(self, encoder)

    def version_key(self, name: str) -> Hashable:
        path = self._find() if name == DEFAULT_ENCODER else self._find_folder(name)
        if path is None:
            return None
        return stamp_files(sorted(path.iterdir()) if path.is_dir() else [path])

    def memory_bytes(self, name: str) -> int:
        """The weights in float32, which the demo's file has in half precision."""
        if name in self.demos and (folder := self._find_folder(name)):
            return 2 * sum(path.stat().st_size for path in folder.iterdir())
        return _BYTES

    def load(self, name: str, *, device: str) -> ContentEncoder:
        """The encoder on `device`; its files are downloaded if they are nowhere.

        Raises:
            ModelError: they cannot be had, or are not those of a HuBERT-base.
        """
        from models.hubert.encoder import load_encoder

        return load_encoder(self._path(name), device=device)

    def engine_bytes(self, engine: ContentEncoder) -> int:
        return engine.memory_bytes

    def warm_up(self, engine: ContentEncoder) -> None:
        engine.warm_up()

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        self._path(name, observer)

    def _path(self, name: str, observer: Observer = UNATTENDED) -> Path:
        if name != DEFAULT_ENCODER:
            return self._require_folder(name)
        if found := self._find():
            return found
        if self._weights.hub is None:
            raise _missing_error()
        return self._weights.hub.fetch(HUB_ID, REQUIRED_FILES, observer)

    def _find(self) -> Path | None:
        """RVC's own file, else a folder in Hugging Face's layout."""
        if folder := self._weights.find(_FILE_FOLDERS, (), (FAIRSEQ_FILE,)):
            return folder / FAIRSEQ_FILE
        return self._weights.find(_FOLDERS, (HUB_ID,), REQUIRED_FILES)

    def _find_folder(self, name: str) -> Path | None:
        return self._weights.find((name, f"hubert/{name}", f"embedders/{name}"), (), REQUIRED_FILES)

    def _require_folder(self, name: str) -> Path:
        if folder := self._find_folder(name):
            return folder
        raise ModelError(
            f"The content encoder '{name}' is not on this worker. Put its config.json and its model.safetensors or "
            f"pytorch_model.bin, in the layout of Hugging Face, into a folder '{name}' below MODELS_DIR.",
            code=ErrorCode.MODEL_UNAVAILABLE,
            details={"content_encoder": name},
        )

    def _availability(self) -> Availability:
        if self._find():
            return LOCAL
        return DOWNLOAD if self._weights.hub else unavailable(_NOT_HERE)


def _missing_error() -> ModelError:
    return ModelError(
        f"Voice conversion needs HuBERT's weights: {_NOT_HERE}. Put {FAIRSEQ_FILE} (or the files of "
        f"huggingface.co/{HUB_ID} in a folder 'contentvec') into MODELS_DIR.",
        code=ErrorCode.MODEL_UNAVAILABLE,
    )
