"""Downloads of releases, from a server on loopback that redirects, cuts, refuses or sends something else."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from errors import CancelledError, ErrorCode, ModelError
from models.checkpoints.checksum import require_sha256
from models.checkpoints.locations import WeightLocations
from models.checkpoints.releases import FOLDER, GitHubReleases, PublishedFile, Release
from models.runtime.progress import Unattended
from testing.loopback import Request, Write, respond_with, serve

RELEASE = Release("owner/name", "v1")
CONTENT = {"model.yaml": b"model: {}", "model.ckpt": os.urandom(3 << 20)}
FILES = [PublishedFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in CONTENT.items()]


@dataclass
class FakeGitHub:
    """Redirects to its assets, as GitHub does. `cuts` connections end in the middle, and `status` refuses."""

    content: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    status: str = ""
    cuts: int = 0
    endpoint: str = ""
    sent: list[str] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    def respond(self, request: Request, write: Write) -> None:
        name = request.path.rpartition("/")[2]
        if self.status:
            respond_with(b"", status=self.status)(request, write)
        elif request.path.startswith("/owner/name/releases/download/v1/"):
            respond_with(b"", status="302 Found", headers=f"Location: /assets/{name}\r\n")(request, write)
        else:
            self.sent.append(name)
            self.go_on.wait()
            data = self.content[name]
            write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode())
            is_cut = self.cuts > 0
            self.cuts -= is_cut
            write(data[: len(data) // 2] if is_cut else data)


@contextmanager
def start_github() -> Iterator[FakeGitHub]:
    github = FakeGitHub()
    github.go_on.set()
    with serve(github.respond) as server:
        github.endpoint = server.url("")
        yield github


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with start_github() as running:
        yield running


@pytest.fixture
def releases(github: FakeGitHub, tmp_path: Path) -> GitHubReleases:
    return GitHubReleases(cache=tmp_path, endpoint=github.endpoint, retry_s=0.01)


def fail_to_fetch(releases: GitHubReleases) -> ModelError:
    with pytest.raises(ModelError) as failed:
        releases.fetch("tiny", RELEASE, FILES)
    assert "127.0.0.1" not in failed.value.message
    return failed.value


def test_files_are_downloaded_through_redirects_the_largest_last_and_only_once(
    releases: GitHubReleases, github: FakeGitHub, tmp_path: Path
) -> None:
    folder = releases.fetch("tiny", RELEASE, FILES)
    assert folder == tmp_path / FOLDER / "tiny" == releases.fetch("tiny", RELEASE, FILES)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert github.sent == ["model.yaml", "model.ckpt"]
    assert list(WeightLocations(hub_caches=(tmp_path,)).iter_released("tiny")) == [folder]


def test_a_connection_that_is_cut_is_tried_again(releases: GitHubReleases, github: FakeGitHub) -> None:
    github.cuts = 1
    assert (releases.fetch("tiny", RELEASE, FILES) / "model.yaml").read_bytes() == CONTENT["model.yaml"]


@pytest.mark.parametrize("content", [b"x" * len(CONTENT["model.ckpt"]), b"short", CONTENT["model.ckpt"] + b"more"])
def test_another_content_than_the_published_one_never_gets_its_name(
    releases: GitHubReleases, github: FakeGitHub, tmp_path: Path, content: bytes
) -> None:
    github.content["model.ckpt"] = content
    assert "not the file that was published" in fail_to_fetch(releases).message
    assert [path.name for path in (tmp_path / FOLDER / "tiny").iterdir()] == ["model.yaml"]


def test_a_refusal_names_the_status(releases: GitHubReleases, github: FakeGitHub) -> None:
    github.status = "404 Not Found"
    error = fail_to_fetch(releases)
    assert error.error_code == ErrorCode.MODEL_UNAVAILABLE and error.details["http_status"] == 404
    assert "github.com answered with HTTP 404" in error.message and "MODELS_DIR" in error.message


def test_an_address_that_nothing_listens_at_cannot_be_reached(tmp_path: Path) -> None:
    error = fail_to_fetch(GitHubReleases(cache=tmp_path, endpoint="http://127.0.0.1:9", retry_s=0.01))
    assert "cannot be reached" in error.message


def test_a_disk_without_room_is_refused_before_the_first_byte(releases: GitHubReleases, github: FakeGitHub) -> None:
    releases.free_bytes = lambda folder: 1 << 20
    assert fail_to_fetch(releases).error_code == ErrorCode.DISK_FULL and github.sent == []


def test_a_cancelled_job_leaves_and_the_download_goes_on(releases: GitHubReleases, github: FakeGitHub) -> None:
    def cancel() -> None:
        raise CancelledError("The job was cancelled.")

    github.go_on.clear()
    with pytest.raises(CancelledError):
        releases.fetch("tiny", RELEASE, FILES, Unattended(cancel))
    github.go_on.set()
    assert (releases.fetch("tiny", RELEASE, FILES) / "model.ckpt").is_file()
    assert github.sent == ["model.yaml", "model.ckpt"]


def test_a_file_in_a_hub_cache_with_another_checksum_is_removed_with_its_content(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    link = tmp_path / "model.ckpt"
    link.symlink_to("blob")
    require_sha256(link, hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(ModelError, match="not the one that was published") as caught:
        require_sha256(link, "0" * 64)
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT
    assert not link.is_symlink() and not (tmp_path / "blob").exists()
