"""What a provider's codes mean to the caller: an error code of ours, and a sentence that says what to do next.

429 is the trap: these providers answer it for an empty account, while 430 and 405 are the rate limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from errors import UpstreamError

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

_Case = tuple[str, str]
_EVERYWHERE: Mapping[int, _Case] = MappingProxyType(
    {
        401: ("bad_key", BAD_KEY),
        402: ("insufficient_credits", NO_CREDITS),
        403: ("access_denied", DENIED),
        405: ("rate_limited", RATE),
        429: ("insufficient_credits", NO_CREDITS),
        430: ("rate_limited", RATE),
        433: ("insufficient_credits", NO_CREDITS),
        451: ("source_refused", SOURCE),
        455: ("maintenance", MAINTENANCE),
    }
)
_ON_SUBMIT: Mapping[int, _Case] = MappingProxyType(
    {
        **_EVERYWHERE,
        400: ("request_refused", REFUSED),
        404: ("wrong_address", WRONG_ADDRESS),
        409: ("request_refused", REFUSED),
        413: ("text_too_long", TOO_LONG),
        422: ("request_refused", REFUSED),
    }
)
_IN_TASK: Mapping[int, _Case] = MappingProxyType(
    {**_EVERYWHERE, 400: ("moderation", MODERATION), 413: ("source_refused", SOURCE), 422: ("request_refused", REFUSED)}
)


def refusal(code: int, message: str, **details: Any) -> UpstreamError:
    """The error for a call that was answered with `code`."""
    name, sentence = _ON_SUBMIT.get(code, ("provider_failed", FAILED))
    return _error(name, sentence, message, details | {"provider_code": code})


def task_failure(status: str, code: int | None, message: str, **details: Any) -> UpstreamError:
    """The error for a task that ended without a song."""
    name, sentence = _IN_TASK.get(code or 0, ("provider_failed", TASK_FAILED))
    if "SENSITIVE" in status:
        name, sentence = "moderation", MODERATION
    return _error(name, sentence, message, details | {"status": status, "provider_code": code})


def _error(name: str, sentence: str, message: str, details: Mapping[str, Any]) -> UpstreamError:
    said = f" The provider says: {message!r}." if message else ""
    known = {key: value for key, value in {**details, "provider_message": message}.items() if value not in (None, "")}
    return UpstreamError(sentence + said, code=name, details=known)
