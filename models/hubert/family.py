"""HuBERT as the cache and the operations see it: where its weights are, how they are loaded. Without torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from errors import ErrorCode, ModelError, unknown_name
from models.checkpoints.hf_folder import NEEDS, PICKLE_FILE, SAFE_FILE, SETTINGS_FILE
from models.checkpoints.locations import WeightLocations

if TYPE_CHECKING:
    from models.hubert.encoder import ContentEncoder

DEFAULT: Final = "contentvec"
FAIRSEQ_FILE: Final = "hubert_base.pt"
HUB_ID: Final = "lengyue233/content-vec-best"
LICENCE: Final = "MIT"
_NEEDED: Final = ("torch", "transformers")
_FILE_FOLDERS: Final = (".", "rvc", "hubert", "hubert_base", "contentvec")
_FOLDERS: Final = ("contentvec", "content-vec-best", "rvc/contentvec", "hubert_base", "hubert")
_BYTES: Final = 378_300_000


class HubertFamily:
    """The family `hubert`: one model, ContentVec's HuBERT-base, which every RVC voice is trained on.

    Args:
        weights: where its files are looked for.
    """

    name = "hubert"

    def __init__(self, weights: WeightLocations) -> None:
        self._weights = weights

    def rows(self) -> list[dict[str, Any]]:
        """`list_models`' rows, the folders looked at anew."""
        available = "local" if self._find() else "download" if self._weights.hub else self._lack()
        about = "What RVC voices hear: HuBERT-base in ContentVec's training."
        return [{"name": DEFAULT, "available": available, "licence": LICENCE, "about": about}]

    def status(self) -> str:
        """`ready`, or what is missing."""
        if missing := [package for package in _NEEDED if find_spec(package) is None]:
            return f"not installed: {', '.join(missing)}"
        return "ready" if self._weights.hub or self._find() else self._lack()

    def search_paths(self) -> list[str]:
        """The folders that are looked at, in order."""
        return self._weights.search_paths()

    def resolve(self, name: str | None) -> str:
        """`contentvec`, also for None and `hubert_base`.

        Raises:
            UnknownNameError: any other name.
            ModelError: its files are not here and cannot be fetched.
        """
        if name not in (None, DEFAULT, "hubert_base"):
            raise unknown_name("content encoder", str(name), (DEFAULT,))
        if self._weights.hub is None and self._find() is None:
            raise self._missing()
        return DEFAULT

    def memory_bytes(self, name: str) -> int:
        """The weights in float32."""
        return _BYTES

    def load(self, name: str, *, device: str) -> ContentEncoder:
        """The encoder on the device; its files are fetched where they are nowhere.

        Raises:
            ModelError: they cannot be had, or are no HuBERT-base.
        """
        from models.hubert.encoder import load_encoder

        return load_encoder(self._path(), device=device)

    def fetch(self, name: str) -> None:
        """Downloads what is not here yet."""
        self._path()

    def _path(self) -> Path:
        if found := self._find():
            return found
        if self._weights.hub is None:
            raise self._missing()
        return self._weights.hub.fetch(HUB_ID, (SETTINGS_FILE, SAFE_FILE, PICKLE_FILE))

    def _find(self) -> Path | None:
        """RVC's own file, else a folder in Hugging Face's layout."""
        if folder := self._weights.find(_FILE_FOLDERS, (), (FAIRSEQ_FILE,)):
            return folder / FAIRSEQ_FILE
        return self._weights.find(_FOLDERS, (HUB_ID,), NEEDS)

    def _lack(self) -> str:
        return f"{FAIRSEQ_FILE} is not here, and downloads are off"

    def _missing(self) -> ModelError:
        return ModelError(
            f"Voice conversion needs HuBERT's weights: {self._lack()}. Put {FAIRSEQ_FILE} (or the files of "
            f"huggingface.co/{HUB_ID} in a folder 'contentvec') into MODELS_DIR.",
            code=ErrorCode.MODEL_UNAVAILABLE,
        )
