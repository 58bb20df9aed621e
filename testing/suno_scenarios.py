"""How the test provider responds, by name: sequences of responses that were observed with real providers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Response:
    """A scripted response. `cut`: the connection is closed without a response, or in the middle of its body."""

    status: int = 200
    body: Any = b""
    content_type: str = "application/json"
    delay_s: float = 0.0
    cut: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    def content(self) -> bytes:
        """The body as bytes: `body` itself, or its JSON."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Record:
    """One response of record-info. `shape`: `documented`, `quick_start` or `result_json`."""

    status: str
    clips: int = 0
    error_code: int | None = None
    error_message: str | None = None
    shape: str = "documented"


@dataclass(frozen=True)
class Scenario:
    """Responses in the order of the requests.

    Once they are used up, the provider responds as documented; to requests for a record, as the last of `records`.

    Args:
        about: describes the scenario.
        submissions, records, uploads, credits: responses to these requests.
        files: responses to the downloads of each clip.
        file: what a clip's file contains: `audio`, `page` (HTML) or `identical` (the same bytes for both clips).
        audio_url: the URL of every clip; empty = this provider's own.
        stream_url: whether clips have a stream URL too.
        duration_error_s: added to the durations in the record.
        create_time: the value of `createTime`.
    """

    about: str
    submissions: tuple[Response, ...] = ()
    records: tuple[Record | Response, ...] = (
        Record("PENDING"),
        Record("TEXT_SUCCESS"),
        Record("FIRST_SUCCESS", 1),
        Record("SUCCESS", 2),
    )
    uploads: tuple[Response, ...] = ()
    credits: tuple[Response, ...] = ()
    files: tuple[Response, ...] = ()
    file: str = "audio"
    audio_url: str = ""
    stream_url: bool = False
    duration_error_s: float = 0.0
    create_time: Any = "2026-11-20 08:00:00"


def _code(code: int, message: str = "refused", status: int = 200) -> Response:
    return Response(status, {"code": code, "msg": message, "data": None})


HTML = Response(500, b"<html>Internal Server Error</html>", "text/html")
DONE = Record("SUCCESS", 2)

SCENARIOS: Mapping[str, Scenario] = {
    "happy": Scenario("two clips"),
    "one_clip": Scenario("only one clip", records=(Record("PENDING"), Record("SUCCESS", 1))),
    "first_then_failure": Scenario(
        "one clip, then a failure",
        records=(Record("FIRST_SUCCESS", 1), Record("GENERATE_AUDIO_FAILED", 1, 501, "failed")),
    ),
    "create_failed": Scenario(
        "the task fails at once", records=(Record("CREATE_TASK_FAILED", 0, 500, "create failed"),)
    ),
    "generate_failed": Scenario(
        "the task fails later",
        records=(Record("PENDING"), Record("GENERATE_AUDIO_FAILED", 0, 501, "generation failed")),
    ),
    "sensitive_word": Scenario(
        "moderation", records=(Record("PENDING"), Record("SENSITIVE_WORD_ERROR", 0, 400, "a word"))
    ),
    "pending_413": Scenario(
        "stuck in PENDING with an error code",
        records=(Record("PENDING", 0, 413, "Can't fetch the uploaded audio."),),
    ),
    "unknown_status": Scenario("an unknown state, then done", records=(Record("POLISHING"), Record("POLISHING"), DONE)),
    "callback_with_audio": Scenario("callback failed, audio available", records=(Record("CALLBACK_EXCEPTION", 2),)),
    "callback_then_audio": Scenario(
        "callback failed early, audio later",
        records=(
            Record("CALLBACK_EXCEPTION"),
            Record("CALLBACK_EXCEPTION", 1),
            Record("CALLBACK_EXCEPTION", 2),
        ),
    ),
    "callback_one_clip": Scenario("callback failed, one clip for ever", records=(Record("CALLBACK_EXCEPTION", 1),)),
    "callback_without_audio": Scenario("callback failed, never any audio", records=(Record("CALLBACK_EXCEPTION"),)),
    "pending_forever": Scenario("never ends", records=(Record("PENDING"),)),
    "first_forever": Scenario("the second clip never comes", records=(Record("FIRST_SUCCESS", 1),)),
    "success_without_audio": Scenario("SUCCESS, but never a URL", records=(Record("SUCCESS", 0),)),
    "success_late_audio": Scenario("SUCCESS, the URLs a moment later", records=(Record("SUCCESS", 0), DONE)),
    "quick_start": Scenario("response.data with audio_url", records=(Record("SUCCESS", 2, shape="quick_start"),)),
    "result_json": Scenario("resultJson as a string", records=(Record("SUCCESS", 2, shape="result_json"),)),
    "create_time_number": Scenario("createTime in ms", records=(DONE,), create_time=1_790_000_000_000),
    "too_often_twice": Scenario("430 twice, then accepted", submissions=(_code(430), _code(430)), records=(DONE,)),
    "rate_405": Scenario("405 once, then accepted", submissions=(_code(405),), records=(DONE,)),
    "rate_forever": Scenario("430 for ever", submissions=(_code(430),) * 99),
    "gateway_429": Scenario(
        "a gateway's 429 once", submissions=(Response(429, b"slow down", "text/plain"),), records=(DONE,)
    ),
    "maintenance_once": Scenario("455 once", submissions=(_code(455, "maintenance", 455),), records=(DONE,)),
    "maintenance": Scenario("455 for ever", submissions=(_code(455, "maintenance", 455),) * 99),
    "no_credits": Scenario("429: no credits", submissions=(_code(429, "insufficient credits", 429),) * 9),
    "empty_account": Scenario(
        "the balance is 0", credits=(Response(200, {"code": 200, "msg": "success", "data": 0}),) * 9
    ),
    "no_balance": Scenario("no endpoint for the balance", credits=(_code(404, "not found", 404),) * 9, records=(DONE,)),
    "refused_400": Scenario("HTTP 200 with code 400", submissions=(_code(400, "bad parameters"),) * 9),
    "too_long_413": Scenario("413: text too long", submissions=(_code(413, "prompt too long"),) * 9),
    "submit_html_500": Scenario("HTTP 500 as an HTML page", submissions=(HTML,) * 9),
    "submit_code_500": Scenario("code 500", submissions=(_code(500, "server error"),) * 9),
    "submit_no_id": Scenario(
        "200 without a task id", submissions=(Response(200, {"code": 200, "msg": "success"}),) * 9
    ),
    "submit_cut": Scenario("the connection is cut after the submission", submissions=(Response(cut=True),) * 9),
    "submit_slow": Scenario("no response to the submission", submissions=(Response(delay_s=60.0),) * 9),
    "submit_redirect": Scenario(
        "a redirect to another host",
        submissions=(Response(307, b"", headers=(("Location", "http://127.0.0.1:9/"),)),) * 9,
    ),
    "polls_fail": Scenario(
        "status requests fail in many ways, then done",
        records=(
            HTML,
            _code(430),
            Response(cut=True),
            _code(455),
            Response(200, b"[]"),
            Response(200, b"{"),
            _code(500),
            DONE,
        ),
    ),
    "poll_401": Scenario("the key is refused later", records=(Record("PENDING"), _code(401, "bad key", 401))),
    "upload_fails_twice": Scenario("two failed uploads", uploads=(HTML, Response(cut=True)), records=(DONE,)),
    "upload_refused": Scenario("uploads are refused", uploads=(_code(400, "bad file"),) * 9),
    "file_404_twice": Scenario("404 twice after SUCCESS", records=(DONE,), files=(Response(404), Response(502))),
    "file_gone": Scenario("the files are gone", records=(DONE,), files=(Response(404),) * 99),
    "file_empty": Scenario("0 bytes at first", records=(DONE,), files=(Response(200, b"", "audio/mpeg"),)),
    "file_is_a_page": Scenario("an HTML page in place of audio", records=(DONE,), file="page"),
    "file_via_stream": Scenario(
        "404, but the stream URL works", records=(DONE,), files=(Response(404),) * 2, stream_url=True
    ),
    "identical_clips": Scenario("the same bytes twice", records=(DONE,), file="identical"),
    "wrong_duration": Scenario("shorter than reported", records=(DONE,), duration_error_s=60.0),
    "private_result": Scenario("a result at a private address", records=(DONE,), audio_url="http://10.0.0.7/clip.mp3"),
    "metadata_result": Scenario(
        "a result at a cloud's metadata address", records=(DONE,), audio_url="http://169.254.169.254/a"
    ),
    "file_url_result": Scenario("a result at file://", records=(DONE,), audio_url="file:///etc/passwd"),
}
