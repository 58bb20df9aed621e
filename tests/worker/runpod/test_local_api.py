"""The SDK's local API in a process of its own, with the fake worker behind the real adapter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from testing.local_api import Api, find_free_port, wait_until_ready
from testing.processes import FAKE_WORKER, run_script, start_worker

DEEP = 900


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    port = find_free_port()
    home = tmp_path_factory.mktemp("api")
    with start_worker(FAKE_WORKER, ["--rp_serve_api", "--rp_api_port", str(port)], home=home, env={}) as worker:
        local_api = Api(port, worker)
        wait_until_ready(local_api)
        yield local_api


INVALID_BODIES = {
    "nothing": "",
    "not JSON": "nope",
    "not UTF-8": b'{"input": "\xff\xfe"}',
    "null": "null",
    "a number": "1",
    "a list": "[]",
    "an empty object": "{}",
    "a null input": '{"input": null}',
    "an empty input": '{"input": {}}',
    "a list as input": '{"input": [1]}',
    "a text as input": '{"input": "x"}',
    "NaN": "NaN",
    "NaN as input": '{"input": NaN}',
    "NaN in a list as input": '{"input": [NaN]}',
    "NaN in the input": '{"input": {"operation": "echo", "value": NaN}}',
    "an infinity": '{"input": {"operation": "echo", "value": -Infinity}}',
    "a lone surrogate": '"\\ud800"',
    "a lone surrogate as input": '{"input": "\\ud800"}',
    "a lone surrogate as operation": '{"input": {"operation": "\\ud800"}}',
    "a lone surrogate as key": '{"input": {"\\ud800": 1}}',
    "a deep list": "[" * DEEP + "]" * DEEP,
    "a deep list as input": '{"input": ' + "[" * DEEP + "]" * DEEP + "}",
    "a deep list in the input": '{"input": {"operation": "none", "value": ' + "[" * DEEP + "]" * DEEP + "}}",
    "a list beyond all depth": "[" * 100_000 + "]" * 100_000,
    "a number of 5000 digits": '{"input": {"value": 1' + "0" * 5000 + "}}",
    "a wrong webhook": '{"input": {}, "webhook": {"a": NaN}}',
    "a list as operation": '{"input": {"operation": []}}',
    "a reply of bytes": '{"input": {"operation": "unserializable", "value": "bytes"}}',
    "a reply with an object": '{"input": {"operation": "unserializable", "value": "object"}}',
    "an empty reply": '{"input": {"operation": "empty"}}',
    "a crash": '{"input": {"operation": "crash"}}',
    "a refusal": '{"input": {"operation": "refuse"}}',
    "a worker that asks to be replaced": '{"input": {"operation": "exhaust"}}',
    "too large a reply": '{"input": {"operation": "huge", "size": 20000000}}',
}


@pytest.mark.parametrize("body", INVALID_BODIES.values(), ids=INVALID_BODIES)
def test_an_invalid_body_never_makes_the_api_fail(api: Api, body: str | bytes) -> None:
    status, reply = api.call("POST", "/runsync", body)
    check_refusal(status, reply)
    status, reply = api.call("POST", "/run", body)
    if status == 200:
        status, reply = api.call("POST", f"/status/{reply['id']}")
    check_refusal(status, reply)


def check_refusal(status: int, reply: Any) -> None:
    assert status in (200, 400, 422)
    if status == 200:
        assert reply["status"] == "FAILED" and isinstance(reply["error"], str) and reply["error"]
    assert len(json.dumps(reply)) < 10_000


@pytest.mark.parametrize("path", ["/status/none", "/status/%ff", "/status/%00", "/stream/none"])
def test_the_status_of_an_unknown_job_is_an_error(api: Api, path: str) -> None:
    status, reply = api.call("POST", path)
    assert status == 200 and reply["error"]


def test_a_body_of_another_content_type_is_refused_with_a_sentence(api: Api) -> None:
    status, reply = api.call("POST", "/runsync", '{"input": {}}', {"Content-Type": "text/plain"})
    assert status == 422 and "Content-Type: application/json" in reply["error"]


def test_a_refusal_does_not_repeat_the_body(api: Api) -> None:
    status, reply = api.call("POST", "/runsync", json.dumps({"input": "A" * 100_000}))
    assert status == 422 and "AAAA" not in json.dumps(reply)


def test_runsync_returns_the_reply_with_audio_inline(api: Api) -> None:
    reply = api.runsync(operation="make_audio")
    assert reply["status"] == "COMPLETED" and len(reply["output"]["output_audio"]) > 10_000


def test_run_and_status_return_the_reply(api: Api) -> None:
    _, accepted = api.call("POST", "/run", json.dumps({"input": {"operation": "echo", "value": 3}}))
    status, reply = api.call("POST", f"/status/{accepted['id']}")
    assert (status, reply["status"], reply["output"]["echo"]) == (200, "COMPLETED", 3)


def test_logs_are_readable_lines_with_the_job_id_and_no_audio(api: Api) -> None:
    reply = api.runsync(operation="make_audio")
    assert f"INFO    [{reply['id']}] worker.fake: made <" in api.worker.read_output()
    assert reply["output"]["output_audio"][:64] not in api.worker.read_output()


def test_more_than_one_process_is_refused_with_a_sentence(tmp_path: Any) -> None:
    process = run_script(FAKE_WORKER, ["--rp_serve_api", "--rp_api_concurrency", "2"], home=tmp_path)
    assert process.returncode == 1 and "CONCURRENCY" in process.stderr and process.stderr.count("\n") == 1
