"""Where a task stands, judged from one record: go on waiting, done, or failed. Pure; knows no clock and no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from errors import ErrorCode, UpstreamError
from models.suno.catalog import TAKES_PER_REQUEST
from models.suno.failures import task_failure
from models.suno.responses import Clip, Record

# How far a task is, by the provider's states; "GENERATING" stands in quick-start samples only.
PROGRESS: Mapping[str, float] = MappingProxyType(
    {"PENDING": 0.10, "GENERATING": 0.20, "TEXT_SUCCESS": 0.30, "FIRST_SUCCESS": 0.70, "SUCCESS": 0.90}
)
CALLBACK_FAILED = "CALLBACK_EXCEPTION"
KNOWN = frozenset({*PROGRESS, CALLBACK_FAILED})
# After SUCCESS the addresses may come a moment later. A failed callback says nothing of the song, which goes on being
# made for minutes: nobody has to listen at the callback's address.
SUCCESS_GRACE_S = 60.0
CALLBACK_GRACE_S = 240.0


@dataclass(frozen=True)
class TaskStatus:
    """A task that has not failed: `takes` once it is `done`; `warning` where they are fewer than were asked for."""

    done: bool
    takes: tuple[Clip, ...] = ()
    warning: str = ""


def ready(record: Record) -> tuple[Clip, ...]:
    """The takes that can be downloaded."""
    return tuple(take for take in record.takes if take.urls)


def has_failed(record: Record) -> bool:
    """Whether the provider has given the task up. An error code counts whatever the status says (seen with PENDING)."""
    if record.status == CALLBACK_FAILED:
        return False
    return record.error_code is not None or record.status.endswith(("FAILED", "_ERROR"))


def judge(record: Record, unchanged_s: float) -> TaskStatus:
    """What `record` means, `unchanged_s` after the task last moved. Raises `UpstreamError` for a failed task."""
    takes = ready(record)
    if has_failed(record):
        if not takes:
            raise task_failure(record.status, record.error_code, record.error_message)
        return _done(takes, f"Suno ended the task with {record.status or 'an error'}")
    if record.status == "SUCCESS":
        return _when_settled(takes, len(takes) == len(record.takes), unchanged_s, SUCCESS_GRACE_S)
    if record.status == CALLBACK_FAILED:
        grace_s = SUCCESS_GRACE_S if takes else CALLBACK_GRACE_S
        return _when_settled(takes, len(takes) >= TAKES_PER_REQUEST, unchanged_s, grace_s)
    return TaskStatus(done=False)


def _when_settled(takes: tuple[Clip, ...], complete: bool, unchanged_s: float, grace_s: float) -> TaskStatus:
    if takes and (complete or unchanged_s >= grace_s):
        return _done(takes, "Suno finished the task")
    if unchanged_s < grace_s:
        return TaskStatus(done=False)
    raise UpstreamError(
        "Suno finished the task without giving an address of its audio. Ask again later with its 'task_id'; "
        "that costs nothing.",
        code=ErrorCode.RESULT_UNUSABLE,
    )


def _done(takes: tuple[Clip, ...], how: str) -> TaskStatus:
    missing = len(takes) < TAKES_PER_REQUEST
    return TaskStatus(done=True, takes=takes, warning=f"{how} with {len(takes)} take of 2." if missing else "")
