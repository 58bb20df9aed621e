"""What a provider's codes mean: an error code of this worker, and a sentence that says what to do next.

Beware of 429: these providers send it for an account without credits; 430 and 405 are the rate limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from errors import ErrorCode, UpstreamError

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
