"""Values that the schema does not allow are refused in the worker's words. tests/test_real_worker.py compares both."""

from __future__ import annotations

from typing import Any

import pytest

from music_worker.errors import WorkerError
from music_worker.validation import check_params


def refuse(operation: str, params: dict[str, Any], **more: Any) -> WorkerError:
    with pytest.raises(WorkerError) as refused:
        check_params(operation, params, **more)
    return refused.value


def test_valid_parameters_pass_by_each_of_their_names() -> None:
    check_params("generate_music", {"description": "calm piano", "duration": 20, "seed": 3.0, "bpm": "auto"})
    check_params("generate_cover_from_separate_audio", {"audio": "song.mp3", "rvc_model": "my_voice"})
    check_params("mix_audio", {"tracks": [{"audio": "a.wav"}, {"audio": "b.wav", "pan": -0.5}], "master": "glue"})
    check_params("release_task", {"caption": "", "audioDuration": 10, "metas": {"bpm": 90}, "time_signature": 4})


def test_all_errors_are_reported_together_in_the_workers_words() -> None:
    error = refuse("generate_music", {"prompt": "x", "duration": 9999, "n_samples": "3", "output_format": "aac"})
    assert error.code == "invalid_request"
    assert {entry["field"]: entry["problem"] for entry in error.details["errors"]} == {
        "duration": "must be less than or equal to 600",
        "n_samples": "must be a valid integer",
        "output_format": "must be 'wav', 'flac', 'mp3', 'ogg' or 'opus' or must be 'auto'",
    }
    assert error.message.startswith("Invalid request: 'n_samples' must be a valid integer; 'output_format' must")


def test_a_missing_parameter_is_named() -> None:
    assert refuse("separate", {}).message == "Invalid request: 'audio' is required."


def test_an_unknown_parameter_is_named_with_the_nearest_and_all_valid_names() -> None:
    error = refuse("separate", {"audio": "a.wav", "two_stem": "vocals"})
    assert "'two_stem' is unknown. Did you mean 'two_stems'?" in error.message
    assert "two_stems" in error.details["valid"]


def test_an_unknown_parameter_can_be_allowed_for_a_newer_worker() -> None:
    check_params("separate", {"audio": "a.wav", "sparkle": 1}, allow_unknown=["sparkle"])
    assert "shifts" in refuse("separate", {"audio": "a.wav", "shifts": 99}, allow_unknown=["shifts"]).message


def test_errors_in_a_list_of_objects_name_the_object() -> None:
    error = refuse("mix_audio", {"tracks": [{"audio": "a.wav", "pan": 7}, {"gain": 3}]})
    problems = {entry["field"]: entry["problem"] for entry in error.details["errors"]}
    assert problems["tracks.0.pan"] == "must be less than or equal to 1"
    assert problems["tracks.1.audio"] == "is required"
    assert (
        problems["tracks.1.gain"].startswith("is no such field. Did you mean 'name'?")
        or "Valid: audio" in (problems["tracks.1.gain"])
    )


def test_an_unknown_operation_is_named_with_the_nearest() -> None:
    error = refuse("seperate", {})
    assert error.code == "unknown_operation" and "Did you mean 'separate'?" in error.message


def test_a_number_that_json_cannot_say_is_refused() -> None:
    assert "must be a finite number" in refuse("separate", {"audio": "a.wav", "overlap": float("nan")}).message
