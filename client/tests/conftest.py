"""A fake platform for every test, and an environment without the user's own settings."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_platform import KEY, FakePlatform, start_platform

from music_worker import AsyncClient, Client, Patience

PATIENCE = Patience(
    request_s=2.0,
    retry_s=1.0,
    queue_full_s=1.0,
    first_poll_s=0.01,
    max_poll_s=0.05,
    first_retry_s=0.02,
    max_retry_s=0.05,
)

# A shell without job control starts what it puts into the background with Ctrl-C ignored, which this process and the
# commands that tests start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("RUNPOD_", "BUCKET_", "MUSIC_WORKER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MUSIC_WORKER_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")


@pytest.fixture
def platform() -> Iterator[FakePlatform]:
    with start_platform() as started:
        yield started


@pytest.fixture
def client(platform: FakePlatform) -> Iterator[Client]:
    with Client(url=platform.url, api_key=KEY, patience=PATIENCE) as opened:
        yield opened


def open_async(platform: FakePlatform) -> AsyncClient:
    return AsyncClient(url=platform.url, api_key=KEY, patience=PATIENCE)
