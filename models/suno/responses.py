"""Parses the providers' responses into values. A field that does not have the expected type counts as absent.

Sources: the providers' documentation (record-info, file upload) and the other spellings that occur in practice:
`audio_url` for `audioUrl`, `response.data` for `response.sunoData`, `resultJson` as a string, `createTime` as a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Sanitize = Callable[[object, int], str]

MAX_CLIPS = 8
MAX_URL_CHARS = 4096
MAX_ID_CHARS = 128
MAX_LYRICS_CHARS = 12_000
URL_FIELDS = (
    "audioUrl",
    "audio_url",
    "sourceAudioUrl",
    "source_audio_url",
    "streamAudioUrl",  # reported to serve nothing once the task is done, so it is the last resort
    "stream_audio_url",
    "sourceStreamAudioUrl",
    "source_stream_audio_url",
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """`{"code", "msg", "data"}`; `code` is None if the body is no such object."""

    code: int | None
    message: str
    data: Any


@dataclass(frozen=True, slots=True)
class Clip:
    """One song of a task.

    `index` counts from 0 in the provider's order; `duration` is in seconds, if the provider reports it; `urls` are in
    the order in which to try them.
    """

    index: int
    audio_id: str
    title: str
    tags: str
    lyrics: str
    duration: float | None
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task as the provider reports it; `state` is its `status` field, `error_code` is None if there is no error."""

    state: str
    clips: tuple[Clip, ...] = ()
    error_code: int | None = None
    error_message: str = ""

    @property
    def downloadable(self) -> tuple[Clip, ...]:
        """The clips that have a URL."""
        return tuple(clip for clip in self.clips if clip.urls)


def make_sanitizer(token: str) -> Sanitize:
    """A function `(value, max_chars)` that makes provider text safe to pass on: printable, bounded, without the key."""

    def sanitize(value: object, max_chars: int) -> str:
        text = value if isinstance(value, str) else ""
        if token:
            text = text.replace(token, "[key]")
        text = text[:max_chars].encode("utf-8", "replace").decode("utf-8")
        return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()

    return sanitize


def parse_envelope(body: bytes, sanitize: Sanitize) -> Envelope:
    """The body of any response."""
    content = _parse_json(body)
    if not isinstance(content, Mapping):
        return Envelope(None, "", None)
    message = sanitize(content.get("msg") or content.get("message"), 300)
    return Envelope(_to_int(content.get("code")), message, content.get("data"))


def parse_task_id(data: object, sanitize: Sanitize) -> str | None:
    """The task id in the `data` of a submission's response."""
    if not isinstance(data, Mapping):
        return None
    value = data.get("taskId", data.get("task_id"))
    value = str(value) if _to_int(value) is not None else value
    return sanitize(value, MAX_ID_CHARS) or None


def parse_upload_url(data: object) -> str | None:
    """The URL from which the provider downloads an uploaded file."""
    if not isinstance(data, Mapping):
        return None
    return next((url for name in ("downloadUrl", "fileUrl", "url") if (url := _to_url(data.get(name)))), None)


def parse_record(data: object, sanitize: Sanitize) -> TaskRecord | None:
    """The task's record in `data`; None if there is none (the task is unknown, or not listed yet)."""
    if not isinstance(data, Mapping):
        return None
    error_code = _to_int(data.get("errorCode"))
    return TaskRecord(
        state=sanitize(data.get("status"), 64).upper(),
        clips=_parse_clips(_find_clip_list(data), sanitize),
        error_code=None if error_code in (0, 200) else error_code,
        error_message=sanitize(data.get("errorMessage") or data.get("failMsg"), 300),
    )


def parse_credits(data: object) -> float | None:
    """The account's balance, if the response contains one."""
    if isinstance(data, Mapping):
        data = data.get("credits", data.get("credit"))
    number = _to_number(data)
    return int(number) if number is not None and number.is_integer() else number


def _find_clip_list(data: Mapping[str, Any]) -> list[Any]:
    for container in (_parse_json(data.get("response")), _parse_json(data.get("resultJson"))):
        if isinstance(container, Mapping):
            for name in ("sunoData", "data"):
                if isinstance(container.get(name), list) and container[name]:
                    return list(container[name])
    return []


def _parse_clips(items: list[Any], sanitize: Sanitize) -> tuple[Clip, ...]:
    objects = [item for item in items if isinstance(item, Mapping)]
    return tuple(_parse_clip(index, item, sanitize) for index, item in enumerate(objects[:MAX_CLIPS]))


def _parse_clip(index: int, item: Mapping[str, Any], sanitize: Sanitize) -> Clip:
    urls = [url for name in URL_FIELDS if (url := _to_url(item.get(name)))]
    return Clip(
        index=index,
        audio_id=sanitize(item.get("id") or item.get("audioId"), MAX_ID_CHARS),
        title=sanitize(item.get("title"), 300),
        tags=sanitize(item.get("tags"), 2000),
        lyrics=sanitize(item.get("prompt") or item.get("lyrics"), MAX_LYRICS_CHARS),
        duration=_to_number(item.get("duration")),
        urls=tuple(dict.fromkeys(url for url in urls if sanitize(url, MAX_URL_CHARS) == url)),
    )


def _parse_json(value: object) -> Any:
    """The JSON in `value` if that is text or bytes (None if it is not valid JSON), else `value` itself."""
    if not isinstance(value, (str, bytes)):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _to_url(value: object) -> str | None:
    if isinstance(value, str) and value.startswith(("https://", "http://")) and len(value) <= MAX_URL_CHARS:
        return value
    return None


def _to_int(value: object) -> int | None:
    """An int from 3, 3.0 or "3"; providers send codes in all three forms."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 16:
        return int(value)
    number = _to_number(value)
    return int(number) if number is not None and number.is_integer() else None


def _to_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < 1e15 else None
