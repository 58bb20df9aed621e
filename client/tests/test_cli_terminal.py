"""The command line as a process on a terminal: the progress bar, Ctrl-C, a worker that dies, and how fast it starts."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_platform import KEY, Drop, FakePlatform, completed, in_progress, in_queue, start_platform

from music_worker.config import save_login

pty = pytest.importorskip("pty", reason="a terminal of Unix is needed")
MAIN = (sys.executable, "-c", "from music_worker.cli import main; main()")
PATIENCE_S = 60.0


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePlatform]:
    monkeypatch.chdir(tmp_path)
    with start_platform() as platform:
        save_login(url=platform.url, api_key=KEY)
        yield platform


class Terminal:
    """A command whose standard error is a terminal."""

    def __init__(self, *words: str) -> None:
        leader, follower = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
        self.process = subprocess.Popen(
            [*MAIN, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower, env=environment
        )
        os.close(follower)
        self._leader = leader
        self.text = ""

    def read_until(self, is_reached: Callable[[str], object]) -> None:
        """Reads until the text of the terminal is as wanted; fails if the process ends before."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_reached(self.text):
            assert time.monotonic() < deadline, self.text
            assert self._read() or is_reached(self.text), self.text

    def wait(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while self._read():
            assert time.monotonic() < deadline, self.text
        return self.process.wait(PATIENCE_S)

    def _read(self) -> bool:
        """Whether there may be more."""
        ready, _, _ = select.select([self._leader], [], [], 0.2)
        if not ready:
            return self.process.poll() is None
        try:
            data = os.read(self._leader, 65536)
        except OSError:  # Linux's end of a terminal
            return False
        self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        return bool(data)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self._leader)


@pytest.fixture
def open_terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*words: str) -> Terminal:
        opened.append(Terminal(*words))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def test_the_terminal_shows_the_queue_the_stage_the_share_and_a_waveform(
    endpoint: FakePlatform, open_terminal: Callable[..., Terminal]
) -> None:
    endpoint.script(
        *[in_queue()] * 3, *[in_progress("load_model", 10.0)] * 2, *[in_progress("generate", 60.0)] * 2, completed()
    )
    terminal = open_terminal("music", "calm", "--no-check")
    assert terminal.wait() == 0, terminal.text
    assert terminal.text.index("Queued") < terminal.text.index("Load model") < terminal.text.index("Generate")
    assert "60%" in terminal.text and " left" in terminal.text
    assert re.search("[▁▂▃▄▅▆▇█]{20}", terminal.text), "the waveform"
    assert (Path("calm.wav")).exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_cancels_the_job_on_the_platform(
    endpoint: FakePlatform, open_terminal: Callable[..., Terminal], stop: signal.Signals
) -> None:
    endpoint.script(in_queue(), *[in_progress("generate", 5.0)] * 10_000)
    terminal = open_terminal("music", "calm", "--no-check")
    terminal.read_until(lambda text: "Generate" in text)
    terminal.process.send_signal(stop)
    assert terminal.wait() == 130, terminal.text
    assert endpoint.jobs["job-1"].is_cancelled and "Job job-1 is cancelled." in terminal.text
    assert "Traceback" not in terminal.text
    assert [path for path in Path().iterdir() if path.name != "config"] == []


def test_a_job_that_may_have_started_is_not_sent_twice(endpoint: FakePlatform) -> None:
    endpoint.plan_faults("run", Drop(after_work=True))
    ended = subprocess.run(
        [*MAIN, "music", "calm", "--no-check", "--json"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 3 and len(endpoint.jobs) == 1
    assert json.loads(ended.stdout)["error_code"] == "submission_unknown"


def test_help_imports_neither_httpx_nor_rich_nor_jsonschema() -> None:
    """What makes the command line start quickly; the time itself depends on the machine."""
    listing = [sys.executable, "-X", "importtime", "-c", "from music_worker.cli import main; main()", "--help"]
    ended = subprocess.run(listing, capture_output=True, text=True, check=True)
    imported = set(re.findall(r"\| +([\w.]+)$", ended.stderr, re.MULTILINE))
    assert "music_worker.cli.app" in imported
    slow = {"httpx", "rich", "jsonschema", "numpy", "mcp", "keyring", "music_worker._generated", "asyncio"}
    assert not slow & imported
