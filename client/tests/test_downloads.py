"""Files that appear when they are complete: names, faults of links, resumed downloads, full disks."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from fake_platform import Answer, Cut, Drop, FakePlatform

from music_worker import FileOutput, errors
from music_worker.downloads import PartialFile, choose_name, clean_name, raise_output_error

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def make_output(url: str, *, sha256: str | None = SHA256, size: int | None = len(CONTENT)) -> FileOutput:
    return FileOutput(filename="song.wav", format="wav", url=url, sha256=sha256, size=size)


def list_ranges(platform: FakePlatform) -> list[str | None]:
    return [request.headers.get("range") for request in platform.list_requests("file")]


def test_a_download_is_complete_and_gets_no_key(platform: FakePlatform, tmp_path: Path) -> None:
    output = make_output(platform.serve_file("song.wav", CONTENT))
    assert output.save(tmp_path / "new" / "a.wav").read_bytes() == CONTENT == output.bytes()
    assert os.listdir(tmp_path / "new") == ["a.wav"]
    assert all("authorization" not in request.headers for request in platform.requests)


@pytest.mark.parametrize("etag", [None, "v1"])
def test_an_interrupted_download_goes_on_after_its_last_byte(
    platform: FakePlatform, tmp_path: Path, etag: str | None
) -> None:
    url = platform.serve_file("song.wav", CONTENT, etag=etag)
    platform.plan_faults("file", Cut(100_000), Drop() if etag else Answer(503))
    assert make_output(url).save(tmp_path / "a.wav").read_bytes() == CONTENT
    first, *later = list_ranges(platform)
    assert first is None and set(later) == {"bytes=100000-"}
    assert sum(request.headers.get("if-range") == '"v1"' for request in platform.list_requests("file")) == (
        2 if etag else 0
    )


def test_a_download_whose_file_has_changed_is_started_again(platform: FakePlatform, tmp_path: Path) -> None:
    url = platform.serve_file("song.wav", bytes(300_000), etag="old")
    platform.plan_faults("file", Cut(100_000))

    class ChangingFiles(dict[str, Any]):
        """The file is replaced after the first request."""

        def get(self, name: str, default: Any = None) -> Any:
            found = super().get(name, default)
            self[name] = type(found)(CONTENT, etag="new")
            return found

    platform.files = ChangingFiles(platform.files)
    assert make_output(url).save(tmp_path / "a.wav").read_bytes() == CONTENT


def test_a_download_with_neither_a_version_nor_a_checksum_is_started_again(
    platform: FakePlatform, tmp_path: Path
) -> None:
    url = platform.serve_file("song.wav", CONTENT)
    platform.plan_faults("file", Cut(100_000))
    assert make_output(url, sha256=None).save(tmp_path / "a.wav").read_bytes() == CONTENT
    assert list_ranges(platform) == [None, None]


def test_a_server_without_ranges_sends_the_file_again(platform: FakePlatform, tmp_path: Path) -> None:
    url = platform.serve_file("song.wav", CONTENT, takes_ranges=False)
    platform.plan_faults("file", Cut(100_000))
    assert make_output(url, size=None).save(tmp_path / "a.wav").read_bytes() == CONTENT


def test_what_is_not_the_workers_file_is_tried_again_once_and_then_an_error(
    platform: FakePlatform, tmp_path: Path
) -> None:
    output = make_output(platform.serve_file("song.wav", bytes(len(CONTENT))))
    with pytest.raises(errors.ChecksumError, match="not what the worker made"):
        output.save(tmp_path / "a.wav")
    assert os.listdir(tmp_path) == [] and len(platform.list_requests("file")) == 2


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_expired_link_is_an_error_without_the_link_and_without_a_file(
    platform: FakePlatform, tmp_path: Path, status: int
) -> None:
    output = make_output(platform.serve_file("song.wav", CONTENT))
    platform.plan_faults("file", Answer(status, b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(errors.LinkExpiredError, match=f"HTTP status {status}") as caught:
        output.save(tmp_path / "a.wav")
    assert "secret-signature" not in str(caught.value) + repr(output)
    assert os.listdir(tmp_path) == [] and len(platform.list_requests("file")) == 1


def test_a_link_that_expires_during_the_download_leaves_nothing(platform: FakePlatform, tmp_path: Path) -> None:
    output = make_output(platform.serve_file("song.wav", CONTENT))
    platform.plan_faults("file", Cut(1000), Answer(403))
    with pytest.raises(errors.LinkExpiredError):
        output.save(tmp_path / "a.wav")
    assert os.listdir(tmp_path) == []


def test_a_server_that_refuses_the_link_is_an_error(platform: FakePlatform) -> None:
    output = make_output(platform.serve_file("song.wav", CONTENT))
    platform.plan_faults("file", Answer(400))
    with pytest.raises(errors.DownloadError, match="HTTP status 400"):
        output.bytes()


def test_a_link_that_redirects_is_followed(platform: FakePlatform, tmp_path: Path) -> None:
    url = platform.serve_file("song.wav", CONTENT)
    platform.plan_faults("file", Answer(302, headers={"Location": url}))
    assert make_output(url).save(tmp_path / "a.wav").read_bytes() == CONTENT


def test_the_async_download_is_resumed_as_well(platform: FakePlatform, tmp_path: Path) -> None:
    output = make_output(platform.serve_file("song.wav", CONTENT, etag="v1"))
    platform.plan_faults("file", Cut(100_000))
    assert asyncio.run(output.save_async(tmp_path / "a.wav")).read_bytes() == CONTENT
    assert asyncio.run(output.bytes_async()) == CONTENT
    assert list_ranges(platform) == [None, "bytes=100000-", None]


def test_existing_files_are_kept_and_new_ones_get_a_number(tmp_path: Path) -> None:
    paths = [PartialFile(tmp_path / "a.wav").write(bytes([n])) for n in range(3)]
    assert [path.name for path in paths] == ["a.wav", "a-2.wav", "a-3.wav"]
    assert [path.read_bytes() for path in paths] == [b"\x00", b"\x01", b"\x02"]
    assert PartialFile(tmp_path / "a.wav", overwrite=True).write(b"new").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a-2.wav", "a-3.wav", "a.wav"]
    mask = os.umask(0)
    os.umask(mask)
    assert paths[0].stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), PartialFile(tmp_path / "a.wav") as part:
        part.append(b"half")
        assert not (tmp_path / "a.wav").exists() and len(os.listdir(tmp_path)) == 1
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_file_that_does_not_fit_on_the_disk_is_refused_before_it_is_fetched(
    platform: FakePlatform, tmp_path: Path
) -> None:
    output = make_output(platform.serve_file("song.wav", CONTENT), size=10**18)
    with pytest.raises(errors.DiskFullError, match="Free space") as caught:
        output.save(tmp_path / "a.wav")
    assert caught.value.details["needed"] == 10**18
    assert os.listdir(tmp_path) == [] and platform.requests == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
def test_a_disk_that_is_full_while_a_file_is_written_is_a_clear_error(tmp_path: Path) -> None:
    class FullFile(PartialFile):
        """A part file on a full disk."""

        def __enter__(self) -> PartialFile:
            super().__enter__()
            assert self._file is not None
            self._file.close()
            self._file = open("/dev/full", "wb")
            return self

    with pytest.raises(errors.DiskFullError, match="The disk is full"):
        FullFile(tmp_path / "a.wav").write(b"x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, errors.DiskFullError), (errno.EDQUOT, errors.DiskFullError)]
)
def test_no_space_and_no_quota_are_the_same_error(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        raise_output_error(OSError(number, "text"), Path("a.wav"))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.OutputError, match="cannot be written"):
        PartialFile(tmp_path / "file" / "a.wav").write(b"x")


Name = namedtuple("Name", ["given", "cleaned"])
NAMES = (
    Name("song.wav", "song.wav"),
    Name("../../etc/passwd", "passwd"),
    Name("C:\\Windows\\a.wav", "a.wav"),
    Name("a:b*c?.wav", "a_b_c_.wav"),
    Name("\x00\n.wav", "__.wav"),
    Name("..", "result"),
    Name("", "result"),
    Name(".hidden", "hidden"),
    Name("x" * 300 + ".wav", "x" * 120 + ".wav"),
    Name("Für Elise (live).flac", "Für Elise (live).flac"),
)


@pytest.mark.parametrize("name", NAMES, ids=[repr(name.given[:20]) for name in NAMES])
def test_nothing_of_a_workers_file_name_but_a_plain_name_counts(name: Name, tmp_path: Path) -> None:
    assert clean_name(name.given) == name.cleaned
    assert choose_name(f"{tmp_path}/new/", name.given).parent == tmp_path / "new"
    assert choose_name(tmp_path, name.given) == tmp_path / name.cleaned
    assert choose_name(tmp_path / "mine.wav", name.given) == tmp_path / "mine.wav"
