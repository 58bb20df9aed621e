"""A reply as the JSON text that leaves. The SDK silently loses what it cannot send; here that is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from errors import DeliveryError, ErrorCode, InternalError


def dump_json(reply: Mapping[str, Any], *, budget_bytes: int | None = None) -> str:
    """Strict JSON of `reply`, with non-ASCII as it is, like the SDK writes it.

    Raises:
        InternalError: it holds what JSON has not: NaN, infinities, bytes, paths, arrays, half a surrogate pair.
        DeliveryError: it is larger than `budget_bytes` in UTF-8 (code `reply_too_large`).
    """
    try:
        text = json.dumps(reply, ensure_ascii=False, allow_nan=False)
        size = len(text) if text.isascii() else len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InternalError("The reply could not be written as JSON. This is a fault of the worker's own.") from error
    if budget_bytes is not None and size > budget_bytes:
        raise too_large(size, budget_bytes)
    return text


def too_large(
    size: int, budget_bytes: int, advice: str = "Ask for less.", details: Mapping[str, Any] | None = None
) -> DeliveryError:
    """The error for a reply over the budget."""
    return DeliveryError(
        f"The reply would be {size} bytes of JSON, and at most {budget_bytes} go out inline. {advice}",
        code=ErrorCode.REPLY_TOO_LARGE,
        details={"size": size, "limit": budget_bytes, **(details or {})},
    )
