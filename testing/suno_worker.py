"""What the Suno tests share: a clock that only waiting moves, an HTTP client without a network, and jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, urlsplit

from errors import NoResponseError
from models import Models
from models.runtime.progress import Check
from models.suno import SunoConfig, SunoFamily
from models.suno.client import HttpClient
from models.suno.polling import Clock
from operations.build_models import suno_http
from operations.extend_via_suno import Params, plan, run
from testing.models import make_models
from testing.suno_provider import TOKEN, Provider, serve_provider
from testing.suno_scenarios import SCENARIOS, Response
from worker.http import client as http
from worker.job import Job
from worker.reply import Reply


class FakeClock:
    """Seconds that pass only when something sleeps, or when a fake provider responds late."""

    def __init__(self, random: float = 0.5) -> None:
        self.now = 1000.0
        self.slept = 0.0
        self._random = random

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, sleep=self.sleep, random=lambda: self._random, tick_s=4.0)


class InProcessHttpClient:
    """Hands requests to a `Provider` in this process; a response's delay passes on the fake clock."""

    def __init__(self, provider: Provider, time: FakeClock) -> None:
        self.provider = provider
        self.time = time

    def request(  # noqa: PLR0913  (the protocol's)
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        check: Check,
    ) -> http.Response:
        check()
        message = Message()
        for name, value in headers.items():
            message[name] = value
        parts = urlsplit(url)
        if method == "GET":
            response = self.provider.get(parts.path, parse_qs(parts.query), message)
        else:
            response = self.provider.post(parts.path, body or b"", message)
        return self._deliver(response, timeout_s)

    def _deliver(self, response: Response, timeout_s: float) -> http.Response:
        self.time.now += min(response.delay_s, timeout_s)
        if response.cut or response.delay_s >= timeout_s:
            raise NoResponseError
        return http.Response(response.status, dict(response.headers), response.content())


def build_family(
    provider: Provider, clock: Clock, *, http_client: HttpClient | None = None, **config: Any
) -> SunoFamily:
    """The family configured for `provider`."""
    values: dict[str, Any] = {
        "token": TOKEN,
        "base_url": provider.url,
        "upload_url": provider.url,
        "allow_private_urls": True,
    }
    return SunoFamily(SunoConfig(**values | config), http=http_client or suno_http(), clock=clock)


@contextmanager
def start_provider(scenario: str, *, time: FakeClock | None = None, **config: Any) -> Iterator[tuple[Provider, Models]]:
    """A provider over real HTTP that plays `scenario`, and the models of a worker that uses it on a fake clock."""
    provider = Provider(SCENARIOS[scenario])
    with serve_provider(provider):
        yield provider, make_models(suno=build_family(provider, (time or FakeClock()).clock(), **config))


def run_extend(models: Models, job: Job | None = None, **params: Any) -> Reply:
    """Runs extend_via_suno as the dispatcher does, with the audio input loaded and without the delivery."""
    values: Mapping[str, Any] = params if {"task_id", "audio"} & params.keys() else {"audio_id": "audio-1"} | params
    return run(plan(Params.parse(values), models), job or Job(id="job-1"), models)


def make_observed_job() -> tuple[Job, list[Mapping[str, Any]]]:
    """A job, and the list that receives its progress updates."""
    updates: list[Mapping[str, Any]] = []
    return Job(id="job-1", report=updates.append), updates


def cancel_when(job: Job, condition: Callable[[], bool]) -> None:
    """Cancels `job` at the first progress update after which `condition()` holds."""
    report = job.report

    def report_and_cancel(update: Mapping[str, Any]) -> None:
        report(update)
        if condition():
            job.cancel.set()

    job.report = report_and_cancel
