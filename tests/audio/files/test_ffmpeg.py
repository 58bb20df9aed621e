"""The ffmpeg process: what it may open, how much it may use, and that it never outlives its caller's patience."""

from __future__ import annotations

import base64
import io
import json
import shutil
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio.files.ffmpeg import ProcessLimits, open_ffmpeg
from audio.types import Check, ignore_check
from errors import AudioError, CancelledError
from testing.loopback import respond_with, serve
from testing.repository import ROOT
from testing.signals import encode_with_ffmpeg, make_tone, needs_ffmpeg

AU_HEADER = struct.pack(">4s5I", b".snd", 24, 0xFFFFFFFF, 6, 44100, 1)


def write_program(folder: Path, source: str) -> str:
    """A program in place of ffmpeg."""
    program = folder / "program"
    program.write_text(f"#!{sys.executable} -S\n{textwrap.dedent(source)}")
    program.chmod(0o755)
    return str(program)


def decode_all(
    data: bytes, container: str = "m4a", program: str = "ffmpeg", *, check: Check = ignore_check, **options: Any
) -> np.ndarray:
    with open_ffmpeg(io.BytesIO(data), container, program, check=check, **options) as decoder:
        return np.concatenate([block.copy() for block in decoder.blocks])


def raise_at_call(number: int) -> Callable[[], None]:
    """A `check` that ends the work at its `number`-th call, and fails the test if it is called after that."""
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        assert calls <= number, "the work went on"
        if calls == number:
            raise CancelledError("The job was cancelled.")

    return check


@pytest.mark.parametrize("start", ["", f"import os; os.write(1, {AU_HEADER!r})"], ids=["before", "after"])
def test_a_process_that_writes_nothing_is_ended_by_the_callers_check(tmp_path: Path, start: str) -> None:
    program = write_program(tmp_path, f"{start}\nimport time; time.sleep(30)")
    with pytest.raises(CancelledError):
        decode_all(b"", program=program, check=raise_at_call(3))


def test_a_process_that_closes_its_output_and_stays_is_ended_by_the_callers_check(tmp_path: Path) -> None:
    program = write_program(
        tmp_path, f"import os, time; os.write(1, {AU_HEADER!r}); os.close(1); os.close(2); time.sleep(30)"
    )
    with pytest.raises(CancelledError):
        decode_all(b"", program=program, check=raise_at_call(6))


@needs_ffmpeg
def test_a_long_file_is_given_up_in_its_middle() -> None:
    data = encode_with_ffmpeg(make_tone(60.0), "-c:a", "alac", suffix="m4a")
    blocks = 0
    with (
        pytest.raises(CancelledError),
        open_ffmpeg(io.BytesIO(data), "m4a", check=raise_at_call(12)) as decoder,
    ):
        for _ in decoder.blocks:
            blocks += 1
    assert blocks < 60 * 44100 / 65536 / 2


def test_many_messages_do_not_stop_the_process(tmp_path: Path) -> None:
    """A pipe holds 64 kB: a process whose messages nobody reads would wait for ever."""
    program = write_program(
        tmp_path,
        f"""
        import os
        os.write(1, {AU_HEADER!r})
        for _ in range(8):
            os.write(2, b"x" * 65536)
        os.write(1, bytes(400))
        """,
    )
    assert len(decode_all(b"", program=program)) == 100


def test_the_process_gets_limits_of_memory_and_processor_time(tmp_path: Path) -> None:
    """Written as samples: the soft limits that the process finds, once they are set."""
    program = write_program(
        tmp_path,
        f"""
        import os, resource, struct, time
        limits = lambda: [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU)]
        for _ in range(200):
            if -1 not in limits():
                break
            time.sleep(0.01)
        os.write(1, {AU_HEADER!r} + struct.pack(">2f", *limits()))
        """,
    )
    assert decode_all(b"", program=program)[:, 0].tolist() == [1 << 30, 900]


def test_limits_of_the_container_that_are_lower_stay(tmp_path: Path) -> None:
    """Nobody but root may raise them."""
    program = write_program(
        tmp_path,
        f"""
        import os, resource, struct, time
        time.sleep(0.2)
        os.write(1, {AU_HEADER!r} + struct.pack(">f", resource.getrlimit(resource.RLIMIT_CPU)[0]))
        """,
    )
    script = (
        "import io, resource, sys\n"
        "from audio.files.ffmpeg import open_ffmpeg\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (100, 100))\n"
        "with open_ffmpeg(io.BytesIO(b''), 'm4a', sys.argv[1], check=lambda: None) as decoder:\n"
        "    print(next(decoder.blocks)[0, 0])"
    )
    done = subprocess.run([sys.executable, "-c", script, program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) == 100


def test_a_process_that_uses_up_its_processor_time_is_an_error_of_its_own(tmp_path: Path) -> None:
    program = write_program(tmp_path, f"import os; os.write(1, {AU_HEADER!r})\nwhile True: pass")
    with pytest.raises(AudioError, match="more than 1 s of processor time") as caught:
        decode_all(b"", program=program, limits=ProcessLimits(cpu_seconds=1))
    assert caught.value.error_code == "invalid_audio"


@needs_ffmpeg
def test_ffmpeg_without_enough_memory_is_refused() -> None:
    data = encode_with_ffmpeg(make_tone(1.0), "-c:a", "aac", suffix="m4a")
    assert len(decode_all(data)) >= 44100
    with pytest.raises(AudioError) as caught:
        decode_all(data, limits=ProcessLimits(memory_bytes=8 << 20))
    assert caught.value.error_code == "corrupt_audio"


def test_single_allocations_of_ffmpeg_are_bounded(tmp_path: Path) -> None:
    """By the argument: no small file is known that makes an audio demuxer allocate much at once."""
    program = write_program(
        tmp_path,
        f"""
        import json, os, sys
        os.write(1, {AU_HEADER!r} + bytes(4))
        open({str(tmp_path / "args")!r}, "w").write(json.dumps(sys.argv))
        """,
    )
    decode_all(b"", program=program)
    arguments = json.loads((tmp_path / "args").read_text())
    assert int(arguments[arguments.index("-max_alloc") + 1]) <= 128 << 20


@needs_ffmpeg
def test_a_file_is_read_by_the_demuxer_of_its_sniffed_container_only() -> None:
    """A Matroska file whose bytes 4 to 7 are "ftyp", which is what identifies an m4a. Left to itself, ffmpeg finds the
    Matroska file and decodes it."""
    webm = encode_with_ffmpeg(make_tone(1.0), "-c:a", "libvorbis", suffix="mka")
    body = webm[webm.index(b"\x18\x53\x80\x67") :]  # from the Segment on
    size = 0x2674  # "ft" with the length marker of EBML
    doctype = b"\x42\x82\x88matroska"
    unknown = b"\x79\x70\x80"  # an empty element whose identifier starts with "yp"
    void = size - len(unknown + doctype) - 9
    header = unknown + doctype + b"\xec\x01" + void.to_bytes(7, "big") + bytes(void)
    disguised = b"\x1a\x45\xdf\xa3\x66\x74" + header + body
    assert disguised[4:8] == b"ftyp"
    assert len(decode_all(disguised, "webm")) >= 44100
    with pytest.raises(AudioError) as caught:
        decode_all(disguised, "m4a")
    assert caught.value.error_code == "corrupt_audio"


@needs_ffmpeg
def test_even_a_demuxer_of_playlists_could_open_no_url(tmp_path: Path) -> None:
    """ffmpeg with our arguments, but with a demuxer that opens what a playlist names."""
    tone = encode_with_ffmpeg(make_tone(1.0), suffix="flac")
    program = write_program(
        tmp_path,
        f"""
        import os, sys
        arguments = sys.argv[1:]
        at = arguments.index("-f")
        arguments[at : at + 2] = ["-f", "concat", "-safe", "0"]
        os.execv({shutil.which("ffmpeg")!r}, ["ffmpeg", *arguments])
        """,
    )
    local = tmp_path / "tone.flac"
    local.write_bytes(tone)
    assert len(decode_all(f"ffconcat version 1.0\nfile '{local}'\n".encode(), program=program)) == 44100
    with serve(respond_with(tone)) as server:
        for url in (server.url("/a.flac"), f"data:audio/flac;base64,{base64.b64encode(tone).decode()}"):
            with pytest.raises(AudioError):
                decode_all(f"ffconcat version 1.0\nfile '{url}'\n".encode(), program=program)
        assert server.requests == []
