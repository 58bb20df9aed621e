"""What the test provider can be told to do, by name: what providers were seen to answer, step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Say:
    """A scripted answer in place of the right one. `cut`: the connection is closed without one (or amid its body)."""

    status: int = 200
    body: Any = b""
    content_type: str = "application/json"
    delay_s: float = 0.0
    cut: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    def content(self) -> bytes:
        """The body as bytes: `body` itself, or as JSON."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Look:
    """What record-info tells at one look. `shape`: `documented`, `quick_start`, `result_json`."""

    status: str
    takes: int = 0
    error_code: int | None = None
    error_message: str | None = None
    shape: str = "documented"


@dataclass(frozen=True)
class Scenario:
    """Answers in the order of the calls; once they are used up the right answer (for looks: the last) is given.

    `files`: for each take's downloads. `file`: what a take's file is. `durations`: what the record says, in seconds.
    """

    about: str
    submits: tuple[Say, ...] = ()
    looks: tuple[Look | Say, ...] = (
        Look("PENDING"),
        Look("TEXT_SUCCESS"),
        Look("FIRST_SUCCESS", 1),
        Look("SUCCESS", 2),
    )
    uploads: tuple[Say, ...] = ()
    credits: tuple[Say, ...] = ()
    files: tuple[Say, ...] = ()
    file: str = "audio"
    audio_url: str = ""
    stream_url: bool = False
    duration_error_s: float = 0.0
    create_time: Any = "2026-11-20 08:00:00"


def _code(code: int, message: str = "refused", status: int = 200) -> Say:
    return Say(status, {"code": code, "msg": message, "data": None})


HTML = Say(500, b"<html>Internal Server Error</html>", "text/html")
DONE = Look("SUCCESS", 2)

SCENARIOS: Mapping[str, Scenario] = {
    "happy": Scenario("two takes"),
    "one_take": Scenario("only one take", looks=(Look("PENDING"), Look("SUCCESS", 1))),
    "first_then_failure": Scenario(
        "one take, then a failure", looks=(Look("FIRST_SUCCESS", 1), Look("GENERATE_AUDIO_FAILED", 1, 501, "failed"))
    ),
    "create_failed": Scenario("the task fails at once", looks=(Look("CREATE_TASK_FAILED", 0, 500, "create failed"),)),
    "generate_failed": Scenario(
        "the task fails later", looks=(Look("PENDING"), Look("GENERATE_AUDIO_FAILED", 0, 501, "generation failed"))
    ),
    "sensitive_word": Scenario("moderation", looks=(Look("PENDING"), Look("SENSITIVE_WORD_ERROR", 0, 400, "a word"))),
    "pending_413": Scenario(
        "stuck in PENDING with an error code", looks=(Look("PENDING", 0, 413, "Can't fetch the uploaded audio."),)
    ),
    "unknown_status": Scenario("a state nobody knows, then done", looks=(Look("POLISHING"), Look("POLISHING"), DONE)),
    "callback_with_audio": Scenario("callback failed, audio there", looks=(Look("CALLBACK_EXCEPTION", 2),)),
    "callback_then_audio": Scenario(
        "callback failed early, audio later",
        looks=(Look("CALLBACK_EXCEPTION"), Look("CALLBACK_EXCEPTION", 1), Look("CALLBACK_EXCEPTION", 2)),
    ),
    "callback_one_take": Scenario("callback failed, one take for ever", looks=(Look("CALLBACK_EXCEPTION", 1),)),
    "callback_without_audio": Scenario("callback failed, never any audio", looks=(Look("CALLBACK_EXCEPTION"),)),
    "pending_forever": Scenario("never ends", looks=(Look("PENDING"),)),
    "first_forever": Scenario("the second take never comes", looks=(Look("FIRST_SUCCESS", 1),)),
    "success_without_audio": Scenario("SUCCESS, and no address ever", looks=(Look("SUCCESS", 0),)),
    "success_late_audio": Scenario("SUCCESS, the addresses a moment later", looks=(Look("SUCCESS", 0), DONE)),
    "quick_start": Scenario("response.data with audio_url", looks=(Look("SUCCESS", 2, shape="quick_start"),)),
    "result_json": Scenario("resultJson as a string", looks=(Look("SUCCESS", 2, shape="result_json"),)),
    "create_time_number": Scenario("createTime in ms", looks=(DONE,), create_time=1_790_000_000_000),
    "too_often_twice": Scenario("430 twice, then taken", submits=(_code(430), _code(430)), looks=(DONE,)),
    "rate_405": Scenario("405 once, then taken", submits=(_code(405),), looks=(DONE,)),
    "rate_forever": Scenario("430 for ever", submits=(_code(430),) * 99),
    "gateway_429": Scenario("a gateway's 429 once", submits=(Say(429, b"slow down", "text/plain"),), looks=(DONE,)),
    "maintenance_once": Scenario("455 once", submits=(_code(455, "maintenance", 455),), looks=(DONE,)),
    "maintenance": Scenario("455 for ever", submits=(_code(455, "maintenance", 455),) * 99),
    "no_credits": Scenario("429: no credits", submits=(_code(429, "insufficient credits", 429),) * 9),
    "empty_account": Scenario("the balance is 0", credits=(Say(200, {"code": 200, "msg": "success", "data": 0}),) * 9),
    "no_balance": Scenario("no method for the balance", credits=(_code(404, "not found", 404),) * 9, looks=(DONE,)),
    "refused_400": Scenario("HTTP 200 with code 400", submits=(_code(400, "bad parameters"),) * 9),
    "too_long_413": Scenario("413: text too long", submits=(_code(413, "prompt too long"),) * 9),
    "submit_html_500": Scenario("HTTP 500 as a page", submits=(HTML,) * 9),
    "submit_code_500": Scenario("code 500", submits=(_code(500, "server error"),) * 9),
    "submit_no_id": Scenario("200 without a task id", submits=(Say(200, {"code": 200, "msg": "success"}),) * 9),
    "submit_cut": Scenario("the connection is cut after the submission", submits=(Say(cut=True),) * 9),
    "submit_slow": Scenario("no answer to the submission", submits=(Say(delay_s=60.0),) * 9),
    "submit_redirect": Scenario(
        "a redirect to another host", submits=(Say(307, b"", headers=(("Location", "http://127.0.0.1:9/"),)),) * 9
    ),
    "looks_fail": Scenario(
        "looks fail in many ways, then done",
        looks=(HTML, _code(430), Say(cut=True), _code(455), Say(200, b"[]"), Say(200, b"{"), _code(500), DONE),
    ),
    "look_401": Scenario("the key is refused later", looks=(Look("PENDING"), _code(401, "bad key", 401))),
    "upload_fails_twice": Scenario("two failed uploads", uploads=(HTML, Say(cut=True)), looks=(DONE,)),
    "upload_refused": Scenario("uploads are refused", uploads=(_code(400, "bad file"),) * 9),
    "file_404_twice": Scenario("404 twice after SUCCESS", looks=(DONE,), files=(Say(404), Say(502))),
    "file_gone": Scenario("the files are gone", looks=(DONE,), files=(Say(404),) * 99),
    "file_empty": Scenario("0 bytes at first", looks=(DONE,), files=(Say(200, b"", "audio/mpeg"),)),
    "file_is_a_page": Scenario("a page in place of audio", looks=(DONE,), file="page"),
    "file_via_stream": Scenario(
        "404, but the stream's address works", looks=(DONE,), files=(Say(404),) * 2, stream_url=True
    ),
    "identical_takes": Scenario("the same bytes twice", looks=(DONE,), file="identical"),
    "wrong_duration": Scenario("shorter than promised", looks=(DONE,), duration_error_s=60.0),
    "private_result": Scenario("a result at a private address", looks=(DONE,), audio_url="http://10.0.0.7/take.mp3"),
    "metadata_result": Scenario("a result at a cloud's metadata", looks=(DONE,), audio_url="http://169.254.169.254/a"),
    "file_url_result": Scenario("a result at file://", looks=(DONE,), audio_url="file:///etc/passwd"),
}
