"""One HTTP exchange with the provider: bounded in time and size, given up at once on cancel. Knows no endpoint.

The key leaves this process in one place only: the Authorization header of a request to the two configured hosts.
Redirects are never followed, so it cannot be carried to a third.
"""

from __future__ import annotations

import contextlib
import io
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from errors import RequestError
from models.suno.config import SunoConfig
from models.suno.deadline import Check

CONNECT_S = 5.0
READ_S = 30.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
TICK_S = 0.05
LINGER_S = 5.0
MAX_RETRY_AFTER_S = 120.0


class NotSentError(Exception):
    """Nothing of the request can have reached the provider's application."""


class NoAnswerError(Exception):
    """The request may have arrived, and no whole answer came back."""


@dataclass(frozen=True)
class Upload:
    """A file and its text fields, sent as multipart/form-data."""

    file_name: str
    media_type: str
    data: bytes = field(repr=False)
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request; `timeout_s` bounds the whole exchange, `linger` waits a little for its answer when cancelled."""

    method: Literal["GET", "POST"]
    url: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    upload: Upload | None = None
    timeout_s: float = READ_S
    linger: bool = False


@dataclass(frozen=True)
class Answer:
    """A whole answer, whatever its status; `retry_after_s` where the header gives seconds."""

    status: int
    body: bytes
    retry_after_s: float | None = None


class Transport(Protocol):
    """How calls reach a provider."""

    def send(self, call: Call, check: Check) -> Answer:
        """The answer; raises `NotSentError`, `NoAnswerError`, or what `check` raises."""


@dataclass
class _Exchange:
    """What the thread that talks and the one that waits share."""

    done: threading.Event = field(default_factory=threading.Event)
    given_up: threading.Event = field(default_factory=threading.Event)
    answer: Answer | None = None
    error: Exception | None = None

    def outcome(self) -> Answer:
        if self.error is not None:
            raise self.error
        assert self.answer is not None
        return self.answer


class HttpTransport:
    """Calls over HTTP by `requests`, each on a connection and a thread of its own.

    A connection kept from an earlier call may be closed by the other side just as a submission goes out, which would
    leave its outcome unknown for no reason; and a thread that blocks in a socket cannot look at `check`.

    Args:
        connect_s, read_s: longest wait for a connection, and between two pieces of an answer.
    """

    def __init__(self, config: SunoConfig, *, connect_s: float = CONNECT_S, read_s: float = READ_S) -> None:
        self._config = config
        self._connect_s = connect_s
        self._read_s = read_s

    def send(self, call: Call, check: Check) -> Answer:
        """See `Transport`. Ends within `call.timeout_s`, or `LINGER_S` after a cancel of a lingering call."""
        exchange = _Exchange()
        ends = time.monotonic() + call.timeout_s
        threading.Thread(target=self._talk, args=(call, exchange, ends), name="suno-http", daemon=True).start()
        try:
            while not exchange.done.wait(TICK_S):
                check()
                if time.monotonic() >= ends:
                    raise NoAnswerError("the time for the whole exchange is up")
        except RequestError:
            if not (call.linger and exchange.done.wait(LINGER_S)):
                raise
        finally:
            exchange.given_up.set()
        return exchange.outcome()

    def _talk(self, call: Call, exchange: _Exchange, ends: float) -> None:
        try:
            exchange.answer = self._exchanged(call, exchange, ends)
        except Exception as error:  # handed to the waiting thread, which raises it
            exchange.error = error
        finally:
            exchange.done.set()

    def _exchanged(self, call: Call, exchange: _Exchange, ends: float) -> Answer:
        import requests  # 0.1 s that a request refused before this point does not pay
        from urllib3.exceptions import HTTPError

        headers, data = _encoded(call)
        try:
            with (
                requests.Session() as session,
                session.request(
                    call.method,
                    call.url,
                    params=dict(call.query),
                    json=call.body,
                    data=data,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
                    | headers,
                    auth=self._sign,
                    timeout=(min(self._connect_s, call.timeout_s), min(self._read_s, call.timeout_s)),
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                body = bytearray()
                for chunk in response.iter_content(CHUNK_BYTES):
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES or time.monotonic() >= ends or exchange.given_up.is_set():
                        raise NoAnswerError("the answer is too long or too slow")
                return Answer(response.status_code, bytes(body), retry_after(response.headers.get("Retry-After")))
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise _translated(error) from None  # the original carries the request, and that the key

    def _sign(self, request: Any) -> Any:
        """Adds the key, to the configured hosts only (requests calls this last; it also keeps .netrc out)."""
        allowed = {urlsplit(url)[:2] for url in (self._config.api, self._config.uploads)}
        assert urlsplit(request.url)[:2] in allowed, "a call to a host that is not configured"
        request.headers["Authorization"] = f"Bearer {self._config.token.strip()}"
        return request


def _encoded(call: Call) -> tuple[dict[str, str], io.BytesIO | None]:
    """The multipart body as a stream: a socket's timeout bounds a whole `bytes` body, but each block of a stream."""
    if call.upload is None:
        return {}, None
    from urllib3.filepost import encode_multipart_formdata

    fields: list[tuple[str, Any]] = [*call.upload.fields.items()]
    fields.append(("file", (call.upload.file_name, call.upload.data, call.upload.media_type)))
    body, content_type = encode_multipart_formdata(fields)
    return {"Content-Type": content_type}, io.BytesIO(body)


def _translated(error: Exception) -> Exception:
    """`NotSentError` where the connection never stood, else `NoAnswerError`; with the error's kind, not its text."""
    import requests
    from urllib3 import exceptions as low

    before_sending = (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidHeader,
        requests.exceptions.ProxyError,
        low.NewConnectionError,
        low.ConnectTimeoutError,
        ssl.SSLCertVerificationError,  # any other TLS error may also come while the answer is read
    )
    kind = NotSentError if any(isinstance(cause, before_sending) for cause in _causes(error)) else NoAnswerError
    return kind(type(error).__name__)


def _causes(error: object) -> Iterator[object]:
    """`error` and what it wraps, as requests and urllib3 nest them (`args`, `reason`)."""
    yield error
    if isinstance(error, Exception):
        for inner in (*error.args, getattr(error, "reason", None)):
            yield from _causes(inner)


def retry_after(header: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, bounded; None where it gives none (or a date)."""
    with contextlib.suppress(TypeError, ValueError):
        seconds = float(header or "")
        return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if seconds == seconds else None
    return None
