"""The provider's endpoints (the sunoapi.org / kie.ai API) as methods, on an HTTP client that is handed in.

Each method makes its calls once: retries and pauses are the engine's.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from errors import (
    CancelledError,
    DeadlineError,
    ErrorCode,
    HttpError,
    NoResponseError,
    NotSentError,
    RequestError,
    UpstreamError,
)
from models.runtime.progress import Check
from models.suno.config import SunoConfig
from models.suno.payloads import Submission
from models.suno.responses import (
    Envelope,
    TaskRecord,
    make_sanitizer,
    parse_credits,
    parse_envelope,
    parse_record,
    parse_task_id,
    parse_upload_url,
    to_provider_error,
)

RECORD_PATH = "/api/v1/generate/record-info"
CREDITS_PATHS = ("/api/v1/generate/credit", "/api/v1/chat/credit")
UPLOAD_PATH = "/api/file-stream-upload"
UPLOAD_FOLDER = "audio/sources"
SUBMIT_TIMEOUT_S = 40.0
UPLOAD_TIMEOUT_S = 120.0
STATUS_TIMEOUT_S = 30.0
CREDITS_TIMEOUT_S = 10.0
# A cancelled submission is given this long to be answered, because the answer names the task that is paid.
CANCEL_GRACE_S = 5.0
MAX_RETRY_AFTER_S = 120.0
GATEWAY_RATE_LIMIT = 430  # the API's own code for too many requests

UNREACHABLE = "The Suno provider cannot be reached or does not respond. Try again later, or check SUNO_API_BASE_URL."
UNKNOWN_OUTCOME = (
    "The submission was sent to the Suno provider, but no task id came back, so a task may exist and may have been "
    "paid. The submission was not repeated. Look for the task on the provider's dashboard and send its id as "
    "'task_id'; this costs nothing."
)


class HttpResponse(Protocol):
    """A complete response, whatever its status; the names of `headers` are case-insensitive."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class HttpClient(Protocol):
    """Sends requests, each on a new connection, and follows no redirect.

    A reused connection may be closed by the server just as a submission is sent, which would leave its outcome unknown.
    """

    def request(  # noqa: PLR0913  (as in other HTTP clients, by keyword)
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        check: Check,
    ) -> HttpResponse:
        """The response; `timeout_s` limits the whole exchange.

        Raises `NotSentError`, `NoResponseError`, or what `check` raises, which is called several times a second.
        """


class SunoClient:
    """One account at one provider.

    Args:
        config: the provider; `config.find_problem()` is None.
        http: sends the requests.
    """

    def __init__(self, config: SunoConfig, http: HttpClient) -> None:
        self._config = config
        self._http = http
        self._sanitize = make_sanitizer(config.token.strip())

    def submit(self, submission: Submission, check: Check) -> str:
        """Sends the submission once and returns the task id.

        Raises:
            UpstreamError: `provider_unreachable`, `rate_limited` or `maintenance` if no task was created and a retry is
                safe; `submit_unknown` if a task may exist; else why the provider refused.
            CancelledError, DeadlineError: from `check`; the message says that a task may exist.
        """
        payload = {**submission.body, "callBackUrl": self._config.callback_url}
        url = self._config.api_root + submission.path
        try:
            response = self._http.request(
                "POST",
                url,
                headers=authorize(self._config, url) | {"Content-Type": "application/json"},
                body=json.dumps(payload).encode(),
                timeout_s=SUBMIT_TIMEOUT_S,
                check=_delay(check, CANCEL_GRACE_S),
            )
        except NotSentError as error:
            raise UpstreamError(UNREACHABLE + " Nothing was submitted.", code=ErrorCode.PROVIDER_UNREACHABLE) from error
        except NoResponseError as error:
            raise UpstreamError(
                UNKNOWN_OUTCOME, code=ErrorCode.SUBMIT_UNKNOWN, details={"submitted": "unknown"}
            ) from error
        except (CancelledError, DeadlineError) as error:
            raise type(error)(
                f"{error.message} The submission was already under way, so a Suno task may exist and its credits "
                "may be spent. Look for it on the provider's dashboard.",
                code=error.error_code,
                details={**error.details, "submitted": "unknown"},
            ) from error
        envelope = parse_envelope(response.body, self._sanitize)
        task_id = parse_task_id(envelope.data, self._sanitize)
        if task_id:
            return task_id  # whatever the code is: a task that has an id may have been paid
        raise _to_submit_error(response, envelope)

    def get_record(self, task_id: str, check: Check, timeout_s: float = STATUS_TIMEOUT_S) -> TaskRecord | None:
        """The task's record, or None if the provider does not know the task. Raises `UpstreamError`."""
        url = f"{self._config.api_root}{RECORD_PATH}?{urlencode({'taskId': task_id})}"
        response, envelope = self._send("GET", url, timeout_s, check)
        code = _effective_code(response, envelope)
        if code == 200:
            return parse_record(envelope.data, self._sanitize)
        if code in (400, 404, 422) and envelope.code is not None:
            return None
        raise to_provider_error(code, envelope.message, retry_after_s=_retry_after_s(response))

    def get_credits(self, check: Check) -> float | None:
        """The account's balance, or None if the provider does not report it. Raises `UpstreamError` for a bad key."""
        for path in CREDITS_PATHS:
            try:
                response, envelope = self._send("GET", self._config.api_root + path, CREDITS_TIMEOUT_S, check)
            except UpstreamError:
                return None
            code = _effective_code(response, envelope)
            if code == 401:
                raise to_provider_error(401, envelope.message)
            if code == 200 and (balance := parse_credits(envelope.data)) is not None:
                return balance
        return None

    def upload(self, mp3: bytes, check: Check, timeout_s: float = UPLOAD_TIMEOUT_S) -> str:
        """Uploads an mp3 file under a new name and returns the URL from which the provider downloads it.

        Raises `UpstreamError`. Uploads are free, so the caller may repeat them.
        """
        from urllib3.filepost import encode_multipart_formdata  # 0.1 s that only uploads pay

        # A file of the same name would be overwritten, and the old one served from a cache for a while.
        name = f"{uuid.uuid4().hex}.mp3"
        body, content_type = encode_multipart_formdata(
            [
                ("uploadPath", UPLOAD_FOLDER),
                ("fileName", name),
                ("file", (name, mp3, "audio/mpeg")),
            ]
        )
        url = self._config.upload_root + UPLOAD_PATH
        response, envelope = self._send("POST", url, timeout_s, check, body=body, content_type=content_type)
        code = _effective_code(response, envelope)
        if code != 200:
            raise to_provider_error(code, envelope.message, retry_after_s=_retry_after_s(response))
        if (download_url := parse_upload_url(envelope.data)) is None:
            raise UpstreamError(
                "The Suno provider accepted the upload of the source audio but returned no URL for it. Send the "
                "request again.",
                code=ErrorCode.UPLOAD_FAILED,
            )
        return download_url

    def _send(  # noqa: PLR0913
        self,
        method: str,
        url: str,
        timeout_s: float,
        check: Check,
        *,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> tuple[HttpResponse, Envelope]:
        """Sends a request that may safely be repeated."""
        headers = authorize(self._config, url) | ({"Content-Type": content_type} if content_type else {})
        try:
            response = self._http.request(method, url, headers=headers, body=body, timeout_s=timeout_s, check=check)
        except HttpError as error:
            raise UpstreamError(UNREACHABLE, code=ErrorCode.PROVIDER_UNREACHABLE) from error
        return response, parse_envelope(response.body, self._sanitize)


def authorize(config: SunoConfig, url: str) -> dict[str, str]:
    """The headers with the API key, for a URL on one of the two configured hosts only."""
    allowed = {urlsplit(root)[:2] for root in (config.api_root, config.upload_root)}
    assert urlsplit(url)[:2] in allowed, "the key is only sent to a host that is configured"
    return {"Authorization": f"Bearer {config.token.strip()}", "Accept": "application/json"}


def _delay(check: Check, seconds: float) -> Check:
    """`check`, but what it raises is held back for `seconds`."""
    first_raised: float | None = None

    def delayed_check() -> None:
        nonlocal first_raised
        try:
            check()
        except RequestError:
            now = time.monotonic()
            first_raised = now if first_raised is None else first_raised
            if now - first_raised >= seconds:
                raise

    return delayed_check


def _retry_after_s(response: HttpResponse) -> float | None:
    """The seconds in the Retry-After header, at most two minutes; None if there are none (or a date)."""
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if seconds == seconds else None


def _effective_code(response: HttpResponse, envelope: Envelope) -> int:
    """The envelope's code if it is an error, else the HTTP status as such a code."""
    if envelope.code not in (None, 200):
        return int(envelope.code or 0)
    if response.status == 200 and envelope.code is None:
        return 500  # an HTML page or a truncated body: no response of the API
    if response.status == 429 and envelope.code is None:
        return GATEWAY_RATE_LIMIT  # a gateway's own rate limit, not the API's "no credits"
    if 300 <= response.status < 400:
        return 404  # redirects are not followed, because the key would go to another host
    return 200 if 200 <= response.status < 300 else response.status


def _to_submit_error(response: HttpResponse, envelope: Envelope) -> UpstreamError:
    """Why the response has no task id; `submit_unknown` unless it proves that there is no task."""
    details: dict[str, Any] = {"retry_after_s": _retry_after_s(response)}
    if envelope.code is not None and envelope.code != 200:
        error = to_provider_error(envelope.code, envelope.message, **details)
        if error.error_code == ErrorCode.PROVIDER_FAILED:
            error.details["submitted"] = "unknown"
        return error
    if envelope.code is None and 300 <= response.status < 500:
        # Without the envelope 405 is HTTP's "method not allowed", not the API's rate limit.
        code = 404 if response.status == 405 else _effective_code(response, envelope)
        return to_provider_error(code, envelope.message, **details)
    return UpstreamError(
        UNKNOWN_OUTCOME,
        code=ErrorCode.SUBMIT_UNKNOWN,
        details={"submitted": "unknown", "http_status": response.status},
    )
