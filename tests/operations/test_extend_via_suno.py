"""extend_via_suno as a caller meets it, against a provider over real HTTP in every scenario; waiting is faked."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio import Audio
from errors import AudioError, CancelledError, DeadlineError, InvalidRequestError, ModelError, RequestError
from models import Models
from models.suno import SunoConfig, SunoFamily
from operations import extend_via_suno
from operations.build_models import suno_config
from testing.suno_provider import TOKEN
from testing.suno_worker import FakeTime, cancelled_when, extend, watched, worker
from worker.job import Job
from worker.settings import Settings


def song(seconds: float = 10.0, sample_rate: int = 16_000) -> Audio:
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    return Audio(np.stack([0.2 * np.sin(2 * np.pi * 330 * t)] * 2).astype(np.float32), sample_rate)


def extend_song(models: Models, job: Job | None = None, *, source: Audio | None = None, **params: Any) -> Any:
    """extend_via_suno with `source` as intake leaves it."""
    job = job or Job(id="job-1")
    job.audio["audio"] = source or song()
    return extend_via_suno.run(extend_via_suno.Params.parse({"audio": "AAAA"} | params), job, models)


def failure(scenario: str, **params: Any) -> tuple[RequestError, int]:
    """What `scenario` fails with, and how many submissions the provider saw."""
    with worker(scenario) as (provider, models):
        with pytest.raises(RequestError) as caught:
            extend(models, **params)
        assert provider.complaints == []
        return caught.value, len(provider.posts)


@pytest.mark.parametrize(
    ("scenario", "takes", "posts", "warned"),
    [
        ("happy", 2, 1, ""),
        ("one_take", 1, 1, "1 take of 2"),
        ("first_then_failure", 1, 1, "GENERATE_AUDIO_FAILED"),
        ("unknown_status", 2, 1, ""),
        ("callback_with_audio", 2, 1, ""),
        ("callback_then_audio", 2, 1, ""),
        ("callback_one_take", 1, 1, "1 take of 2"),
        ("first_forever", 1, 1, "'max_wait_s' is over"),
        ("success_late_audio", 2, 1, ""),
        ("quick_start", 2, 1, ""),
        ("result_json", 2, 1, ""),
        ("create_time_number", 2, 1, ""),
        ("too_often_twice", 2, 3, ""),
        ("rate_405", 2, 2, ""),
        ("gateway_429", 2, 2, ""),
        ("maintenance_once", 2, 2, ""),
        ("no_balance", 2, 1, ""),
        ("looks_fail", 2, 1, ""),
        ("file_404_twice", 2, 1, ""),
        ("file_empty", 2, 1, ""),
        ("file_via_stream", 2, 1, ""),
        ("identical_takes", 2, 1, "same bytes"),
        ("wrong_duration", 2, 1, "speaks of 62.0 s"),
    ],
)
def test_a_song_comes_back_from(scenario: str, takes: int, posts: int, warned: str) -> None:
    with worker(scenario) as (provider, models):
        job = Job(id="job-1")
        reply = extend(models, job)
    assert [output.extra["index"] for output in reply.outputs] == list(range(takes))
    assert all(output.audio.duration > 1.9 for output in reply.outputs)
    assert reply.fields["task_id"] == "task-0001"
    assert reply.fields["credits_left"] == (None if scenario == "no_balance" else 88)
    assert (len(provider.posts), len(provider.tasks)) == (posts, 1)
    assert warned in " ".join(job.warnings)
    assert bool(warned) == bool(job.warnings)
    assert provider.complaints == []


@pytest.mark.parametrize(
    ("scenario", "code", "posts", "has_task"),
    [
        ("create_failed", "provider_failed", 1, True),
        ("generate_failed", "provider_failed", 1, True),
        ("sensitive_word", "moderation", 1, True),
        ("pending_413", "source_refused", 1, True),
        ("callback_without_audio", "result_unusable", 1, True),
        ("success_without_audio", "result_unusable", 1, True),
        ("pending_forever", "still_running", 1, True),
        ("look_401", "bad_key", 1, True),
        ("file_gone", "result_unusable", 1, True),
        ("file_is_a_page", "result_unusable", 1, True),
        ("file_url_result", "result_unusable", 1, True),
        ("rate_forever", "rate_limited", 6, False),
        ("maintenance", "maintenance", 4, False),
        ("no_credits", "insufficient_credits", 1, False),
        ("empty_account", "insufficient_credits", 0, False),
        ("refused_400", "request_refused", 1, False),
        ("too_long_413", "text_too_long", 1, False),
        ("submit_html_500", "submit_unknown", 1, False),
        ("submit_code_500", "provider_failed", 1, False),
        ("submit_no_id", "submit_unknown", 1, False),
        ("submit_cut", "submit_unknown", 1, False),
        ("submit_redirect", "wrong_address", 1, False),
    ],
)
def test_a_failure_has_its_own_code_from(scenario: str, code: str, posts: int, has_task: bool) -> None:
    error, seen = failure(scenario)
    assert (error.error_code, seen) == (code, posts)
    assert error.details.get("task_id") == ("task-0001" if has_task else None)
    assert len(error.message) > 20 and TOKEN not in str(error.reply())


@pytest.mark.parametrize("scenario", ["private_result", "metadata_result"])
def test_a_result_at_a_private_address_is_not_fetched(scenario: str) -> None:
    with worker(scenario, allow_private_urls=False) as (provider, models), pytest.raises(RequestError) as caught:
        extend(models)
    assert caught.value.error_code == "result_unusable"
    assert "private" in " ".join(caught.value.details["reasons"])
    assert len(provider.tasks) == 1


def test_a_result_beside_the_provider_on_loopback_is_private_too() -> None:
    with worker("happy", allow_private_urls=False) as (provider, models), pytest.raises(RequestError) as caught:
        extend(models)
    assert caught.value.details["task_id"] == "task-0001"
    assert not any(call.startswith("GET /files/") for call in provider.calls)


def test_each_output_says_what_suno_says_of_it() -> None:
    with worker("happy") as (provider, models):
        reply = extend(models, prompt="la la", style="folk", title="River", continue_at=20.0)
        first = reply.outputs[0].extra
    assert first == {
        "index": 0,
        "audio_id": "audio-task-0001-0",
        "title": "River",
        "tags": "folk",
        "lyrics": "[Verse]\nlines that were sung",
        "source_url": f"{provider.url}/files/task-0001/0.wav",
    }
    assert reply.fields["status"] == "SUCCESS"


def test_an_uploaded_song_is_continued_from_its_point() -> None:
    with worker("happy") as (provider, models):
        reply = extend_song(models, prompt="la la", style="folk", continue_at=6.0, weirdness=0.333)
    path, body = provider.posts[0]
    assert path.endswith("/upload-extend")
    assert (body["continueAt"], body["weirdnessConstraint"], body["instrumental"]) == (6.0, 0.33, False)
    assert body["uploadUrl"] in provider.uploaded
    assert reply.parameters["weirdness"] == 0.33
    assert provider.complaints == []


def test_the_upload_is_the_song_up_to_where_it_is_cut() -> None:
    from audio.files.decode import DecodeLimits, decode

    with worker("happy") as (provider, models):
        extend_song(models, continue_at=4.0)
    (data,) = provider.uploaded.values()
    limits = DecodeLimits(max_bytes=10**7, max_seconds=100, max_sample_rate=48_000, max_channels=2)
    assert abs(decode(data, limits=limits).audio.duration - 4.0) < 0.1


@pytest.mark.parametrize("scenario", ["upload_fails_twice"])
def test_an_upload_that_fails_is_repeated(scenario: str) -> None:
    with worker(scenario) as (provider, models):
        assert len(extend_song(models).outputs) == 2
    assert len(provider.posts) == 1


def test_an_upload_that_is_refused_submits_nothing() -> None:
    with worker("upload_refused") as (provider, models), pytest.raises(RequestError) as caught:
        extend_song(models)
    assert caught.value.error_code == "request_refused"
    assert caught.value.details["stage"] == "upload"
    assert provider.posts == []


def test_the_source_is_not_kept_while_suno_works() -> None:
    with worker("happy") as (_, models):
        job, updates = watched()
        job.audio["audio"] = song()
        source = weakref.ref(job.audio["audio"].waveform)
        kept = []

        def note() -> bool:
            kept.append((updates[-1]["percent"], source() is not None))
            return False

        cancelled_when(job, note)
        extend_via_suno.run(extend_via_suno.Params.parse({"audio": "AAAA"}), job, models)
    assert (0.0, True) in kept
    assert (10.0, False) in kept


def test_a_source_too_long_for_the_version_is_refused_before_anything_is_sent() -> None:
    with worker("happy") as (provider, models), pytest.raises(AudioError, match="at most 60 s"):
        extend_song(models, source=song(61.0, 8000), model="V4_5ALL")
    assert provider.calls == []


@pytest.mark.parametrize(
    "params",
    [
        {"continue_at": 10.5},
        {"style": "folk"},
        {"model": "V4", "style": "x" * 201, "instrumental": True},
    ],
)
def test_what_suno_would_refuse_is_refused_before_anything_is_sent(params: Mapping[str, Any]) -> None:
    with worker("happy") as (provider, models), pytest.raises(InvalidRequestError):
        extend_song(models, **params)
    assert provider.calls == []


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "exactly one"),
        ({"audio": "AAAA", "audio_id": "a"}, "audio and audio_id"),
        ({"audio": "AAAA", "audio_id": "a", "task_id": "t"}, "audio and audio_id and task_id"),
        ({"audio_id": "a", "mode": "poll"}, "'poll' needs 'task_id'"),
        ({"task_id": "t", "mode": "submit"}, "is one already"),
        ({"task_id": "../x"}, "task_id"),
        ({"audio_id": "a", "continue_at": 0}, "continue_at"),
        ({"audio_id": "a", "continue_at": -3}, "continue_at"),
        ({"audio_id": "a", "weirdness": 1.2}, "weirdness"),
        ({"audio_id": "a", "weirdness": True}, "weirdness"),
        ({"audio_id": "a", "vocal_gender": "x"}, "vocal_gender"),
        ({"audio_id": "a", "prompt": "x" * 5001}, "prompt"),
        ({"audio_id": "a", "prompt": "   "}, "prompt"),
        ({"audio_id": "a", "model": "V4\n5"}, "model"),
        ({"audio_id": "a", "max_wait_s": 901}, "max_wait_s"),
        ({"audio_id": "a", "separate": []}, "separate"),
        ({"audio_id": "a", "separate": ["violin"]}, "separate"),
        ({"audio_id": "a", "separate": ["drums", "drums"]}, "separate"),
        ({"audio_id": "a", "mode": "later"}, "mode"),
        ({"audio_id": "a", "styl": "folk"}, "'style'"),
    ],
)
def test_parameters_that_break_the_contract_are_named(values: Mapping[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        extend_via_suno.Params.parse(values)
    assert named in caught.value.message
    assert len(caught.value.message) < 1000


def test_an_unknown_version_is_passed_on_with_a_warning() -> None:
    with worker("happy") as (provider, models):
        job = Job(id="job-1")
        extend(models, job, model="V6_WILD")
    assert provider.posts[0][1]["model"] == "V6_WILD"
    assert "V6_WILD" in job.warnings[0]


def test_without_a_key_the_operation_says_so_and_list_models_too() -> None:
    family = SunoFamily(SunoConfig(token=""))
    with pytest.raises(RequestError, match="SUNO_API_TOKEN is not set") as caught:
        extend(Models({"suno": family}))
    assert caught.value.error_code == "not_configured"
    assert family.status() == "SUNO_API_TOKEN is not set"
    assert {row["available"] for row in family.rows()} == {"SUNO_API_TOKEN is not set"}


def test_with_a_key_the_family_is_ready_and_lists_its_versions() -> None:
    family = SunoFamily(SunoConfig(token=TOKEN))
    assert family.status() == "ready"
    assert [row["name"] for row in family.rows() if row["default"]] == ["V4_5"]
    assert TOKEN not in str(family.rows()) + repr(family)


def test_the_environment_names_the_provider() -> None:
    settings = Settings.from_env(
        {"SUNO_API_TOKEN": TOKEN, "SUNO_API_BASE_URL": "https://api.kie.ai", "SUNO_RATE_LIMIT": "3"}
    )
    config = suno_config(settings)
    assert (config.token, config.uploads) == (TOKEN, "https://kieai.redpandaai.co")
    assert (config.submissions_per_minute, config.problem()) == (3, None)
    assert suno_config(Settings.from_env({})).problem() == "SUNO_API_TOKEN is not set"
    assert TOKEN not in repr(settings) + repr(config)


def test_submit_returns_the_task_at_once_and_wait_fetches_it_without_paying() -> None:
    fake = FakeTime()
    with worker("happy", time=fake) as (provider, models):
        submitted = extend(models, mode="submit")
        assert fake.slept == 0
        fetched = extend(models, Job(id="job-2"), task_id=submitted.fields["task_id"])
    assert (submitted.fields["status"], submitted.fields["outputs"]) == ("PENDING", [])
    assert len(fetched.outputs) == 2
    assert (len(provider.posts), provider.balance) == (1, 88)


def test_poll_looks_once_and_fetches_when_done() -> None:
    fake = FakeTime()
    with worker("happy", time=fake) as (_, models):
        task_id = extend(models, mode="submit").fields["task_id"]
        polls = [extend(models, task_id=task_id, mode="poll") for _ in range(4)]
    assert [poll.fields["status"] for poll in polls] == ["PENDING", "TEXT_SUCCESS", "FIRST_SUCCESS", "SUCCESS"]
    assert [len(poll.outputs) for poll in polls] == [0, 0, 0, 2]
    assert polls[2].fields["takes"][0]["source_url"].startswith("http")
    assert fake.slept == 0


def test_poll_looks_until_max_wait_s_where_it_is_given() -> None:
    with worker("happy") as (_, models):
        task_id = extend(models, mode="submit").fields["task_id"]
        assert len(extend(models, task_id=task_id, mode="poll", max_wait_s=60).outputs) == 2
    with worker("pending_forever") as (_, models):
        task_id = extend(models, mode="submit").fields["task_id"]
        assert extend(models, task_id=task_id, mode="poll", max_wait_s=60).fields["status"] == "PENDING"


def test_the_parameters_of_a_task_that_was_resumed_claim_nothing() -> None:
    with worker("happy") as (_, models):
        task_id = extend(models, mode="submit").fields["task_id"]
        assert extend(models, task_id=task_id).parameters["model"] is None


def test_a_failed_callback_is_not_the_callers_affair() -> None:
    with worker("callback_with_audio") as (_, models):
        assert extend(models).fields["status"] == "SUCCESS"


def test_a_result_that_holds_only_what_follows_is_warned_of() -> None:
    with worker("happy") as (_, models):
        job = Job(id="job-1")
        extend_song(models, job, prompt="la la", style="folk", continue_at=9.0)
    assert ["suno_1: it is 2.0 s" in job.warnings[0], "suno_2: it is 3.0 s" in job.warnings[1]] == [True, True]


@pytest.mark.parametrize("mode", ["wait", "poll"])
def test_a_task_that_nobody_knows_is_told_so(mode: str) -> None:
    fake = FakeTime()
    with worker("happy", time=fake) as (_, models), pytest.raises(RequestError) as caught:
        extend(models, task_id="task-9999", mode=mode)
    assert caught.value.error_code == "unknown_task"
    assert caught.value.details["task_id"] == "task-9999"
    assert fake.slept < 60


def test_song_fields_beside_a_task_are_left_out_with_a_warning() -> None:
    with worker("happy") as (_, models):
        task_id = extend(models, mode="submit").fields["task_id"]
        job = Job(id="job-2")
        extend(models, job, task_id=task_id, prompt="la la", model="V5")
    assert job.warnings == ["With 'task_id' nothing new is made, so these were left out: prompt, model."]


@pytest.mark.parametrize(("select", "indices"), [("all", [0, 1]), ("first", [0]), ("longest", [1])])
def test_select_chooses_among_the_takes(select: str, indices: list[int]) -> None:
    with worker("happy") as (_, models):
        reply = extend(models, select=select)
    assert [output.extra["index"] for output in reply.outputs] == indices
    assert len(reply.fields["takes"]) == 2


def test_the_task_goes_out_by_progress_at_once_and_stays_there() -> None:
    with worker("happy") as (_, models):
        job, updates = watched()
        extend(models, job)
    named = [update.get("task_id") for update in updates]
    first = named.index("task-0001")
    assert updates[first]["percent"] <= 5
    assert set(named[first:]) == {"task-0001"}
    percents = [update["percent"] for update in updates]
    assert percents == sorted(percents) and percents[-1] == 100


def test_cancel_while_waiting_says_that_the_credits_are_spent() -> None:
    with worker("pending_forever") as (provider, models):
        job, updates = watched()
        cancelled_when(job, lambda: updates[-1]["percent"] >= 10)
        with pytest.raises(CancelledError, match="credits are spent") as caught:
            extend(models, job)
    assert caught.value.details["task_id"] == "task-0001"
    assert sum("record-info" in call for call in provider.calls) == 1


def test_cancel_before_the_submission_submits_nothing() -> None:
    with worker("happy") as (provider, models):
        job, _ = watched()
        job.cancel.set()
        with pytest.raises(CancelledError) as caught:
            extend(models, job)
    assert provider.posts == []
    assert "task_id" not in caught.value.details


def test_the_jobs_own_deadline_names_the_task_as_well() -> None:
    with worker("pending_forever") as (_, models):
        job, updates = watched()
        report = job.report

        def late(update: Mapping[str, Any]) -> None:
            report(update)
            job.deadline = 0.0 if len(updates) > 3 else None

        job.report = late
        with pytest.raises(DeadlineError, match="at no further cost") as caught:
            extend(models, job)
    assert caught.value.details["task_id"] == "task-0001"


def test_a_job_delivered_twice_is_paid_once() -> None:
    with worker("happy") as (provider, models):
        extend(models, Job(id="job-1"))
        again = Job(id="job-1")
        assert len(extend(models, again).outputs) == 2
        assert "not paid again" in again.warnings[0]
        extend(models, Job(id="job-1"), prompt="la", style="folk", continue_at=3.0)
        extend(models, Job(id="job-2"))
    assert len(provider.tasks) == 3


def test_a_job_of_unknown_outcome_delivered_twice_is_not_sent_again() -> None:
    with worker("submit_cut") as (provider, models):
        for _ in range(2):
            with pytest.raises(RequestError) as caught:
                extend(models, Job(id="job-1"))
            assert caught.value.error_code == "submit_unknown"
    assert len(provider.posts) == 1


def test_a_refused_job_may_be_sent_again() -> None:
    with worker("no_credits") as (provider, models):
        for _ in range(2):
            with pytest.raises(RequestError) as caught:
                extend(models, Job(id="job-1"))
            assert caught.value.error_code == "insufficient_credits"
    assert len(provider.posts) == 2


def test_the_key_stands_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for scenario in ("happy", "look_401", "refused_400", "file_gone"):
        with worker(scenario) as (_, models):
            try:
                extend(models)
            except RequestError as error:
                logging.getLogger("test").error("failed", exc_info=error)
    assert "task-0001" in caplog.text
    assert TOKEN not in caplog.text


def test_the_unknown_state_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with worker("unknown_status") as (_, models):
        extend(models)
    assert caplog.text.count("POLISHING") == 1


def test_a_suno_job_ends_while_the_device_is_busy() -> None:
    class Busy:
        name = "busy"
        free = threading.Event()

        def memory_bytes(self, name: str) -> int:
            return 1

        def load(self, name: str, *, device: str) -> object:
            return self

    with worker("happy") as (_, suno_models):
        busy = Busy()
        models = Models({**suno_models.families, "busy": busy}, budget_bytes=10**9)  # type: ignore[dict-item]
        held = threading.Event()

        def hold(engine: object) -> None:
            held.set()
            busy.free.wait(60)

        at_work = threading.Thread(target=models.run, args=("busy", "x", hold))
        at_work.start()
        assert held.wait(30)
        assert len(extend(models).outputs) == 2
        assert at_work.is_alive()
        busy.free.set()
        at_work.join()


def test_stems_that_cannot_be_taken_are_refused_before_anything_is_paid() -> None:
    with worker("happy") as (provider, models), pytest.raises(ModelError, match="'separate'"):
        extend(models, separate=["vocals"])
    assert provider.calls == []


def test_separate_takes_stems_of_every_take(tmp_path: Path) -> None:
    from models.registry import build
    from testing.tiny_demucs import htdemucs, save_bag

    save_bag(tmp_path / "htdemucs", {"tiny": htdemucs()}, "htdemucs")
    separation = build(device="cpu", models_dir=tmp_path).families["demucs"]
    with worker("happy") as (_, suno_models):
        models = Models({**suno_models.families, "demucs": separation}, budget_bytes=10**9)
        job, updates = watched()
        reply = extend(models, job, separate=["vocals", "drums"])
    assert set(reply.stems) == {"take1_drums", "take1_vocals", "take2_drums", "take2_vocals"}
    for name, stem in reply.stems.items():
        take = reply.outputs[int(name[4]) - 1]
        assert stem.extra == {"index": take.extra["index"], "stem": name[6:]}
        assert stem.audio.duration == take.audio.duration
    percents = [update["percent"] for update in updates]
    assert percents == sorted(percents) and 80 < percents[-1] <= 100
    assert {update.get("task_id") for update in updates[-3:]} == {"task-0001"}
