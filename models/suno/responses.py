"""What providers answer, read tolerantly into values. Trusts no shape: a field that is not as it should be is absent.

Sources: the providers' documentation (record-info, file upload) and the other spellings that are seen in the wild:
`audio_url` for `audioUrl`, `response.data` for `response.sunoData`, `resultJson` as a string, `createTime` as a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Clean = Callable[[object, int], str]

MAX_TAKES = 8
MAX_URL_CHARS = 4096
MAX_ID_CHARS = 128
MAX_LYRICS_CHARS = 12_000
URL_FIELDS = (
    "audioUrl",
    "audio_url",
    "sourceAudioUrl",
    "source_audio_url",
    "streamAudioUrl",  # reported to serve nothing once the task is done, so only as a last resort
    "stream_audio_url",
    "sourceStreamAudioUrl",
    "source_stream_audio_url",
)


@dataclass(frozen=True)
class Envelope:
    """`{"code", "msg", "data"}`; `code` None where the body is no such object."""

    code: int | None
    message: str
    data: Any


@dataclass(frozen=True)
class Clip:
    """One of the results: `index` counts from 0 in the provider's order, `urls` are in the order to try them,
    `duration` is in seconds where the provider says it."""

    index: int
    audio_id: str
    title: str
    tags: str
    lyrics: str
    model: str
    duration: float | None
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """A task as the provider tells it; `error_code` None where it reports none."""

    status: str
    takes: tuple[Clip, ...] = ()
    error_code: int | None = None
    error_message: str = ""


def cleaner(token: str) -> Clean:
    """A function that makes provider text fit to pass on: a string, printable, bounded, the key blotted out."""

    def clean(value: object, most: int) -> str:
        text = value if isinstance(value, str) else ""
        if token:
            text = text.replace(token, "[key]")
        text = text[:most].encode("utf-8", "replace").decode("utf-8")
        return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()

    return clean


def envelope(body: bytes, clean: Clean) -> Envelope:
    """The body as the common envelope."""
    content = _parsed(body)
    if not isinstance(content, Mapping):
        return Envelope(None, "", None)
    message = clean(content.get("msg") or content.get("message"), 300)
    return Envelope(_whole(content.get("code")), message, content.get("data"))


def task_id(data: object, clean: Clean) -> str | None:
    """The task's id out of a submission's `data`."""
    if not isinstance(data, Mapping):
        return None
    value = data.get("taskId", data.get("task_id"))
    value = str(value) if _whole(value) is not None else value
    return clean(value, MAX_ID_CHARS) or None


def uploaded_url(data: object) -> str | None:
    """Where the provider can fetch an uploaded file."""
    if not isinstance(data, Mapping):
        return None
    return next((url for name in ("downloadUrl", "fileUrl", "url") if (url := _url(data.get(name)))), None)


def record(data: object, clean: Clean) -> Record | None:
    """A task's record out of `data`; None where there is none (an unknown task, or one not yet written down)."""
    if not isinstance(data, Mapping):
        return None
    error_code = _whole(data.get("errorCode"))
    return Record(
        status=clean(data.get("status"), 64).upper(),
        takes=_takes(_items(data), clean),
        error_code=None if error_code in (0, 200) else error_code,
        error_message=clean(data.get("errorMessage") or data.get("failMsg"), 300),
    )


def credits_left(data: object) -> float | None:
    """The balance, where the provider tells one."""
    if isinstance(data, Mapping):
        data = data.get("credits", data.get("credit"))
    number = _number(data)
    return int(number) if number is not None and number.is_integer() else number


def _items(data: Mapping[str, Any]) -> list[Any]:
    response = _parsed(data.get("response"))
    result = _parsed(data.get("resultJson"))
    for holder in (response, result):
        if isinstance(holder, Mapping):
            for name in ("sunoData", "data"):
                if isinstance(holder.get(name), list) and holder[name]:
                    return list(holder[name])
    return []


def _takes(items: list[Any], clean: Clean) -> tuple[Clip, ...]:
    objects = [item for item in items if isinstance(item, Mapping)]
    return tuple(_take(index, item, clean) for index, item in enumerate(objects[:MAX_TAKES]))


def _take(index: int, item: Mapping[str, Any], clean: Clean) -> Clip:
    urls = [url for name in URL_FIELDS if (url := _url(item.get(name)))]
    return Clip(
        index=index,
        audio_id=clean(item.get("id") or item.get("audioId"), MAX_ID_CHARS),
        title=clean(item.get("title"), 300),
        tags=clean(item.get("tags"), 2000),
        lyrics=clean(item.get("prompt") or item.get("lyrics"), MAX_LYRICS_CHARS),
        model=clean(item.get("modelName") or item.get("model_name"), 64),
        duration=_number(item.get("duration")),
        urls=tuple(dict.fromkeys(url for url in urls if clean(url, MAX_URL_CHARS) == url)),
    )


def _parsed(value: object) -> Any:
    """JSON where `value` is bytes or text that holds it, else `value` itself; None where it cannot be read."""
    if not isinstance(value, (str, bytes)):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _url(value: object) -> str | None:
    fits = isinstance(value, str) and value.startswith(("https://", "http://")) and len(value) <= MAX_URL_CHARS
    return value if fits and isinstance(value, str) else None


def _whole(value: object) -> int | None:
    """An int out of 3, 3.0 or "3"; providers send codes in all three ways."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 16:
        return int(value)
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < 1e15 else None
