"""Downloads through the hub's real client, from a server on loopback that is slow, cuts, refuses or lies."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from errors import CancelledError, ErrorCode, ModelError
from models.checkpoints.downloads import ABANDONED_S
from models.checkpoints.hf_folder import REQUIRED_FILES
from models.checkpoints.hub import HuggingFaceHub
from models.checkpoints.hub_errors import to_model_error
from models.checkpoints.locations import WeightLocations
from models.musicgen.family import TEXT_ENCODER_FILES
from testing.fake_hub import COMMIT, FakeHub, Refusal, start_fake_hub
from testing.processes import build_environment
from testing.repository import ROOT

REPOSITORY = "org/model"
MEBIBYTE = 1 << 20
TIMEOUT_S = 20.0
FILES = {"config.json": b"{}", "model.safetensors": os.urandom(3 * MEBIBYTE), "pytorch_model.bin": b"pickle" * 1000}


@dataclass
class Watcher:
    """An observer that records what it is told and may be cancelled."""

    reports: list[tuple[str, int, int]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        if self.cancelled.is_set():
            raise CancelledError("The job was cancelled.")

    def warn(self, sentence: str) -> None: ...

    def report_download(self, model: str, done_bytes: int, total_bytes: int) -> None:
        self.reports.append((model, done_bytes, total_bytes))


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with start_fake_hub(dict(FILES)) as hub:
        yield hub


@pytest.fixture
def client(server: FakeHub, tmp_path: Path) -> HuggingFaceHub:
    return HuggingFaceHub(cache=tmp_path / "cache", endpoint=server.endpoint, retry_s=0.01)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, f"not within {TIMEOUT_S} s"
        time.sleep(0.01)


def cache_of(client: HuggingFaceHub) -> Path:
    assert client.cache is not None
    return client.cache


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fail_to_fetch(client: HuggingFaceHub, files: tuple[str, ...] = REQUIRED_FILES) -> ModelError:
    with pytest.raises(ModelError) as failed:
        client.fetch(REPOSITORY, files)
    assert "127.0.0.1" not in failed.value.message and failed.value.details["hub_id"] == REPOSITORY
    return failed.value


def test_safetensors_are_downloaded_and_the_pickle_beside_them_is_not(client: HuggingFaceHub, server: FakeHub) -> None:
    folder = client.fetch(REPOSITORY, REQUIRED_FILES)
    assert read_folder(folder) == {name: FILES[name] for name in ("config.json", "model.safetensors")}
    assert folder.name == COMMIT


def test_the_pickle_is_downloaded_if_the_repository_has_no_safetensors(client: HuggingFaceHub, server: FakeHub) -> None:
    del server.files["model.safetensors"]
    assert set(read_folder(client.fetch(REPOSITORY, REQUIRED_FILES))) == {"config.json", "pytorch_model.bin"}


def test_optional_files_of_a_text_encoder_are_downloaded_if_they_exist(client: HuggingFaceHub, server: FakeHub) -> None:
    server.files["tokenizer.json"] = server.files["tokenizer_config.json"] = b"{}"
    found = set(read_folder(client.fetch("t5-base", TEXT_ENCODER_FILES)))
    assert found == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_the_largest_file_is_downloaded_last(client: HuggingFaceHub, server: FakeHub) -> None:
    client.fetch(REPOSITORY, ("model.safetensors", "pytorch_model.bin", "config.json"))
    assert server.sent == ["config.json", "pytorch_model.bin", "model.safetensors"]


def test_what_is_here_is_not_downloaded_again(client: HuggingFaceHub, server: FakeHub) -> None:
    assert client.fetch(REPOSITORY, REQUIRED_FILES) == client.fetch(REPOSITORY, REQUIRED_FILES)
    assert sorted(server.sent) == ["config.json", "model.safetensors"]


def test_progress_is_reported_in_bytes_up_to_the_total(client: HuggingFaceHub, server: FakeHub) -> None:
    server.files["model.safetensors"] = bytes(30 * MEBIBYTE)
    server.pause_s = 0.02
    watcher = Watcher()
    client.fetch(REPOSITORY, ("model.safetensors",), watcher)
    total = 30 * MEBIBYTE
    assert {(model, whole) for model, _, whole in watcher.reports} == {(REPOSITORY, total)}
    done = [done for _, done, _ in watcher.reports]
    assert done == sorted(done) and len(set(done)) >= 3 and done[-1] <= total


def test_a_cancelled_job_leaves_within_a_second_and_the_next_job_gets_the_same_download(
    client: HuggingFaceHub, server: FakeHub
) -> None:
    server.go_on.clear()
    watcher = Watcher()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.fetch, REPOSITORY, REQUIRED_FILES, watcher)
        wait_for(lambda: "config.json" in server.sent)
        cancelled = time.monotonic()
        watcher.cancelled.set()
        with pytest.raises(CancelledError):
            first.result(TIMEOUT_S)
        assert time.monotonic() - cancelled < 1.0
        second = pool.submit(client.fetch, REPOSITORY, REQUIRED_FILES)
        server.go_on.set()
        assert read_folder(second.result(TIMEOUT_S))["model.safetensors"] == FILES["model.safetensors"]
    assert sorted(server.sent) == ["config.json", "model.safetensors"]


def test_jobs_that_need_the_same_files_share_one_download(client: HuggingFaceHub, server: FakeHub) -> None:
    server.pause_s = 0.05
    with ThreadPoolExecutor(4) as pool:
        folders = {pool.submit(client.fetch, REPOSITORY, REQUIRED_FILES) for _ in range(4)}
        assert len({folder.result(TIMEOUT_S) for folder in folders}) == 1
    assert sorted(server.sent) == ["config.json", "model.safetensors"]
    assert len([path for path in server.asked if path.startswith("/api/")]) == 1


def test_a_connection_that_is_cut_is_resumed(client: HuggingFaceHub, server: FakeHub) -> None:
    server.cuts = 1
    folder = client.fetch(REPOSITORY, ("model.safetensors",))
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert server.sent == ["model.safetensors"] * 2


@pytest.mark.parametrize("drops", [1, 2])
def test_a_request_without_an_answer_is_sent_again(client: HuggingFaceHub, server: FakeHub, drops: int) -> None:
    server.drops = drops
    assert set(read_folder(client.fetch(REPOSITORY, REQUIRED_FILES))) == {"config.json", "model.safetensors"}


def test_a_hub_that_fails_for_a_moment_is_asked_again(client: HuggingFaceHub, server: FakeHub) -> None:
    server.failures = 2
    folder = client.fetch(REPOSITORY, ("model.safetensors",))
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refusal("401 Unauthorized"), ["HTTP 401", "HF_TOKEN"]),
        (
            Refusal("403 Forbidden", "GatedRepo"),
            ["is gated", "Accept its licence at huggingface.co/org/model", "HF_TOKEN"],
        ),
        (Refusal("403 Forbidden"), ["HTTP 403", "HF_TOKEN"]),
        (Refusal("404 Not Found", "RepoNotFound"), ["HTTP 404"]),
        (Refusal("429 Too Many Requests"), ["rate limit", "HF_TOKEN"]),
        (Refusal("500 Internal Server Error"), ["HTTP 500", "Try again later"]),
    ],
    ids=lambda value: value.status if isinstance(value, Refusal) else "",
)
def test_a_refusal_says_why_and_what_to_do(
    client: HuggingFaceHub, server: FakeHub, refusal: Refusal, said: list[str]
) -> None:
    server.refusal = refusal
    error = fail_to_fetch(client)
    assert error.error_code == ErrorCode.MODEL_UNAVAILABLE
    assert error.details["http_status"] == int(refusal.status.split()[0])
    assert [part for part in [*said, "MODELS_DIR"] if part not in error.message] == []


def test_a_hub_that_nothing_listens_at_cannot_be_reached(tmp_path: Path) -> None:
    error = fail_to_fetch(HuggingFaceHub(cache=tmp_path, endpoint="http://127.0.0.1:9"))
    assert "cannot be reached" in error.message and "MODELS_DIR" in error.message


def test_whether_the_hub_answers_is_asked_once_a_minute(
    tmp_path: Path, client: HuggingFaceHub, server: FakeHub
) -> None:
    assert not HuggingFaceHub(cache=tmp_path, endpoint="http://127.0.0.1:9").is_reachable()
    assert client.is_reachable() and client.is_reachable()
    assert server.asked == ["/"]


def test_a_file_of_another_size_than_announced_is_not_used(client: HuggingFaceHub, server: FakeHub) -> None:
    server.announced["model.safetensors"] = 4 * MEBIBYTE
    error = fail_to_fetch(client)
    assert "did not arrive as the hub announced it" in error.message
    assert not list(cache_of(client).rglob("*.safetensors")) and not list(cache_of(client).rglob("*.incomplete"))


def test_a_repository_without_a_needed_file_is_named(client: HuggingFaceHub) -> None:
    error = fail_to_fetch(client, ("config.json", "weights.th|weights.bin"))
    assert error.error_code == ErrorCode.MODEL_INCOMPLETE and "weights.th or weights.bin" in error.message


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ErrorCode.DISK_FULL, "disk became full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ErrorCode.DISK_FULL, "disk became full"),
        (RuntimeError("Data error: No space left on device (os error 28)"), ErrorCode.DISK_FULL, "disk became full"),
        (PermissionError(errno.EACCES, "denied"), ErrorCode.MODEL_UNAVAILABLE, "could not be stored"),
        (httpx2.ReadTimeout("slow"), ErrorCode.MODEL_UNAVAILABLE, "did not answer in time"),
        (httpx2.RemoteProtocolError("cut"), ErrorCode.MODEL_UNAVAILABLE, "cut the connection"),
    ],
    ids=repr,
)
def test_faults_of_the_disk_and_the_network_are_named(error: Exception, code: ErrorCode, said: str) -> None:
    told = to_model_error(error, REPOSITORY)
    assert told.error_code == code and said in told.message


def test_an_offline_worker_says_so(tmp_path: Path) -> None:
    code = (
        "from models.checkpoints.hub import HuggingFaceHub\nfrom errors import ModelError\nfrom pathlib import Path\n"
        f"try: HuggingFaceHub(cache=Path({str(tmp_path)!r})).fetch('org/model', ('a',))\n"
        "except ModelError as error: print(error.message)"
    )
    environment = build_environment(tmp_path, {"HF_HUB_OFFLINE": "1"})
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "HF_HUB_OFFLINE" in done.stdout, done.stderr


def test_a_disk_without_room_is_refused_before_the_first_byte(client: HuggingFaceHub, server: FakeHub) -> None:
    client.free_bytes = lambda folder: MEBIBYTE
    error = fail_to_fetch(client)
    assert error.error_code == ErrorCode.DISK_FULL and server.sent == []
    assert error.details["place"] == str(client.cache)
    assert error.details["free_bytes"] == MEBIBYTE
    assert error.details["needed_bytes"] == len(FILES["config.json"]) + len(FILES["model.safetensors"])
    assert str(client.cache) in error.message


def test_room_is_needed_only_for_what_is_missing(client: HuggingFaceHub) -> None:
    client.fetch(REPOSITORY, ("model.safetensors",))
    client.free_bytes = lambda folder: MEBIBYTE
    assert "config.json" in read_folder(client.fetch(REPOSITORY, REQUIRED_FILES))


def test_models_go_to_the_first_volume_that_is_mounted_can_be_written_and_has_room(
    client: HuggingFaceHub, tmp_path: Path
) -> None:
    names = ("absent", "unwritable", "read_only", "full", "roomy")
    absent, unwritable, read_only, full, roomy = volumes = [tmp_path / name for name in names]
    for volume in volumes[1:]:
        volume.mkdir()
    (unwritable / "huggingface-cache").touch()
    repository = read_only / "huggingface-cache" / "hub" / "models--org--model"
    repository.mkdir(parents=True)
    (repository / "blobs").symlink_to("/proc/self/task")  # a folder in which nobody can make a file
    client.cache, client.volumes = None, volumes
    client.free_bytes = lambda folder: 0 if full in folder.parents else 10 * MEBIBYTE
    assert roomy / "huggingface-cache" / "hub" in client.fetch(REPOSITORY, REQUIRED_FILES).parents
    assert not absent.exists()


def test_the_pinned_revision_is_downloaded_and_found_before_others(server: FakeHub, tmp_path: Path) -> None:
    pinned = "f" * 40
    pins = {REPOSITORY: pinned}
    server.commit = pinned
    client = HuggingFaceHub(cache=tmp_path, revisions=pins, endpoint=server.endpoint)
    folder = client.fetch(REPOSITORY, ("config.json",))
    newer = folder.parent / ("e" * 40)
    newer.mkdir()
    (newer / "config.json").touch()
    refs = folder.parent.parent / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(newer.name)
    assert folder.name == pinned
    assert [path for path in server.asked if pinned in path] == server.asked
    for revisions, expected in ((pins, folder), ({}, newer)):
        weights = WeightLocations(hub_caches=(tmp_path,), revisions=revisions)
        assert weights.find((), (REPOSITORY,), ("config.json",)) == expected


def test_a_pinned_revision_that_the_hub_does_not_have_is_named(server: FakeHub, tmp_path: Path) -> None:
    error = fail_to_fetch(HuggingFaceHub(cache=tmp_path, revisions={REPOSITORY: "f" * 40}, endpoint=server.endpoint))
    assert "pinned revision" in error.message and "PIN_MODELS=0" in error.message


def test_partial_files_of_killed_workers_are_removed_and_those_in_use_are_not(client: HuggingFaceHub) -> None:
    blobs = cache_of(client) / "models--org--model" / "blobs"
    blobs.mkdir(parents=True)
    old, fresh = blobs / "aaaa.1.incomplete", blobs / "bbbb.2.incomplete"
    for path in (old, fresh):
        path.touch()
    long_ago = time.time() - ABANDONED_S - 60
    os.utime(old, (long_ago, long_ago))
    client.fetch(REPOSITORY, REQUIRED_FILES)
    assert not old.exists() and fresh.exists()


PROGRAM = """
import sys
from pathlib import Path
from models.checkpoints.hub import HuggingFaceHub
hub = HuggingFaceHub(cache=Path(sys.argv[1]), endpoint=sys.argv[2])
print(hub.fetch("org/model", ("config.json", "model.safetensors")))
"""


def start_program(cache: Path, server: FakeHub) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(cache), server.endpoint],
        cwd=ROOT,
        env=build_environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_workers_download_to_one_volume_at_once(server: FakeHub, tmp_path: Path) -> None:
    server.pause_s = 0.1
    workers = [start_program(tmp_path, server) for _ in range(2)]
    printed = [worker.communicate(timeout=60) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    (folder,) = {Path(out.strip()) for out, _ in printed}
    assert read_folder(folder)["model.safetensors"] == FILES["model.safetensors"]
    assert {err for _, err in printed} == {""}  # no progress bars


def test_a_worker_that_is_killed_in_the_middle_does_not_spoil_the_volume(server: FakeHub, tmp_path: Path) -> None:
    server.go_on.clear()
    first = start_program(tmp_path, server)
    wait_for(lambda: bool(server.sent))
    first.kill()
    first.communicate(timeout=60)
    server.go_on.set()
    second = start_program(tmp_path, server)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert read_folder(Path(out.strip()))["model.safetensors"] == FILES["model.safetensors"]


def test_a_worker_that_ends_does_not_wait_for_its_downloads(server: FakeHub, tmp_path: Path) -> None:
    server.go_on.clear()
    program = (
        "import sys, threading, time\nfrom pathlib import Path\nfrom models.checkpoints.hub import HuggingFaceHub\n"
        "from models.runtime.progress import Unattended\n"
        "hub = HuggingFaceHub(cache=Path(sys.argv[1]), endpoint=sys.argv[2])\n"
        "def check():\n    if time.monotonic() > end: raise SystemExit('cancelled')\n"
        "end = time.monotonic() + 1.0\nhub.fetch('org/model', ('model.safetensors',), Unattended(check))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), server.endpoint],
        cwd=ROOT,
        env=build_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.stderr.strip() == "cancelled"
