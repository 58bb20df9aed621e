"""The family `rvc`: which voices there are, how one is loaded, how one is added. Importable without torch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Hashable
from importlib.util import find_spec
from typing import TYPE_CHECKING, BinaryIO

from errors import ErrorCode, InvalidRequestError, ModelError
from models.checkpoints.hub import ListingHub
from models.demo import DemoCard, list_demos
from models.family import READY, ModelFamily, ModelHandle, Readiness, stamp_files
from models.runtime.progress import UNATTENDED, Observer
from models.rvc.config import FEATURE_WIDTHS
from models.rvc.hub_voices import HubVoices, is_hub_name, parse_name
from models.rvc.voices import Voice, VoiceInfo, Voices

if TYPE_CHECKING:
    from models.rvc.converter import VoiceConverter

_NEEDED = ("torch", "rvc_python")


class RvcFamily(ModelFamily["VoiceConverter"]):
    """The RVC voices of this worker.

    Args:
        voices: the folders that are searched.
        uploads: whether `install` may add one, and `fetch` download one.
        hub: of the voices that requests name as `hf://<user>/<repo>`; None: offline.
    """

    name = "rvc"
    demos = list_demos(name)

    def __init__(self, voices: Voices, *, uploads: bool = False, hub: ListingHub | None = None) -> None:
        self.voices = voices
        self.uploads = uploads
        self._hub_voices = HubVoices(hub)

    def list_models(self) -> list[VoiceInfo]:
        return self.voices.list_voices()

    def readiness(self) -> Readiness:
        missing = [package for package in _NEEDED if find_spec(package) is None]
        if missing:
            return Readiness(f"not installed: {', '.join(missing)}")
        no_model = "no voice is here: put a folder with a .pth into RVC_MODELS_DIR"
        return self.judge_local(self.voices.names(), otherwise=Readiness(no_model))

    def find_demo(self, name: str) -> DemoCard | None:
        return self.demos.get(name) if self.voices.is_demo(name) else None

    def search_paths(self) -> list[str]:
        """The folders that may hold voices, in order; the first that exists is used, and that of the demo voices."""
        folders = [*self.voices.folders, *([self.voices.demo] if self.voices.demo else [])]
        return [str(folder) for folder in folders]

    def resolve(self, name: str | None) -> ModelHandle[VoiceConverter]:
        """The voice called `name`; there is no default.

        Raises:
            InvalidRequestError: `voice_not_found`.
            ModelError: its files are missing or broken.
        """
        if name is None:
            raise InvalidRequestError(
                "A voice must be named; list_models shows which there are.", code=ErrorCode.VOICE_NOT_FOUND
            )
        return ModelHandle(self, self.find(name).name)

    def find(self, name: str) -> Voice:
        """The voice called `name`; raises as `resolve`."""
        if is_hub_name(name):
            self._require_hub_voices(name)
            return self._hub_voices.find(name)
        return self.voices.find(name)

    def fetch(self, name: str, observer: Observer = UNATTENDED) -> None:
        """Downloads and checks the voice `hf://<user>/<repo>`, unless its newest version is here.

        Args:
            observer: is told of the bytes that have arrived; what its `check` raises ends the wait.

        Raises:
            InvalidRequestError: the name is not of that form.
            ModelError: `voice_upload_off`; the repository holds no voice that can be used, or cannot be reached.
        """
        self._require_hub_voices(name)
        self._hub_voices.fetch(name, observer)

    def _require_hub_voices(self, name: str) -> None:
        parse_name(name)
        if not self.uploads:
            raise ModelError(
                f"The voice '{name}' is on the Hugging Face hub, and this worker does not take voices from requests. "
                "Name one that list_models shows, or set ALLOW_VOICE_UPLOAD=1 on the worker.",
                code=ErrorCode.VOICE_UPLOAD_OFF,
            )

    def version_key(self, name: str) -> Hashable:
        if is_hub_name(name):
            voice = self.find(name)
            return stamp_files(path for path in (voice.checkpoint, voice.index) if path is not None)
        return self.voices.version_key(name)

    def memory_bytes(self, name: str) -> int:
        """The weights, stored as float16, in float32, and the index."""
        voice = self.find(name)
        index = voice.index.stat().st_size if voice.index else 0
        return 2 * (voice.size - index) + index

    def load(self, name: str, *, device: str) -> VoiceConverter:
        """The voice's network and index on the device.

        Raises:
            ModelError: a file is missing or broken, or the index does not fit the checkpoint.
        """
        from models.rvc.checkpoint import read_checkpoint
        from models.rvc.converter import load_voice_converter
        from models.rvc.index import read_index

        voice = self.find(name)
        checkpoint = read_checkpoint(voice.checkpoint)
        index = read_index(voice.index, width=FEATURE_WIDTHS[checkpoint.version]) if voice.index else None
        return load_voice_converter(checkpoint, index, device=device)

    def engine_bytes(self, engine: VoiceConverter) -> int:
        return engine.memory_bytes

    def warm_up(self, engine: VoiceConverter) -> None:
        engine.warm_up()

    def upload_readiness(self) -> Readiness:
        """Whether voices may be added; the reason says how to allow it."""
        if not self.uploads:
            return Readiness("off: set ALLOW_VOICE_UPLOAD=1")
        return self.folder_readiness()

    def folder_readiness(self) -> Readiness:
        """Whether this process may write to the folder of voices."""
        if (home := self.voices.home) is None:
            return Readiness("no folder for voices: make one and set RVC_MODELS_DIR")
        if home.exists() and not os.access(home, os.W_OK | os.X_OK):
            return Readiness(
                f"the folder of voices cannot be written to by this worker's user (uid {os.geteuid()}): change its"
                " owner or mode"
            )
        return READY

    def check_new_name(self, name: str, *, replace: bool) -> None:
        """Raises `InvalidRequestError` for a name that a new voice cannot have.

        Args:
            replace: a voice of that name may exist.
        """
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
    ) -> VoiceInfo:
        """Adds a voice from its files.

        Raises:
            InvalidRequestError: `invalid_voice_name`, `voice_exists`.
            ModelError: `voice_upload_off`; a file is not what it should be, or the folder cannot be written to.
        """
        from models.rvc.install import install

        self.require_uploads()
        install(self.voices, name, checkpoint=checkpoint, index=index, replace=replace, check=check)
        return VoiceInfo.of(self.voices.find(name))

    def install_archive(
        self, name: str, archive: BinaryIO, *, replace: bool = False, check: Callable[[], None] = lambda: None
    ) -> VoiceInfo:
        """As `install`, from a zip of the files."""
        from models.rvc.install import install_archive

        self.require_uploads()
        left_out = install_archive(self.voices, name, archive, replace=replace, check=check)
        voice = self.voices.find(name)
        return VoiceInfo.of(dataclasses.replace(voice, warnings=(*left_out, *voice.warnings)))

    def require_uploads(self) -> None:
        """Raises `ModelError` if no voice may be added, or none can be."""
        if not (readiness := self.upload_readiness()).is_ready:
            code = ErrorCode.VOICE_FOLDER_UNAVAILABLE if self.uploads else ErrorCode.VOICE_UPLOAD_OFF
            raise ModelError(f"Voices cannot be added to this worker: {readiness.reason}.", code=code)
