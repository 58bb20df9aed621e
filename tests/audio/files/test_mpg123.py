"""libmpg123's messages become records of the log; nothing else that is written to standard error is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from audio.files.formats import Encoding
from audio.files.mpg123 import log_mpg123_messages
from testing.repository import ROOT
from testing.signals import encode_file, make_tone


def test_messages_of_libmpg123_are_logged_and_other_lines_reach_standard_error(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "audio.files.mpg123")
    with log_mpg123_messages():
        os.write(2, b"a library's line\n[src/libmpg123/layer3.c:f():1] error: dequantization failed!\n")
        os.write(2, b"Note: Trying to resync...\nNote that this is another one\nWarning: low disk\nno line end")
    assert capfd.readouterr().err == "a library's line\nNote that this is another one\nWarning: low disk\nno line end"
    assert [record.getMessage() for record in caplog.records] == [
        "libmpg123: [src/libmpg123/layer3.c:f():1] error: dequantization failed! (and 1 more)"
    ]


def test_standard_error_is_back_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), log_mpg123_messages():
        os.write(2, b"before\n")
        raise ValueError("broken")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"


def test_no_line_of_other_threads_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    def write_lines(name: str) -> None:
        for number in range(300):
            os.write(2, f"{name} {number}\n".encode())

    def enter_often() -> None:
        for _ in range(100):
            with log_mpg123_messages():
                os.write(2, b"Note: Trying to resync...\n")

    threads = [threading.Thread(target=write_lines, args=(name,)) for name in ("a", "b")]
    threads += [threading.Thread(target=enter_often) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == sorted(f"{name} {number}" for name in ("a", "b") for number in range(300))


def test_a_damaged_mp3_writes_nothing_to_standard_error() -> None:
    """In a process of its own, because the test runner changes standard error."""
    script = (
        "import sys\n"
        "from audio.files.decode import decode\n"
        "from errors import AudioError\n"
        "from testing.signals import LIMITS\n"
        "try:\n    decode(sys.stdin.buffer.read(), limits=LIMITS)\n"
        "except AudioError:\n    pass\n"
        "sys.stderr.write('still here\\n')"
    )
    data = bytearray(encode_file(make_tone(5.0), Encoding("mp3")))
    for at in range(3000, len(data), 997):
        data[at] ^= 0x55
    done = subprocess.run([sys.executable, "-c", script], input=bytes(data), cwd=ROOT, capture_output=True, check=True)
    assert done.stderr == b"still here\n"


def test_a_process_without_standard_error_decodes_mp3() -> None:
    script = (
        "import os, sys\n"
        "os.close(2)\n"
        "from audio.files.decode import decode\n"
        "from testing.signals import LIMITS\n"
        "print(decode(sys.stdin.buffer.read(), limits=LIMITS).audio.num_samples)"
    )
    data = encode_file(make_tone(1.0), Encoding("mp3"))
    done = subprocess.run([sys.executable, "-c", script], input=data, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) == 44100
