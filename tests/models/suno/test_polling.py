"""Polling a task: its delays, its deadline, and what its records mean."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from errors import CancelledError, ErrorCode, UpstreamError
from models.runtime.progress import ignore_progress
from models.suno.polling import (
    CALLBACK_FAILED,
    CALLBACK_GRACE_S,
    MAX_POLL_INTERVAL_S,
    MAX_SILENCE_S,
    SUCCESS_GRACE_S,
    Deadline,
    TaskStatus,
    evaluate,
    poll_task,
)
from models.suno.responses import Clip, TaskRecord
from testing.suno_worker import FakeClock

TASK = "task-1"


def make_record(state: str, urls: int = 0, clips: int | None = None, error_code: int | None = None) -> TaskRecord:
    """A record with `clips` clips, of which the first `urls` can be downloaded."""
    return TaskRecord(
        state,
        tuple(
            Clip(index, f"audio-{index}", "", "", "", None, ("https://files.example.com/a.mp3",) * (index < urls))
            for index in range(urls if clips is None else clips)
        ),
        error_code,
    )


class RecordSequence:
    """Returns or raises its items one after the other, the last one for ever; notes the times of the requests."""

    def __init__(self, clock: FakeClock, *items: TaskRecord | UpstreamError | None) -> None:
        self.times: list[float] = []
        self._clock = clock
        self._items: Iterator[TaskRecord | UpstreamError | None] = iter(items)
        self._last: TaskRecord | UpstreamError | None = None

    def __call__(self) -> TaskRecord | None:
        self.times.append(self._clock.now)
        self._last = next(self._items, self._last)
        if isinstance(self._last, UpstreamError):
            raise self._last
        return self._last

    def intervals(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


def poll(clock: FakeClock, records: RecordSequence, *, seconds: float = 600.0, is_new: bool = False) -> TaskStatus:
    deadline = Deadline(clock.clock(), clock.now + seconds)
    return poll_task(TASK, records, deadline=deadline, is_new=is_new, progress=ignore_progress)


def test_the_interval_between_polls_grows_to_its_maximum() -> None:
    clock = FakeClock()
    records = RecordSequence(clock, *[make_record("PENDING")] * 12, make_record("SUCCESS", 2))
    assert poll(clock, records).done
    assert records.intervals()[0] == pytest.approx(5.0)
    assert records.intervals() == sorted(records.intervals())
    assert records.intervals()[-1] == pytest.approx(MAX_POLL_INTERVAL_S)


def test_failed_polls_are_repeated_with_growing_delays_and_the_last_error_is_kept() -> None:
    clock = FakeClock()
    error = UpstreamError("The provider is busy.", code=ErrorCode.RATE_LIMITED)
    records = RecordSequence(clock, make_record("PENDING"), error)
    status = poll(clock, records, seconds=200.0)
    assert (status.done, status.last_error, status.record.state) == (False, "The provider is busy.", "PENDING")
    assert records.intervals()[1:5] == pytest.approx([5.0, 10.0, 20.0, 30.0])


UNREACHABLE = UpstreamError("Nobody answers.", code=ErrorCode.PROVIDER_UNREACHABLE)


def test_an_earlier_task_is_given_up_if_the_provider_does_not_answer_for_a_minute() -> None:
    clock = FakeClock()
    with pytest.raises(UpstreamError, match="Nobody answers") as caught:
        poll(clock, RecordSequence(clock, UNREACHABLE), seconds=600.0)
    assert caught.value.error_code == "provider_unreachable"
    assert MAX_SILENCE_S <= clock.slept < 2 * MAX_SILENCE_S


def test_an_earlier_task_of_a_provider_that_never_answered_is_not_said_to_be_running() -> None:
    clock = FakeClock()
    with pytest.raises(UpstreamError, match="Nobody answers"):
        poll(clock, RecordSequence(clock, UNREACHABLE), seconds=5.0)


def test_answers_in_between_and_a_task_that_was_paid_just_now_prolong_the_wait() -> None:
    clock = FakeClock()
    answers: list[TaskRecord | UpstreamError] = [make_record("PENDING"), UNREACHABLE, UNREACHABLE] * 9
    assert poll(clock, RecordSequence(clock, *answers, make_record("SUCCESS", 2)), seconds=600.0).done
    assert not poll(clock, RecordSequence(clock, UNREACHABLE), seconds=600.0, is_new=True).done


def test_a_poll_waits_as_long_as_the_provider_asks() -> None:
    clock = FakeClock()
    error = UpstreamError("Slow down.", code=ErrorCode.RATE_LIMITED, details={"retry_after_s": 77.0})
    records = RecordSequence(clock, error, make_record("SUCCESS", 2))
    assert poll(clock, records).done
    assert records.intervals() == pytest.approx([77.0])


def test_a_rejected_key_ends_polling() -> None:
    clock = FakeClock()
    records = RecordSequence(clock, make_record("PENDING"), UpstreamError("Bad key.", code=ErrorCode.BAD_KEY))
    with pytest.raises(UpstreamError, match="Bad key"):
        poll(clock, records)


def test_a_new_task_may_be_unlisted_for_a_while_but_an_old_one_may_not() -> None:
    clock = FakeClock()
    assert poll(clock, RecordSequence(clock, *[None] * 9, make_record("SUCCESS", 2)), is_new=True).done
    records = RecordSequence(clock, None)
    with pytest.raises(UpstreamError) as caught:
        poll(clock, records)
    assert (caught.value.error_code, len(records.times)) == ("unknown_task", 3)


def test_at_the_deadline_one_last_request_is_made() -> None:
    clock = FakeClock()
    records = RecordSequence(clock, make_record("PENDING"))
    started = clock.now
    assert not poll(clock, records, seconds=33.0).done
    assert records.times[-1] - started == pytest.approx(33.0)


def test_a_sleep_ends_within_a_tick_after_the_job_is_cancelled() -> None:
    clock = FakeClock()
    started = clock.now

    def check() -> None:
        if clock.now >= started + 10.0:
            raise CancelledError("The job was cancelled.")

    with pytest.raises(CancelledError):
        Deadline(clock.clock(), started + 1000.0, check).sleep(500.0)
    assert clock.slept <= 10.0 + clock.clock().tick_s


@pytest.mark.parametrize(
    ("record", "unchanged_s", "clips"),
    [
        (make_record("PENDING"), 999.0, None),
        (make_record("FIRST_SUCCESS", 1), 999.0, None),
        (make_record("SUCCESS", 2), 0.0, 2),
        (make_record("SUCCESS", 1, clips=2), 0.0, None),
        (make_record("SUCCESS", 1, clips=2), SUCCESS_GRACE_S, 1),
        (make_record("SUCCESS"), 0.0, None),
        (make_record(CALLBACK_FAILED, 2), 0.0, 2),
        (make_record(CALLBACK_FAILED, 1), 0.0, None),
        (make_record(CALLBACK_FAILED, 1), SUCCESS_GRACE_S, 1),
        (make_record(CALLBACK_FAILED), CALLBACK_GRACE_S - 1, None),
        (make_record("GENERATE_AUDIO_FAILED", 1, error_code=501), 0.0, 1),
    ],
)
def test_a_record_means_done_when_its_clips_are_complete_or_no_more_are_coming(
    record: TaskRecord, unchanged_s: float, clips: int | None
) -> None:
    status = evaluate(record, unchanged_s)
    assert (status.done, len(status.clips)) == (clips is not None, clips or 0)
    assert bool(status.warning) == (clips == 1)


@pytest.mark.parametrize(
    ("record", "unchanged_s", "code"),
    [
        (make_record("GENERATE_AUDIO_FAILED"), 0.0, "provider_failed"),
        (make_record("SENSITIVE_WORD_ERROR"), 0.0, "moderation"),
        (make_record("PENDING", error_code=413), 0.0, "source_refused"),
        (make_record("SUCCESS"), SUCCESS_GRACE_S, "result_unusable"),
        (make_record(CALLBACK_FAILED), CALLBACK_GRACE_S, "result_unusable"),
    ],
)
def test_a_record_of_a_failed_task_is_an_error(record: TaskRecord, unchanged_s: float, code: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        evaluate(record, unchanged_s)
    assert caught.value.error_code == code
