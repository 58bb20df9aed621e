"""The Suno client over real HTTP: what it sends and reads, how it reports failures, and that the key stays secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from errors import CancelledError, NoResponseError, UpstreamError
from models.runtime.progress import skip_check
from models.suno import SunoConfig
from models.suno.client import SunoClient, authorize
from models.suno.payloads import EXTEND_PATH, Submission
from models.suno.responses import make_sanitizer
from operations.build_models import suno_http
from testing.suno_provider import TOKEN, Provider, serve_provider
from testing.suno_scenarios import SCENARIOS, Record, Response, Scenario
from worker.http.connection import Timeout

SUBMISSION = Submission(EXTEND_PATH, {"audioId": "audio-1", "defaultParamFlag": False, "model": "V4_5"})
MP3 = b"audio"


def make_config(provider: Provider, **changes: object) -> SunoConfig:
    config = SunoConfig(token=TOKEN, base_url=provider.url, upload_url=provider.url)
    return replace(config, **changes)  # type: ignore[arg-type]


@contextmanager
def start_client(scenario: Scenario, token: str = TOKEN, read_s: float = 30.0) -> Iterator[tuple[Provider, SunoClient]]:
    provider = Provider(scenario)
    with serve_provider(provider):
        http = replace(suno_http(), timeout=Timeout(connect_s=5.0, read_s=read_s))
        yield provider, SunoClient(make_config(provider, token=token), http)


def respond_to_submissions(response: Response) -> Scenario:
    return Scenario("one response to every submission", submissions=(response,) * 9)


def raise_cancelled() -> None:
    raise CancelledError("The job was cancelled.")


def test_a_submission_carries_the_key_and_the_callback_and_returns_the_task_id() -> None:
    with start_client(SCENARIOS["happy"]) as (provider, client):
        task_id = client.submit(SUBMISSION, skip_check)
    assert task_id in provider.tasks
    assert provider.posts[0][1]["callBackUrl"] == "https://callback.invalid/suno"
    assert provider.violations == []


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (Response(200, {"code": 400, "msg": "no"}), "request_refused"),
        (Response(200, {"code": 401, "msg": "no"}), "bad_key"),
        (Response(200, {"code": 402, "msg": "no"}), "insufficient_credits"),
        (Response(403, b"denied", "text/plain"), "access_denied"),
        (Response(404, {"code": 404, "msg": "no"}), "wrong_address"),
        (Response(200, {"code": 405, "msg": "no"}), "rate_limited"),
        (Response(405, b"method not allowed", "text/plain"), "wrong_address"),
        (Response(200, {"code": 413, "msg": "no"}), "text_too_long"),
        (Response(200, {"code": 422, "msg": "no"}), "request_refused"),
        (Response(429, {"code": 429, "msg": "no"}), "insufficient_credits"),
        (Response(429, b"slow down", "text/plain"), "rate_limited"),
        (Response(200, {"code": "430", "msg": "no"}), "rate_limited"),
        (Response(200, {"code": 433.0, "msg": "no"}), "insufficient_credits"),
        (Response(200, {"code": 451, "msg": "no"}), "source_refused"),
        (Response(455, {"code": 455, "msg": "no"}), "maintenance"),
        (Response(200, {"code": 500, "msg": "no"}), "provider_failed"),
        (Response(500, b"<html>", "text/html"), "submit_unknown"),
        (Response(502, b"<html>", "text/html"), "submit_unknown"),
        (Response(503, b"<html>", "text/html"), "submit_unknown"),
        (Response(200, b"not json"), "submit_unknown"),
        (Response(200, b"[" * 100_000), "submit_unknown"),
        (Response(200, {"code": 200, "data": None}), "submit_unknown"),
        (Response(200, {"code": 200, "data": {"taskId": ["x"]}}), "submit_unknown"),
        (Response(200, {"code": 200, "data": {"taskId": ""}}), "submit_unknown"),
        (Response(cut=True), "submit_unknown"),
        (Response(200, b'{"code":200,', cut=True), "submit_unknown"),
    ],
)
def test_each_rejected_submission_has_its_own_error_code(response: Response, code: str) -> None:
    with (
        start_client(respond_to_submissions(response)) as (provider, client),
        pytest.raises(UpstreamError) as caught,
    ):
        client.submit(SUBMISSION, skip_check)
    assert caught.value.error_code == code
    assert len(provider.posts) == 1
    assert TOKEN not in str(caught.value.to_reply())


@pytest.mark.parametrize("code", [200, 430, 500])
def test_a_response_with_a_task_id_is_a_task_whatever_its_code(code: int) -> None:
    response = Response(200, {"code": code, "data": {"taskId": 12345}})
    with start_client(respond_to_submissions(response)) as (_, client):
        assert client.submit(SUBMISSION, skip_check) == "12345"


def test_a_submission_without_a_response_in_time_has_an_unknown_outcome_and_is_sent_once() -> None:
    slow = respond_to_submissions(Response(delay_s=20))
    with start_client(slow, read_s=0.2) as (provider, client), pytest.raises(UpstreamError) as caught:
        client.submit(SUBMISSION, skip_check)
    assert caught.value.error_code == "submit_unknown"
    assert len(provider.posts) == 1


def test_after_a_refused_connection_nothing_was_submitted() -> None:
    config = SunoConfig(token=TOKEN, base_url="http://127.0.0.1:1", upload_url="http://127.0.0.1:1")
    with pytest.raises(UpstreamError, match="Nothing was submitted") as caught:
        SunoClient(config, suno_http()).submit(SUBMISSION, skip_check)
    assert caught.value.error_code == "provider_unreachable"


def test_a_bug_in_the_http_client_is_not_reported_as_a_failure_of_the_provider() -> None:
    class BrokenHttpClient:
        def request(self, method: str, url: str, **arguments: object) -> NoReturn:
            raise ValueError("a bug")

    client = SunoClient(SunoConfig(token=TOKEN), BrokenHttpClient())
    with pytest.raises(ValueError, match="a bug"):
        client.submit(SUBMISSION, skip_check)
    with pytest.raises(ValueError, match="a bug"):
        client.get_record("task-1", skip_check)


def test_a_gateways_rate_limit_is_not_reported_as_missing_credits() -> None:
    busy = Response(429, b"slow down", "text/plain")
    with start_client(Scenario("a busy gateway", records=(busy,), uploads=(busy,))) as (_, client):
        for call in (lambda: client.get_record("task-0001", skip_check), lambda: client.upload(MP3, skip_check)):
            client.submit(SUBMISSION, skip_check)
            with pytest.raises(UpstreamError) as caught:
                call()
            assert caught.value.error_code == "rate_limited"


def test_a_response_of_more_than_8_mebibytes_is_not_read() -> None:
    largest = json.dumps({"code": 200, "data": 7}).encode().ljust(8 << 20)
    with start_client(Scenario("long responses", credits=(Response(200, largest),))) as (_, client):
        assert client.get_credits(skip_check) == 7
    too_large = Response(200, largest + b" ")
    with start_client(Scenario("longer responses", credits=(too_large, too_large))) as (_, client):
        assert client.get_credits(skip_check) is None
    with start_client(respond_to_submissions(too_large)) as (_, client), pytest.raises(UpstreamError) as caught:
        client.submit(SUBMISSION, skip_check)
    assert caught.value.error_code == "submit_unknown"


def test_the_key_does_not_follow_a_redirect() -> None:
    other = Provider(SCENARIOS["happy"])
    with serve_provider(other):
        redirect = Response(307, b"", headers=(("Location", f"{other.url}/api/v1/generate/extend"),))
        with (
            start_client(respond_to_submissions(redirect)) as (provider, client),
            pytest.raises(UpstreamError) as caught,
        ):
            client.submit(SUBMISSION, skip_check)
    assert caught.value.error_code == "wrong_address"
    assert (len(provider.posts), other.calls) == (1, [])


def test_a_host_that_is_not_configured_gets_no_key() -> None:
    config = SunoConfig(token=TOKEN)
    for url in ("https://other.example.com/api/v1/generate", "http://api.sunoapi.org/api/v1/generate"):
        with pytest.raises(AssertionError, match="is configured"):
            authorize(config, url)
    assert TOKEN in authorize(config, "https://api.sunoapi.org/api/v1/generate")["Authorization"]


def test_a_netrc_file_does_not_replace_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with start_client(SCENARIOS["happy"]) as (_, client):
        assert client.get_credits(skip_check) == 100


def test_a_provider_that_repeats_the_key_does_not_bring_it_into_the_error() -> None:
    message = f"bad key Bearer {TOKEN} (also {TOKEN})"
    with (
        start_client(respond_to_submissions(Response(200, {"code": 401, "msg": message}))) as (_, client),
        pytest.raises(UpstreamError) as caught,
    ):
        client.submit(SUBMISSION, skip_check)
    assert TOKEN not in str(caught.value.to_reply())
    assert "[key]" in caught.value.message


def test_the_key_and_the_texts_of_a_submission_are_in_no_repr() -> None:
    config = SunoConfig(token=TOKEN)
    submission = Submission(EXTEND_PATH, {"prompt": "private words"}, used={"title": "private words"})
    assert TOKEN not in repr(config) + repr(SunoClient(config, suno_http()))
    assert "private words" not in repr(submission)


def test_cancelling_ends_a_status_request_at_once() -> None:
    cancelled = threading.Event()

    def check() -> None:
        if cancelled.is_set():
            raise_cancelled()

    scenario = Scenario("slow records", records=(Response(delay_s=20),))
    with start_client(scenario) as (_, client):
        task_id = client.submit(SUBMISSION, skip_check)
        threading.Timer(0.1, cancelled.set).start()
        with pytest.raises(CancelledError):  # otherwise the request would be answered after 20 s
            client.get_record(task_id, check)


def test_cancelling_during_the_submission_waits_for_the_task_that_is_paid() -> None:
    response = Response(200, {"code": 200, "data": {"taskId": "task-7"}}, delay_s=0.3)
    with start_client(respond_to_submissions(response)) as (_, client):
        assert client.submit(SUBMISSION, raise_cancelled) == "task-7"


def test_a_slow_response_ends_with_the_time_limit_of_the_whole_exchange() -> None:
    scenario = Scenario("slow", records=(Response(delay_s=20),))
    with start_client(scenario) as (_, client):
        task_id = client.submit(SUBMISSION, skip_check)
        with pytest.raises(UpstreamError) as caught:
            client.get_record(task_id, skip_check, timeout_s=0.3)
    assert caught.value.error_code == "provider_unreachable"
    assert isinstance(caught.value.__cause__, NoResponseError)


def test_an_endless_response_is_abandoned() -> None:
    body = Response(200, b" " * (9 * 1024 * 1024))
    with start_client(respond_to_submissions(body)) as (_, client), pytest.raises(UpstreamError) as caught:
        client.submit(SUBMISSION, skip_check)
    assert caught.value.error_code == "submit_unknown"


def test_the_balance_is_found_at_either_path_and_may_be_absent() -> None:
    absent = Response(404, {"code": 404, "msg": "unknown endpoint"})
    cases = (((), 100), ((absent,), 100), ((absent, absent), None), ((Response(cut=True),), None))
    for credits, balance in cases:
        with start_client(Scenario("balance", credits=credits)) as (_, client):
            assert client.get_credits(skip_check) == balance


def test_a_wrong_key_is_reported_by_the_request_for_the_balance() -> None:
    with start_client(SCENARIOS["happy"], token="another-key") as (_, client), pytest.raises(UpstreamError) as caught:
        client.get_credits(skip_check)
    assert caught.value.error_code == "bad_key"


def test_every_upload_has_a_folder_and_a_new_name() -> None:
    with start_client(SCENARIOS["happy"]) as (provider, client):
        urls = {client.upload(MP3, skip_check) for _ in range(3)}
    assert urls == provider.uploaded.keys()
    assert set(provider.uploaded.values()) == {b"audio"}
    assert provider.violations == []


@pytest.mark.parametrize("field", ["downloadUrl", "fileUrl"])
def test_the_url_of_an_upload_is_read_under_either_name(field: str) -> None:
    response = Response(200, {"success": True, "code": 200, "data": {field: "https://files.example.com/a.mp3"}})
    with start_client(Scenario("upload", uploads=(response,))) as (_, client):
        url = client.upload(MP3, skip_check)
    assert url == "https://files.example.com/a.mp3"


def test_an_upload_that_is_accepted_without_a_url_has_failed() -> None:
    response = Response(200, {"success": True, "code": 200, "data": {}})
    with (
        start_client(Scenario("upload", uploads=(response,))) as (_, client),
        pytest.raises(UpstreamError) as caught,
    ):
        client.upload(MP3, skip_check)
    assert caught.value.error_code == "upload_failed"


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("9999", 120.0), ("-3", 0.0), ("soon", None), ("nan", None), (None, None)]
)
def test_the_retry_after_header_is_read_in_seconds_and_bounded(header: str | None, seconds: float | None) -> None:
    headers = () if header is None else (("Retry-After", header),)
    response = Response(200, {"code": 430, "msg": "no"}, headers=headers)
    with start_client(respond_to_submissions(response)) as (_, client), pytest.raises(UpstreamError) as caught:
        client.submit(SUBMISSION, skip_check)
    assert caught.value.details.get("retry_after_s") == seconds


def test_a_task_that_the_provider_does_not_know_has_no_record() -> None:
    unknown = Response(200, {"code": 404, "msg": "no such task"})
    with start_client(Scenario("unknown", records=(unknown, Record("PENDING")))) as (_, client):
        assert client.get_record("task-9999", skip_check) is None
        task_id = client.submit(SUBMISSION, skip_check)
        assert client.get_record(task_id, skip_check) is None
        record = client.get_record(task_id, skip_check)
    assert record is not None and record.state == "PENDING"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"token": " "}, "SUNO_API_TOKEN is not set"),
        ({"token": "two words"}, "SUNO_API_TOKEN"),
        ({"token": "schlüssel"}, "SUNO_API_TOKEN"),
        ({"token": "line\nbreak"}, "SUNO_API_TOKEN"),
        ({"base_url": "http://api.example.com"}, "SUNO_API_BASE_URL"),
        ({"base_url": "api.example.com"}, "SUNO_API_BASE_URL"),
        ({"base_url": "https://user:word@api.example.com"}, "SUNO_API_BASE_URL"),
        ({"base_url": "https://api.example.com:port"}, "SUNO_API_BASE_URL"),
        ({"upload_url": "ftp://files.example.com"}, "SUNO_UPLOAD_BASE_URL"),
        ({"callback_url": "nowhere"}, "SUNO_CALLBACK_URL"),
        ({"submissions_per_minute": 0}, "SUNO_RATE_LIMIT"),
    ],
)
def test_a_configuration_that_cannot_work_names_its_variable(changes: dict[str, object], named: str) -> None:
    problem = replace(SunoConfig(token=TOKEN), **changes).find_problem()  # type: ignore[arg-type]
    assert problem is not None and named in problem
    assert TOKEN not in problem


def test_a_key_with_a_line_break_at_its_end_works() -> None:
    with start_client(SCENARIOS["happy"], token=f"{TOKEN}\n") as (_, client):
        assert client.get_credits(skip_check) == 100


def test_each_provider_gets_its_own_upload_host_and_no_other_does() -> None:
    assert SunoConfig(token=TOKEN).upload_root == "https://sunoapiorg.redpandaai.co"
    assert SunoConfig(token=TOKEN, base_url="https://api.kie.ai/").upload_root == "https://kieai.redpandaai.co"
    assert SunoConfig(token=TOKEN, base_url="https://suno.example.com").upload_root == "https://suno.example.com"
    assert SunoConfig(token=TOKEN, upload_url="https://up.example.com/").upload_root == "https://up.example.com"


def test_provider_text_is_made_safe_to_pass_on() -> None:
    sanitize = make_sanitizer(TOKEN)
    assert sanitize(f"a\x00b\ud800c{TOKEN}", 300) == "a b?c[key]"
    assert sanitize({"not": "text"}, 10) == ""
    assert len(sanitize("x" * 1000, 300)) == 300
