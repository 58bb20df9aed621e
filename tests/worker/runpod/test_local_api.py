"""The SDK's local API in a process of its own, with the fake worker behind the real adapter."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from testing.control_plane import start_control_plane
from testing.local_api import Api, find_free_port, wait_until_ready
from testing.processes import FAKE_WORKER, Worker, run_script, start_worker

DEEP = 900


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    port = find_free_port()
    home = tmp_path_factory.mktemp("api")
    env = {"CANCEL_GRACE_S": "1"}
    with start_worker(FAKE_WORKER, ["--rp_serve_api", "--rp_api_port", str(port)], home=home, env=env) as worker:
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


@pytest.mark.parametrize("path", ["/run", "/runsync"])
def test_a_webhook_is_refused_because_it_could_point_anywhere(api: Api, path: str) -> None:
    body = {"input": {"operation": "echo", "value": 1}, "webhook": "http://127.0.0.1:1/private"}
    status, reply = api.call("POST", path, json.dumps(body))
    assert status == 422 and "Leave 'webhook' out" in reply["error"]
    status, reply = api.call("POST", path, json.dumps(body | {"webhook": None}))
    assert status == 200 and "error" not in reply


def wait_for_output(worker: Worker, text: str, *, after: int = 0, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while text not in worker.read_output()[after:]:
        assert time.monotonic() < deadline, f"the worker did not print {text!r} within {timeout_s} s"
        time.sleep(0.05)


def send_and_leave(api: Api, path: str, body: Any) -> int:
    """Sends a request for an endless job and closes the connection while it runs; returns what was printed before."""
    before = len(api.worker.read_output())
    content = json.dumps(body | {"input": {"operation": "steps", "count": 100_000}}).encode()
    lines = (f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(content)}")
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        wait_for_output(api.worker, "Started.", after=before)
        time.sleep(0.5)
    return before


def test_the_job_of_a_client_that_is_gone_is_cancelled(api: Api) -> None:
    before = send_and_leave(api, "/runsync", {})
    wait_for_output(api.worker, "worker.fake: stopped at step", after=before)
    assert "Traceback" not in api.worker.read_output()[before:]
    assert api.runsync(operation="echo", value=2)["output"]["echo"] == 2


def test_a_realtime_job_of_a_client_that_is_gone_is_cancelled_and_leaves_the_heartbeats(tmp_path: Path) -> None:
    port = find_free_port()
    with start_control_plane() as plane:
        env = plane.environment() | {"RUNPOD_REALTIME_PORT": str(port)}
        with start_worker(FAKE_WORKER, [], home=tmp_path, env=env) as worker:
            wait_until_ready(api := Api(port, worker))
            before = send_and_leave(api, "/ep/realtime", {"id": "realtime-1"})
            wait_for_output(worker, "worker.fake: stopped at step", after=before)
            stopped = time.monotonic()
            time.sleep(2.5)
            late = [event.query for event in plane.events if event.kind == "ping" and event.at > stopped + 1.1]
            assert late and not any("realtime-1" in query.get("job_id", [""])[0] for query in late)
            assert not plane.find_events("", "take")


@pytest.mark.parametrize("operation", ["steps", "ignore_cancel"])
def test_sigterm_ends_a_busy_server_in_bounded_time_and_its_client_gets_an_error(
    tmp_path: Path, operation: str
) -> None:
    port = find_free_port()
    env = {"SHUTDOWN_GRACE_S": "0.5", "CANCEL_GRACE_S": "1"}
    arguments = ["--rp_serve_api", "--rp_api_port", str(port)]
    with start_worker(FAKE_WORKER, arguments, home=tmp_path, env=env) as worker, ThreadPoolExecutor() as client:
        wait_until_ready(api := Api(port, worker))
        reply = client.submit(api.runsync, operation=operation, count=100_000, seconds=60)
        wait_for_output(worker, " 0.0 %")
        started = time.monotonic()
        worker.terminate()
        worker.exit_code()
        assert time.monotonic() - started < 5.0
        assert reply.result(10)["error"].startswith("This worker is being stopped.")


def test_more_than_one_process_is_refused_with_a_sentence(tmp_path: Any) -> None:
    process = run_script(FAKE_WORKER, ["--rp_serve_api", "--rp_api_concurrency", "2"], home=tmp_path)
    assert process.returncode == 1 and "CONCURRENCY" in process.stderr and process.stderr.count("\n") == 1


def submit(api: Api, **job_input: Any) -> str:
    status, accepted = api.call("POST", "/run", json.dumps({"input": job_input}))
    assert status == 200
    return str(accepted["id"])


def wait_for_status(api: Api, job_id: str, *wanted: str, timeout_s: float = 10.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while (reply := api.call("GET", f"/status/{job_id}")[1])["status"] not in wanted:
        assert time.monotonic() < deadline, f"the job is {reply['status']} after {timeout_s} s"
        time.sleep(0.02)
    return reply


def test_a_submitted_job_runs_by_itself_and_its_result_can_be_fetched_again(api: Api) -> None:
    job_id = submit(api, operation="echo", value=5)
    first = wait_for_status(api, job_id, "COMPLETED")
    assert first["output"]["echo"] == 5 and api.call("GET", f"/status/{job_id}")[1] == first


def test_the_status_of_a_running_job_has_its_progress_and_a_cancel_stops_it(api: Api) -> None:
    before = len(api.worker.read_output())
    running, queued = submit(api, operation="steps", count=100_000), submit(api, operation="echo", value=1)
    wait_for_output(api.worker, " 0.0 %", after=before)
    reply = wait_for_status(api, running, "IN_PROGRESS")
    assert reply["output"] == {"stage": "steps", "percent": 0.0}
    assert wait_for_status(api, queued, "IN_QUEUE") == {"id": queued, "status": "IN_QUEUE"}
    health = api.call("GET", "/health")[1]
    assert (health["jobs"]["inProgress"], health["jobs"]["inQueue"], health["workers"]["running"]) == (1, 1, 1)
    assert api.call("POST", f"/cancel/{running}") == (200, {"id": running, "status": "CANCELLED"})
    wait_for_output(api.worker, "worker.fake: stopped at step", after=before)
    assert wait_for_status(api, queued, "COMPLETED")["output"]["echo"] == 1
    assert wait_for_status(api, running, "CANCELLED") == {"id": running, "status": "CANCELLED"}


def test_a_job_that_is_cancelled_in_the_queue_never_starts_and_disturbs_nothing(api: Api) -> None:
    running, queued = submit(api, operation="steps", count=75), submit(api, operation="echo", value=1)  # 1.5 s
    assert api.call("POST", f"/cancel/{queued}")[1]["status"] == "CANCELLED"
    assert wait_for_status(api, running, "COMPLETED")["output"]["steps"] == 75
    assert wait_for_status(api, queued, "CANCELLED") == {"id": queued, "status": "CANCELLED"}
    assert api.worker.process.poll() is None


def test_a_failed_job_has_its_code_and_details_as_on_the_platform(api: Api) -> None:
    reply = wait_for_status(api, submit(api, operation="refuse"), "FAILED")
    assert reply["error"] == "'duration' must be at most 600."
    assert reply["output"] == {"error_code": "invalid_request", "details": {"field": "duration"}}
    direct = api.runsync(operation="refuse")
    assert (direct["error"], direct["output"]) == (reply["error"], reply["output"])


@pytest.mark.parametrize(("method", "path"), [("GET", "/status/none"), ("POST", "/cancel/none")])
def test_a_job_that_is_not_known_is_status_404(api: Api, method: str, path: str) -> None:
    status, reply = api.call(method, path)
    assert status == 404 and reply["error"]
