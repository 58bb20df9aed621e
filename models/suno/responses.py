"""Parses the providers' responses into values and errors. A field of an unexpected type counts as absent.

Sources: the providers' documentation (record-info, file upload) and the other spellings that occur in practice:
`audio_url` for `audioUrl`, `response.data` for `response.sunoData`, `resultJson` as a string, `createTime` as a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from errors import ErrorCode, UpstreamError

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

BAD_KEY = "The Suno provider rejected the API key. Check SUNO_API_TOKEN, and that it belongs to SUNO_API_BASE_URL."
ACCESS_DENIED = "The Suno provider denied access. Check the key's permissions and its list of allowed addresses."
NO_CREDITS = "The Suno account has too few credits. Top up the account, then send the request again."
TEXT_TOO_LONG = "The Suno provider rejected a text as too long. Shorten 'prompt', 'lyrics', 'style' or 'title'."
REQUEST_REFUSED = "The Suno provider rejected the request's values. Change them, then send the request again."
RATE_LIMITED = (
    "The Suno provider's rate limit is reached. Send the request again in a minute, or lower SUNO_RATE_LIMIT."
)
MAINTENANCE = "The Suno provider is under maintenance. Try again later."
PROVIDER_FAILED = (
    "The Suno provider reported a failure. Check on its dashboard whether credits were taken before you send the "
    "request again."
)
TASK_FAILED = (
    "Suno could not make this song. Most providers refund the credits; send it as a new request if you want to retry."
)
MODERATION = (
    "Suno's moderation rejected the text, and will reject it again unless it changes. Rewrite 'prompt', 'lyrics', "
    "'style' or 'title'."
)
SOURCE_REFUSED = (
    "The Suno provider could not use the source audio: either it cannot download it, or the audio matches an existing "
    "recording. Use audio of your own."
)
WRONG_ADDRESS = "The Suno provider does not know this API method. Check SUNO_API_BASE_URL and SUNO_UPLOAD_BASE_URL."

# What a provider's code means. Beware of 429: these providers send it for an account without credits; 430 and 405 are
# their rate limits.
_Meaning = tuple[ErrorCode, str]
_SHARED: Mapping[int, _Meaning] = MappingProxyType(
    {
        401: (ErrorCode.BAD_KEY, BAD_KEY),
        402: (ErrorCode.INSUFFICIENT_CREDITS, NO_CREDITS),
        403: (ErrorCode.ACCESS_DENIED, ACCESS_DENIED),
        405: (ErrorCode.RATE_LIMITED, RATE_LIMITED),
        429: (ErrorCode.INSUFFICIENT_CREDITS, NO_CREDITS),
        430: (ErrorCode.RATE_LIMITED, RATE_LIMITED),
        433: (ErrorCode.INSUFFICIENT_CREDITS, NO_CREDITS),
        451: (ErrorCode.SOURCE_REFUSED, SOURCE_REFUSED),
        455: (ErrorCode.MAINTENANCE, MAINTENANCE),
    }
)
_FROM_CALL: Mapping[int, _Meaning] = MappingProxyType(
    {
        **_SHARED,
        400: (ErrorCode.REQUEST_REFUSED, REQUEST_REFUSED),
        404: (ErrorCode.WRONG_ADDRESS, WRONG_ADDRESS),
        409: (ErrorCode.REQUEST_REFUSED, REQUEST_REFUSED),
        413: (ErrorCode.TEXT_TOO_LONG, TEXT_TOO_LONG),
        422: (ErrorCode.REQUEST_REFUSED, REQUEST_REFUSED),
    }
)
_FROM_TASK: Mapping[int, _Meaning] = MappingProxyType(
    {
        **_SHARED,
        400: (ErrorCode.MODERATION, MODERATION),
        413: (ErrorCode.SOURCE_REFUSED, SOURCE_REFUSED),
        422: (ErrorCode.REQUEST_REFUSED, REQUEST_REFUSED),
    }
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


def to_provider_error(code: int, message: str, **details: Any) -> UpstreamError:
    """The error for a call that the provider answered with `code` and `message`."""
    meaning = _FROM_CALL.get(code, (ErrorCode.PROVIDER_FAILED, PROVIDER_FAILED))
    return _build_error(meaning, message, details | {"provider_code": code})


def to_task_error(state: str, code: int | None, message: str) -> UpstreamError:
    """The error for a task that ended in `state` without a song."""
    meaning = _FROM_TASK.get(code or 0, (ErrorCode.PROVIDER_FAILED, TASK_FAILED))
    if "SENSITIVE" in state:
        meaning = (ErrorCode.MODERATION, MODERATION)
    return _build_error(meaning, message, {"status": state, "provider_code": code})


def _build_error(meaning: _Meaning, message: str, details: Mapping[str, Any]) -> UpstreamError:
    code, sentence = meaning
    quoted = f" The provider's message: {message!r}." if message else ""
    known = {key: value for key, value in {**details, "provider_message": message}.items() if value not in (None, "")}
    return UpstreamError(sentence + quoted, code=code, details=known)


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
