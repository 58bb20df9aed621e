"""From an exception to the failure reply that the caller gets: one sentence, a code, and nothing of the inside."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from errors import ErrorCode, InternalError, InvalidRequestError, RequestError
from worker.logs import error_location
from worker.settings import SettingsError

logger = logging.getLogger(__name__)


def build_error_reply(error: BaseException, details: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The failure reply for `error`; `details` are added to the error's own.

    An error that is a bug of the worker is logged under an id that the reply names.
    """
    reply = _to_request_error(error).to_reply()
    return reply | {"details": {**details, **reply["details"]}}


def _to_request_error(error: BaseException) -> RequestError:
    if isinstance(error, RequestError):
        known = error
    elif isinstance(error, SettingsError):
        known = RequestError(f"The worker is not set up correctly: {error}", code=ErrorCode.INVALID_SETTINGS)
    elif isinstance(error, RecursionError):
        known = InvalidRequestError("The request is nested too deeply. Send it with fewer levels.")
    elif isinstance(error, MemoryError):
        known = RequestError(
            "The worker ran out of memory. Ask for less (shorter audio, fewer samples, a smaller model), or use a "
            "worker with more memory.",
            code=ErrorCode.OUT_OF_MEMORY,
        )
    else:
        error_id = uuid.uuid4().hex[:12]
        logger.error("Error %s: %s", error_id, error_location(error))
        return InternalError(
            f"The worker failed because of a bug of its own (error id {error_id}). Other requests may still work; "
            "report the id together with the request.",
            details={"error_id": error_id},
        )
    logger.info("Refused: %s", known.error_code)
    return known
