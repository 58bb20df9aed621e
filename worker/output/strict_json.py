"""A reply as the JSON text that is sent. The SDK silently loses what it cannot send; here that is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from errors import DeliveryError, ErrorCode, InternalError


def dump_json(reply: Mapping[str, Any], *, budget_bytes: int | None = None) -> str:
    """Strict JSON of `reply`, with non-ASCII characters as they are, like the SDK writes it.

    Raises:
        InternalError: it contains what JSON has no form for: NaN, infinities, bytes, paths, arrays, lone surrogates.
        DeliveryError: it is larger than `budget_bytes` in UTF-8 (code `too_large_error`).
    """
    try:
        text = json.dumps(reply, ensure_ascii=False, allow_nan=False)
        size = len(text) if text.isascii() else len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:  # what `json` raises for such values
        raise InternalError("The reply could not be written as JSON. This is a bug of the worker.") from error
    if budget_bytes is not None and size > budget_bytes:
        raise too_large_error(size, budget_bytes)
    return text


def too_large_error(
    size: int, budget_bytes: int, advice: str = "Ask for less.", details: Mapping[str, Any] = MappingProxyType({})
) -> DeliveryError:
    """The error for a reply over the budget."""
    return DeliveryError(
        f"The reply would be {size} bytes of JSON, but at most {budget_bytes} bytes can be sent inline. {advice}",
        code=ErrorCode.REPLY_TOO_LARGE,
        details={"size": size, "limit": budget_bytes, **details},
    )
