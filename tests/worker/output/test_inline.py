"""Inline audio: which format fits into the budget, and what the error suggests if none does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.files.formats import Encoding
from errors import DeliveryError
from testing.delivery import (
    RATE,
    catch_error,
    compute_base64_size,
    make_noise,
    make_reply,
    make_settings_with_budget,
    make_silence,
    make_tone,
    read_artefact,
    run_delivery,
)
from testing.property_tests import examples
from worker.job import Job
from worker.output.artefacts import Artefact, OutputEncoder
from worker.output.inline import InlineBudget, encode_inline
from worker.reply import AudioOut, Output, Reply


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (950_000, ("wav", None)),
        (900_000, ("flac", None)),
        (230_000, ("mp3", 320)),
        (140_000, ("mp3", 192)),
        (100_000, ("mp3", 128)),
    ],
)
def test_auto_selects_the_best_format_that_fits(limit: int, expected: tuple[str, int | None]) -> None:
    """4 s of noise at an eighth of full scale: wav 941 kB as base64, flac some 15 % less, mp3 by its bitrate."""
    result = run_delivery(make_reply(make_noise(4, peak=0.125)), make_settings_with_budget(limit))
    kind, kbits = expected
    assert result["format"] == kind
    assert result["parameters"]["bitrate"] == kbits
    assert result["warnings"] == []
    read_artefact(result)


def test_auto_tries_flac_for_audio_that_compresses_well() -> None:
    """Two minutes of silence are 21 MB of wav and next to nothing of flac."""
    assert run_delivery(make_reply(make_silence(120)), make_settings_with_budget(1_000_000))["format"] == "flac"


def test_auto_tries_only_the_formats_of_the_operation() -> None:
    assert run_delivery(make_reply(make_tone(0.5)), auto_formats=("mp3",))["format"] == "mp3"
    assert run_delivery(make_reply(make_tone(0.5)), auto_formats=("mp3",), bitrate=128)["parameters"]["bitrate"] == 128


def test_all_outputs_of_a_reply_have_the_same_format() -> None:
    stems = {"loud": Output(make_noise(3), "loud"), "silent": Output(make_silence(3), "silent")}
    result = run_delivery(Reply(stems=stems), make_settings_with_budget(300_000))
    assert {stem["format"] for stem in result["stems"].values()} == {"mp3"}


def test_the_first_output_of_a_list_counts_twice_in_the_budget() -> None:
    size = compute_base64_size(44 + 2 * 2 * RATE)
    pair = Reply(outputs=[Output(make_noise(1, seed=seed), "clip") for seed in (1, 2)])
    assert run_delivery(pair, make_settings_with_budget(3 * size + 5000))["format"] == "wav"
    assert run_delivery(pair, make_settings_with_budget(2 * size + 5000))["format"] != "wav"


@examples(12)
@given(limit=st.integers(5_000, 500_000), seconds=st.floats(0.1, 2.0), kind=st.sampled_from(["auto", "wav", "mp3"]))
def test_a_reply_is_never_larger_than_its_budget(limit: int, seconds: float, kind: str) -> None:
    try:
        result = run_delivery(make_reply(make_noise(seconds)), make_settings_with_budget(limit), output_format=kind)
    except DeliveryError as error:
        assert error.details["size"] > limit
    else:
        read_artefact(result)


def test_an_encoding_that_cannot_fit_is_not_tried() -> None:
    class CountingEncoder(OutputEncoder):
        tried: ClassVar[list[str]] = []

        @contextmanager
        def encode(self, encoding: Encoding) -> Iterator[list[Artefact]]:
            self.tried.append(f"{encoding.format}:{encoding.kbits}")
            with super().encode(encoding) as artefacts:
                yield artefacts

    out = AudioOut()
    encoder = CountingEncoder(make_reply(make_noise(20)), out, Job(id="j"))
    budget_bytes = InlineBudget(700_000, 500, first_is_duplicated=False)
    _, encoding = encode_inline(encoder, out.list_encodings(), budget=budget_bytes, deliveries=())
    assert encoding.kbits == 192
    assert encoder.tried == ["mp3:192"]


def test_a_requested_format_is_never_changed_to_fit() -> None:
    error = catch_error(make_reply(make_noise(2)), make_settings_with_budget(100_000), output_format="wav")
    assert error.error_code == "reply_too_large"
    assert error.details["limit"] == 100_000
    assert error.details["size"] == pytest.approx(compute_base64_size(2 * RATE * 4), rel=0.01)
    assert str(error.details["size"]) in error.message and "100000" in error.message


def test_the_options_that_the_error_names_do_fit() -> None:
    for audio, limit in ((make_noise(2), 100_000), (make_tone(15), 750_000), (make_noise(6, peak=0.01), 600_000)):
        error = catch_error(make_reply(audio), make_settings_with_budget(limit), output_format="wav")
        assert error.details["would_fit"]
        for option in error.details["would_fit"]:
            assert (
                run_delivery(make_reply(audio), make_settings_with_budget(limit), **option)["format"]
                == option["output_format"]
            )
            assert f"output_format {option['output_format']}" in error.message


def test_if_nothing_fits_the_error_says_so_and_names_other_deliveries(tmp_path: Path) -> None:
    error = catch_error(make_reply(make_noise(5)), make_settings_with_budget(20_000))
    assert error.details["would_fit"] == [] and error.details["deliveries"] == []
    assert "bucket" in error.message
    with_volume = dataclasses.replace(make_settings_with_budget(20_000), volume_dirs=(tmp_path,))
    assert catch_error(make_reply(make_noise(5)), with_volume).details["deliveries"] == ["volume"]
    assert not list(tmp_path.iterdir())


def test_float_wav_that_does_not_fit_under_auto_is_a_warning() -> None:
    result = run_delivery(make_reply(make_noise(2)), make_settings_with_budget(200_000), bit_depth=32)
    assert any("32-bit float wav did not fit" in warning for warning in result["warnings"])


def test_a_requested_lossy_format_gives_no_warning_about_float_wav() -> None:
    assert run_delivery(make_reply(make_noise(0.2)), output_format="mp3", bit_depth=32)["warnings"] == []
