"""What can go wrong with a request, as one tree; the ground floor, so it imports nothing of ours.

RequestError                a sentence for the caller, a snake_case code, optional details
├── InvalidRequestError     the JSON breaks a rule of the contract
│   └── UnknownNameError    an operation, model or voice that does not exist; names the nearest
├── AudioError              an audio field that cannot be used (see its code for which way)
├── SourceError             a URL or volume path that may not or cannot be read
├── DeliveryError           the result cannot go out the way that was asked for
├── ModelError              weights absent, broken, or of a kind that we do not run
├── DeviceMemoryError       the device cannot hold the work even when nothing else is loaded
├── UpstreamError           a provider (Suno) failed or refused
├── CancelledError          the control plane stopped the job
├── DeadlineError           the job's time is up
└── InternalError           our own bug; says nothing of the inside
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

MAX_NAME_SHOWN = 64


class RequestError(Exception):
    """A failure with a sentence that the caller can act on.

    `message` says what was got, what is allowed and what to do next; it never quotes the request's values at length,
    and never carries a path outside the model folders, a host name, a key or base64.
    """

    code: ClassVar[str] = "request_error"
    refresh_worker: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.details = dict(details or {})

    def reply(self) -> dict[str, Any]:
        """The failure reply of the contract: `error`, `error_code`, `details` (and `refresh_worker` where due)."""
        reply: dict[str, Any] = {"error": self.message, "error_code": self.error_code, "details": self.details}
        return reply | {"refresh_worker": True} if self.refresh_worker else reply


class InvalidRequestError(RequestError):
    code = "invalid_request"


class UnknownNameError(InvalidRequestError):
    code = "unknown_name"


class AudioError(RequestError):
    code = "invalid_audio"


class SourceError(RequestError):
    code = "source_unavailable"


class DeliveryError(RequestError):
    code = "delivery_failed"


class ModelError(RequestError):
    code = "model_unavailable"


class DeviceMemoryError(RequestError):
    code = "out_of_memory"
    refresh_worker = True


class UpstreamError(RequestError):
    code = "upstream_error"


class CancelledError(RequestError):
    code = "cancelled"


class DeadlineError(RequestError):
    code = "deadline_exceeded"


class InternalError(RequestError):
    code = "internal_error"


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not among `valid`: lists them and suggests the nearest."""
    names = sorted(valid)
    return UnknownNameError(
        f"Unknown {kind} '{sanitize(name)}'.{nearest_name(name, names)} Valid: {', '.join(names) or 'none'}.",
        code=f"unknown_{kind.replace(' ', '_')}",
        details={kind.replace(" ", "_"): sanitize(name), "valid": names},
    )


def nearest_name(name: str, valid: Iterable[str]) -> str:
    """` Did you mean '...'?`, or nothing where no valid name is near."""
    nearest = difflib.get_close_matches(name[:MAX_NAME_SHOWN].lower(), list(valid), n=1)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""


def sanitize(name: str) -> str:
    """A caller's name, safe to quote: short, printable, encodable."""
    clean = "".join(c if c.isprintable() else "?" for c in name[: MAX_NAME_SHOWN + 1])
    return clean if len(name) <= MAX_NAME_SHOWN else clean[:MAX_NAME_SHOWN] + "..."
