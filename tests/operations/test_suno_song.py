"""generate_music with a Suno model: it shares the client and the protection against double payment."""

from __future__ import annotations

from typing import Any

import pytest

from audio import Audio
from errors import InvalidRequestError
from models import Models
from operations import generate_music
from testing.suno_worker import start_provider
from worker.job import Job
from worker.reply import Reply


def generate_song(models: Models, job: Job | None = None, **params: Any) -> Reply:
    """Runs generate_music without loading of inputs and without the delivery."""
    values = {"model": "suno/V4_5"} | params
    plan = generate_music.plan(generate_music.Params.parse(values), models)
    return generate_music.run(plan, job or Job(id="job-1"), models)


def test_a_description_becomes_two_clips() -> None:
    with start_provider("happy") as (provider, models):
        reply = generate_song(models, prompt="calm piano", bpm=90, negative_prompt="drums")
    path, body = provider.posts[0]
    assert path == "/api/v1/generate"
    assert (body["prompt"], body["customMode"], body["negativeTags"]) == ("calm piano, 90 bpm", False, "drums")
    assert (len(reply.outputs), reply.fields["model_used"]) == (2, "suno/V4_5")
    assert reply.fields["task_id"] == "task-0001"
    assert provider.violations == []


def test_lyrics_style_and_title_use_the_custom_mode() -> None:
    with start_provider("happy") as (provider, models):
        reply = generate_song(models, model="suno/v5", lyrics="la la", style="folk", title="River")
    body = provider.posts[0][1]
    assert (body["prompt"], body["style"], body["title"], body["model"]) == ("la la", "folk", "River", "V5")
    assert reply.parameters["model"] == "suno/V5"
    assert provider.violations == []


def test_an_instrumental_song_needs_no_lyrics() -> None:
    with start_provider("happy") as (provider, models):
        generate_song(models, style="ambient", instrumental=True)
    assert provider.posts[0][1]["instrumental"] is True
    assert provider.violations == []


def test_one_sample_is_one_clip() -> None:
    with start_provider("happy") as (_, models):
        assert len(generate_song(models, prompt="calm piano", n_samples=1).outputs) == 1


def test_fades_and_trimming_are_applied_to_the_clips() -> None:
    with start_provider("happy") as (_, models):
        faded = generate_song(models, prompt="calm piano", fade_in=0.5).outputs[0].audio
    assert isinstance(faded, Audio)
    assert abs(faded.waveform[:, :100]).max() < 0.3 * abs(faded.waveform).max()


def test_parameters_that_suno_does_not_have_are_named_in_a_warning() -> None:
    with start_provider("happy") as (_, models):
        job = Job(id="job-1")
        generate_song(models, job, prompt="calm piano", duration=30, seed=7)
    assert job.warnings == ["Suno has no such settings, so these were left out: duration, seed."]


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({}, "'prompt' is required"),
        ({"prompt": ["a", "b"]}, "one text"),
        ({"prompt": "a", "n_samples": 3}, "'n_samples' must be at most 2"),
        ({"prompt": "a", "melody_audio": "AAAA"}, "extend_via_suno"),
        ({"prompt": "a", "model": "small", "lyrics": "la"}, "suno/<version>"),
        ({"prompt": "x" * 501}, "500"),
        ({"style": "folk"}, "'lyrics'"),
    ],
)
def test_parameters_that_do_not_go_with_suno_are_refused_before_anything_is_sent(
    params: dict[str, Any], named: str
) -> None:
    with start_provider("happy") as (provider, models), pytest.raises(InvalidRequestError) as caught:
        generate_song(models, **params)
    assert named in caught.value.message
    assert provider.calls == []
