"""`python handler.py` without a platform: one job from the command line, its audio in files, an exit code."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from testing.processes import FAKE_WORKER, HANDLER, build_environment, run_script, start_process
from testing.repository import ROOT

AUDIO = bytes(range(256)) * 64


def build_arguments(**params: Any) -> list[str]:
    return ["--test_input", json.dumps({"input": params})]


def run_job(home: Path, env: Mapping[str, str] | None = None, **params: Any) -> subprocess.CompletedProcess[str]:
    return run_script(FAKE_WORKER, build_arguments(**params), home=home, env=env)


def test_audio_goes_to_a_file_and_the_reply_is_printed_without_it(tmp_path: Path) -> None:
    process = run_job(tmp_path, {"OUTPUT_DIR": str(tmp_path / "out")}, operation="make_audio")
    assert process.returncode == 0
    reply = json.loads(process.stdout)
    path = tmp_path / "out" / "song.wav"
    assert path.read_bytes() == AUDIO and reply["output_file"] == str(path) and f"Wrote {path}" in process.stderr
    assert base64.b64encode(AUDIO).decode()[:64] not in process.stdout + process.stderr
    assert list(path.parent.iterdir()) == [path]  # the artefact is in the reply twice, but in the folder once


def test_an_existing_file_with_other_content_is_kept(tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(b"earlier")
    process = run_job(tmp_path, {"OUTPUT_DIR": str(tmp_path)}, operation="make_audio")
    assert (tmp_path / "song.wav").read_bytes() == b"earlier"
    assert (tmp_path / "song-2.wav").read_bytes() == AUDIO and "song-2.wav" in process.stderr


def test_a_relative_output_folder_is_below_the_repository(tmp_path: Path) -> None:
    shown = Path("output") / "of-the-tests"
    try:
        run_job(tmp_path, {"OUTPUT_DIR": str(shown)}, operation="make_audio")
        assert (ROOT / shown / "song.wav").read_bytes() == AUDIO
    finally:
        (ROOT / shown / "song.wav").unlink(missing_ok=True)
        (ROOT / shown).rmdir()


def test_an_output_folder_that_is_not_writable_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = run_job(tmp_path, {"OUTPUT_DIR": str(tmp_path / "file")}, operation="make_audio")
    assert process.returncode == 1 and "cannot be written" in process.stderr and "Traceback" not in process.stderr


def test_an_output_folder_that_is_not_writable_is_found_before_the_work(tmp_path: Path) -> None:
    """With the real worker: music would take many seconds, and torch."""
    arguments = build_arguments(operation="generate_music", params={"prompt": "a", "model": "demo", "duration": 60})
    process = run_script(HANDLER, arguments, home=tmp_path, env={"OUTPUT_DIR": "/proc/output"})
    reply = json.loads(process.stdout)
    assert process.returncode == 1 and reply["error_code"] == "delivery_failed"
    assert "/proc/output" in reply["error"] and "OUTPUT_DIR" in reply["error"]
    health = run_script(
        HANDLER, build_arguments(operation="health_check"), home=tmp_path, env={"OUTPUT_DIR": "/proc/x"}
    )
    assert health.returncode == 0, health.stderr


@pytest.mark.parametrize("folder", ["/no/such/folder", "/proc/self"])
def test_a_temporary_folder_that_cannot_be_written_stops_the_worker_with_its_name(tmp_path: Path, folder: str) -> None:
    process = run_job(tmp_path, {"TMPDIR": folder}, operation="echo")
    assert process.returncode == 1 and process.stdout == ""
    assert process.stderr.startswith(f"Error: TMPDIR is {folder}, which cannot be written: ")
    assert process.stderr.count("\n") == 1


def test_a_full_temporary_folder_stops_the_worker_with_a_sentence(tmp_path: Path) -> None:
    """Like a full disk: a file may have at most 100 bytes."""
    script = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
    script += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", script, str(FAKE_WORKER), *build_arguments(operation="echo")]
    environment = build_environment(tmp_path, {"TMPDIR": str(tmp_path)})
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 1 and process.stderr.startswith(f"Error: TMPDIR is {tmp_path}, which cannot")


def test_test_input_json_of_the_current_folder_is_run(tmp_path: Path) -> None:
    (tmp_path / "test_input.json").write_text('{"input": {"operation": "echo", "value": "mine"}}')
    assert json.loads(run_script(FAKE_WORKER, [], home=tmp_path).stdout)["echo"] == "mine"


def test_a_request_file_is_run_with_the_files_that_it_names_and_json_on_the_command_line_names_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "song.flac").write_bytes(b"fLaC")
    (tmp_path / "request.json").write_text('{"input": {"operation": "echo", "value": "@song.flac"}}')
    process = run_script(FAKE_WORKER, ["--test_input", "@request.json"], home=tmp_path)
    assert json.loads(process.stdout)["echo"] == base64.b64encode(b"fLaC").decode()
    process = run_job(tmp_path, operation="echo", value="@song.flac")
    assert json.loads(process.stdout)["echo"] == "@song.flac"
    process = run_script(FAKE_WORKER, ["--test_input", "@none.json"], home=tmp_path)
    assert process.returncode == 1 and process.stderr.startswith("Error: none.json cannot be read")


def test_without_one_the_repositorys_test_input_json_is_run_from_any_folder(tmp_path: Path) -> None:
    process = run_script(FAKE_WORKER, [], home=tmp_path)  # asks for music, which the fake worker does not have
    assert process.returncode == 1 and json.loads(process.stdout)["error_code"] == "internal_error"


def test_an_error_is_a_sentence_and_exit_code_1(tmp_path: Path) -> None:
    process = run_job(tmp_path, operation="refuse")
    assert process.returncode == 1 and json.loads(process.stdout)["error_code"] == "invalid_request"
    assert process.stderr.splitlines()[-1] == "Error: 'duration' must be at most 600."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("{'input': {}}", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("1" + "0" * 5000, "cannot be read"),
        ("{}", "bug of its own"),
        ("[]", "bug of its own"),
    ],
    ids=["cut", "empty", "single quotes", "deep", "long number", "empty object", "list"],
)
def test_an_invalid_test_input_is_an_error_in_one_sentence(tmp_path: Path, text: str, expected: str) -> None:
    process = run_script(FAKE_WORKER, ["--test_input", text], home=tmp_path)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert expected in process.stderr and process.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"], ids=["cut", "not UTF-8"])
def test_an_invalid_test_input_file_is_an_error_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "test_input.json").write_bytes(content)
    process = run_script(FAKE_WORKER, [], home=tmp_path)
    assert process.returncode == 1 and process.stderr.startswith("Error: test_input.json ")


def test_unknown_arguments_are_logged_and_ignored(tmp_path: Path) -> None:
    process = run_script(FAKE_WORKER, [*build_arguments(operation="echo", value=1), "--rp_new_flag"], home=tmp_path)
    assert process.returncode == 0 and "--rp_new_flag" in process.stderr


@pytest.mark.parametrize("arguments", [["--rp_api_port", "abc"], ["--rp_log_level", "LOUD"], ["--test_input"]])
def test_an_invalid_argument_is_an_error_in_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    process = run_script(FAKE_WORKER, arguments, home=tmp_path)
    assert process.returncode == 1 and process.stderr.startswith("Error: ") and process.stderr.count("\n") == 1
    assert arguments[0] in process.stderr


def test_help_describes_a_run_without_arguments(tmp_path: Path) -> None:
    process = run_script(FAKE_WORKER, ["--help"], home=tmp_path)
    assert process.returncode == 0
    assert all(word in process.stdout for word in ("test_input.json", "OUTPUT_DIR", "--rp_serve_api"))


def test_a_local_run_has_no_size_limit_unless_one_is_set(tmp_path: Path) -> None:
    unlimited = json.loads(run_job(tmp_path, operation="echo").stdout)
    limited = json.loads(run_job(tmp_path, {"INLINE_BUDGET_BYTES": "100000"}, operation="echo").stdout)
    assert unlimited["budget"] > 1_000_000_000 and limited["budget"] == 100_000


def test_ctrl_c_ends_a_local_run_without_a_traceback(tmp_path: Path) -> None:
    # A shell starts background processes with Ctrl-C ignored, which is inherited, and the suite may run in the
    # background; Python's own handler is back only if the signal's default is.
    script = "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    script += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", script, str(FAKE_WORKER), *build_arguments(operation="steps", count=100_000)]
    environment = build_environment(tmp_path)
    with start_process(
        command, cwd=tmp_path, env=environment, output=subprocess.DEVNULL, errors=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the first progress line: it runs
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130 and printed.endswith("Interrupted.\n") and "Traceback" not in printed
