"""What a failed download from the Hugging Face hub means for the caller. Imports the hub's client when it is called."""

from __future__ import annotations

import errno

from errors import ErrorCode, ModelError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SERVER_ERROR, _TOO_MANY_REQUESTS = 500, 429


def find_cause(error: BaseException) -> BaseException:
    """The HTTP or network error behind the client's 'not found in the local cache either'."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _read_status(error: BaseException) -> int | None:
    from httpx2 import HTTPStatusError
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.status_code if isinstance(error, HfHubHTTPError | HTTPStatusError) else None


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk had no room left for a file."""
    return (isinstance(error, OSError) and error.errno in _FULL) or "No space left on device" in str(error)


def may_pass(error: BaseException) -> bool:
    """Whether another attempt may succeed: the hub failed, cut the connection, or sent a file incompletely.

    If it cannot be reached or does not answer, the hub's client has waited or tried long enough.
    """
    import httpx2

    status = _read_status(error)
    if status is not None:
        return status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS
    return _is_incomplete(error) or isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError)


def _is_incomplete(error: BaseException) -> bool:
    """Whether a file does not have the size that the hub announced: the client raises a bare `OSError` for that."""
    return type(error) is OSError and error.errno is None


def to_model_error(error: BaseException, hub_id: str) -> ModelError:
    """The error for the caller: what failed, and what to do."""
    if is_disk_full(error):
        return ModelError(
            f"The disk became full while '{hub_id}' was downloaded. Free space on the volume or mount a larger one, or "
            "set HF_HUB_CACHE to a folder on another disk.",
            code=ErrorCode.DISK_FULL,
            details={"hub_id": hub_id},
        )
    status = _read_status(error)
    reason, remedy = _explain(error, status, f"huggingface.co/{hub_id}")
    return ModelError(
        f"'{hub_id}' is not on this worker and could not be downloaded: {reason}. {remedy}, or put its files into a "
        "folder below MODELS_DIR.",
        details={"hub_id": hub_id} | ({} if status is None else {"http_status": status}),
    )


def _explain(error: BaseException, status: int | None, page: str) -> tuple[str, str]:
    """Why the hub did not give the files, and what to do about it."""
    import httpx2
    from huggingface_hub import errors

    kinds: tuple[tuple[type[BaseException], str, str], ...] = (
        (
            errors.GatedRepoError,
            "it is gated",
            f"Accept its licence at {page}, and set HF_TOKEN to that account's token",
        ),
        (errors.RevisionNotFoundError, "its pinned revision is not on the hub", "Set PIN_MODELS=0 for the newest one"),
        (errors.OfflineModeIsEnabled, "the worker is offline (HF_HUB_OFFLINE)", "Set HF_HUB_OFFLINE=0"),
        (httpx2.TimeoutException, "the hub did not answer in time", "Try again later"),
        (
            httpx2.TransportError,
            "the hub cannot be reached, or it cut the connection",
            "Check the worker's network, and HF_ENDPOINT if it is set",
        ),
    )
    statuses = {
        401: (
            "the hub refuses access (HTTP 401): it is private or does not exist, or HF_TOKEN is not valid",
            "Set HF_TOKEN to a token that may read it",
        ),
        403: ("the hub forbids access (HTTP 403)", f"Accept its licence at {page}, and set HF_TOKEN to a token for it"),
        404: ("the hub does not have it (HTTP 404)", f"See whether {page} has moved"),
        429: ("the hub's rate limit is reached (HTTP 429)", "Set HF_TOKEN, or try again later"),
    }
    for kind, reason, remedy in kinds:
        if isinstance(error, kind):
            return reason, remedy
    if status is not None:
        return statuses.get(status, (f"the hub failed (HTTP {status})", "Try again later"))
    if _is_incomplete(error):
        return "a file did not arrive as the hub announced it", "Try again later"
    return f"it could not be stored ({type(error).__name__})", "Check that HF_HUB_CACHE can be written"
