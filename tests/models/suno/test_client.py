"""The Suno client over real HTTP: what is sent, what is read, how failures are told, and that the key goes nowhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from errors import CancelledError, UpstreamError
from models.suno import SunoConfig
from models.suno import responses as answers
from models.suno.client import EXTEND, Order, Source, SunoClient
from models.suno.transport import Call, HttpTransport, NoAnswerError, NotSentError
from testing.suno_provider import TOKEN, Provider, serving
from testing.suno_scenarios import SCENARIOS, Say, Scenario

ORDER = Order(EXTEND, {"audioId": "audio-1", "defaultParamFlag": False, "model": "V4_5"})


def go_on() -> None:
    """The check of a job that nobody cancels."""


def config_for(provider: Provider, **changes: object) -> SunoConfig:
    return replace(SunoConfig(token=TOKEN, base_url=provider.url, upload_url=provider.url), **changes)  # type: ignore[arg-type]


@contextmanager
def client_of(scenario: Scenario, token: str = TOKEN, read_s: float = 30.0) -> Iterator[tuple[Provider, SunoClient]]:
    provider = Provider(scenario)
    with serving(provider):
        config = config_for(provider, token=token)
        yield provider, SunoClient(config, HttpTransport(config, read_s=read_s))


def says(said: Say) -> Scenario:
    return Scenario("one answer", submits=(said,) * 9)


def test_a_submission_carries_the_key_and_the_callback_and_returns_the_task() -> None:
    with client_of(SCENARIOS["happy"]) as (provider, client):
        task_id = client.submit(ORDER, go_on)
    assert task_id in provider.tasks
    assert provider.posts[0][1]["callBackUrl"] == "https://callback.invalid/suno"
    assert provider.complaints == []


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Say(200, {"code": 400, "msg": "no"}), "request_refused"),
        (Say(200, {"code": 401, "msg": "no"}), "bad_key"),
        (Say(200, {"code": 402, "msg": "no"}), "insufficient_credits"),
        (Say(403, b"denied", "text/plain"), "access_denied"),
        (Say(404, {"code": 404, "msg": "no"}), "wrong_address"),
        (Say(200, {"code": 405, "msg": "no"}), "rate_limited"),
        (Say(405, b"method not allowed", "text/plain"), "wrong_address"),
        (Say(200, {"code": 413, "msg": "no"}), "text_too_long"),
        (Say(200, {"code": 422, "msg": "no"}), "request_refused"),
        (Say(429, {"code": 429, "msg": "no"}), "insufficient_credits"),
        (Say(429, b"slow down", "text/plain"), "rate_limited"),
        (Say(200, {"code": "430", "msg": "no"}), "rate_limited"),
        (Say(200, {"code": 433.0, "msg": "no"}), "insufficient_credits"),
        (Say(200, {"code": 451, "msg": "no"}), "source_refused"),
        (Say(455, {"code": 455, "msg": "no"}), "maintenance"),
        (Say(200, {"code": 500, "msg": "no"}), "provider_failed"),
        (Say(500, b"<html>", "text/html"), "submit_unknown"),
        (Say(502, b"<html>", "text/html"), "submit_unknown"),
        (Say(503, b"<html>", "text/html"), "submit_unknown"),
        (Say(200, b"not json"), "submit_unknown"),
        (Say(200, b"[" * 100_000), "submit_unknown"),
        (Say(200, {"code": 200, "data": None}), "submit_unknown"),
        (Say(200, {"code": 200, "data": {"taskId": ["x"]}}), "submit_unknown"),
        (Say(200, {"code": 200, "data": {"taskId": ""}}), "submit_unknown"),
        (Say(cut=True), "submit_unknown"),
        (Say(200, b'{"code":200,', cut=True), "submit_unknown"),
    ],
)
def test_each_refusal_of_a_submission_has_its_own_code(said: Say, code: str) -> None:
    with client_of(says(said)) as (provider, client), pytest.raises(UpstreamError) as caught:
        client.submit(ORDER, go_on)
    assert caught.value.error_code == code
    assert len(provider.posts) == 1
    assert TOKEN not in str(caught.value.reply())


@pytest.mark.parametrize("code", [200, 430, 500])
def test_an_answer_with_a_task_id_is_a_task_whatever_its_code(code: int) -> None:
    with client_of(says(Say(200, {"code": code, "data": {"taskId": 12345}}))) as (_, client):
        assert client.submit(ORDER, go_on) == "12345"


def test_a_submission_without_an_answer_in_time_is_of_unknown_outcome_and_sent_once() -> None:
    with client_of(says(Say(delay_s=20)), read_s=0.2) as (provider, client), pytest.raises(UpstreamError) as caught:
        client.submit(ORDER, go_on)
    assert caught.value.error_code == "submit_unknown"
    assert len(provider.posts) == 1


def test_a_refused_connection_is_certain_to_have_submitted_nothing() -> None:
    config = SunoConfig(token=TOKEN, base_url="http://127.0.0.1:1", upload_url="http://127.0.0.1:1")
    with pytest.raises(NotSentError):
        HttpTransport(config).send(Call("POST", "http://127.0.0.1:1/x", body={}), go_on)
    with pytest.raises(UpstreamError, match="Nothing was submitted") as caught:
        SunoClient(config, HttpTransport(config)).submit(ORDER, go_on)
    assert caught.value.error_code == "provider_unreachable"


def test_the_key_does_not_follow_a_redirect() -> None:
    other = Provider(SCENARIOS["happy"])
    with serving(other):
        redirect = Say(307, b"", headers=(("Location", f"{other.url}/api/v1/generate/extend"),))
        with client_of(says(redirect)) as (provider, client), pytest.raises(UpstreamError) as caught:
            client.submit(ORDER, go_on)
    assert caught.value.error_code == "wrong_address"
    assert (len(provider.posts), other.calls) == (1, [])


def test_a_call_to_a_host_that_is_not_configured_gets_no_key() -> None:
    provider, other = Provider(SCENARIOS["happy"]), Provider(SCENARIOS["happy"])
    with serving(provider), serving(other), pytest.raises(AssertionError, match="not configured"):
        HttpTransport(config_for(provider)).send(Call("GET", f"{other.url}/api/v1/generate/credit"), go_on)
    assert other.calls == []


def test_a_netrc_file_does_not_replace_the_key(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{tmp_path}/netrc"
    with open(path, "w") as file:
        file.write("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", path)
    with client_of(SCENARIOS["happy"]) as (_, client):
        assert client.credits(go_on) == 100


def test_a_provider_that_repeats_the_key_does_not_bring_it_into_the_error() -> None:
    message = f"bad key Bearer {TOKEN} (also {TOKEN})"
    with (
        client_of(says(Say(200, {"code": 401, "msg": message}))) as (_, client),
        pytest.raises(UpstreamError) as caught,
    ):
        client.submit(ORDER, go_on)
    assert TOKEN not in str(caught.value.reply())
    assert "[key]" in caught.value.message


def test_neither_the_configuration_nor_a_call_shows_the_key() -> None:
    config = SunoConfig(token=TOKEN)
    order = Order(EXTEND, {"prompt": "private words"})
    assert TOKEN not in repr(config) + repr(HttpTransport(config)) + repr(SunoClient(config, HttpTransport(config)))
    assert "private words" not in repr(order)


def test_cancel_ends_a_look_at_once() -> None:
    cancelled = threading.Event()

    def check() -> None:
        if cancelled.is_set():
            raise CancelledError("The job was cancelled.")

    scenario = Scenario("slow looks", looks=(Say(delay_s=20),))
    with client_of(scenario) as (_, client):
        task_id = client.submit(ORDER, go_on)
        threading.Timer(0.1, cancelled.set).start()
        with pytest.raises(CancelledError):  # without it the look would be answered, after 20 s
            client.look(task_id, check)


def test_cancel_during_the_submission_waits_for_the_task_that_is_paid() -> None:
    def check() -> None:
        raise CancelledError("The job was cancelled.")

    answer = Say(200, {"code": 200, "data": {"taskId": "task-7"}}, delay_s=0.3)
    with client_of(says(answer)) as (_, client):
        assert client.submit(ORDER, check) == "task-7"


def test_a_slow_answer_ends_by_the_time_of_the_whole_exchange() -> None:
    provider = Provider(Scenario("slow", credits=(Say(delay_s=20),)))
    with serving(provider), pytest.raises(NoAnswerError):
        HttpTransport(config_for(provider)).send(
            Call("GET", f"{provider.url}/api/v1/generate/credit", timeout_s=0.3), go_on
        )


def test_an_endless_answer_is_given_up() -> None:
    body = Say(200, b" " * (9 * 1024 * 1024))
    with client_of(says(body)) as (_, client), pytest.raises(UpstreamError) as caught:
        client.submit(ORDER, go_on)
    assert caught.value.error_code == "submit_unknown"


def test_the_balance_is_found_at_either_address_and_may_be_absent() -> None:
    absent = Say(404, {"code": 404, "msg": "unknown endpoint"})
    for credits, balance in (((), 100), ((absent,), 100), ((absent, absent), None), ((Say(cut=True),), None)):
        with client_of(Scenario("balance", credits=credits)) as (_, client):
            assert client.credits(go_on) == balance


def test_a_wrong_key_is_told_by_the_look_at_the_balance() -> None:
    with client_of(SCENARIOS["happy"], token="another-key") as (_, client), pytest.raises(UpstreamError) as caught:
        client.credits(go_on)
    assert caught.value.error_code == "bad_key"


def test_uploads_have_a_path_and_a_name_never_used_before() -> None:
    with client_of(SCENARIOS["happy"]) as (provider, client):
        urls = {client.upload(Source(b"sound", "mp3", "audio/mpeg"), go_on) for _ in range(3)}
    assert urls == provider.uploaded.keys()
    assert set(provider.uploaded.values()) == {b"sound"}
    assert provider.complaints == []


@pytest.mark.parametrize("field", ["downloadUrl", "fileUrl"])
def test_the_address_of_an_upload_is_read_under_either_name(field: str) -> None:
    said = Say(200, {"success": True, "code": 200, "data": {field: "https://files.example.com/a.mp3"}})
    with client_of(Scenario("upload", uploads=(said,))) as (_, client):
        url = client.upload(Source(b"x", "mp3", "audio/mpeg"), go_on)
    assert url == "https://files.example.com/a.mp3"


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
    problem = replace(SunoConfig(token=TOKEN), **changes).problem()  # type: ignore[arg-type]
    assert problem is not None and named in problem
    assert TOKEN not in problem


def test_a_key_pasted_with_a_line_break_at_its_end_works() -> None:
    with client_of(SCENARIOS["happy"], token=f"{TOKEN}\n") as (_, client):
        assert client.credits(go_on) == 100


def test_each_provider_gets_its_own_upload_host_and_no_other_does() -> None:
    assert SunoConfig(token=TOKEN).uploads == "https://sunoapiorg.redpandaai.co"
    assert SunoConfig(token=TOKEN, base_url="https://api.kie.ai/").uploads == "https://kieai.redpandaai.co"
    assert SunoConfig(token=TOKEN, base_url="https://suno.example.com").uploads == "https://suno.example.com"
    assert SunoConfig(token=TOKEN, upload_url="https://up.example.com/").uploads == "https://up.example.com"


def test_provider_text_is_made_fit_to_pass_on() -> None:
    clean = answers.cleaner(TOKEN)
    assert clean(f"a\x00b\ud800c{TOKEN}", 300) == "a b?c[key]"
    assert clean({"not": "text"}, 10) == ""
    assert len(clean("x" * 1000, 300)) == 300
