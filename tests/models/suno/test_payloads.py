"""Submissions: every one that is built obeys the provider's rules, and impossible requests are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import AudioError, InvalidRequestError
from models.suno import payloads
from models.suno.catalog import CATALOG, find_version
from models.suno.payloads import SongOptions, Submission
from testing.suno_rules import find_violations

VERSION = CATALOG["V4_5"]
UPLOADED = "https://files.example.com/source.mp3"
TEXTS = st.text(min_size=1, max_size=40)


def build_body(submission: Submission) -> dict[str, Any]:
    if submission.needs_upload:
        submission = submission.with_upload_url(UPLOADED)
    return {**submission.body, "callBackUrl": "https://callback.invalid/suno"}


def find_violations_of(submission: Submission) -> list[str]:
    return find_violations(submission.path, build_body(submission), {UPLOADED: 1.0})


song_options = st.builds(
    SongOptions,
    version=st.sampled_from([*CATALOG.values(), find_version("V9")[0]]),
    prompt=st.none() | TEXTS,
    style=st.none() | TEXTS,
    title=st.none() | TEXTS,
    instrumental=st.booleans(),
    negative_tags=st.none() | TEXTS,
    vocal_gender=st.sampled_from([None, "m", "f"]),
    style_weight=st.none() | st.floats(0, 1),
    weirdness=st.none() | st.floats(0, 1),
    audio_weight=st.none() | st.floats(0, 1),
)


@given(options=song_options, duration=st.floats(0.1, 600), at=st.none() | st.floats(0.001, 700))
def test_a_continued_upload_is_a_valid_submission_or_refused(
    options: SongOptions, duration: float, at: float | None
) -> None:
    try:
        submission = payloads.extend_upload(options, duration=duration, continue_at=at)
    except (InvalidRequestError, AudioError):
        return
    assert find_violations_of(submission) == []
    position = submission.continues_at
    assert position is None or 0 < position < duration


@given(options=song_options, at=st.none() | st.floats(0.001, 700))
def test_a_continued_track_is_a_valid_submission_or_refused(options: SongOptions, at: float | None) -> None:
    try:
        submission = payloads.extend_track(options, audio_id="audio-1", continue_at=at)
    except InvalidRequestError:
        return
    assert find_violations_of(submission) == []


@given(options=song_options, description=st.text(max_size=600), lyrics=st.none() | TEXTS)
def test_a_new_song_is_a_valid_submission_or_refused(
    options: SongOptions, description: str, lyrics: str | None
) -> None:
    try:
        submission = payloads.generate(options, description=description, lyrics=lyrics)
    except InvalidRequestError:
        return
    assert find_violations_of(submission) == []


def test_with_a_style_the_position_to_continue_from_is_sent() -> None:
    options = SongOptions(VERSION, prompt="la la", style="folk", title="River")
    submission = payloads.extend_upload(options, duration=60.0, continue_at=30.128)
    assert submission.body["continueAt"] == 30.12
    assert (submission.body["defaultParamFlag"], submission.cut_s) == (True, None)


def test_without_a_style_the_source_is_cut_at_the_position_to_continue_from() -> None:
    submission = payloads.extend_upload(SongOptions(VERSION, prompt="grows louder"), duration=60.0, continue_at=30.0)
    assert (submission.body["defaultParamFlag"], submission.cut_s) == (False, 30.0)
    assert any("cut at 'continue_at'" in warning for warning in submission.warnings)


def test_without_a_position_a_source_is_continued_from_its_end() -> None:
    options = SongOptions(VERSION, style="folk", instrumental=True)
    submission = payloads.extend_upload(options, duration=60.0, continue_at=None)
    assert 59.8 < submission.body["continueAt"] < 60.0
    assert submission.used["continue_at"] == submission.body["continueAt"]


@pytest.mark.parametrize("at", [60.0, 61.0, 600.0])
def test_a_position_outside_the_source_is_refused(at: float) -> None:
    with pytest.raises(InvalidRequestError, match="'continue_at'"):
        payloads.extend_upload(SongOptions(VERSION), duration=60.0, continue_at=at)


def test_all_texts_that_are_too_long_are_reported_together() -> None:
    options = SongOptions(CATALOG["V4"], prompt="x" * 3001, style="x" * 201, title="x" * 81)
    with pytest.raises(InvalidRequestError) as caught:
        payloads.extend_upload(options, duration=60.0, continue_at=90.0)
    details = caught.value.details
    assert len(details["errors"]) == 4 and details["faults"] == details["errors"]


def test_a_source_longer_than_the_version_accepts_is_refused() -> None:
    with pytest.raises(AudioError, match="at most 60 s") as caught:
        payloads.extend_upload(SongOptions(CATALOG["V4_5ALL"]), duration=61.0, continue_at=None)
    assert caught.value.error_code == "audio_too_long"


def test_a_track_requires_all_of_its_texts_or_none() -> None:
    submission = payloads.extend_track(SongOptions(VERSION), audio_id="a", continue_at=None)
    assert submission.body["defaultParamFlag"] is False
    with pytest.raises(InvalidRequestError, match="missing: style, continue_at"):
        payloads.extend_track(SongOptions(VERSION, prompt="la la"), audio_id="a", continue_at=None)
    with pytest.raises(InvalidRequestError, match="missing: prompt, style"):
        payloads.extend_track(SongOptions(VERSION), audio_id="a", continue_at=10.0)


def test_an_instrumental_track_is_requested_by_its_lyrics() -> None:
    options = SongOptions(VERSION, style="folk", instrumental=True)
    submission = payloads.extend_track(options, audio_id="a", continue_at=10.0)
    assert submission.body["prompt"] == "[Instrumental]"
    assert len(submission.warnings) == 1


def test_a_description_uses_the_simple_mode_and_lyrics_the_custom_mode() -> None:
    simple = payloads.generate(SongOptions(VERSION), description="calm piano", lyrics=None).body
    custom = payloads.generate(SongOptions(VERSION), description="calm piano", lyrics="la la").body
    assert (simple["customMode"], simple["prompt"]) == (False, "calm piano")
    assert (custom["customMode"], custom["prompt"], custom["style"]) == (True, "la la", "calm piano")


def test_a_long_description_is_refused_unless_it_can_be_a_style() -> None:
    with pytest.raises(InvalidRequestError, match="500"):
        payloads.generate(SongOptions(VERSION), description="x" * 501, lyrics=None)
    body = payloads.generate(SongOptions(VERSION, instrumental=True), description="x" * 501, lyrics=None).body
    assert (body["customMode"], len(body["style"])) == (True, 501)


@pytest.mark.parametrize(
    ("name", "canonical"), [("V4_5", "V4_5"), ("v4.5", "V4_5"), ("v5", "V5"), ("V4_5plus", "V4_5PLUS")]
)
def test_versions_are_found_in_their_usual_spellings(name: str, canonical: str) -> None:
    version, warning = find_version(name)
    assert (version.name, warning) == (canonical, None)


def test_an_unknown_version_is_passed_on_with_a_warning_that_names_the_nearest() -> None:
    version, warning = find_version("V5_PLUS")
    assert version.name == "V5_PLUS"
    assert warning is not None and "passed on" in warning and "Did you mean" in warning


def test_a_retired_version_gets_a_warning() -> None:
    assert "retired" in (find_version("V3_5")[1] or "")
