"""The environment of the tests, and fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from testing.property_tests import register_profiles

# Read by huggingface_hub when it is imported, here and in the processes that tests start.
for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.pop(variable, None)

# Tiny matrices are slower on several threads, and many times slower if other processes keep the cores busy. torch reads
# this when it is imported, here and in the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

register_profiles(in_ci=bool(os.environ.get("CI")))


def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores: for a quarter of the time tests wait for workers, servers and deadlines."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests start first: a long one that starts last would keep one core busy and the others idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of an S3 server over real HTTP."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
