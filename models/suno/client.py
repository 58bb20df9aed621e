"""The provider's endpoints (the sunoapi.org / kie.ai contract) as methods; its failures become ours here.

Knows no waiting between calls and no repetition: each method makes its call once.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from errors import CancelledError, DeadlineError, ErrorCode, RequestError, UpstreamError
from models.suno import responses as answers
from models.suno.config import SunoConfig
from models.suno.deadline import Check
from models.suno.failures import refusal
from models.suno.responses import Envelope, Record
from models.suno.transport import Answer, Call, NoAnswerError, NotSentError, Transport, Upload

logger = logging.getLogger(__name__)

EXTEND = "/api/v1/generate/extend"
UPLOAD_EXTEND = "/api/v1/generate/upload-extend"
GENERATE = "/api/v1/generate"
RECORD = "/api/v1/generate/record-info"
CREDITS = ("/api/v1/generate/credit", "/api/v1/chat/credit")
FILE_UPLOAD = "/api/file-stream-upload"
UPLOAD_PATH = "audio/sources"
SUBMIT_S = 40.0
UPLOAD_S = 120.0
LOOK_S = 30.0
CREDITS_S = 10.0

UNREACHABLE = "The Suno provider cannot be reached. Try again later, or check SUNO_API_BASE_URL."
UNKNOWN_OUTCOME = (
    "The submission was sent to the Suno provider and no task id came back, so a task may exist and may have been "
    "paid. It was not sent again. Look for it in the provider's dashboard; with its task id, 'task_id' fetches it at "
    "no cost."
)


@dataclass(frozen=True)
class Order:
    """A submission: endpoint and JSON body, without the callback URL."""

    path: str
    body: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Source:
    """A song to upload; `ending` is its file name's, without a dot."""

    data: bytes = field(repr=False)
    ending: str
    media_type: str


class SunoClient:
    """One account at one provider.

    Args:
        config: where it is; `config.problem()` is None.
        transport: how calls get there.
    """

    def __init__(self, config: SunoConfig, transport: Transport) -> None:
        self._config = config
        self._transport = transport
        self._clean = answers.cleaner(config.token.strip())

    def submit(self, order: Order, check: Check) -> str:
        """Sends the order, once, and returns the task's id.

        Raises:
            UpstreamError: `provider_unreachable`, `rate_limited`, `maintenance` where nothing was created and trying
                again is safe; `submit_unknown` where a task may exist; else why the provider refused.
            CancelledError, DeadlineError: from `check`; says whether a task may exist.
        """
        body = {**order.body, "callBackUrl": self._config.callback_url}
        call = Call("POST", self._config.api + order.path, body=body, timeout_s=SUBMIT_S, linger=True)
        try:
            answer = self._transport.send(call, check)
        except NotSentError as error:
            raise UpstreamError(UNREACHABLE + " Nothing was submitted.", code=ErrorCode.PROVIDER_UNREACHABLE) from error
        except NoAnswerError as error:
            raise UpstreamError(
                UNKNOWN_OUTCOME, code=ErrorCode.SUBMIT_UNKNOWN, details={"submitted": "unknown"}
            ) from error
        except (CancelledError, DeadlineError) as error:
            raise _cut_short(error) from error
        said = answers.envelope(answer.body, self._clean)
        task_id = answers.task_id(said.data, self._clean)
        if task_id:
            return task_id  # whatever the code: a task that has an id may have been paid
        raise _submit_failure(answer, said)

    def look(self, task_id: str, check: Check, timeout_s: float = LOOK_S) -> Record | None:
        """The task's record, None where the provider knows no such task. Raises `UpstreamError`."""
        query = {"taskId": task_id}
        answer = self._asked(Call("GET", self._config.api + RECORD, query=query, timeout_s=timeout_s), check)
        said = answers.envelope(answer.body, self._clean)
        code = _code(answer, said)
        if code == 200:
            return answers.record(said.data, self._clean)
        if code in (400, 404, 422) and said.code is not None:
            return None
        raise refusal(code, said.message, retry_after_s=answer.retry_after_s)

    def credits(self, check: Check) -> float | None:
        """The account's balance, None where it is not told. Raises `UpstreamError` for a bad key only."""
        for path in CREDITS:
            call = Call("GET", self._config.api + path, timeout_s=CREDITS_S)
            try:
                answer = self._asked(call, check)
            except UpstreamError:
                return None
            said = answers.envelope(answer.body, self._clean)
            code = _code(answer, said)
            if code == 401:
                raise refusal(401, said.message)
            if code == 200 and (balance := answers.credits_left(said.data)) is not None:
                return balance
        return None

    def upload(self, source: Source, check: Check, timeout_s: float = UPLOAD_S) -> str:
        """Gives the provider a song under a name never used before, and returns the URL it is known by there.

        Raises `UpstreamError`; uploads cost nothing, so the caller may repeat them.
        """
        # A name used before would be overwritten, and served from a cache for a while.
        name = f"{uuid.uuid4().hex}.{source.ending}"
        upload = Upload(name, source.media_type, source.data, {"uploadPath": UPLOAD_PATH, "fileName": name})
        url = self._config.uploads + FILE_UPLOAD
        answer = self._asked(Call("POST", url, upload=upload, timeout_s=timeout_s), check)
        said = answers.envelope(answer.body, self._clean)
        known_by = answers.uploaded_url(said.data)
        code = _code(answer, said)
        if code == 200 and known_by:
            return known_by
        if code == 200:
            raise UpstreamError(
                "The Suno provider took the upload but gave no address for it.", code=ErrorCode.UPLOAD_FAILED
            )
        raise refusal(code, said.message, retry_after_s=answer.retry_after_s)

    def _asked(self, call: Call, check: Check) -> Answer:
        """A call that may be made again at will."""
        try:
            return self._transport.send(call, check)
        except (NotSentError, NoAnswerError) as error:
            raise UpstreamError(UNREACHABLE, code=ErrorCode.PROVIDER_UNREACHABLE) from error


def _code(answer: Answer, said: Envelope) -> int:
    """What the answer amounts to: the application's code where it is an error, else the HTTP status."""
    if said.code not in (None, 200):
        return int(said.code or 0)
    if answer.status == 200 and said.code is None:
        return 500  # a page, or a body that was cut: not an answer
    if 300 <= answer.status < 400:
        return 404  # never followed: the key would go to another host
    return 200 if 200 <= answer.status < 300 else answer.status


def _submit_failure(answer: Answer, said: Envelope) -> UpstreamError:
    """Why there is no task id; `submit_unknown` unless the answer rules a task out."""
    details: dict[str, Any] = {"retry_after_s": answer.retry_after_s}
    if said.code is not None and said.code != 200:
        error = refusal(said.code, said.message, **details)
        if error.error_code == ErrorCode.PROVIDER_FAILED:
            error.details["submitted"] = "unknown"
        return error
    if said.code is None and answer.status == 429:
        # Without the envelope this is a gateway's own limit, not the application's "no credits".
        return refusal(430, said.message, **details)
    if said.code is None and 300 <= answer.status < 500:
        # 405 without the envelope is HTTP's "wrong method", not the application's rate limit.
        return refusal(404 if answer.status < 400 or answer.status == 405 else answer.status, said.message, **details)
    return UpstreamError(
        UNKNOWN_OUTCOME, code=ErrorCode.SUBMIT_UNKNOWN, details={"submitted": "unknown", "http_status": answer.status}
    )


def _cut_short(error: RequestError) -> RequestError:
    return type(error)(
        f"{error.message} The submission was on its way, so a Suno task may exist and its credits may be spent; "
        "the provider's dashboard shows it.",
        code=error.error_code,
        details={**error.details, "submitted": "unknown"},
    )
