"""Runs the worker of a repository on this machine: started on a free port, and stopped with everything it started."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from music_worker.errors import LocalWorkerError

START_TIMEOUT_S = 120.0
STOP_GRACE_S = 5.0
POLL_S = 0.1
PORT_ATTEMPTS = 3
SHOWN_LINES = 15
INLINE_BUDGET_BYTES = 1_000_000_000
# Reads from a pipe that only this process can write to. The pipe ends without a line if this process dies, even by
# SIGKILL; the worker's process group is then ended, and its temporary folder removed.
GUARD = (
    "sh",
    "-c",
    'read -r line || { kill -s TERM -- "-$1"; sleep 2; kill -s KILL -- "-$1"; rm -rf -- "$2"; } 2>/dev/null',
    "guard",
)


class LocalWorker:
    """A worker on this machine, in a process group of its own. Use it in a `with` block, or call `start` and `stop`.

    Args:
        repository: the worker's repository; default: MUSIC_WORKER_REPOSITORY, else the current folder or one above it.
        python: the interpreter with the worker's packages; default: WORKER_PYTHON, else the repository's `.venv`.
        env: further environment variables for the worker, such as MODELS_DIR.
        start_timeout_s: the longest time until the worker answers.
        command: what is started in place of `python handler.py`; `--rp_serve_api` and the port are added.
    """

    def __init__(
        self,
        repository: str | Path | None = None,
        *,
        python: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
        command: Sequence[str] | None = None,
    ) -> None:
        self._repository = find_repository(repository)
        self._command = list(command or (str(find_python(self._repository, python)), "handler.py"))
        self._env = dict(env or {})
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self.url = ""

    def start(self) -> Self:
        """Returns when the worker answers.

        Raises:
            LocalWorkerError: the worker did not start; the message has the end of its log.
        """
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = _find_free_port()
            self._launch(port)
            try:
                self._wait_until_ready()
            except BaseException as error:
                is_taken = "address already in use" in self.read_log().lower()
                self.stop()
                if isinstance(error, LocalWorkerError) and is_taken and attempt < PORT_ATTEMPTS:
                    continue
                raise
            atexit.register(self.stop)
            return self
        raise AssertionError("every attempt returns or raises")

    def stop(self) -> None:
        """Ends the worker and everything that it started, and removes its temporary files."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            _end_process(process)
        if self._guard is not None:
            with suppress(OSError):
                self._guard.communicate(b"done\n", timeout=STOP_GRACE_S)
            self._guard = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def check(self) -> None:
        """Raises `LocalWorkerError` if the worker has ended."""
        if self._process is None:
            raise LocalWorkerError("The local worker has been stopped.")
        if (status := self._process.poll()) is not None:
            raise LocalWorkerError(
                f"The local worker ended with status {status}. The end of its log:\n{self._read_last_lines()}",
                details={"status": status},
            )

    def read_log(self) -> str:
        """What the worker has printed so far."""
        if self._folder is None:
            return ""
        with suppress(OSError):
            return (self._folder / "worker.log").read_text(encoding="utf-8", errors="replace")
        return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, port: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="music-worker-"))
        arguments = ["--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port)]
        try:
            with (self._folder / "worker.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [*self._command, *arguments],
                    cwd=self._repository,
                    env=build_environment(self._folder, self._env),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            self.stop()
            raise LocalWorkerError(
                f"The local worker cannot be started with {self._command[0]}: {error.strerror}."
            ) from None
        if os.name == "posix":
            self._guard = subprocess.Popen(
                [*GUARD, str(self._process.pid), str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.url = f"http://127.0.0.1:{port}"

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while time.monotonic() < deadline:
                self.check()
                try:
                    if client.get(f"{self.url}/health").status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                        return self.check()
                except httpx.TransportError:
                    pass  # it does not listen yet
                time.sleep(POLL_S)
        raise LocalWorkerError(
            f"The local worker did not answer within {self._start_timeout_s:g} s. The end of its log:\n"
            f"{self._read_last_lines()}"
        )

    def _read_last_lines(self) -> str:
        return "\n".join(self.read_log().splitlines()[-SHOWN_LINES:]) or "(nothing)"


def find_repository(given: str | Path | None = None) -> Path:
    """The folder of the worker's repository."""
    if chosen := given or os.environ.get("MUSIC_WORKER_REPOSITORY"):
        folder = Path(chosen).expanduser().resolve()
        if not _is_repository(folder):
            raise LocalWorkerError(f"{folder} is not the worker's repository: it has no handler.py.")
        return folder
    here = Path.cwd()
    for folder in (here, *here.parents, *Path(__file__).resolve().parents):
        if _is_repository(folder):
            return folder
    raise LocalWorkerError(
        "The worker's repository was not found. Change into its folder, or set MUSIC_WORKER_REPOSITORY to it."
    )


def find_python(repository: Path, given: str | Path | None = None) -> Path:
    """The interpreter that has the worker's packages."""
    if chosen := given or os.environ.get("WORKER_PYTHON"):
        return Path(chosen)
    name = Path("Scripts/python.exe") if os.name == "nt" else Path("bin/python")
    if (python := repository / ".venv" / name).exists():
        return python
    raise LocalWorkerError(
        f"The worker's packages are not installed in {repository}. Run `uv sync` there, or set WORKER_PYTHON to an "
        "interpreter that has them."
    )


def build_environment(folder: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment: this one without what belongs to the client or to a RunPod machine.

    The API key in particular stays here. Replies may be large, because no platform limits them.
    """
    foreign = ("RUNPOD_", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "MUSIC_WORKER_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        "INLINE_BUDGET_BYTES": str(INLINE_BUDGET_BYTES),
        **own,
        "TMPDIR": str(folder),
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


def _is_repository(folder: Path) -> bool:
    return (folder / "handler.py").is_file() and (folder / "operations").is_dir()


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_process(process: subprocess.Popen[bytes]) -> None:
    """Asks the process group to end, and kills what is left of it after a grace period."""
    if sys.platform == "win32":
        process.terminate()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_GRACE_S)
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
