"""Log lines: their shape, and what they never contain."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from worker.logs import MAX_MESSAGE_CHARS, LineBufferedStream, LogFormatter, error_location, job_context

SECRET = "s3cret/with+odd=signs"


def format_record(message: str, *arguments: Any, as_json: bool = False, error: BaseException | None = None) -> str:
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("worker.x", logging.WARNING, "/some/where.py", 1, message, arguments, exc_info)
    return LogFormatter(as_json=as_json, secrets=[SECRET, "", "ab"]).format(record)


def test_a_readable_line_has_the_level_the_job_id_and_the_message() -> None:
    with job_context("job-7"):
        assert format_record("made %d stems", 4).endswith(" WARNING [job-7] worker.x: made 4 stems")


def test_a_line_for_the_platform_is_json_in_the_shape_of_the_sdk() -> None:
    with job_context("job-7"):
        assert json.loads(format_record("made %d stems", 4, as_json=True)) == {
            "requestId": "job-7",
            "message": "worker.x: made 4 stems",
            "level": "WARN",
        }
    assert json.loads(format_record("idle", as_json=True))["requestId"] is None


def test_secrets_are_masked_also_if_a_url_quotes_them() -> None:
    line = format_record("key=%s&again=%s", SECRET, "s3cret%2Fwith%2Bodd%3Dsigns")
    assert line.endswith("key=***&again=***")


@given(st.binary(min_size=60, max_size=400))
@example(bytes(57) + b" \xff\xff")
def test_base64_and_bytes_are_never_logged(content: bytes) -> None:
    encoded = base64.b64encode(content).decode()
    line = format_record("audio %s and %r", encoded, b"\xff" * 50 + content)
    assert encoded[:64] not in line and r"\xff\xff" not in line


@given(st.text(max_size=300))
def test_a_record_is_one_printable_line_whatever_its_text(text: str) -> None:
    for as_json in (False, True):
        line = format_record("%s", text, as_json=as_json)
        assert line.splitlines() == [line] and line.encode()


def test_a_long_message_is_cut() -> None:
    assert len(format_record("%s", "word " * 10_000)) < MAX_MESSAGE_CHARS + 100


def test_a_record_whose_arguments_do_not_fit_is_still_logged() -> None:
    assert format_record("%d stems", "four").endswith("worker.x: %d stems")


def test_an_error_is_logged_with_its_type_and_location_without_values_and_paths() -> None:
    try:
        LogFormatter(as_json="no", secrets=7)  # type: ignore[arg-type]
    except TypeError as error:
        line = format_record("went wrong", error=error)
        assert line.endswith("went wrong (TypeError in worker.logs.__init__)")
        assert "/" not in error_location(error)


class SlowStream(io.StringIO):
    """A stream that lets other threads run after each write, as an unbuffered stdout does."""

    def write(self, text: str) -> int:
        written = super().write(text)
        threading.Event().wait(0.0005)
        return written


def test_lines_printed_by_several_threads_at_once_stay_whole() -> None:
    stream = SlowStream()
    lines = LineBufferedStream(stream)
    start = threading.Barrier(4)

    def work(name: str) -> None:
        start.wait()
        for number in range(20):
            print(json.dumps({"name": name, "number": number}), file=lines, flush=True)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    printed = [json.loads(text) for text in stream.getvalue().splitlines()]
    for name in "abcd":
        assert [line["number"] for line in printed if line["name"] == name] == list(range(20))


def test_an_incomplete_line_is_kept_until_its_end_and_complete_lines_are_written_together() -> None:
    stream = io.StringIO()
    lines = LineBufferedStream(stream)
    assert lines.write("half") == 4 and stream.getvalue() == ""
    lines.write(" a line\nanother\nrest")
    assert stream.getvalue() == "half a line\nanother\n"
