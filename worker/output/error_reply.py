"""From whatever a request raised to the failure reply that its caller gets: a sentence, and nothing of the inside."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from errors import ErrorCode, InternalError, InvalidRequestError, RequestError
from worker import logs
from worker.settings import SettingsError

logger = logging.getLogger(__name__)


def reply_to(error: Exception, facts: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The failure reply for `error`, with `facts` among its details.

    Our own faults are logged under an id that the reply names.
    """
    reply = _told(error).reply()
    return reply | {"details": {**facts, **reply["details"]}}


def _told(error: Exception) -> RequestError:
    known = _known(error)
    if known is not None:
        logger.info("Refused: %s", known.error_code)
        return known
    error_id = uuid.uuid4().hex[:12]
    logger.error("Error %s: %s", error_id, logs.whereabouts(error))
    return InternalError(
        f"The worker failed by a fault of its own (error id {error_id}). Other requests may still work; "
        "report the id together with the request.",
        details={"error_id": error_id},
    )


def _known(error: Exception) -> RequestError | None:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, SettingsError):
        return RequestError(f"The worker is not set up: {error}", code=ErrorCode.INVALID_SETTINGS)
    if isinstance(error, RecursionError):
        return InvalidRequestError("The request is nested too deeply to be read. Make it flatter.")
    if isinstance(error, MemoryError):
        return RequestError(
            "The worker's memory did not suffice. Ask for less (shorter, fewer samples, a smaller model), "
            "or use a worker with more memory.",
            code=ErrorCode.OUT_OF_MEMORY,
        )
    return None
