"""Sends a job's progress updates: in order, at most one a second, only the latest, and none after the result.

The SDK's `progress_update` starts a thread for each update and guarantees neither order nor an end (runpod-python issue
250). This posts the same requests from one thread, which is joined before the job's result is sent.
"""

from __future__ import annotations

import contextvars
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from errors import HttpError
from worker.settings import Platform

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
POST_TIMEOUT_S = 8.0
HTTP_ERROR = 400
JOIN_S = 10.0

Update = Mapping[str, Any]


class ProgressReporter:
    """Calls `send` with updates from a thread of its own, at least `interval_s` apart.

    `close` waits for an update that is being sent. One that is still waiting is dropped: the result follows.
    """

    def __init__(self, send: Callable[[Update], None], *, interval_s: float = INTERVAL_S) -> None:
        self._send = send
        self._interval_s = interval_s
        self._changed = threading.Condition()
        self._latest: Update | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def report(self, update: Update) -> None:
        """Returns within microseconds; replaces an update that is not yet sent."""
        with self._changed:
            self._latest = dict(update)
            if self._thread is None and not self._closed:
                run = contextvars.copy_context().run
                self._thread = threading.Thread(target=run, args=(self._run,), name="progress", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Returns when no more updates will be sent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while (update := self._take_latest()) is not None:
            self._send(update)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, timeout=self._interval_s)

    def _take_latest(self) -> Update | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._latest is not None)
            update, self._latest = self._latest, None
            return None if self._closed else update


@contextmanager
def report_progress(
    platform: Platform, job_id: str, report: Callable[[Update], None] | None = None
) -> Iterator[ProgressReporter]:
    """Yields the job's reporter; after the block nothing more is sent.

    Outside RunPod, updates are logged and handed to `report`, which is called in the reporter's thread.
    """

    def send(update: Update) -> None:
        _log(update)
        if report is not None:
            report(update)

    reporter = ProgressReporter(_make_poster(platform, job_id) if platform.done_url else send)
    try:
        yield reporter
    finally:
        reporter.close()


def _log(update: Update) -> None:
    logger.info("%s %s %%", update.get("stage") or "work", update.get("percent"))


def make_done_request(platform: Platform, job_id: str) -> tuple[str, dict[str, str]]:
    """The URL and the headers with which the SDK posts a job's result and progress.

    The id is percent-encoded in both, because it may contain what neither can carry; the platform's own ids are plain.
    """
    encoded = quote(job_id, safe="", errors="replace")
    url = platform.done_url.replace("$RUNPOD_POD_ID", platform.pod_id).replace("$ID", encoded) + "&isStream=false"
    return url, {"Content-Type": "application/x-www-form-urlencoded", "charset": "utf-8", "X-Request-ID": encoded}


def _make_poster(platform: Platform, job_id: str) -> Callable[[Update], None]:
    """A function that posts an update as the SDK does: same URL, headers and body."""
    from worker.http.client import HttpClient
    from worker.http.connection import Timeout

    url, headers = make_done_request(platform, job_id)
    headers["Authorization"] = platform.api_key
    client = HttpClient(timeout=Timeout(connect_s=3.0, read_s=5.0), allow_private=True)

    def post(update: Update) -> None:
        body = json.dumps({"status": "IN_PROGRESS", "output": update}, ensure_ascii=False).encode()
        try:
            response = client.request("POST", url, headers=headers, body=body, timeout_s=POST_TIMEOUT_S)
        except HttpError as error:
            logger.warning("A progress update was not accepted: %s", type(error).__name__)
        else:
            if response.status >= HTTP_ERROR:
                logger.warning("A progress update was not accepted: HTTP status %d", response.status)

    return post
