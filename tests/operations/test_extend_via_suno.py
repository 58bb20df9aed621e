"""extend_via_suno against a provider over real HTTP, in every scenario, with a fake clock."""

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
from models.checkpoints.locations import WeightLocations
from models.f0 import PitchFamily
from models.f0.harvest import Harvest
from models.family import ModelHandle
from models.suno import SunoConfig, SunoFamily
from operations.build_models import suno_config
from operations.extend_via_suno import Params
from testing.models import list_as_json, make_models
from testing.signals import LIMITS
from testing.suno_provider import TOKEN, Provider
from testing.suno_scenarios import SCENARIOS
from testing.suno_worker import (
    FakeClock,
    InProcessHttpClient,
    build_family,
    cancel_when,
    make_observed_job,
    run_extend,
    start_provider,
)
from worker.job import Job
from worker.settings import Settings


def make_song(seconds: float = 10.0, sample_rate: int = 16_000) -> Audio:
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    return Audio(np.stack([0.2 * np.sin(2 * np.pi * 330 * t)] * 2).astype(np.float32), sample_rate)


def run_extend_upload(models: Models, job: Job | None = None, *, source: Audio | None = None, **params: Any) -> Any:
    """Runs extend_via_suno with `source` as the loaded audio input."""
    job = job or Job(id="job-1")
    job.audio["audio"] = source or make_song()
    return run_extend(models, job, **{"audio": "AAAA"} | params)


def run_until_error(scenario: str, **params: Any) -> tuple[RequestError, int]:
    """The error that `scenario` ends in, and the number of submissions that the provider received."""
    with start_provider(scenario) as (provider, models):
        with pytest.raises(RequestError) as caught:
            run_extend(models, **params)
        assert provider.violations == []
        return caught.value, len(provider.posts)


@pytest.mark.parametrize(
    ("scenario", "clips", "posts", "warned"),
    [
        ("happy", 2, 1, ""),
        ("one_clip", 1, 1, "1 of 2 clips"),
        ("first_then_failure", 1, 1, "GENERATE_AUDIO_FAILED"),
        ("unknown_status", 2, 1, ""),
        ("callback_with_audio", 2, 1, ""),
        ("callback_then_audio", 2, 1, ""),
        ("callback_one_clip", 1, 1, "1 of 2 clips"),
        ("first_forever", 1, 1, "'max_wait_s' passed"),
        ("success_late_audio", 2, 1, ""),
        ("quick_start", 2, 1, ""),
        ("result_json", 2, 1, ""),
        ("create_time_number", 2, 1, ""),
        ("too_often_twice", 2, 3, ""),
        ("rate_405", 2, 2, ""),
        ("gateway_429", 2, 2, ""),
        ("maintenance_once", 2, 2, ""),
        ("no_balance", 2, 1, ""),
        ("polls_fail", 2, 1, ""),
        ("file_404_twice", 2, 1, ""),
        ("file_empty", 2, 1, ""),
        ("file_via_stream", 2, 1, ""),
        ("identical_clips", 2, 1, "same bytes"),
        ("wrong_duration", 2, 1, "reports 62.0 s"),
    ],
)
def test_each_recoverable_scenario_returns_a_song(scenario: str, clips: int, posts: int, warned: str) -> None:
    with start_provider(scenario) as (provider, models):
        job = Job(id="job-1")
        reply = run_extend(models, job)
    assert [output.extra["index"] for output in reply.outputs] == list(range(clips))
    assert all(output.audio.duration > 1.9 for output in reply.outputs)
    assert reply.fields["task_id"] == "task-0001"
    assert reply.fields["credits_left"] == (None if scenario == "no_balance" else 88)
    assert (len(provider.posts), len(provider.tasks)) == (posts, 1)
    assert warned in " ".join(job.warnings)
    assert bool(warned) == bool(job.warnings)
    assert provider.violations == []


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
        ("poll_401", "bad_key", 1, True),
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
def test_each_failing_scenario_has_its_own_error_code(scenario: str, code: str, posts: int, has_task: bool) -> None:
    error, submissions = run_until_error(scenario)
    assert (error.error_code, submissions) == (code, posts)
    assert error.details.get("task_id") == ("task-0001" if has_task else None)
    assert len(error.message) > 20 and TOKEN not in str(error.to_reply())


def run_against_a_closed_port(**params: Any) -> tuple[RequestError, float]:
    """The error of a request while the provider refuses connections, and the seconds that it waited."""
    clock = FakeClock()
    provider = Provider(SCENARIOS["happy"])
    provider.url = "http://127.0.0.1:1"
    with pytest.raises(RequestError) as caught:
        run_extend(make_models(suno=build_family(provider, clock.clock())), **params)
    return caught.value, clock.slept


@pytest.mark.parametrize("source", [{}, {"task_id": "task-0001"}])
def test_without_waiting_time_a_provider_that_refuses_connections_is_an_error_at_once(source: dict[str, Any]) -> None:
    error, waited_s = run_against_a_closed_port(**source, max_wait_s=0)
    assert error.error_code == "provider_unreachable" and waited_s == 0


def test_with_waiting_time_a_refused_connection_is_tried_again() -> None:
    error, waited_s = run_against_a_closed_port(max_wait_s=600)
    assert error.error_code == "provider_unreachable" and 30 < waited_s < 60


def test_an_earlier_task_does_not_hold_the_worker_while_nothing_answers() -> None:
    error, waited_s = run_against_a_closed_port(task_id="task-0001", max_wait_s=600)
    assert error.error_code == "provider_unreachable" and waited_s < 120
    assert error.details["task_id"] == "task-0001"


@pytest.mark.parametrize("scenario", ["private_result", "metadata_result"])
def test_a_clip_at_a_private_address_is_not_downloaded(scenario: str) -> None:
    with (
        start_provider(scenario, allow_private_urls=False) as (provider, models),
        pytest.raises(RequestError) as caught,
    ):
        run_extend(models)
    assert caught.value.error_code == "result_unusable"
    assert "private" in " ".join(caught.value.details["reasons"])
    assert len(provider.tasks) == 1


def test_a_clip_on_the_providers_own_private_address_is_not_downloaded_either() -> None:
    with start_provider("happy", allow_private_urls=False) as (provider, models), pytest.raises(RequestError) as caught:
        run_extend(models)
    assert caught.value.details["task_id"] == "task-0001"
    assert not any(call.startswith("GET /files/") for call in provider.calls)


def test_each_output_describes_its_clip() -> None:
    with start_provider("happy") as (provider, models):
        reply = run_extend(models, prompt="la la", style="folk", title="River", continue_at=20.0)
        first = reply.outputs[0].extra
    assert first == {
        "index": 0,
        "audio_id": "audio-task-0001-0",
        "title": "River",
        "tags": "folk",
        "lyrics": "[Verse]\nthe lyrics of the clip",
        "source_url": f"{provider.url}/files/task-0001/0.wav",
    }
    assert reply.fields["status"] == "SUCCESS"


def test_an_uploaded_song_is_continued_from_the_requested_position() -> None:
    with start_provider("happy") as (provider, models):
        reply = run_extend_upload(models, prompt="la la", style="folk", continue_at=6.0, weirdness=0.333)
    path, body = provider.posts[0]
    assert path.endswith("/upload-extend")
    assert (body["continueAt"], body["weirdnessConstraint"], body["instrumental"]) == (6.0, 0.33, False)
    assert body["uploadUrl"] in provider.uploaded
    assert reply.parameters["weirdness"] == 0.33
    assert provider.violations == []


def test_without_a_style_only_the_song_up_to_the_position_is_uploaded() -> None:
    from audio.files.decode import decode

    with start_provider("happy") as (provider, models):
        run_extend_upload(models, continue_at=4.0)
    (data,) = provider.uploaded.values()
    assert abs(decode(data, limits=LIMITS).audio.duration - 4.0) < 0.1


@pytest.mark.parametrize("scenario", ["upload_fails_twice"])
def test_an_upload_that_fails_is_repeated(scenario: str) -> None:
    with start_provider(scenario) as (provider, models):
        assert len(run_extend_upload(models).outputs) == 2
    assert len(provider.posts) == 1


def test_after_a_rejected_upload_nothing_is_submitted() -> None:
    with start_provider("upload_refused") as (provider, models), pytest.raises(RequestError) as caught:
        run_extend_upload(models)
    assert caught.value.error_code == "request_refused"
    assert caught.value.details["stage"] == "upload"
    assert provider.posts == []


def test_the_source_is_not_kept_in_memory_while_suno_works() -> None:
    with start_provider("happy") as (_, models):
        job, updates = make_observed_job()
        song = make_song()
        job.audio["audio"] = song
        source = weakref.ref(song.waveform)
        del song
        observed = []

        def observe() -> bool:
            observed.append((updates[-1]["percent"], source() is not None))
            return False

        cancel_when(job, observe)
        run_extend(models, job, audio="AAAA")
    assert (0.0, True) in observed
    assert (10.0, False) in observed


def test_a_source_too_long_for_the_version_is_refused_before_anything_is_sent() -> None:
    with start_provider("happy") as (provider, models), pytest.raises(AudioError, match="at most 60 s"):
        run_extend_upload(models, source=make_song(61.0, 8000), model="V4_5ALL")
    assert provider.calls == []


@pytest.mark.parametrize(
    "params",
    [
        {"continue_at": 10.5},
        {"style": "folk"},
        {"model": "V4", "style": "x" * 201, "instrumental": True},
    ],
)
def test_what_suno_would_reject_is_refused_before_anything_is_sent(params: Mapping[str, Any]) -> None:
    with start_provider("happy") as (provider, models), pytest.raises(InvalidRequestError):
        run_extend_upload(models, **params)
    assert provider.calls == []


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "exactly one"),
        ({"audio": "AAAA", "audio_id": "a"}, "audio and audio_id"),
        ({"audio": "AAAA", "audio_id": "a", "task_id": "t"}, "audio and audio_id and task_id"),
        ({"audio_id": "a", "mode": "poll"}, "'poll' requires 'task_id'"),
        ({"task_id": "t", "mode": "submit"}, "names an existing one"),
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
def test_the_error_names_the_parameter_that_breaks_a_rule(values: Mapping[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Params.parse(values)
    assert named in caught.value.message
    assert len(caught.value.message) < 1000


def test_an_unknown_version_is_passed_on_with_a_warning() -> None:
    with start_provider("happy") as (provider, models):
        job = Job(id="job-1")
        run_extend(models, job, model="V6_WILD")
    assert provider.posts[0][1]["model"] == "V6_WILD"
    assert "V6_WILD" in job.warnings[0]


def test_without_a_key_the_operation_and_list_models_say_so() -> None:
    family = SunoFamily(SunoConfig(token=""))
    with pytest.raises(RequestError, match="SUNO_API_TOKEN is not set") as caught:
        run_extend(make_models(suno=family))
    assert caught.value.error_code == "not_configured"
    assert family.readiness().to_json() == "SUNO_API_TOKEN is not set"
    assert {row["available"] for row in list_as_json(family)} == {"SUNO_API_TOKEN is not set"}


def test_with_a_key_the_family_is_ready_and_lists_its_versions() -> None:
    family = SunoFamily(SunoConfig(token=TOKEN))
    assert family.readiness().is_ready
    assert [row["name"] for row in list_as_json(family) if row["default"]] == ["V4_5"]
    assert TOKEN not in str(family.list_models()) + repr(family)


def test_the_provider_is_configured_by_the_environment() -> None:
    settings = Settings.from_env(
        {"SUNO_API_TOKEN": TOKEN, "SUNO_API_BASE_URL": "https://api.kie.ai", "SUNO_RATE_LIMIT": "3"}
    )
    config = suno_config(settings)
    assert (config.token, config.upload_root) == (TOKEN, "https://kieai.redpandaai.co")
    assert (config.submissions_per_minute, config.find_problem()) == (3, None)
    assert suno_config(Settings.from_env({})).find_problem() == "SUNO_API_TOKEN is not set"
    assert TOKEN not in repr(settings) + repr(config)


def test_submit_returns_the_task_at_once_and_wait_fetches_it_without_paying() -> None:
    clock = FakeClock()
    with start_provider("happy", time=clock) as (provider, models):
        submitted = run_extend(models, mode="submit")
        assert clock.slept == 0
        fetched = run_extend(models, Job(id="job-2"), task_id=submitted.fields["task_id"])
    assert (submitted.fields["status"], submitted.fields["outputs"]) == ("PENDING", [])
    assert len(fetched.outputs) == 2
    assert (len(provider.posts), provider.balance) == (1, 88)


def test_poll_sends_one_status_request_and_downloads_when_done() -> None:
    clock = FakeClock()
    with start_provider("happy", time=clock) as (_, models):
        task_id = run_extend(models, mode="submit").fields["task_id"]
        polls = [run_extend(models, task_id=task_id, mode="poll") for _ in range(4)]
    assert [poll.fields["status"] for poll in polls] == ["PENDING", "TEXT_SUCCESS", "FIRST_SUCCESS", "SUCCESS"]
    assert [len(poll.outputs) for poll in polls] == [0, 0, 0, 2]
    assert polls[2].fields["takes"][0]["source_url"].startswith("http")
    assert clock.slept == 0


def test_poll_waits_for_max_wait_s_if_it_is_set() -> None:
    with start_provider("happy") as (_, models):
        task_id = run_extend(models, mode="submit").fields["task_id"]
        assert len(run_extend(models, task_id=task_id, mode="poll", max_wait_s=60).outputs) == 2
    with start_provider("pending_forever") as (_, models):
        task_id = run_extend(models, mode="submit").fields["task_id"]
        assert run_extend(models, task_id=task_id, mode="poll", max_wait_s=60).fields["status"] == "PENDING"


def test_the_parameters_of_a_resumed_task_are_null() -> None:
    with start_provider("happy") as (_, models):
        task_id = run_extend(models, mode="submit").fields["task_id"]
        assert run_extend(models, task_id=task_id).parameters["model"] is None


def test_a_failed_callback_is_not_shown_to_the_caller() -> None:
    with start_provider("callback_with_audio") as (_, models):
        assert run_extend(models).fields["status"] == "SUCCESS"


def test_a_clip_that_contains_only_the_continuation_gets_a_warning() -> None:
    with start_provider("happy") as (_, models):
        job = Job(id="job-1")
        run_extend_upload(models, job, prompt="la la", style="folk", continue_at=9.0)
    assert ["suno_1: it is 2.0 s" in job.warnings[0], "suno_2: it is 3.0 s" in job.warnings[1]] == [True, True]


@pytest.mark.parametrize("mode", ["wait", "poll"])
def test_a_task_that_the_provider_does_not_know_is_an_error(mode: str) -> None:
    clock = FakeClock()
    with start_provider("happy", time=clock) as (_, models), pytest.raises(RequestError) as caught:
        run_extend(models, task_id="task-9999", mode=mode)
    assert caught.value.error_code == "unknown_task"
    assert caught.value.details["task_id"] == "task-9999"
    assert clock.slept < 60


def test_song_parameters_are_left_out_with_a_warning_if_a_task_is_resumed() -> None:
    with start_provider("happy") as (_, models):
        task_id = run_extend(models, mode="submit").fields["task_id"]
        job = Job(id="job-2")
        run_extend(models, job, task_id=task_id, prompt="la la", model="V5")
    assert job.warnings == ["'task_id' fetches an existing song, so these were left out: prompt, model."]


@pytest.mark.parametrize(("select", "indices"), [("all", [0, 1]), ("first", [0]), ("longest", [1])])
def test_select_chooses_the_clips_to_download(select: str, indices: list[int]) -> None:
    with start_provider("happy") as (_, models):
        reply = run_extend(models, select=select)
    assert [output.extra["index"] for output in reply.outputs] == indices
    assert len(reply.fields["takes"]) == 2


def test_every_progress_update_after_the_submission_carries_the_task_id() -> None:
    with start_provider("happy") as (_, models):
        job, updates = make_observed_job()
        run_extend(models, job)
    task_ids = [update.get("task_id") for update in updates]
    first = task_ids.index("task-0001")
    assert updates[first]["percent"] <= 5
    assert set(task_ids[first:]) == {"task-0001"}
    percents = [update["percent"] for update in updates]
    assert percents == sorted(percents) and percents[-1] == 100


def test_cancelling_while_waiting_says_that_the_credits_are_spent() -> None:
    with start_provider("pending_forever") as (provider, models):
        job, updates = make_observed_job()
        cancel_when(job, lambda: updates[-1]["percent"] >= 10)
        with pytest.raises(CancelledError, match="credits are spent") as caught:
            run_extend(models, job)
    assert caught.value.details["task_id"] == "task-0001"
    assert sum("record-info" in call for call in provider.calls) == 1


def test_cancelling_before_the_submission_submits_nothing() -> None:
    with start_provider("happy") as (provider, models):
        job, _ = make_observed_job()
        job.cancel.set()
        with pytest.raises(CancelledError) as caught:
            run_extend(models, job)
    assert provider.posts == []
    assert "task_id" not in caught.value.details


def test_an_error_by_the_jobs_deadline_names_the_task_too() -> None:
    with start_provider("pending_forever") as (_, models):
        job, updates = make_observed_job()
        report = job.report

        def report_and_expire(update: Mapping[str, Any]) -> None:
            report(update)
            job.deadline = 0.0 if len(updates) > 3 else None

        job.report = report_and_expire
        with pytest.raises(DeadlineError, match="at no further cost") as caught:
            run_extend(models, job)
    assert caught.value.details["task_id"] == "task-0001"


def test_a_job_delivered_twice_is_paid_once() -> None:
    with start_provider("happy") as (provider, models):
        run_extend(models, Job(id="job-1"))
        again = Job(id="job-1")
        assert len(run_extend(models, again).outputs) == 2
        assert "not paid again" in again.warnings[0]
        run_extend(models, Job(id="job-1"), prompt="la", style="folk", continue_at=3.0)
        run_extend(models, Job(id="job-2"))
    assert len(provider.tasks) == 3


def test_a_job_with_an_unknown_outcome_that_is_delivered_twice_is_not_submitted_again() -> None:
    with start_provider("submit_cut") as (provider, models):
        for _ in range(2):
            with pytest.raises(RequestError) as caught:
                run_extend(models, Job(id="job-1"))
            assert caught.value.error_code == "submit_unknown"
    assert len(provider.posts) == 1


def test_after_an_internal_error_during_the_submission_the_job_is_not_submitted_again() -> None:
    class BrokenHttpClient(InProcessHttpClient):
        def request(self, method: str, url: str, **arguments: Any) -> Any:
            response = super().request(method, url, **arguments)
            if method == "POST":
                raise ValueError("a bug after the request was sent")
            return response

    clock = FakeClock()
    provider = Provider(SCENARIOS["happy"])
    provider.url = "http://127.0.0.1:1"
    family = build_family(provider, clock.clock(), http_client=BrokenHttpClient(provider, clock))
    models = make_models(suno=family)
    with pytest.raises(ValueError, match="a bug"):
        run_extend(models, Job(id="job-1"))
    with pytest.raises(RequestError) as caught:
        run_extend(models, Job(id="job-1"))
    assert caught.value.error_code == "submit_unknown"
    assert len(provider.posts) == 1


def test_a_rejected_job_can_be_submitted_again() -> None:
    with start_provider("no_credits") as (provider, models):
        for _ in range(2):
            with pytest.raises(RequestError) as caught:
                run_extend(models, Job(id="job-1"))
            assert caught.value.error_code == "insufficient_credits"
    assert len(provider.posts) == 2


def test_the_key_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for scenario in ("happy", "poll_401", "refused_400", "file_gone"):
        with start_provider(scenario) as (_, models):
            try:
                run_extend(models)
            except RequestError as error:
                logging.getLogger("test").error("failed", exc_info=error)
    assert "task-0001" in caplog.text
    assert TOKEN not in caplog.text


def test_an_unknown_state_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with start_provider("unknown_status") as (_, models):
        run_extend(models)
    assert caplog.text.count("POLISHING") == 1


def test_a_suno_job_ends_while_the_device_is_busy() -> None:
    class StubMethods(PitchFamily):
        def load(self, name: str, *, device: str) -> Harvest:
            return Harvest()

    held, free = threading.Event(), threading.Event()

    def hold(engine: object) -> None:
        held.set()
        free.wait(60)

    with start_provider("happy") as (_, models):
        busy = ModelHandle(StubMethods(WeightLocations()), "harvest")
        device_work = threading.Thread(target=models.run, args=(busy, hold))
        device_work.start()
        assert held.wait(30)
        assert len(run_extend(models).outputs) == 2
        assert device_work.is_alive()
        free.set()
        device_work.join()


def test_stems_that_cannot_be_separated_are_refused_before_anything_is_paid() -> None:
    with start_provider("happy") as (provider, models), pytest.raises(ModelError, match="'separate'"):
        run_extend(models, separate=["vocals"])
    assert provider.calls == []


def test_separate_returns_the_stems_of_every_clip(tmp_path: Path) -> None:
    from models.registry import build
    from testing.tiny_demucs import htdemucs, save_bag

    save_bag(tmp_path / "htdemucs", {"tiny": htdemucs()}, "htdemucs")
    separation = build(device="cpu", models_dir=tmp_path).families.separation
    with start_provider("happy") as (_, suno_models):
        models = make_models(suno=suno_models.families.suno, separation=separation)
        job, updates = make_observed_job()
        reply = run_extend(models, job, separate=["vocals", "drums"])
    assert set(reply.stems) == {"take1_drums", "take1_vocals", "take2_drums", "take2_vocals"}
    for name, stem in reply.stems.items():
        clip = reply.outputs[int(name[4]) - 1]
        assert stem.extra == {"index": clip.extra["index"], "stem": name[6:]}
        assert stem.audio.duration == clip.audio.duration
    percents = [update["percent"] for update in updates]
    assert percents == sorted(percents) and 80 < percents[-1] <= 100
    assert {update.get("task_id") for update in updates[-3:]} == {"task-0001"}
