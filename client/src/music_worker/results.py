"""What a job returns: audio and files with `save`, `bytes` and `array`, and the rest of the reply."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from music_worker.downloads import PartialFile, choose_name, fetch_bytes, fetch_to_file
from music_worker.errors import ChecksumError, DownloadError, OutputError
from music_worker.exchange import AsyncRunner, Flow, SyncRunner
from music_worker.waveform import decode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

Content: TypeAlias = bytes
"""A name for the type inside of classes that have a method `bytes`."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Where the files of a worker's volume are found on this machine.

    Args:
        volumes: folders of this machine by the folder of the worker that they are, such as
            `{"/runpod-volume": Path("/mnt/volume")}`. The worker's own path is tried as well.
    """

    volumes: Mapping[str, Path] = field(default_factory=dict)

    def find(self, path: str) -> Path | None:
        """The file at the worker's `path`, if it is on this machine."""
        for folder, here in self.volumes.items():
            if path.startswith(folder.rstrip("/") + "/"):
                rest = Path(path[len(folder.rstrip("/")) + 1 :])
                if ".." not in rest.parts and (here / rest).is_file():
                    return here / rest
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOutput:
    """A file that a job made.

    Args:
        filename: the worker's name for it.
        size: bytes; None if the worker did not say.
        url: the link to it, for delivery to a bucket.
        path: its path on the worker's volume, for delivery to the volume.
        info: what else the reply says of it, such as `seed` or `title`.
    """

    filename: str
    format: str = ""
    size: int | None = None
    sha256: str | None = None
    url: str | None = field(default=None, repr=False)
    path: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict, repr=False)
    inline: str | None = field(default=None, repr=False)
    storage: Storage = field(default_factory=Storage, repr=False)

    def bytes(self) -> Content:
        """The file's content; from its link, if it is not in the reply."""
        if (content := self._read_here()) is not None:
            return content
        return _run(fetch_bytes(self._require_url(), size=self.size, sha256=self.sha256))

    async def bytes_async(self) -> Content:
        """As `bytes`, on the event loop."""
        if (content := self._read_here()) is not None:
            return content
        return await _run_async(fetch_bytes(self._require_url(), size=self.size, sha256=self.sha256))

    def save(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """Writes the file and returns its path.

        The file appears under its final name when it is complete. A file that exists is kept: the new one gets a
        number.

        Args:
            path: a file, or a folder that exists or ends with `/`; None: the current folder.
            overwrite: replace a file that exists.
        """
        part = self._make_part(path, overwrite)
        if (content := self._read_here()) is not None:
            return part.write(content)
        return _run(fetch_to_file(self._require_url(), part, size=self.size, sha256=self.sha256))

    async def save_async(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """As `save`, on the event loop."""
        part = self._make_part(path, overwrite)
        if (content := self._read_here()) is not None:
            return part.write(content)
        return await _run_async(fetch_to_file(self._require_url(), part, size=self.size, sha256=self.sha256))

    def _make_part(self, path: str | Path | None, overwrite: bool) -> PartialFile:
        return PartialFile(choose_name(path, self.filename), overwrite=overwrite, size=self.size)

    def _read_here(self) -> Content | None:
        """The content that is in the reply or on a volume of this machine; None if it must be downloaded."""
        if self.inline is not None:
            try:
                content = base64.b64decode(self.inline, validate=True)
            except (binascii.Error, ValueError):
                raise DownloadError(f"{self.filename} in the reply is damaged: it is not valid base64.") from None
        elif self.url is None and self.path is not None and (here := self.storage.find(self.path)) is not None:
            try:
                content = here.read_bytes()
            except OSError as error:
                raise DownloadError(f"{here} cannot be read: {error.strerror}.") from None
        else:
            return None
        if self.sha256 is not None and hashlib.sha256(content).hexdigest() != self.sha256:
            raise ChecksumError(f"{self.filename} arrived damaged. Fetch the result again.")
        return content

    def _require_url(self) -> str:
        if self.url is not None:
            return self.url
        if self.path is not None:
            raise DownloadError(
                f"{self.filename} is on the worker's volume, at {self.path}. Mount the volume here and name its folder "
                'in `volumes={"/runpod-volume": folder}`, or ask for `delivery="bucket"`.',
                details={"path": self.path},
            )
        raise DownloadError(f"The reply has neither the content of {self.filename} nor a link to it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioOutput(FileOutput):
    """An audio file that a job made. `duration` is in seconds, `sample_rate` in Hz."""

    sample_rate: int | None = None
    channels: int | None = None
    duration: float | None = None

    def array(self) -> NDArray[np.float32]:
        """The samples `[C, T]` as float32, full scale 1.0.

        wav is decoded by NumPy alone; other formats need the package soundfile.
        """
        return decode(self.bytes(), self.filename)[0]

    async def array_async(self) -> NDArray[np.float32]:
        """As `array`, on the event loop."""
        return decode(await self.bytes_async(), self.filename)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The reply of a job.

    Args:
        outputs: the audio, in the worker's order.
        stems: audio by name, of a separation and what includes one.
        files: files that are not audio, by name.
        parameters: every parameter as the worker used it.
        timings: seconds by stage.
        warnings: what the worker clamped, skipped or substituted.
        reply: the whole reply as the worker sent it, without the content of files.
    """

    operation: str
    job_id: str
    outputs: tuple[AudioOutput, ...] = ()
    stems: Mapping[str, AudioOutput] = field(default_factory=dict)
    files: Mapping[str, FileOutput] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timings: Mapping[str, float] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()
    reply: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, key: str) -> Any:
        """A field of the reply, such as `seed`, `model_used` or `bpm`."""
        return self.reply[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self.reply.get(key, default)

    @property
    def audio(self) -> AudioOutput:
        """The first audio output."""
        if self.outputs:
            return self.outputs[0]
        if self.stems:
            raise OutputError(f"{self.operation} returns stems. Choose one: {', '.join(self.stems)}.")
        raise OutputError(f"{self.operation} returned no audio.")

    def all_files(self) -> dict[str, FileOutput]:
        """Every file of the result by a name that is unique in it; a stem with two names once."""
        found: dict[str, FileOutput] = {}
        for number, output in enumerate(self.outputs, start=1):
            found["audio" if len(self.outputs) == 1 else f"audio {number}"] = output
        for name, file in (*self.stems.items(), *self.files.items()):
            if "same_as" not in file.info:
                found[name if name not in found else f"{name} (file)"] = file
        return found

    def save(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """Saves the first audio output; see `FileOutput.save`."""
        return self.audio.save(path, overwrite=overwrite)

    def save_all(self, folder: str | Path = ".", *, overwrite: bool = False) -> dict[str, Path]:
        """Saves every file of the result in `folder`, which is made if it is missing; returns the paths by name."""
        target = Path(folder)
        return {name: file.save(f"{target}/", overwrite=overwrite) for name, file in self.all_files().items()}

    async def save_async(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """As `save`, on the event loop."""
        return await self.audio.save_async(path, overwrite=overwrite)

    async def save_all_async(self, folder: str | Path = ".", *, overwrite: bool = False) -> dict[str, Path]:
        """As `save_all`, on the event loop."""
        target, saved = Path(folder), {}
        for name, file in self.all_files().items():
            saved[name] = await file.save_async(f"{target}/", overwrite=overwrite)
        return saved

    def bytes(self) -> Content:
        """The content of the first audio output."""
        return self.audio.bytes()

    def array(self) -> NDArray[np.float32]:
        """The samples `[C, T]` of the first audio output."""
        return self.audio.array()

    @property
    def sample_rate(self) -> int | None:
        return self.audio.sample_rate


CONTENT_KEYS = ("output_audio", "output_file")
ARTEFACT_KEYS = frozenset(
    {"filename", "format", "size", "sample_rate", "channels", "duration", "sha256", "output_url", "output_path"}
    | set(CONTENT_KEYS)
)


def read_result(reply: Mapping[str, Any], *, job_id: str, storage: Storage | None = None) -> Result:
    """The result in a worker's reply. Fields that this version does not know stay in `reply`."""
    storage = storage or Storage()
    outputs = [item for item in _to_list(reply.get("outputs")) if isinstance(item, Mapping) and _has_content(item)]
    if not outputs and _has_content(reply):
        outputs = [{key: value for key, value in reply.items() if key in ARTEFACT_KEYS}]
    files = _select_named(reply.get("files"))
    stems = _select_named(reply.get("stems"))
    for name, stem in stems.items():  # an alias may come without its content
        if not _has_content(stem) and (same := stems.get(str(stem.get("same_as")))) is not None:
            stems[name] = {**same, "same_as": stem["same_as"]}
    return Result(
        operation=str(reply.get("operation") or ""),
        job_id=job_id,
        outputs=tuple(_read_audio(item, "audio", storage) for item in outputs),
        stems={name: _read_audio(item, name, storage) for name, item in stems.items()},
        files={name: _read_file(item, name, storage) for name, item in files.items()},
        parameters=_to_mapping(reply.get("parameters")),
        timings=_to_mapping(reply.get("timings")),
        warnings=tuple(str(warning) for warning in _to_list(reply.get("warnings"))),
        reply=strip_content(reply),
    )


def strip_content(value: Any) -> Any:
    """`value` without the base64 of files."""
    if isinstance(value, Mapping):
        return {key: strip_content(item) for key, item in value.items() if key not in CONTENT_KEYS}
    return [strip_content(item) for item in value] if isinstance(value, list | tuple) else value


def _has_content(item: Mapping[str, Any]) -> bool:
    return any(isinstance(item.get(key), str) for key in (*CONTENT_KEYS, "output_url", "output_path"))


def _select_named(value: Any) -> dict[str, Mapping[str, Any]]:
    return {str(name): item for name, item in _to_mapping(value).items() if isinstance(item, Mapping)}


def _to_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else NOTHING


def _to_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_common(item: Mapping[str, Any], name: str, storage: Storage) -> dict[str, Any]:
    inline = next((item[key] for key in CONTENT_KEYS if isinstance(item.get(key), str)), None)
    form = item.get("format") if isinstance(item.get("format"), str) else ""
    filename = item.get("filename")
    return {
        "filename": filename if isinstance(filename, str) and filename else f"{name}.{form or 'bin'}",
        "format": form,
        "size": _to_number(item.get("size"), int),
        "sha256": item.get("sha256") if isinstance(item.get("sha256"), str) else None,
        "url": item.get("output_url") if isinstance(item.get("output_url"), str) else None,
        "path": item.get("output_path") if isinstance(item.get("output_path"), str) else None,
        "info": {key: value for key, value in item.items() if key not in ARTEFACT_KEYS},
        "inline": inline,
        "storage": storage,
    }


def _read_file(item: Mapping[str, Any], name: str, storage: Storage) -> FileOutput:
    return FileOutput(**_read_common(item, name, storage))


def _read_audio(item: Mapping[str, Any], name: str, storage: Storage) -> AudioOutput:
    return AudioOutput(
        **_read_common(item, name, storage),
        sample_rate=_to_number(item.get("sample_rate"), int),
        channels=_to_number(item.get("channels"), int),
        duration=_to_number(item.get("duration"), float),
    )


def _to_number(value: Any, kind: type[int] | type[float]) -> Any:
    return kind(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _run(flow: Flow[T]) -> T:
    runner = SyncRunner()
    try:
        return runner.run(flow)
    finally:
        runner.close()


async def _run_async(flow: Flow[T]) -> T:
    runner = AsyncRunner()
    try:
        return await runner.run(flow)
    finally:
        await runner.close()
