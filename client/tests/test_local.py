"""A worker that is started on this machine: found, waited for, stopped, and reported when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_platform import KEY

from music_worker import Client, WorkerError, errors
from music_worker.jobs import Progress
from music_worker.local import LocalWorker, build_environment, find_python, find_repository

ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import http.server, json, os, subprocess, sys
port = int(sys.argv[sys.argv.index("--rp_api_port") + 1])
child = subprocess.Popen(["sleep", "600"])
open(os.environ["CHILD_FILE"], "w").write(str(child.pid))
print("secret of the environment:", os.environ.get("RUNPOD_API_KEY"), os.environ["TMPDIR"], flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"jobs": {"inQueue": 0}, "workers": {"idle": 1}}).encode())
    def do_POST(self):
        print("the worker dies", flush=True)
        os._exit(9)
    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "operations").mkdir(parents=True)
    (folder / "handler.py").write_text(SERVER)
    return folder


def make_worker(repository: Path, script: str = "handler.py", start_timeout_s: float = 20.0) -> LocalWorker:
    env = {"CHILD_FILE": str(repository / "child")}
    return LocalWorker(repository, command=[sys.executable, script], env=env, start_timeout_s=start_timeout_s)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_worker_is_stopped_with_all_that_it_started_and_leaves_nothing(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    with make_worker(repository) as worker:
        with Client(url=worker.url) as client:
            assert client.health().workers == {"idle": 1}
        log = worker.read_log()
        child = int((repository / "child").read_text())
        assert is_alive(child) and KEY not in log
        folder = Path(log.split()[-1])
        assert folder.is_dir()
    wait_until(lambda: not is_alive(child))
    assert not folder.exists()
    worker.stop()


def test_a_worker_that_dies_is_reported_with_the_end_of_its_log(repository: Path) -> None:
    env = {"CHILD_FILE": str(repository / "child")}
    with (
        Client.local(repository, command=[sys.executable, "handler.py"], env=env) as client,
        pytest.raises(errors.LocalWorkerError, match="ended with status 9(.|\n)*the worker dies"),
    ):
        client.run("generate_music")


def test_a_worker_that_does_not_start_is_an_error_with_its_log(repository: Path) -> None:
    (repository / "broken.py").write_text("raise SystemExit('torch is not installed')")
    with pytest.raises(errors.LocalWorkerError, match="ended with status 1(.|\n)*torch is not installed"):
        make_worker(repository, "broken.py").start()
    (repository / "hangs.py").write_text("import time; print('loading', flush=True); time.sleep(60)")
    with pytest.raises(errors.LocalWorkerError, match="did not answer within 1 s(.|\n)*loading"):
        make_worker(repository, "hangs.py", 1.0).start()
    with pytest.raises(errors.LocalWorkerError, match="cannot be started with"):
        LocalWorker(repository, command=[str(repository / "none")]).start()


@pytest.mark.skipif(os.name != "posix", reason="process groups are those of POSIX")
def test_a_client_that_is_killed_takes_its_worker_with_it(repository: Path) -> None:
    script = (
        "import sys, time; from music_worker.local import LocalWorker\n"
        f"worker = LocalWorker({str(repository)!r}, command=[sys.executable, 'handler.py'],"
        f" env={{'CHILD_FILE': {str(repository / 'child')!r}}})\n"
        "worker.start(); print(worker._process.pid, worker._folder, flush=True); time.sleep(600)"
    )
    client = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    with client:
        pid, folder = client.stdout.readline().split()
        worker = int(pid)
        assert Path(folder).is_dir()
        child = int((repository / "child").read_text())
        assert is_alive(worker) and is_alive(child)
        client.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(worker) and not is_alive(child) and not Path(folder).exists())


def test_the_repository_is_found_from_a_folder_below_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "music").mkdir()
    monkeypatch.chdir(repository / "music")
    assert find_repository() == repository
    monkeypatch.setenv("MUSIC_WORKER_REPOSITORY", str(ROOT))
    assert find_repository() == ROOT
    with pytest.raises(errors.LocalWorkerError, match="has no handler.py"):
        find_repository(repository / "music")


def test_a_repository_without_its_packages_is_named_with_the_command_to_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKER_PYTHON", raising=False)
    with pytest.raises(errors.LocalWorkerError, match="uv sync"):
        find_python(repository)
    monkeypatch.setenv("WORKER_PYTHON", sys.executable)
    assert find_python(repository) == Path(sys.executable)


def test_the_workers_environment_has_nothing_of_the_clients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID", "PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("MODELS_DIR", "/models")
    env = build_environment(tmp_path, {"DEVICE": "cpu"})
    assert not {"RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID", "PYTHONPATH", "VIRTUAL_ENV"} & set(env)
    assert (env["MODELS_DIR"], env["DEVICE"], env["TMPDIR"]) == ("/models", "cpu", str(tmp_path))


@pytest.fixture(scope="module")
def worker_python() -> Path:
    python = Path(os.environ.get("WORKER_PYTHON") or ROOT / ".venv/bin/python")
    if not python.exists():
        pytest.skip("the worker's packages are not installed: run `uv sync` in the repository, or set WORKER_PYTHON")
    return python


def test_the_real_worker_makes_music_reports_progress_and_refuses_with_a_code(
    worker_python: Path, tmp_path: Path
) -> None:
    env = {"OMP_NUM_THREADS": "1", "DEVICE": "cpu"}
    with Client.local(ROOT, python=worker_python, env=env) as client:
        song = client.generate_music(prompt="calm piano", duration=2.0, seed=1)
        path = song.save(tmp_path / "song.wav")
        assert path.read_bytes()[:4] == b"RIFF" and song.array().shape[1] == 2 * (song.sample_rate or 0)
        assert song["model_used"]
        analysis = client.analyze(audio=path)
        assert analysis["duration"] == pytest.approx(2.0, abs=0.01)
        with pytest.raises(WorkerError, match="duration") as caught:
            client.run("generate_music", {"prompt": "x", "duration": 1000})
        assert caught.value.code == "invalid_request" and caught.value.details["errors"][0]["field"] == "duration"
        job, stages = client.submit("generate_music", {"prompt": "x", "duration": 300}), list[str]()

        def cancel_when_it_has_begun(progress: Progress) -> None:
            if progress.stage and not stages:
                stages.append(progress.stage)
                job.cancel()

        with pytest.raises(errors.JobCancelledError):
            job.wait(on_progress=cancel_when_it_has_begun)
        assert stages
        assert client.health().jobs["completed"] == 2
