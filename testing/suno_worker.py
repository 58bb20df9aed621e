"""What the Suno tests stand on: a clock that only waiting moves, a provider without a network, and jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, urlsplit

from models import Models
from models.suno import SunoConfig, SunoFamily
from models.suno.deadline import Check, Clock
from models.suno.transport import Answer, Call, NoAnswerError, Transport, retry_after
from operations import extend_via_suno
from testing.suno_provider import TOKEN, Provider, serving
from testing.suno_scenarios import SCENARIOS, Say
from worker.job import Job
from worker.reply import Reply


class FakeTime:
    """Seconds that pass only when somebody sleeps, or when a fake provider takes its time."""

    def __init__(self, share: float = 0.5) -> None:
        self.now = 1000.0
        self.slept = 0.0
        self._share = share

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, sleep=self.sleep, random=lambda: self._share, tick_s=4.0)


class DirectTransport(Transport):
    """Hands calls to a `Provider` in this process; a call's delay passes in fake time."""

    def __init__(self, provider: Provider, time: FakeTime) -> None:
        self.provider = provider
        self.time = time

    def send(self, call: Call, check: Check) -> Answer:
        check()
        parts = urlsplit(call.url)
        headers = Message()
        headers["Authorization"] = f"Bearer {TOKEN}"
        said = self._said(call, parts.path, headers)
        self.time.now += min(said.delay_s, call.timeout_s)
        if said.cut or said.delay_s >= call.timeout_s:
            raise NoAnswerError
        return Answer(said.status, said.content(), retry_after(dict(said.headers).get("Retry-After")))

    def _said(self, call: Call, path: str, headers: Message) -> Say:
        if call.method == "GET":
            query = parse_qs(urlsplit("?" + "&".join(f"{k}={v}" for k, v in call.query.items())).query)
            return self.provider.get(path, query, headers)
        if call.upload is not None:
            return self.provider.take_upload(dict(call.upload.fields), call.upload.data)
        return self.provider.post(path, json.dumps(call.body).encode(), headers)


def family(provider: Provider, clock: Clock, *, transport: Transport | None = None, **config: Any) -> SunoFamily:
    """The family configured for `provider`."""
    values: dict[str, Any] = {
        "token": TOKEN,
        "base_url": provider.url,
        "upload_url": provider.url,
        "allow_private_urls": True,
    }
    return SunoFamily(SunoConfig(**values | config), transport=transport, clock=clock)


@contextmanager
def worker(scenario: str, *, time: FakeTime | None = None, **config: Any) -> Iterator[tuple[Provider, Models]]:
    """A provider over real HTTP that plays `scenario`, and the models of a worker that uses it in fake time."""
    provider = Provider(SCENARIOS[scenario])
    with serving(provider):
        yield provider, Models({"suno": family(provider, (time or FakeTime()).clock(), **config)})


def extend(models: Models, job: Job | None = None, **params: Any) -> Reply:
    """extend_via_suno as a worker runs it, past intake and before delivery."""
    given: Mapping[str, Any] = params if "task_id" in params else {"audio_id": "audio-1"} | params
    return extend_via_suno.run(extend_via_suno.Params.parse(given), job or Job(id="job-1"), models)


def watched() -> tuple[Job, list[Mapping[str, Any]]]:
    """A job, and the list that its progress updates land in."""
    updates: list[Mapping[str, Any]] = []
    return Job(id="job-1", report=updates.append), updates


def cancelled_when(job: Job, happens: Callable[[], bool]) -> None:
    """Cancels `job` at the first progress update or look at the clock after `happens()`."""
    report = job.report

    def reporting(update: Mapping[str, Any]) -> None:
        report(update)
        if happens():
            job.cancel.set()

    job.report = reporting
