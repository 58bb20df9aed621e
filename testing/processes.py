"""Worker processes for tests: in a process group of their own, which is killed at the end and when the tests die."""

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
from typing import IO

from testing.repository import ROOT

HANDLER = ROOT / "handler.py"
FAKE_WORKER = Path(__file__).resolve().parent / "fake_worker.py"
# Waits for a line on standard input; if the input ends without one, kills the process group whose number it is given.
_GUARD = ("sh", "-c", 'read -r line || kill -s KILL -- "-$1"', "guard")


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
def start_process(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    output: IO[bytes] | int,
    errors: IO[bytes] | int,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command until the block ends, then kills its process group: the SDK's heartbeat is a child of a worker.

    The group is killed as well if this process dies in the meantime, even by SIGKILL: `_GUARD` reads from a pipe that
    only this process can write to, and the end of the file tells it so.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )
    guard = subprocess.Popen([*_GUARD, str(process.pid)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        guard.communicate(b"done\n")


@contextmanager
def start_worker(script: Path, arguments: Sequence[str], *, home: Path, env: Mapping[str, str]) -> Iterator[Worker]:
    """Runs a worker until the block ends."""
    log = home / f"worker-{time.monotonic_ns()}.log"
    command = [sys.executable, str(script), *arguments]
    with (
        log.open("wb") as sink,
        start_process(
            command, cwd=home, env=build_environment(home, env), output=sink, errors=subprocess.STDOUT
        ) as process,
    ):
        yield Worker(process, log)


def run_script(
    script: Path, arguments: Sequence[str], *, home: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a script until it ends."""
    command, environment = [sys.executable, str(script), *arguments], build_environment(home, env)
    with start_process(
        command, cwd=cwd or home, env=environment, output=subprocess.PIPE, errors=subprocess.PIPE
    ) as process:
        output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, output.decode(), errors.decode())
