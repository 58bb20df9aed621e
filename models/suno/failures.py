"""What a provider's codes mean to the caller: an error code of ours, and a sentence that says what to do next.

429 is the trap: these providers answer it for an empty account, while 430 and 405 are the rate limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from errors import ErrorCode, UpstreamError

BAD_KEY = "The Suno provider refused the key. Check SUNO_API_TOKEN, and that it belongs to SUNO_API_BASE_URL."
DENIED = "The Suno provider denies access. Check the key's rights and its list of allowed addresses."
NO_CREDITS = "The Suno account has too few credits. Top it up, then send the request again."
TOO_LONG = "The Suno provider finds a text too long. Shorten prompt, style or title."
REFUSED = "The Suno provider refused the request's values. Change them, then send it again."
RATE = "The Suno provider's rate limit is reached. Send the request again in a minute, or lower SUNO_RATE_LIMIT."
MAINTENANCE = "The Suno provider is under maintenance. Try again later."
FAILED = "The Suno provider failed. Its dashboard shows whether credits were taken; then send the request again."
TASK_FAILED = (
    "Suno could not make this song. Most providers give the credits back; send it as a new request if you wish."
)
MODERATION = "Suno's moderation refused the text. It stays refused unchanged: rewrite prompt, lyrics, style or title."
SOURCE = (
    "The Suno provider could not use the source audio: it cannot fetch it, or it matches an existing recording. "
    "Use audio of your own."
)
WRONG_ADDRESS = "The Suno provider does not know this method. Check SUNO_API_BASE_URL and SUNO_UPLOAD_BASE_URL."

_Case = tuple[ErrorCode, str]
_EVERYWHERE: Mapping[int, _Case] = MappingProxyType(
    {
        401: (ErrorCode.BAD_KEY, BAD_KEY),
        402: (ErrorCode.INSUFFICIENT_CREDITS, NO_CREDITS),
        403: (ErrorCode.ACCESS_DENIED, DENIED),
        405: (ErrorCode.RATE_LIMITED, RATE),
        429: (ErrorCode.INSUFFICIENT_CREDITS, NO_CREDITS),
        430: (ErrorCode.RATE_LIMITED, RATE),
        433: (ErrorCode.INSUFFICIENT_CREDITS, NO_CREDITS),
        451: (ErrorCode.SOURCE_REFUSED, SOURCE),
        455: (ErrorCode.MAINTENANCE, MAINTENANCE),
    }
)
_ON_SUBMIT: Mapping[int, _Case] = MappingProxyType(
    {
        **_EVERYWHERE,
        400: (ErrorCode.REQUEST_REFUSED, REFUSED),
        404: (ErrorCode.WRONG_ADDRESS, WRONG_ADDRESS),
        409: (ErrorCode.REQUEST_REFUSED, REFUSED),
        413: (ErrorCode.TEXT_TOO_LONG, TOO_LONG),
        422: (ErrorCode.REQUEST_REFUSED, REFUSED),
    }
)
_IN_TASK: Mapping[int, _Case] = MappingProxyType(
    {
        **_EVERYWHERE,
        400: (ErrorCode.MODERATION, MODERATION),
        413: (ErrorCode.SOURCE_REFUSED, SOURCE),
        422: (ErrorCode.REQUEST_REFUSED, REFUSED),
    }
)


def refusal(code: int, message: str, **details: Any) -> UpstreamError:
    """The error for a call that was answered with `code`."""
    name, sentence = _ON_SUBMIT.get(code, (ErrorCode.PROVIDER_FAILED, FAILED))
    return _error(name, sentence, message, details | {"provider_code": code})


def task_failure(status: str, code: int | None, message: str, **details: Any) -> UpstreamError:
    """The error for a task that ended without a song."""
    name, sentence = _IN_TASK.get(code or 0, (ErrorCode.PROVIDER_FAILED, TASK_FAILED))
    if "SENSITIVE" in status:
        name, sentence = ErrorCode.MODERATION, MODERATION
    return _error(name, sentence, message, details | {"status": status, "provider_code": code})


def _error(name: ErrorCode, sentence: str, message: str, details: Mapping[str, Any]) -> UpstreamError:
    said = f" The provider says: {message!r}." if message else ""
    known = {key: value for key, value in {**details, "provider_message": message}.items() if value not in (None, "")}
    return UpstreamError(sentence + said, code=name, details=known)
