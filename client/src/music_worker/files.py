"""Inputs: paths, bytes, file objects, arrays, URLs and earlier results become what the worker's audio fields take."""

from __future__ import annotations

import base64
import functools
import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

from music_worker.downloads import clean_name
from music_worker.errors import InputError, InputTooLargeError, UploadError
from music_worker.exchange import Flow, NoResponseError, NotSentError, Pause, Response, Upload
from music_worker.results import FileOutput, Result
from music_worker.schema import load_schemas
from music_worker.waveform import Samples

AudioInput: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Samples | FileOutput | Result
)
"""What an audio field takes: a path, a URL, a path on the worker's volume, bytes, a file opened for reading bytes, an
array as `Samples`, or audio of an earlier result."""

VOLUMES = ("/runpod-volume/", "/workspace/")
REMOTE = ("http://", "https://", "data:")
UPLOAD_ATTEMPTS = 4
JSON_OVERHEAD_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class UploadLink:
    """Where one input goes.

    Args:
        put_url: takes the file by PUT.
        get_url: where the worker reads it.
        headers: to send with the PUT.
    """

    put_url: str = field(repr=False)
    get_url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class UploadTarget(Protocol):
    """Where large inputs go: `Bucket`, or a function of your own that asks a server for a pair of presigned URLs."""

    def __call__(self, filename: str, size: int) -> UploadLink: ...


@dataclass(frozen=True, slots=True)
class _Input:
    """One input that is on this machine."""

    where: str
    name: str
    size: int
    open: Callable[[], BinaryIO]

    def read(self) -> bytes:
        try:
            with self.open() as file:
                return file.read()
        except OSError as error:
            raise InputError(f"{self.where}: {self.name} cannot be read: {error.strerror}.") from None

    @property
    def inline_size(self) -> int:
        return (self.size + 2) // 3 * 4


def prepare(
    operation: str, params: Mapping[str, Any], *, limit_bytes: int | None, upload: UploadTarget | None = None
) -> Flow[dict[str, Any]]:
    """`params` with every input as a string that the worker takes.

    Args:
        limit_bytes: the largest request that the endpoint takes; None: no limit.
        upload: where the largest inputs go when the request would be larger.

    Raises:
        InputError: an input cannot be read.
        InputTooLargeError: the request would be too large; nothing was sent.
        UploadError: the bucket did not take an input.
    """
    found: dict[int, _Input] = {}
    drafted = _replace(params, "", found, fields=find_input_fields(operation), may_refer=operation == "pipeline")
    content: dict[int, str] = {}
    if limit_bytes is not None:
        room = limit_bytes - JSON_OVERHEAD_BYTES - _estimate_size(drafted)
        for key, item in sorted(found.items(), key=lambda pair: -pair[1].size):
            if sum(other.inline_size for at, other in found.items() if at not in content) <= room:
                break
            if upload is None:
                raise _make_too_large(item, [*found.values()], limit_bytes)
            content[key] = yield from _upload(item, upload)
    for key, item in found.items():
        if key not in content:
            content[key] = base64.b64encode(item.read()).decode("ascii")
    filled: dict[str, Any] = _fill(drafted, content)
    return filled


@functools.cache
def find_input_fields(operation: str) -> frozenset[str]:
    """The names of the operation's fields that take audio or a file; those of all operations for a pipeline."""
    schemas = load_schemas()
    if operation != "pipeline" and (known := schemas.find(operation)) is not None:
        return frozenset(_iterate_input_names(known[1]))
    return frozenset(name for schema in schemas.operations.values() for name in _iterate_input_names(schema))


def _iterate_input_names(schema: Any) -> Iterator[str]:
    """The names of the properties that the schema marks as inputs, at any depth, and their other names."""
    if isinstance(schema, Mapping):
        for name, field_schema in schema.get("properties", {}).items():
            if "input" in field_schema:
                yield from (name, *field_schema.get("aliases", ()))
        for item in schema.values():
            yield from _iterate_input_names(item)
    elif isinstance(schema, list):
        for item in schema:
            yield from _iterate_input_names(item)


@dataclass(frozen=True, slots=True)
class _Placeholder:
    key: int


def _replace(value: Any, where: str, found: dict[int, _Input], *, fields: frozenset[str], may_refer: bool) -> Any:
    """`value` with a placeholder for each input that is on this machine."""
    if isinstance(value, Mapping):
        return {
            key: _replace(item, f"{where}.{key}" if where else str(key), found, fields=fields, may_refer=may_refer)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _replace(item, f"{where}.{number}", found, fields=fields, may_refer=may_refer)
            for number, item in enumerate(value)
        ]
    if isinstance(value, str):
        is_input = where.rpartition(".")[2] in fields
        if not is_input or value.startswith(REMOTE) or (may_refer and value.startswith("$")):
            return value
        if not _exists(value) and value.startswith(VOLUMES):
            return value
    loaded = _load(value, where)
    if not isinstance(loaded, _Input):
        return loaded
    found[len(found)] = loaded
    return _Placeholder(len(found) - 1)


def _load(value: Any, where: str) -> Any:
    """The input that `value` is, or the string or plain value that goes to the worker as it is."""
    if isinstance(value, Result):
        value = value.audio
    if isinstance(value, FileOutput):
        if value.inline is None and (value.url or (value.path and value.storage.find(value.path) is None)):
            return value.url or value.path
        return _from_bytes(value.bytes(), value.filename, where)
    if isinstance(value, Samples):
        return _from_bytes(value.to_wav(), "samples.wav", where)
    if isinstance(value, bytes | bytearray | memoryview):
        return _from_bytes(bytes(value), "audio", where)
    if isinstance(value, str | os.PathLike):
        return _from_path(Path(os.fspath(value)), where)
    if callable(getattr(value, "read", None)):
        content = value.read()
        if not isinstance(content, bytes):
            raise InputError(f'{where}: the file object returns text. Open the file with mode "rb".')
        return _from_bytes(content, Path(str(getattr(value, "name", "audio"))).name, where)
    if type(value).__module__ == "numpy" and hasattr(value, "ndim") and value.ndim > 0:
        raise InputError(f"{where}: an array needs its sample rate. Pass Samples(array, sample_rate).")
    return value.item() if type(value).__module__ == "numpy" else value


def _from_bytes(content: bytes, name: str, where: str) -> _Input:
    if not content:
        raise InputError(f"{where}: the input is empty.")
    return _Input(where, clean_name(name), len(content), lambda: io.BytesIO(content))


def _from_path(path: Path, where: str) -> _Input:
    path = path.expanduser()
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"{where}: {path} is not a file.")
    except OSError as error:
        raise InputError(
            f"{where}: {_shorten(str(path))} cannot be read: {error.strerror}. Pass the path of a file, an http(s) "
            "URL, bytes, or a path on the worker's volume that starts with /runpod-volume/ or /workspace/."
        ) from None
    except ValueError:
        raise InputError(f"{where}: a path cannot contain a null character.") from None
    if size == 0:
        raise InputError(f"{where}: {path} is empty.")
    return _Input(where, clean_name(path.name), size, lambda: path.open("rb"))


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:80]}... ({len(text)} characters)"


def _estimate_size(value: Any) -> int:
    """About as many bytes as `value` has as JSON, never fewer."""
    if isinstance(value, Mapping):
        return 2 + sum(_estimate_size(key) + _estimate_size(item) + 2 for key, item in value.items())
    if isinstance(value, list):
        return 2 + sum(_estimate_size(item) + 1 for item in value)
    if isinstance(value, str):
        return 2 + len(value.encode("utf-8", "replace")) + value.count('"') + value.count("\\") + 5 * value.count("\n")
    return 2 if isinstance(value, _Placeholder) else len(repr(value))


def _fill(value: Any, content: Mapping[int, str]) -> Any:
    if isinstance(value, _Placeholder):
        return content[value.key]
    if isinstance(value, Mapping):
        return {key: _fill(item, content) for key, item in value.items()}
    return [_fill(item, content) for item in value] if isinstance(value, list) else value


def _make_too_large(item: _Input, items: list[_Input], limit_bytes: int) -> InputTooLargeError:
    total = sum(other.size for other in items)
    room = max(limit_bytes - JSON_OVERHEAD_BYTES, 0) // 4 * 3
    what = f"{item.name} has" if len(items) == 1 else "The inputs have together"
    return InputTooLargeError(
        f"{what} {total / 1e6:.1f} MB, and a request to this endpoint can carry about {room / 1e6:.1f} MB of files. "
        "Nothing was sent. Configure a bucket for large inputs, pass an http(s) URL or a path on the worker's volume, "
        "or send a compressed file (flac, mp3, opus).",
        details={"size": total, "limit": room, "field": item.where},
    )


def _upload(item: _Input, upload: UploadTarget) -> Flow[str]:
    """Uploads an input and returns the URL where the worker reads it. The same file at the same place does no harm."""
    link = upload(f"{secrets.token_hex(8)}/{item.name}", item.size)
    reason = ""
    for attempt in range(UPLOAD_ATTEMPTS):
        if attempt:
            yield Pause(0.25 * 2**attempt)
        try:
            response: Response = yield Upload(url=link.put_url, open=item.open, size=item.size, headers=link.headers)
        except (NotSentError, NoResponseError) as error:
            reason = str(error)
            continue
        except OSError as error:
            raise InputError(f"{item.where}: {item.name} cannot be read: {error.strerror}.") from None
        if response.is_success:
            return link.get_url
        reason = f"HTTP status {response.status}"
        if response.status < HTTPStatus.INTERNAL_SERVER_ERROR and response.status != HTTPStatus.TOO_MANY_REQUESTS:
            break
    raise UploadError(
        f"{item.name} could not be uploaded to the bucket ({reason}). No job was started. Check the bucket's settings."
    )
