"""A temporary folder that is missing, read-only or full is one error, from every place that writes to it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from audio.temporary import SpooledFile, require_disk_space, require_temporary_folder, try_writing
from audio.types import DiskAudio
from errors import DiskFullError
from testing.repository import ROOT
from testing.signals import encode_with_ffmpeg, make_tone, needs_ffmpeg

MISSING: Final = "/no/such/folder"


@pytest.fixture
def missing_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", MISSING)


def spool_a_megabyte() -> None:
    with SpooledFile(1000) as file:
        file.write(bytes(1 << 20))


USES: Final[dict[str, Callable[[], object]]] = {
    "audio on disk": lambda: DiskAudio(2, 44_100),
    "a spooled file": spool_a_megabyte,
    "the check before the work": require_temporary_folder,
    "the check of free space": lambda: require_disk_space(1000),
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.usefixtures("missing_folder")
def test_a_missing_temporary_folder_is_an_error_that_says_what_to_set_and_names_no_path(name: str) -> None:
    with pytest.raises(DiskFullError, match="set TMPDIR") as caught:
        USES[name]()
    assert caught.value.error_code == "disk_full" and MISSING not in caught.value.message


def test_a_request_too_large_for_the_disk_is_refused_before_the_work() -> None:
    with pytest.raises(DiskFullError) as caught:
        require_disk_space(1 << 60)
    assert caught.value.details["needed_bytes"] == 1 << 60
    require_disk_space(0)


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    try_writing(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError):  # noqa: PT011  (which one differs between file systems)
        try_writing(Path("/proc/self"))


def test_a_spooled_file_reads_back_what_was_written(no_files_left: Path) -> None:
    with SpooledFile(1000) as file:
        for number in range(50):
            assert file.write(bytes([number]) * 100) == 100
        assert file.seek(0, io.SEEK_END) == 5000
        file.seek(0)
        assert file.read() == b"".join(bytes([number]) * 100 for number in range(50))


def test_the_write_that_finds_the_disk_full_raises_and_closing_does_not() -> None:
    with SpooledFile(1000) as file, open("/dev/full", "wb") as full:
        file.write(bytes(10))
        file.rollover()
        os.dup2(full.fileno(), file.fileno())
        with pytest.raises(DiskFullError, match="disk is full"):
            file.write(bytes(10))


# A file size limit is a full disk that needs no root: every file ends at 100 kB.
FILL: Final = """
import base64, functools, io, json, resource, sys
import numpy as np
import soundfile
from audio import Audio
from audio.disk import materialize_one
from audio.files.encode import encode
from audio.files.formats import Encoding
from audio.temporary import SpooledFile
from testing.loopback import respond_with, serve
from worker.input.load import load_audio
from worker.job import Job
from worker.output.artefacts import OutputEncoder
from worker.reply import AudioOut, Output, Reply
from worker.settings import Settings

noise = Audio(np.random.default_rng(0).uniform(-1, 1, (2, 44100 * 15)).astype(np.float32), 44100)
settings = Settings(allow_private_urls=True)

def write(format):
    with SpooledFile(1000) as file:
        encode(noise, Encoding(format), file)

def deliver():
    encoder = OutputEncoder(Reply(outputs=[Output(noise, "a")]), AudioOut(), Job(id="j"))
    with encoder.encode(Encoding("wav", 32)):
        pass

def load(source, **options):
    load_audio(source, field="audio", job=Job(id="j"), settings=settings, **options)

def fetch(body):
    with serve(respond_with(body)) as server:
        load(server.url())

large = bytes(b"fLaC") + bytes(20 << 20)
m4a = open(sys.argv[1], "rb").read()
with io.BytesIO() as file:
    soundfile.write(file, np.zeros((44100 * 10, 2)), 44100, format="FLAC")
    flac = file.getvalue()
uses = {
    "base64": lambda: load(base64.b64encode(large).decode()),
    "url": lambda: fetch(large),
    **{format: functools.partial(write, format) for format in ("wav", "flac", "ogg", "opus", "mp3")},
    "result": deliver,
    "long audio": lambda: materialize_one([noise.waveform], like=noise, memory_bytes=0),
    "long input": lambda: load(base64.b64encode(flac).decode(), memory_bytes=1000),
    "m4a": lambda: load(base64.b64encode(m4a).decode()),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
outcomes = {}
for name, use in uses.items():
    try:
        use()
        outcomes[name] = "done"
    except Exception as error:
        outcomes[name] = getattr(error, "error_code", repr(error))
print(json.dumps(outcomes))
"""


@needs_ffmpeg
def test_a_full_disk_is_the_same_error_wherever_it_is_found(tmp_path: Path) -> None:
    m4a = tmp_path / "song.m4a"
    m4a.write_bytes(encode_with_ffmpeg(make_tone(5.0), "-c:a", "alac", suffix="m4a"))
    done = subprocess.run([sys.executable, "-c", FILL, str(m4a)], cwd=ROOT, capture_output=True, text=True, check=True)
    outcomes: dict[str, Any] = json.loads(done.stdout)
    assert outcomes == dict.fromkeys(outcomes, "disk_full")
    assert len(outcomes) == 11
    assert done.stderr == ""
