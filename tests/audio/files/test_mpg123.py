"""libmpg123's messages become records of the log; nothing else that is written to standard error is lost."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from audio.files.formats import Encoding
from audio.files.mpg123 import log_mpg123_messages
from testing.repository import ROOT
from testing.signals import encode_file, make_tone

LIBC = ctypes.CDLL(None)


def print_from_c(text: bytes) -> None:
    """As C libraries print to standard error."""
    LIBC.fputs(text, ctypes.c_void_p.in_dll(LIBC, "stderr"))


def test_messages_of_libmpg123_are_logged_and_other_lines_reach_standard_error(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "audio.files.mpg123")
    with log_mpg123_messages():
        print_from_c(b"a library's line\n[src/libmpg123/layer3.c:f():1] error: dequantization failed!\n")
        print_from_c(b"Note: Trying to resync...\nNote that this is another one\nWarning: low disk\nno line end")
        os.write(2, b"first\n")
    assert capfd.readouterr().err == (
        "first\na library's line\nNote that this is another one\nWarning: low disk\nno line end"
    )
    assert [record.getMessage() for record in caplog.records] == [
        "libmpg123: [src/libmpg123/layer3.c:f():1] error: dequantization failed! (and 1 more)"
    ]


def test_many_messages_take_little_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "audio.files.mpg123")
    for _ in range(30):
        with log_mpg123_messages():
            print_from_c(b"Note: Trying to resync...\n" * 4000)
    assert len(caplog.records) == 30
    descriptors = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    files = [path for path in descriptors if path.is_symlink() and "memfd:stderr" in os.readlink(path)]
    assert [path.stat().st_size < 2 << 20 for path in files] == [True]


def test_standard_error_is_back_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), log_mpg123_messages():
        print_from_c(b"before\n")
        raise ValueError("broken")
    print_from_c(b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"


def test_no_line_of_other_threads_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    def write_lines(name: str) -> None:
        for number in range(300):
            os.write(2, f"{name} {number}\n".encode())
            print_from_c(f"{name} {number} from C\n".encode())

    def enter_often() -> None:
        for _ in range(100):
            with log_mpg123_messages():
                print_from_c(b"Note: Trying to resync...\n")

    threads = [threading.Thread(target=write_lines, args=(name,)) for name in ("a", "b")]
    threads += [threading.Thread(target=enter_often) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with log_mpg123_messages():
        pass  # a line that was printed while standard error was restored comes now
    lines = capfd.readouterr().err.splitlines()
    expected = [f"{name} {number}{source}" for name in "ab" for number in range(300) for source in ("", " from C")]
    assert sorted(lines) == sorted(expected)


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
