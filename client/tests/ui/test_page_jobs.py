"""Jobs of the page from their request to their files."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_client import FakeClient, FakeJob, make_audio, make_wav
from page_calls import call, post, run, upload, wait_for_state

from music_worker.errors import JobCancelledError, QueueFullError, WorkerError
from music_worker.exchange import SyncRunner
from music_worker.files import prepare
from music_worker.jobs import JobState
from music_worker.schema import load_remedies, load_schemas
from music_worker.ui_server import PageServer


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def server(client: FakeClient) -> Iterator[PageServer]:
    with PageServer(client, port=0) as server:
        yield server


def prepare_params(operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the client makes of parameters before it sends them."""
    prepared: dict[str, Any] = SyncRunner().run(prepare(operation, params, limit_bytes=None))
    return prepared


def list_input_fields() -> list[tuple[str, str]]:
    return [
        (operation, name)
        for operation, schema in load_schemas().operations.items()
        for name, field in schema["properties"].items()
        if "input" in field
    ]


@pytest.mark.parametrize(("operation", "field"), list_input_fields())
def test_a_text_of_the_browser_never_reads_a_file_of_this_machine(
    operation: str, field: str, client: FakeClient, server: PageServer, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    run(server, operation, {field: str(secret)})
    assert prepare_params(operation, client.last(operation).params) == {field: str(secret)}


def test_a_text_inside_of_tracks_and_steps_never_reads_a_file(
    client: FakeClient, server: PageServer, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    step = {"id": "a", "operation": "separate", "params": {"audio": str(secret)}}
    later = {"id": "b", "operation": "analyze", "params": {"audio": "$a.stems.vocals"}}
    run(server, "mix_audio", {"tracks": [{"audio": str(secret)}]})
    run(server, "pipeline", {"steps": [step, later]})
    assert prepare_params("mix_audio", client.last("mix_audio").params) == {"tracks": [{"audio": str(secret)}]}
    assert prepare_params("pipeline", client.last("pipeline").params) == {"steps": [step, later]}


def test_an_upload_goes_to_the_worker_as_a_file(client: FakeClient, server: PageServer) -> None:
    file = upload(server, b"sound").json()
    run(server, "mix_audio", {"tracks": [{"audio": {"$file": file["id"], "name": "song.wav"}}]})
    sent = prepare_params("mix_audio", client.last("mix_audio").params)
    assert sent == {"tracks": [{"audio": "c291bmQ="}]}


def test_a_result_is_the_input_of_the_next_job(client: FakeClient, server: PageServer) -> None:
    (output,) = run(server, "generate_music", {})["result"]["files"]
    run(server, "analyze", {"audio": {"$file": output["file"]}})
    assert Path(client.last("analyze").params["audio"]).read_bytes() == make_wav()


def test_a_file_that_is_unknown_is_refused(server: PageServer) -> None:
    answer = post(server, "api/jobs", {"operation": "analyze", "params": {"audio": {"$file": "../../etc/passwd"}}})
    assert answer.status == 404
    assert "Choose it again" in answer.json()["message"]


def test_the_state_follows_the_job() -> None:
    go_on = threading.Event()

    def script(job: FakeJob) -> dict[str, Any]:
        job.report(state=JobState.IN_QUEUE)
        assert go_on.wait(5)
        go_on.clear()
        job.report("generate", 40.0)
        assert go_on.wait(5)
        return make_audio(make_wav())

    with PageServer(FakeClient(generate_music=script), port=0) as server:
        job = post(server, "api/jobs", {"operation": "generate_music", "params": {}}).json()
        queued = wait_for_state(server, job["id"], "queued")
        go_on.set()
        running = wait_for_state(server, job["id"], "running")
        go_on.set()
        done = wait_for_state(server, job["id"], "done")
    assert queued["platform_id"].startswith("job-")
    assert running["progress"] == {"stage": "generate", "percent": 40.0, "remaining_s": 60.0}
    assert [file["filename"] for file in done["result"]["files"]] == ["music.wav"]
    assert "output_audio" not in done["result"]["reply"]


def test_an_error_of_the_worker_keeps_its_code_and_details() -> None:
    details = {"errors": [{"field": "duration", "problem": "must be less than or equal to 600"}]}

    def script(job: FakeJob) -> dict[str, Any]:
        raise WorkerError("invalid_request", "Invalid request.", details)

    with PageServer(FakeClient(generate_music=script), port=0) as server:
        job = run(server, "generate_music", {"duration": 9999})
    assert job["state"] == "failed"
    error = job["error"]
    assert (error["code"], error["message"], error["details"]) == ("invalid_request", "Invalid request.", details)
    assert error["advice"] == load_remedies()["invalid_request"] != ""


def test_a_job_that_cannot_be_sent_fails_with_the_reason() -> None:
    class Busy(FakeClient):
        def submit(self, operation: str, params: Mapping[str, Any] | None = None) -> FakeJob:
            raise QueueFullError("The queue is full. Try again later.")

    with PageServer(Busy(), port=0) as server:
        job = run(server, "generate_music", {})
    assert (job["state"], job["error"]["code"]) == ("failed", "queue_full")


def wait_for_cancel(job: FakeJob) -> dict[str, Any]:
    job.report("generate", 10.0)
    assert job.cancelled.wait(5)
    raise JobCancelledError("It was cancelled.")


def test_a_job_is_cancelled_on_the_platform() -> None:
    with PageServer(FakeClient(generate_music=wait_for_cancel), port=0) as server:
        job = post(server, "api/jobs", {"operation": "generate_music", "params": {}}).json()
        wait_for_state(server, job["id"], "running")
        assert post(server, f"api/jobs/{job['id']}/cancel", {}).json()["state"] == "cancelling"
        assert wait_for_state(server, job["id"], "cancelled")["error"] is None


def test_a_job_that_is_cancelled_while_it_is_sent_is_cancelled_when_it_is() -> None:
    send = threading.Event()

    class Slow(FakeClient):
        def submit(self, operation: str, params: Mapping[str, Any] | None = None) -> FakeJob:
            assert send.wait(5)
            return super().submit(operation, params)

    client = Slow(generate_music=wait_for_cancel)
    with PageServer(client, port=0) as server:
        job = post(server, "api/jobs", {"operation": "generate_music", "params": {}}).json()
        post(server, f"api/jobs/{job['id']}/cancel", {})
        send.set()
        wait_for_state(server, job["id"], "cancelled")
    assert client.last("generate_music").cancelled.is_set()


def test_one_file_that_cannot_be_fetched_leaves_the_others() -> None:
    def script(job: FakeJob) -> dict[str, Any]:
        lost = {"output_path": "/runpod-volume/output/bass.wav", "filename": "bass.wav", "format": "wav"}
        return {"stems": {"drums": make_audio(make_wav(), "drums.wav"), "bass": lost}}

    with PageServer(FakeClient(separate=script), port=0) as server:
        drums, bass = run(server, "separate", {})["result"]["files"]
        assert call(server, f"api/files/{drums['file']}").body == make_wav()
    assert bass["file"] is None
    assert "/runpod-volume/output/bass.wav" in bass["problem"]


def test_a_job_of_an_earlier_run_is_resumed(client: FakeClient, server: PageServer) -> None:
    job = post(server, "api/jobs/resume", {"operation": "generate_music", "platform_id": "old-1"}).json()
    assert wait_for_state(server, job["id"], "done")["platform_id"] == "old-1"


def test_a_removed_job_takes_its_files_with_it(server: PageServer) -> None:
    job = run(server, "generate_music", {})
    file_id = job["result"]["files"][0]["file"]
    assert call(server, f"api/jobs/{job['id']}", method="DELETE").status == 200
    assert call(server, f"api/files/{file_id}").status == 404
    assert call(server, f"api/jobs/{job['id']}").status == 404


def test_a_fault_of_the_page_itself_ends_the_job() -> None:
    def script(job: FakeJob) -> dict[str, Any]:
        raise ZeroDivisionError

    with PageServer(FakeClient(generate_music=script), port=0) as server:
        job = run(server, "generate_music", {})
    assert (job["state"], job["error"]["code"]) == ("failed", "page_error")


def test_elapsed_time_stands_still_after_the_end(server: PageServer) -> None:
    job = run(server, "generate_music", {})
    time.sleep(0.2)
    assert call(server, f"api/jobs/{job['id']}").json()["elapsed_s"] == job["elapsed_s"]
