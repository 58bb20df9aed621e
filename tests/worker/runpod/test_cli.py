"""`python handler.py` without a platform: one job from the command line, its audio in files, an exit code."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from testing.processes import FAKE_WORKER, environment, ran
from testing.repository import ROOT

SONG = bytes(range(256)) * 64


def job(**given: Any) -> list[str]:
    return ["--test_input", json.dumps({"input": given})]


def test_audio_goes_to_a_file_and_the_reply_is_printed_without_it(tmp_path: Path) -> None:
    ended = ran(FAKE_WORKER, job(operation="sing"), home=tmp_path, env={"OUTPUT_DIR": str(tmp_path / "out")})
    assert ended.returncode == 0
    reply = json.loads(ended.stdout)
    path = tmp_path / "out" / "song.wav"
    assert path.read_bytes() == SONG and reply["output_file"] == str(path) and f"Wrote {path}" in ended.stderr
    assert base64.b64encode(SONG).decode()[:64] not in ended.stdout + ended.stderr
    assert list(path.parent.iterdir()) == [path]  # the same artefact stands twice in the reply, and once here


def test_a_file_of_an_earlier_run_is_kept(tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(b"earlier")
    ended = ran(FAKE_WORKER, job(operation="sing"), home=tmp_path, env={"OUTPUT_DIR": str(tmp_path)})
    assert (tmp_path / "song.wav").read_bytes() == b"earlier"
    assert (tmp_path / "song-2.wav").read_bytes() == SONG and "song-2.wav" in ended.stderr


def test_a_relative_output_folder_counts_from_the_repository(tmp_path: Path) -> None:
    shown = Path("output") / "of-the-tests"
    try:
        ran(FAKE_WORKER, job(operation="sing"), home=tmp_path, env={"OUTPUT_DIR": str(shown)})
        assert (ROOT / shown / "song.wav").read_bytes() == SONG
    finally:
        (ROOT / shown / "song.wav").unlink(missing_ok=True)
        (ROOT / shown).rmdir()


def test_an_output_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = ran(FAKE_WORKER, job(operation="sing"), home=tmp_path, env={"OUTPUT_DIR": str(tmp_path / "file")})
    assert ended.returncode == 1 and "cannot be written" in ended.stderr and "Traceback" not in ended.stderr


def test_test_input_json_of_the_current_folder_is_run(tmp_path: Path) -> None:
    (tmp_path / "test_input.json").write_text('{"input": {"operation": "echo", "value": "mine"}}')
    assert json.loads(ran(FAKE_WORKER, [], home=tmp_path).stdout)["echo"] == "mine"


def test_else_the_one_of_the_repository_is_run_from_any_folder(tmp_path: Path) -> None:
    ended = ran(FAKE_WORKER, [], home=tmp_path)  # asks for music, which the made-up operations have not
    assert ended.returncode == 1 and json.loads(ended.stdout)["error_code"] == "internal_error"


def test_an_error_is_a_sentence_and_exit_code_1(tmp_path: Path) -> None:
    ended = ran(FAKE_WORKER, job(operation="refuse"), home=tmp_path)
    assert ended.returncode == 1 and json.loads(ended.stdout)["error_code"] == "invalid_request"
    assert ended.stderr.splitlines()[-1] == "Error: 'duration' must be at most 600."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("{'input': {}}", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("1" + "0" * 5000, "cannot be read"),
        ("{}", "fault of its own"),
        ("[]", "fault of its own"),
    ],
    ids=["cut", "empty", "single quotes", "deep", "long number", "empty object", "list"],
)
def test_a_test_input_that_is_no_job_is_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    ended = ran(FAKE_WORKER, ["--test_input", text], home=tmp_path)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert said in ended.stderr and ended.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"], ids=["cut", "not UTF-8"])
def test_a_test_input_file_that_is_no_job_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "test_input.json").write_bytes(content)
    ended = ran(FAKE_WORKER, [], home=tmp_path)
    assert ended.returncode == 1 and ended.stderr.startswith("Error: test_input.json ")


def test_arguments_that_are_unknown_here_are_named_and_left_alone(tmp_path: Path) -> None:
    ended = ran(FAKE_WORKER, [*job(operation="echo", value=1), "--rp_new_flag"], home=tmp_path)
    assert ended.returncode == 0 and "--rp_new_flag" in ended.stderr


@pytest.mark.parametrize("arguments", [["--rp_api_port", "abc"], ["--rp_log_level", "LOUD"], ["--test_input"]])
def test_a_wrong_argument_is_a_sentence(tmp_path: Path, arguments: list[str]) -> None:
    ended = ran(FAKE_WORKER, arguments, home=tmp_path)
    assert ended.returncode == 1 and ended.stderr.startswith("Error: ") and ended.stderr.count("\n") == 1
    assert arguments[0] in ended.stderr


def test_help_says_what_a_run_without_arguments_does(tmp_path: Path) -> None:
    ended = ran(FAKE_WORKER, ["--help"], home=tmp_path)
    assert ended.returncode == 0
    assert all(word in ended.stdout for word in ("test_input.json", "OUTPUT_DIR", "--rp_serve_api"))


def test_a_local_run_knows_no_size_limit_unless_one_is_set(tmp_path: Path) -> None:
    free = json.loads(ran(FAKE_WORKER, job(operation="echo"), home=tmp_path).stdout)
    held = json.loads(ran(FAKE_WORKER, job(operation="echo"), home=tmp_path, env={"INLINE_BUDGET_BYTES": "999"}).stdout)
    assert free["budget"] > 1_000_000_000 and held["budget"] == 999


def _at_a_terminal() -> None:
    """A shell starts what runs in the background with Ctrl-C ignored, and the suite may run there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_a_local_run_without_a_traceback(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(FAKE_WORKER), *job(operation="steps", count=100_000)],
        cwd=tmp_path,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_at_a_terminal,
    )
    try:
        assert process.stderr is not None
        process.stderr.readline()  # the first progress line: it runs
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=60)
        assert process.returncode == 130 and printed.endswith("Interrupted.\n") and "Traceback" not in printed
    finally:
        process.kill()
        process.wait()
