"""What a wish becomes on the wire: every submission that we build is one that the provider's rules take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import AudioError, InvalidRequestError
from models.suno import payloads as orders
from models.suno.catalog import CATALOG, version_called
from models.suno.payloads import Plan, Wish
from testing.suno_rules import complaints

VERSION = CATALOG["V4_5"]
UPLOADED = "https://files.example.com/source.mp3"
TEXTS = st.text(min_size=1, max_size=40)


def wire(plan: Plan) -> dict[str, Any]:
    return {**plan.with_upload(UPLOADED).body, "callBackUrl": "https://callback.invalid/suno"}


def wrong_with(plan: Plan) -> list[str]:
    return complaints(plan.order.path, wire(plan), {UPLOADED: 1.0})


wishes = st.builds(
    Wish,
    version=st.sampled_from([*CATALOG.values(), version_called("V9")[0]]),
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


@given(wish=wishes, duration=st.floats(0.1, 600), at=st.none() | st.floats(0.001, 700))
def test_a_continued_upload_is_a_valid_submission_or_refused(wish: Wish, duration: float, at: float | None) -> None:
    try:
        plan = orders.extend_upload(wish, duration=duration, continue_at=at)
    except (InvalidRequestError, AudioError):
        return
    assert wrong_with(plan) == []
    point = plan.order.body.get("continueAt", plan.cut_s)
    assert point is None or 0 < point < duration


@given(wish=wishes, at=st.none() | st.floats(0.001, 700))
def test_a_continued_track_is_a_valid_submission_or_refused(wish: Wish, at: float | None) -> None:
    try:
        plan = orders.extend_track(wish, audio_id="audio-1", continue_at=at)
    except InvalidRequestError:
        return
    assert wrong_with(plan) == []


@given(wish=wishes, description=st.text(max_size=600), lyrics=st.none() | TEXTS)
def test_a_new_song_is_a_valid_submission_or_refused(wish: Wish, description: str, lyrics: str | None) -> None:
    try:
        plan = orders.generate(wish, description=description, lyrics=lyrics)
    except InvalidRequestError:
        return
    assert wrong_with(plan) == []


def test_with_a_style_the_point_to_continue_from_is_sent() -> None:
    wish = Wish(VERSION, prompt="la la", style="folk", title="River")
    plan = orders.extend_upload(wish, duration=60.0, continue_at=30.128)
    assert plan.order.body["continueAt"] == 30.12
    assert (plan.order.body["defaultParamFlag"], plan.cut_s) == (True, None)


def test_without_a_style_the_source_is_cut_where_it_is_to_be_continued() -> None:
    plan = orders.extend_upload(Wish(VERSION, prompt="grows louder"), duration=60.0, continue_at=30.0)
    assert (plan.order.body["defaultParamFlag"], plan.cut_s) == (False, 30.0)
    assert any("cut at 'continue_at'" in warning for warning in plan.warnings)


def test_without_a_point_a_source_is_continued_from_its_end() -> None:
    plan = orders.extend_upload(Wish(VERSION, style="folk", instrumental=True), duration=60.0, continue_at=None)
    assert 59.8 < plan.order.body["continueAt"] < 60.0
    assert dict(plan.used)["continue_at"] == plan.order.body["continueAt"]


@pytest.mark.parametrize("at", [60.0, 61.0, 600.0])
def test_a_point_outside_the_source_is_refused(at: float) -> None:
    with pytest.raises(InvalidRequestError, match="'continue_at'"):
        orders.extend_upload(Wish(VERSION), duration=60.0, continue_at=at)


def test_all_texts_that_are_too_long_are_told_together() -> None:
    wish = Wish(CATALOG["V4"], prompt="x" * 3001, style="x" * 201, title="x" * 81)
    with pytest.raises(InvalidRequestError) as caught:
        orders.extend_upload(wish, duration=60.0, continue_at=90.0)
    assert len(caught.value.details["faults"]) == 4


def test_a_source_longer_than_the_version_takes_is_refused() -> None:
    with pytest.raises(AudioError, match="at most 60 s") as caught:
        orders.extend_upload(Wish(CATALOG["V4_5ALL"]), duration=61.0, continue_at=None)
    assert caught.value.error_code == "audio_too_long"


def test_a_track_needs_all_of_its_own_texts_or_none() -> None:
    assert orders.extend_track(Wish(VERSION), audio_id="a", continue_at=None).order.body["defaultParamFlag"] is False
    with pytest.raises(InvalidRequestError, match="missing: style, continue_at"):
        orders.extend_track(Wish(VERSION, prompt="la la"), audio_id="a", continue_at=None)
    with pytest.raises(InvalidRequestError, match="missing: prompt, style"):
        orders.extend_track(Wish(VERSION), audio_id="a", continue_at=10.0)


def test_an_instrumental_track_is_asked_for_in_the_words() -> None:
    wish = Wish(VERSION, style="folk", instrumental=True)
    plan = orders.extend_track(wish, audio_id="a", continue_at=10.0)
    assert plan.order.body["prompt"] == "[Instrumental]"
    assert len(plan.warnings) == 1


def test_a_description_makes_a_song_and_lyrics_make_it_custom() -> None:
    simple = orders.generate(Wish(VERSION), description="calm piano", lyrics=None).order.body
    custom = orders.generate(Wish(VERSION), description="calm piano", lyrics="la la").order.body
    assert (simple["customMode"], simple["prompt"]) == (False, "calm piano")
    assert (custom["customMode"], custom["prompt"], custom["style"]) == (True, "la la", "calm piano")


def test_a_long_description_is_refused_unless_it_can_be_a_style() -> None:
    with pytest.raises(InvalidRequestError, match="500"):
        orders.generate(Wish(VERSION), description="x" * 501, lyrics=None)
    body = orders.generate(Wish(VERSION, instrumental=True), description="x" * 501, lyrics=None).order.body
    assert (body["customMode"], len(body["style"])) == (True, 501)


@pytest.mark.parametrize(
    ("name", "canonical"), [("V4_5", "V4_5"), ("v4.5", "V4_5"), ("v5", "V5"), ("V4_5plus", "V4_5PLUS")]
)
def test_versions_are_known_in_their_usual_spellings(name: str, canonical: str) -> None:
    version, warning = version_called(name)
    assert (version.name, warning) == (canonical, None)


def test_an_unknown_version_is_passed_on_with_a_warning_that_names_the_nearest() -> None:
    version, warning = version_called("V5_PLUS")
    assert version.name == "V5_PLUS"
    assert warning is not None and "passed on" in warning and "Did you mean" in warning


def test_a_retired_version_is_warned_of() -> None:
    assert "retired" in (version_called("V3_5")[1] or "")
