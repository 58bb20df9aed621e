"""The whole worker, `handler.py`, under the SDK: in the job loop, in the local API, and as a local run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from testing.control_plane import ControlPlane, start_control_plane
from testing.local_api import Api, find_free_port, wait_until_ready
from testing.processes import HANDLER, Worker, run_script, start_worker
from testing.repository import ROOT

Run = tuple[ControlPlane, Worker]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random weights of the real architecture, in the real format."""
    from testing.tiny_musicgen import write_checkpoint

    folder = tmp_path_factory.mktemp("models")
    write_checkpoint(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Run]:
    home = tmp_path_factory.mktemp("platform")
    with start_control_plane() as plane:
        env = plane.environment() | {"MODELS_DIR": str(models_dir)}
        with start_worker(HANDLER, [], home=home, env=env) as worker:
            yield plane, worker


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    port = find_free_port()
    home = tmp_path_factory.mktemp("api")
    with start_worker(HANDLER, ["--rp_serve_api", "--rp_api_port", str(port)], home=home, env={}) as worker:
        wait_until_ready(local_api := Api(port, worker))
        yield local_api


def test_health_check_returns_a_status_on_the_platform(platform: Run) -> None:
    plane, _ = platform
    output = plane.result(plane.submit({"operation": "health_check"}))["output"]
    assert output["success"] is True and output["status"] in ("healthy", "degraded")


@pytest.mark.parametrize("job_input", [{}, {"operation": "helth_check"}, {"operation": 3}, [], "text", None, 7, True])
def test_a_refusal_is_posted_as_a_sentence(platform: Run, job_input: object) -> None:
    plane, _ = platform
    body = plane.result(plane.submit(job_input))
    assert isinstance(body["error"], str) and body["output"]["error_code"] != "internal_error"


def test_a_cancelled_generation_ends_and_the_next_one_succeeds(platform: Run) -> None:
    plane, worker = platform
    long, short = ({"operation": "generate_music", "prompt": "piano", "model": "tiny", "duration": d} for d in (600, 1))
    stopped = plane.submit(long)
    plane.wait(stopped, "progress", timeout=120)
    plane.stop(stopped)
    output = plane.result(plane.submit(short), timeout=120)["output"]
    assert output["success"] is True and output["duration"] == pytest.approx(1, abs=0.1)
    assert not plane.find_events(stopped, "done")
    lines = [json.loads(line) for line in worker.read_output().splitlines() if line.startswith("{")]
    assert [line for line in lines if line["requestId"] == stopped and "Refused: cancelled" in line["message"]]
    assert output["output_audio"][:64] not in worker.read_output()


def list_curl_commands() -> list[list[str]]:
    """The README's requests to the local API, except those for music: tests/test_docs.py runs them."""
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("curl ")]
    return [shlex.split(line) for line in lines if "generate_music" not in line]


def test_the_readme_has_curl_commands() -> None:
    assert len(list_curl_commands()) >= 2


@pytest.mark.parametrize("words", list_curl_commands(), ids=lambda words: words[words.index("-d") + 1])
def test_the_readmes_curl_commands_succeed(api: Api, words: list[str]) -> None:
    address = next(word for word in words if word.startswith("http://localhost:8000/"))
    header, _, value = words[words.index("-H") + 1].partition(": ")
    status, reply = api.call(
        words[words.index("-X") + 1], urlsplit(address).path, words[words.index("-d") + 1], {header: value}
    )
    assert (status, reply["status"]) == (200, "COMPLETED") and reply["output"]["success"] is True


def test_the_local_api_returns_every_error_of_a_request(api: Api) -> None:
    reply = api.runsync(operation="generate_music", prompt=3, durration=4)
    assert reply["status"] == "FAILED" and "'prompt'" in reply["error"] and "duration" in reply["error"]


def test_a_local_run_from_any_folder_writes_the_requested_music(tmp_path: Path, models_dir: Path) -> None:
    env = {"OUTPUT_DIR": str(tmp_path / "out"), "MODELS_DIR": str(models_dir)}
    job = {"input": {"operation": "generate_music", "prompt": "piano", "model": "tiny", "duration": 1}}
    process = run_script(HANDLER, ["--test_input", json.dumps(job)], home=tmp_path, env=env)
    assert process.returncode == 0, process.stderr
    reply = json.loads(process.stdout)
    path = Path(reply["output_file"])
    assert path.parent == tmp_path / "out" and path.stat().st_size == reply["size"] and str(path) in process.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
