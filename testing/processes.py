"""Worker processes for tests, started in a process group of their own with a minimal environment, always killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from testing.repository import ROOT

HANDLER = ROOT / "handler.py"
FAKE_WORKER = Path(__file__).resolve().parent / "fake_worker.py"


@dataclass(frozen=True)
class Worker:
    """A running worker and what it has printed so far."""

    process: subprocess.Popen[bytes]
    log: Path

    def read_output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self, timeout: float = 20.0) -> int:
        return self.process.wait(timeout)


def build_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A minimal environment: no setting of the user's shell reaches the worker."""
    minimal = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return minimal | {"OMP_NUM_THREADS": "1"} | dict(extra or {})  # one thread, because test machines are shared


@contextmanager
def start_worker(script: Path, arguments: Sequence[str], *, home: Path, env: Mapping[str, str]) -> Iterator[Worker]:
    """Runs a worker until the block ends, then kills its process group (the SDK's heartbeat is a child process)."""
    log = home / f"worker-{time.monotonic_ns()}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=home,
            env=build_environment(home, env),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Worker(process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_script(
    script: Path, arguments: Sequence[str], *, home: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a script until it ends."""
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd or home,
        env=build_environment(home, env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
