"""Posts a job's result to the platform until it arrives.

The SDK's own `send_result` tries once for everything but status 5xx, and loses the result of a job that may have taken
minutes of GPU time to one status 429 or one broken connection. A result has the same bytes in every attempt.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from errors import DeliveryError
from worker import logs
from worker.job import read_job_id
from worker.runpod.progress import make_done_request
from worker.settings import Platform

logger = logging.getLogger(__name__)

MAX_REFUSALS = 3
# These say nothing about the body: the same one may be accepted later.
TRANSIENT_STATUSES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
# These are what the platform answers to a body that it does not want, usually because it is too large.
BODY_REFUSED = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a post is repeated; times in seconds.

    Args:
        total_s: no attempt starts later than this after the first one.
        attempt_s: the longest duration of one attempt.
        first_delay_s: the delay after the first attempt, +-50 %; each following delay is twice as long.
        max_delay_s: the longest delay, also if the platform asks for a longer one.
    """

    total_s: float = 300.0
    attempt_s: float = 120.0
    first_delay_s: float = 0.5
    max_delay_s: float = 20.0

    def delay_s(self, attempt: int, retry_after: str | None) -> float:
        """The delay after the `attempt`-th attempt (from 1), given the response's Retry-After header."""
        delay = self.first_delay_s * 2.0 ** min(attempt - 1, 16) * (0.5 + random.random())
        requested = float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0
        return min(max(delay, requested), self.max_delay_s)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a body was not accepted; `status` is None if no response came."""

    reason: str
    status: int | None = None


class ResultSender:
    """Takes the place of the SDK's `send_result`.

    Args:
        policy: when a post is repeated.
    """

    def __init__(self, platform: Platform, *, policy: RetryPolicy | None = None) -> None:
        self._platform = platform
        self._policy = policy or RetryPolicy()

    async def send(
        self, session: ClientSession, result: Mapping[str, Any], job: Mapping[str, Any], is_stream: bool = False
    ) -> None:
        """Posts `result`; if the platform refuses its body, posts a short error in its place.

        A result that cannot be delivered is logged with its job's id.

        Args:
            session: the SDK's, whose headers carry the key.
            result: `{"output", "error", "stopPod"}`, as the SDK builds it.
            job: as the platform handed it over.
            is_stream: always False here, because no operation is a generator.
        """
        assert not is_stream, "no operation is a generator"
        with logs.job_context(read_job_id(job)):
            body = _dump(result)
            failure = await self._post(session, job["id"], body)
            if failure is not None and failure.status in BODY_REFUSED:
                logger.error(
                    "The result of %d bytes was refused (%s); an error is sent instead", len(body), failure.reason
                )
                failure = await self._post(session, job["id"], _dump(_replace_result(result, len(body), failure)))
            if failure is None:
                logger.info("The result was sent")
            else:
                logger.error("The result of job %s could not be delivered: %s", job["id"], failure.reason)

    async def _post(self, session: ClientSession, job_id: str, body: bytes) -> _Failure | None:
        """Posts `body` until it is accepted (None), refused several times, or the policy's time is up."""
        url, headers = make_done_request(self._platform, job_id)
        deadline = time.monotonic() + self._policy.total_s
        timeout = ClientTimeout(total=self._policy.attempt_s)
        attempt = refusals = 0
        while True:
            attempt += 1
            retry_after = None
            try:
                async with session.post(url, data=body, headers=headers, timeout=timeout) as response:
                    if 200 <= response.status < 300:  # the body of the response says nothing more
                        return None
                    failure = _Failure(f"HTTP status {response.status}", response.status)
                    retry_after = response.headers.get("Retry-After")
                    is_refusal = 400 <= response.status < 500 and response.status not in TRANSIENT_STATUSES
                    refusals += is_refusal
            except (ClientError, OSError) as error:  # asyncio.TimeoutError is an OSError
                failure = _Failure(type(error).__name__)
            delay = self._policy.delay_s(attempt, retry_after)
            if refusals >= MAX_REFUSALS or time.monotonic() + delay > deadline:
                return failure
            logger.warning(
                "The result was not accepted (%s); attempt %d follows in %.1f s", failure.reason, attempt + 1, delay
            )
            await asyncio.sleep(delay)


def _dump(result: Mapping[str, Any]) -> bytes:
    return json.dumps(result, ensure_ascii=False).encode()


def _replace_result(result: Mapping[str, Any], size: int, failure: _Failure) -> dict[str, Any]:
    """The short error that is posted in place of `result`, as the SDK posts an error reply."""
    reply = DeliveryError(
        f"RunPod refused the job's result ({failure.reason}, {size} bytes). Ask for less, or use `delivery` bucket or "
        "volume, so that the result does not carry the audio.",
        details={"http_status": failure.status, "size": size},
    ).to_reply()
    replaced = {"error": reply.pop("error"), "output": reply}
    return replaced | ({"stopPod": True} if result.get("stopPod") else {})
