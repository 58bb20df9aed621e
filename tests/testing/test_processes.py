"""Processes that tests start do not outlive the tests, however the tests end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testing.processes import build_environment

WORKER = """
import os, subprocess, time
child = subprocess.Popen(["sleep", "1000"])
print(os.getpid(), child.pid, flush=True)
time.sleep(1000)
"""
TESTS = """
import sys, time
from pathlib import Path
from testing.processes import start_worker
home = Path(sys.argv[1])
with start_worker(home / "worker.py", [], home=home, env={}):
    time.sleep(1000)
"""


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for_pids(home: Path) -> list[int]:
    """The numbers of the worker and of its child, as soon as the worker has printed them."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for log in home.glob("worker-*.log"):
            if (text := log.read_text()).endswith("\n"):
                return [int(word) for word in text.split()]
        time.sleep(0.02)
    raise AssertionError("the worker did not start")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_workers_and_their_children_end_when_the_tests_are_killed(
    tmp_path: Path, signal_number: signal.Signals
) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    tests = subprocess.Popen(
        [sys.executable, "-c", TESTS, str(tmp_path)], env=build_environment(tmp_path), start_new_session=True
    )
    try:
        pids = wait_for_pids(tmp_path)
        assert [is_running(pid) for pid in pids] == [True, True]
    finally:
        tests.send_signal(signal_number)
        tests.wait()
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [is_running(pid) for pid in pids] == [False, False]
