"""What a log line says, and what it never does."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from worker.logs import MAX_MESSAGE_CHARS, Lines, WholeLines, id_of, job_context, whereabouts

SECRET = "s3cret/with+odd=signs"


def line(message: str, *arguments: Any, as_json: bool = False, error: BaseException | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("worker.x", logging.WARNING, "/some/where.py", 1, message, arguments, info)
    return Lines(as_json=as_json, secrets=[SECRET, "", "ab"]).format(record)


def test_a_line_for_people_has_the_level_the_jobs_id_and_the_message() -> None:
    with job_context("job-7"):
        assert line("made %d stems", 4).endswith(" WARNING [job-7] worker.x: made 4 stems")


def test_a_line_for_the_platform_is_json_in_the_sdks_own_shape() -> None:
    with job_context("job-7"):
        assert json.loads(line("made %d stems", 4, as_json=True)) == {
            "requestId": "job-7",
            "message": "worker.x: made 4 stems",
            "level": "WARN",
        }
    assert json.loads(line("idle", as_json=True))["requestId"] is None


def test_secrets_are_blacked_out_also_where_a_url_quotes_them() -> None:
    said = line("key=%s&again=%s", SECRET, "s3cret%2Fwith%2Bodd%3Dsigns")
    assert said.endswith("key=***&again=***")


@given(st.binary(min_size=60, max_size=400))
@example(bytes(57) + b" \xff\xff")
def test_base64_and_bytes_are_never_written_out(content: bytes) -> None:
    encoded = base64.b64encode(content).decode()
    said = line("audio %s and %r", encoded, b"\xff" * 50 + content)
    assert encoded[:64] not in said and r"\xff\xff" not in said


@given(st.text(max_size=300))
def test_a_record_is_one_printable_line_whatever_it_says(text: str) -> None:
    for as_json in (False, True):
        said = line("%s", text, as_json=as_json)
        assert said.splitlines() == [said] and said.encode()


def test_a_long_message_is_cut() -> None:
    assert len(line("%s", "word " * 10_000)) < MAX_MESSAGE_CHARS + 100


def test_arguments_that_do_not_fit_lose_nothing() -> None:
    assert line("%d stems", "four").endswith("worker.x: %d stems")


def test_an_error_is_told_by_type_and_place_without_values_and_paths() -> None:
    try:
        Lines(as_json="no", secrets=7)  # type: ignore[arg-type]
    except TypeError as error:
        said = line("went wrong", error=error)
        assert said.endswith("went wrong (TypeError in worker.logs.__init__)")
        assert "/" not in whereabouts(error)


def test_only_a_text_counts_as_a_jobs_id() -> None:
    jobs: list[object] = [{"id": "a"}, {"id": 3}, {}, None, [], "text"]
    assert [id_of(job) for job in jobs] == ["a", "", "", "", "", ""]


class Slow(io.StringIO):
    """A stream that lets other threads in after each write, as an unbuffered stdout does."""

    def write(self, text: str) -> int:
        written = super().write(text)
        threading.Event().wait(0.0005)
        return written


def test_lines_printed_by_several_threads_at_once_stay_whole() -> None:
    stream = Slow()
    lines = WholeLines(stream)
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


def test_a_line_waits_for_its_end_and_several_lines_go_out_together() -> None:
    stream = io.StringIO()
    lines = WholeLines(stream)
    assert lines.write("half") == 4 and stream.getvalue() == ""
    lines.write(" a line\nanother\nrest")
    assert stream.getvalue() == "half a line\nanother\n"
