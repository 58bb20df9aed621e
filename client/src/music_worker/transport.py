"""The routes of a RunPod endpoint as flows: submit, status, cancel, health.

The worker's local API has the same routes. A request is repeated only if that cannot start a job twice: a GET, a
connection that was never made, or a refusal because the queue is full.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from music_worker.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    EndpointError,
    EndpointNotFoundError,
    InputTooLargeError,
    JobNotFoundError,
    MusicWorkerError,
    QueueFullError,
    RequestRejectedError,
    SubmissionUnknownError,
)
from music_worker.exchange import LOOPBACK, Call, Flow, NoResponseError, NotSentError, Pause, Remaining, Response

RUNPOD_URL = "https://api.runpod.ai/v2"
RUN_LIMIT_BYTES = 10_000_000
RUNSYNC_LIMIT_BYTES = 20_000_000
RUNSYNC_WAIT_MS = 1000
WORKER_EXIT_S = 0.3
CANCEL_TIMEOUT_S = 10.0
LONGEST_JOB_S = 7 * 24 * 3600.0
JSON_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the client waits and how often it asks; seconds.

    Args:
        request_s: the longest silence of the endpoint in one request.
        retry_s: how long a request that can be repeated safely is repeated.
        queue_full_s: how long a submission is repeated while the endpoint answers that its queue is full.
        first_poll_s: the first interval between two requests for a job's status; each next is `poll_growth` times as
            long, up to `max_poll_s`.
    """

    request_s: float = 60.0
    retry_s: float = 60.0
    queue_full_s: float = 60.0
    first_poll_s: float = 0.25
    poll_growth: float = 1.3
    max_poll_s: float = 3.0
    first_retry_s: float = 0.5
    max_retry_s: float = 10.0

    def retry_delay_s(self, attempt: int, retry_after: str | None = None) -> float:
        """The delay after the `attempt`-th failure, counted from 0: doubled each time, or as the server asks."""
        asked = float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0
        delay = self.first_retry_s * 2.0 ** min(attempt, 16) * random.uniform(0.75, 1.25)
        return min(max(delay, asked), self.max_retry_s)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: a RunPod endpoint or the local API of a worker.

    Args:
        url: the address that `/run` is added to.
        api_key: sent to this address only; None for a worker without a key.
        limits_size: whether the platform's limits on the size of a request hold.
        check_worker: raises if the worker behind the address has ended; called when it cannot be reached.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    limits_size: bool = True
    patience: Patience = field(default_factory=Patience)
    check_worker: Callable[[], None] | None = field(default=None, repr=False)

    @classmethod
    def on_runpod(cls, endpoint_id: str, api_key: str | None, *, patience: Patience | None = None) -> Endpoint:
        """The endpoint with that id on RunPod's platform."""
        if not endpoint_id.replace("-", "").replace("_", "").isalnum() or not endpoint_id.isascii():
            raise ConfigurationError(
                "The endpoint id must be letters and digits, as in the address of the endpoint's page on RunPod."
            )
        if not api_key:
            raise ConfigurationError(
                "An endpoint on RunPod needs an API key. Pass `api_key`, set RUNPOD_API_KEY, or run `music-worker "
                "login`."
            )
        return cls(f"{RUNPOD_URL}/{endpoint_id}", check_key(api_key), patience=patience or Patience())

    @classmethod
    def at_url(cls, url: str, api_key: str | None = None, *, patience: Patience | None = None) -> Endpoint:
        """The endpoint at an address. A key is sent only over https, or to this machine."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
            raise ConfigurationError(
                "The URL of a worker must be http(s)://host:port without a user name, for example "
                "http://localhost:8000."
            )
        if api_key and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ConfigurationError(
                "The API key would travel unencrypted. Use an https URL, or leave the key out for a worker without one."
            )
        is_runpod = parts.hostname.endswith(".runpod.ai")
        address = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        key = check_key(api_key) if api_key else None
        return cls(address, key, limits_size=is_runpod, patience=patience or Patience())

    def submit(self, job_input: Mapping[str, Any]) -> Flow[dict[str, Any]]:
        """Starts a job and returns the platform's answer: `id`, `status`, perhaps already `output`."""
        body = dump_json({"input": job_input})
        path = self._choose_route(len(body))
        started, attempt = time.monotonic(), 0
        while True:
            try:
                response: Response = yield self._call("POST", path, body)
            except NotSentError as error:
                yield from self._require_worker()
                waited, limit = time.monotonic() - started, self.patience.retry_s
                if waited >= limit or attempt >= 3:
                    raise self._not_reached(error) from None
                yield Pause(self.patience.retry_delay_s(attempt))
            except NoResponseError as error:
                yield from self._require_worker()
                raise self._unknown(f"no answer came ({error})") from None
            except (MusicWorkerError, GeneratorExit):
                raise
            except BaseException:  # an interrupt: nobody would know the job's id
                yield from self._cancel_unanswered()
                raise
            else:
                if response.status != HTTPStatus.TOO_MANY_REQUESTS:
                    return self._read_accepted(response)
                if time.monotonic() - started >= self.patience.queue_full_s:
                    raise QueueFullError(
                        "The endpoint's queue is full (HTTP status 429). No job was started. Try again later, or raise "
                        "the endpoint's number of workers."
                    )
                yield Pause(self.patience.retry_delay_s(attempt, response.headers.get("retry-after")))
            attempt += 1

    def _cancel_unanswered(self) -> Flow[None]:
        """Cancels the job of the submission that an interrupt has left behind."""
        # The interrupt is what the caller waits for.
        with suppress(MusicWorkerError, NotSentError, NoResponseError, TimeoutError):
            response: Response = yield Remaining(CANCEL_TIMEOUT_S)
            job_id = self._read_accepted(response)["id"]
            yield from self.cancel(job_id, limit_s=CANCEL_TIMEOUT_S)

    def fetch_status(self, job_id: str, *, limit_s: float | None = None) -> Flow[dict[str, Any]]:
        """The platform's object for a job: `id`, `status`, `output`, `error`.

        A worker behind RunPod's own local API answers only to POST, runs the job then, and answers at its end.

        Args:
            limit_s: the longest time that it takes; None: as every request.
        """
        path = f"/status/{quote(job_id, safe='')}"
        longest_s = LONGEST_JOB_S if limit_s is None else max(min(limit_s, LONGEST_JOB_S), 1.0)
        with _about_job(job_id):
            response = yield from self._repeat("GET", path, limit_s=limit_s)
            if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
                try:
                    response = yield self._call("POST", path, timeout_s=longest_s)
                except (NotSentError, NoResponseError) as error:
                    raise self._not_reached(error) from None
            if response.status == HTTPStatus.NOT_FOUND:
                raise make_not_found(job_id)
            return self._read_object(self._check(response))

    def cancel(self, job_id: str, *, limit_s: float | None = None) -> Flow[dict[str, Any]]:
        """Asks the platform to stop a job. Cancelling a job twice does no harm, so the request is repeated.

        Args:
            limit_s: how long the request is repeated; None: as every request.
        """
        with _about_job(job_id):
            response = yield from self._repeat("POST", f"/cancel/{quote(job_id, safe='')}", limit_s=limit_s)
            if response.status == HTTPStatus.NOT_FOUND:
                raise make_not_found(job_id)
            return self._read_object(self._check(response))

    def fetch_health(self) -> Flow[dict[str, Any]]:
        """The endpoint's counts of workers and jobs."""
        response = yield from self._repeat("GET", "/health")
        return self._read_object(self._check(response))

    def _choose_route(self, size: int) -> str:
        """`/run`, or `/runsync` for a larger body, which answers after a second and lets the job go on."""
        if not self.limits_size or size <= RUN_LIMIT_BYTES:
            return "/run"
        if size <= RUNSYNC_LIMIT_BYTES:
            return f"/runsync?wait={RUNSYNC_WAIT_MS}"
        raise InputTooLargeError(
            f"The request has {size / 1e6:.1f} MB, and RunPod takes at most {RUNSYNC_LIMIT_BYTES / 1e6:.0f} MB. "
            "Nothing was sent. Configure a bucket for large inputs, pass a URL or a path on the volume, or send a "
            "compressed file.",
            details={"size": size, "limit": RUNSYNC_LIMIT_BYTES},
        )

    def _repeat(self, method: str, path: str, *, limit_s: float | None = None) -> Flow[Response]:
        """A request that does no harm twice, repeated after connection faults and statuses 429 and 5xx."""
        patience = self.patience
        limit_s = patience.retry_s if limit_s is None else min(limit_s, patience.retry_s)
        started, attempt = time.monotonic(), 0
        while True:
            fault: NotSentError | NoResponseError | None = None
            response: Response | None = None
            try:
                response = yield self._call(method, path, timeout_s=min(patience.request_s, max(limit_s, 1.0)))
                assert response is not None
                if (
                    response.status != HTTPStatus.TOO_MANY_REQUESTS
                    and response.status < HTTPStatus.INTERNAL_SERVER_ERROR
                ):
                    return response
            except (NotSentError, NoResponseError) as error:
                fault = error
                yield from self._require_worker()
            delay = patience.retry_delay_s(attempt, response.headers.get("retry-after") if response else None)
            if time.monotonic() - started + delay > limit_s:
                if response is None:
                    raise self._not_reached(fault) from None
                return response
            yield Pause(delay)
            attempt += 1

    def _require_worker(self) -> Flow[None]:
        """Raises if the worker behind the address has ended; its connections close a moment before it does."""
        if self.check_worker is not None:
            yield Pause(WORKER_EXIT_S)
            self.check_worker()

    def _call(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None) -> Call:
        headers = dict(JSON_HEADERS) if body is not None else {}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return Call(
            method=method,
            url=self.url + path,
            headers=headers,
            body=body,
            timeout_s=timeout_s or self.patience.request_s,
            new_connection=body is not None,
            outlives_interrupt=body is not None,
        )

    def _read_accepted(self, response: Response) -> dict[str, Any]:
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise self._unknown(f"the answer was HTTP status {response.status}")
        accepted = parse_object(self._check(response).body)
        if accepted is None or not isinstance(accepted.get("id"), str) or not accepted["id"]:
            raise self._unknown("the answer has no job id")
        return accepted

    def _check(self, response: Response) -> Response:
        status = response.status
        if response.is_success:
            return response
        said = read_message(response.body)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            remedy = "Check the API key" if self.api_key else "The endpoint needs an API key: pass one"
            raise AuthenticationError(
                f"The endpoint refused the API key (HTTP status {status}). {remedy}, and that it may use this "
                "endpoint.",
                details={"status": status},
            )
        if status == HTTPStatus.NOT_FOUND:
            raise EndpointNotFoundError(
                f"There is no endpoint at {self.url} (HTTP status 404). Check the endpoint id or the URL.",
                details={"status": status},
            )
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise QueueFullError("The endpoint takes no more requests at present (HTTP status 429). Try again later.")
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise InputTooLargeError(
                "The endpoint does not take a request of this size (HTTP status 413). Use a bucket, a URL, a path on "
                "the volume, or a compressed file."
            )
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise RequestRejectedError(
                f"The endpoint rejected the request (HTTP status {status}){f': {said}' if said else '.'}",
                details={"status": status},
            )
        raise EndpointError(
            f"The endpoint is not available (HTTP status {status}). Try again later.", details={"status": status}
        )

    def _read_object(self, response: Response) -> dict[str, Any]:
        if (value := parse_object(response.body)) is None:
            raise EndpointError(
                f"The answer of {self.url} is not a JSON object. Check that the address is that of an endpoint."
            )
        return value

    def _not_reached(self, fault: Exception | None) -> EndpointError:
        if isinstance(fault, NotSentError):
            return ConnectionFailedError(
                f"No connection to {self.url} could be made ({fault}). Nothing was sent. Check the address and the "
                "network."
            )
        return EndpointError(f"{self.url} did not answer ({fault}). Try again later.")

    def _unknown(self, what: str) -> SubmissionUnknownError:
        return SubmissionUnknownError(
            f"The job was sent, but {what}. It may be running, so it was not sent again. Look at the endpoint's jobs "
            "before you repeat it."
        )


@contextmanager
def _about_job(job_id: str) -> Iterator[None]:
    """An error of the block names the job."""
    try:
        yield
    except MusicWorkerError as error:
        error.job_id = job_id
        raise


def make_not_found(job_id: str) -> JobNotFoundError:
    """The error for a job that the platform does not know."""
    return JobNotFoundError(
        f"The platform has no job {job_id}. It keeps results for 30 minutes (1 minute after /runsync); a job also "
        "vanishes at its time to live. Otherwise, check the id and the endpoint.",
        job_id=job_id,
    )


def check_key(api_key: str) -> str:
    """The key without surrounding space; a key that no header can carry is refused without repeating it."""
    key = api_key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            "The API key contains characters that no key has. Copy it again from RunPod's settings."
        )
    return key


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in `body`; None if there is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def dump_json(value: object) -> bytes:
    """Strict JSON as UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise RequestRejectedError(f"The parameters cannot be written as JSON: {error}.") from None


def read_message(body: bytes) -> str:
    """The sentence in an error response, shortened; empty if there is none."""
    value = parse_object(body) or {}
    said = value.get("error") or value.get("message") or value.get("detail")
    return said[:500] if isinstance(said, str) else ""
