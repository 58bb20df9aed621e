"""Starting and ending the page's server, and what it learns of the worker."""

from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fake_client import FakeClient, FakeJob, list_models
from page_calls import call, post, run, upload

from music_worker.client import Client
from music_worker.errors import ConfigurationError
from music_worker.schema import load_schemas
from music_worker.transport import Patience
from music_worker.ui_server import PageServer


def wait_for_worker(server: PageServer) -> dict[str, Any]:
    for _ in range(500):
        worker: dict[str, Any] = call(server, "api/worker").json()
        if worker["state"] != "connecting":
            return worker
        time.sleep(0.02)
    raise AssertionError("The connection to the worker did not end.")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "example.com", ""])
def test_only_this_machine_can_be_served(host: str) -> None:
    with pytest.raises(ConfigurationError, match="on this machine only"), PageServer(FakeClient(), host=host):
        pass


def test_the_server_listens_on_the_loopback_address_only() -> None:
    with PageServer(FakeClient(), port=0) as server:
        port = urlsplit(server.url).port
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect(("127.0.0.2", port or 0))


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {port} cannot be used"):
            PageServer(FakeClient(), port=port).__enter__()


def test_without_a_port_a_second_page_takes_a_free_one() -> None:
    with PageServer(FakeClient()) as first, PageServer(FakeClient()) as second:
        assert urlsplit(first.url).port != urlsplit(second.url).port


def test_the_files_of_a_run_are_deleted_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    tempfile.tempdir = None
    try:
        with PageServer(FakeClient(), port=0) as server:
            upload(server, b"sound")
            run(server, "generate_music", {})
            (folder,) = tmp_path.iterdir()
            assert folder.stat().st_mode & 0o077 == 0
            assert len(list(folder.iterdir())) == 2
        assert list(tmp_path.iterdir()) == []
    finally:
        tempfile.tempdir = None


def test_the_page_learns_the_models_and_the_operations_of_the_worker() -> None:
    def same(job: FakeJob) -> dict[str, Any]:
        return {**list_models(job), "schemas": dict(load_schemas().operations)}

    with PageServer(FakeClient(list_models=same), port=0) as server:
        worker = wait_for_worker(server)
    assert (worker["state"], worker["device"], worker["warnings"]) == ("ready", "cpu", [])
    assert worker["schemas"] == load_schemas().operations
    assert [model["name"] for model in worker["models"]["music"]] == ["demo", "turbo"]
    assert worker["operations"]["add_voice"].startswith("off")


def test_a_worker_with_other_schemas_is_used_with_a_warning() -> None:
    def newer(job: FakeJob) -> dict[str, Any]:
        shipped = dict(load_schemas().operations)
        return {**list_models(job), "version": "9.0.0", "schemas": {**shipped, "dream": {"properties": {}}}}

    with PageServer(FakeClient(list_models=newer), port=0) as server:
        worker = wait_for_worker(server)
    assert "dream" in worker["schemas"]
    assert "9.0.0" in worker["warnings"][0]


def test_a_worker_that_does_not_answer_is_said_and_asked_again_on_request() -> None:
    patience = Patience(request_s=1.0, retry_s=0.0)
    with PageServer(Client(url="http://127.0.0.1:9", patience=patience), port=0) as server:
        worker = wait_for_worker(server)
        assert (worker["state"], worker["code"]) == ("failed", "connection_failed")
        assert post(server, "api/worker", {}).status == 200
        assert wait_for_worker(server)["state"] == "failed"
