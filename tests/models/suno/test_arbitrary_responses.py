"""Whatever a provider responds, at any step: the job ends in bounded time with a song or a typed error, submits at most
once, and does not reveal the key."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from errors import InternalError, RequestError
from models import Models
from operations.extend_via_suno.task import MIN_SUBMIT_S
from testing.models import make_models
from testing.suno_provider import TOKEN, Provider, make_tone, start_server
from testing.suno_scenarios import Record, Response, Scenario
from testing.suno_worker import FakeClock, InProcessHttpClient, build_family, run_extend
from tests.operations.test_extend_via_suno import make_song
from worker.job import Job
from worker.reply import Reply

# After the deadline: a submission under way, a last status request, the downloads, the balance.
AFTER_DEADLINE_S = 40.0 + 12.0 + 125.0 + 35.0
STATES = ("PENDING", "TEXT_SUCCESS", "FIRST_SUCCESS", "SUCCESS", "CALLBACK_EXCEPTION", "GENERATE_AUDIO_FAILED", "WHAT")
CODES = (200, 200, 200, 400, 401, 404, 405, 413, 429, 430, 455, 500, 501, 999)
STATUSES = (200, 200, 200, 301, 400, 401, 404, 429, 455, 500, 502, 503)
NAMES = (
    "code",
    "msg",
    "data",
    "taskId",
    "status",
    "response",
    "sunoData",
    "audioUrl",
    "errorCode",
    "resultJson",
    "duration",
)

words = st.sampled_from(
    ["", "x", TOKEN, f"Bearer {TOKEN}", "\ud800\x00", "http://10.0.0.1/a", "file:///etc/passwd", "9" * 30]
)
leaves = st.none() | st.booleans() | st.integers(-5, 1000) | st.floats(allow_nan=True) | words
junk = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
envelopes = st.fixed_dictionaries(
    {
        "code": st.sampled_from(CODES),
        "msg": words,
        "data": junk | st.fixed_dictionaries({"taskId": words | st.integers()}),
    }
)
bodies = st.one_of(envelopes, junk, st.sampled_from([b"", b"<html>", b"{", b"\xff\xfe\x00", b"[" * 5000]))
responses = st.builds(
    Response,
    status=st.sampled_from(STATUSES),
    body=bodies,
    content_type=st.sampled_from(["application/json", "text/html"]),
    delay_s=st.sampled_from([0.0, 0.0, 1.0, 25.0, 500.0]),
    cut=st.booleans(),
    headers=st.sampled_from([(), (("Retry-After", "7"),), (("Retry-After", "9999"),), (("Retry-After", "soon"),)]),
)
records = st.builds(
    Record,
    status=st.sampled_from(STATES),
    clips=st.integers(0, 3),
    error_code=st.sampled_from([None, None, None, 0, 413, 531]),
    error_message=st.none() | words,
    shape=st.sampled_from(["documented", "quick_start", "result_json"]),
)
file_bodies = st.sampled_from(
    [b"", b"<html>", b"RIFF", make_tone(2.0, 220.0), make_tone(0.2, 220.0), make_tone(2.0, 220.0)[:9000]]
)
files = st.builds(Response, status=st.sampled_from([200, 200, 404, 502]), body=file_bodies, cut=st.booleans())
scenarios = st.builds(
    Scenario,
    about=st.just("anything"),
    submissions=st.just(()) | st.lists(responses, max_size=3).map(tuple),
    records=st.lists(records | responses, min_size=1, max_size=6).map(tuple),
    uploads=st.just(()) | st.lists(responses, max_size=3).map(tuple),
    credits=st.just(()) | st.lists(responses, max_size=2).map(tuple),
    files=st.lists(files, max_size=4).map(tuple),
    file=st.sampled_from(["audio", "identical", "page"]),
    audio_url=st.sampled_from(["", "", "", "http://10.0.0.1/a.mp3", f"http://127.0.0.1:1/{TOKEN}", "gopher://x"]),
    duration_error_s=st.sampled_from([0.0, 0.0, 99.0]),
)
requests = st.fixed_dictionaries(
    {"max_wait_s": st.sampled_from([0, 30, 600, 600]), "mode": st.sampled_from(["wait", "wait", "submit"])},
    optional={"select": st.sampled_from(["first", "longest"])},
)
sources = st.sampled_from(
    [
        {"audio_id": "audio-1"},
        {"audio_id": "audio-1", "prompt": "la la", "style": "folk", "continue_at": 9},
        {"audio": "AAAA", "prompt": "la la", "continue_at": 1},
    ]
)


@pytest.fixture(scope="module")
def install() -> Iterator[Any]:
    with start_server() as install:
        yield install


def proves_no_task(response: Response) -> bool:
    """Whether the response proves that no task was created."""
    content = response.body if isinstance(response.body, dict) else {}
    code = content.get("code")
    refused = code in (405, 430, 455) or (code is None and response.status in (429, 455))
    return refused and not response.cut and response.delay_s < 40


def collect_output(outcome: Reply | RequestError, job: Job, updates: list[Any]) -> str:
    """Everything that left the job, as text."""
    if isinstance(outcome, RequestError):
        output: Any = outcome.to_reply()
    else:
        output = [outcome.fields, outcome.parameters, [dict(output.extra) for output in outcome.outputs]]
    return json.dumps([output, job.warnings, updates], ensure_ascii=False, allow_nan=False)


def run_against(provider: Provider, models: Models, request: dict[str, Any], clock: FakeClock) -> None:
    """Runs one job and checks what must hold for every job."""
    updates: list[Any] = []
    job = Job(id="job-1", report=updates.append)
    job.audio["audio"] = make_song(3.0, 8000)
    started = clock.now
    outcome: Reply | RequestError
    try:
        outcome = run_extend(models, job, **request)
    except RequestError as error:
        outcome = error
        assert not isinstance(error, InternalError) and error.error_code != "request_error"
    event(outcome.error_code if isinstance(outcome, RequestError) else f"{len(outcome.outputs)} clips")
    text = collect_output(outcome, job, updates)
    text.encode()
    assert TOKEN not in text
    assert clock.now - started <= max(request["max_wait_s"], MIN_SUBMIT_S) + AFTER_DEADLINE_S
    responses_sent = [*provider.scenario.submissions, Response()][: len(provider.posts)]
    assert all(proves_no_task(response) for response in responses_sent[:-1]), (
        "submitted again although a task may exist"
    )
    if isinstance(outcome, Reply):
        assert outcome.fields["task_id"]
        assert outcome.outputs or request["mode"] == "submit"
    elif "task_id" in job.details:
        assert outcome.details["task_id"] == job.details["task_id"]


@settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(scenario=scenarios, request=st.builds(dict.__or__, sources, requests))
def test_any_responses_end_in_a_song_or_a_typed_error(
    install: Any, caplog: Any, scenario: Scenario, request: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    clock = FakeClock()
    provider = install(Provider(scenario))
    client = InProcessHttpClient(provider, clock)
    models = make_models(suno=build_family(provider, clock.clock(), http_client=client, download_timeout_s=5.0))
    run_against(provider, models, request, clock)
    assert TOKEN not in caplog.text


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(scenario=scenarios, request=st.builds(dict.__or__, sources, requests))
def test_any_responses_end_in_a_song_or_a_typed_error_over_http(
    install: Any, caplog: Any, scenario: Scenario, request: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    clock = FakeClock()
    provider = install(Provider(remove_delays(scenario)))
    models = make_models(suno=build_family(provider, clock.clock(), download_timeout_s=5.0))
    run_against(provider, models, request, clock)
    assert TOKEN not in caplog.text


def remove_delays(scenario: Scenario) -> Scenario:
    """The same responses without their delays, which would take real time."""

    def without_delay(steps: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(replace(step, delay_s=0.0) if isinstance(step, Response) else step for step in steps)

    return replace(
        scenario,
        submissions=without_delay(scenario.submissions),
        records=without_delay(scenario.records),
        uploads=without_delay(scenario.uploads),
        credits=without_delay(scenario.credits),
    )
