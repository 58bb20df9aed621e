"""RVC voices as the cache and the operations see them: which there are, how one is loaded, how one is added."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from errors import ErrorCode, InvalidRequestError, ModelError
from models.rvc.config import PHONE_WIDTHS
from models.rvc.voices import Voices

if TYPE_CHECKING:
    from models.rvc.converter import VoiceConverter

_NEEDED: Final = ("torch", "rvc_python")


class RvcFamily:
    """The family `rvc`.

    Args:
        voices: where they are looked for.
        uploads: whether `install` may add one.
    """

    name = "rvc"

    def __init__(self, voices: Voices, *, uploads: bool = False) -> None:
        self.voices = voices
        self.uploads = uploads

    def rows(self) -> list[dict[str, Any]]:
        """`list_models`' rows, the folder looked at anew."""
        return self.voices.rows()

    def status(self) -> str:
        """`ready`, or what is missing."""
        missing = [package for package in _NEEDED if find_spec(package) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
        if not self.voices.names():
            return "no voice is here: put a folder with a .pth into RVC_MODELS_DIR"
        return "ready"

    def search_paths(self) -> list[str]:
        """The folders that are looked at, in order; the first that exists counts."""
        return [str(folder) for folder in self.voices.folders]

    def resolve(self, name: str | None) -> str:
        """`name` if there is such a voice, and its files are what they should be."""
        if name is None:
            raise InvalidRequestError(
                "A voice must be named; list_models says which there are.", code=ErrorCode.VOICE_NOT_FOUND
            )
        return self.voices.find(name).name

    def stamp(self, name: str) -> Hashable:
        """Changes with the voice's files, so that an engine of old ones is not used."""
        return self.voices.stamp(name)

    def memory_bytes(self, name: str) -> int:
        """The weights, stored by halves, in float32, and the index."""
        voice = self.voices.find(name)
        index = voice.index.stat().st_size if voice.index else 0
        return 2 * (voice.size - index) + index

    def load(self, name: str, *, device: str) -> VoiceConverter:
        """The voice's network and index on the device.

        Raises:
            ModelError: a file is missing, broken, or does not fit the other.
        """
        from models.rvc.checkpoint import read_checkpoint
        from models.rvc.converter import load_voice_converter
        from models.rvc.index import read_index

        voice = self.voices.find(name)
        checkpoint = read_checkpoint(voice.checkpoint)
        index = read_index(voice.index, width=PHONE_WIDTHS[checkpoint.version]) if voice.index else None
        return load_voice_converter(checkpoint, index, device=device)

    def upload_status(self) -> str:
        """`ready` where voices may be added, or how to allow it."""
        if not self.uploads:
            return "off: set ALLOW_VOICE_UPLOAD=1"
        return "ready" if self.voices.home is not None else "no folder for voices: make one and set RVC_MODELS_DIR"

    def check_new_name(self, name: str, *, replace: bool) -> None:
        """Raises `InvalidRequestError` for a name that a new voice cannot have."""
        from models.rvc.install import check_new_name

        check_new_name(self.voices, name, replace=replace)

    def install(  # noqa: PLR0913  (all but one by keyword)
        self,
        name: str,
        *,
        checkpoint: BinaryIO,
        index: BinaryIO | None = None,
        replace: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Adds a voice from its files; returns its row.

        Raises:
            InvalidRequestError: `invalid_voice_name`, `voice_exists`.
            ModelError: `voice_upload_off`; a file is not what it should be, or the folder cannot be written to.
        """
        from models.rvc.install import install

        self.demand_uploads()
        install(self.voices, name, checkpoint=checkpoint, index=index, replace=replace, check=check)
        return self.voices.row(name)

    def install_archive(
        self, name: str, archive: BinaryIO, *, replace: bool = False, check: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """As `install`, from a zip of the files."""
        from models.rvc.install import install_archive

        self.demand_uploads()
        install_archive(self.voices, name, archive, replace=replace, check=check)
        return self.voices.row(name)

    def demand_uploads(self) -> None:
        """Raises `ModelError` where no voice may be added."""
        if (status := self.upload_status()) != "ready":
            raise ModelError(f"Voices cannot be added to this worker: {status}.", code=ErrorCode.VOICE_UPLOAD_OFF)
