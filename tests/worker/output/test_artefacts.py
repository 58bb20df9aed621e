"""The levels and the file names of delivered audio."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio import Audio
from errors import InternalError
from testing.delivery import (
    make_reply,
    make_silence,
    make_tone,
    read_artefact,
    run_delivery,
)
from worker.output.artefacts import make_file_name
from worker.reply import Output, Reply


def test_a_peak_above_full_scale_is_lowered_with_a_warning() -> None:
    result = run_delivery(make_reply(make_tone(0.5, peak=2.0)), output_format="flac")
    waveform, _ = read_artefact(result)
    assert 0.99 < np.abs(waveform).max() <= 1.0
    assert np.abs(waveform * 2 - make_tone(0.5, peak=2.0).waveform).max() < 1e-3
    (warning,) = result["warnings"]
    assert "-6.02 dB" in warning


def test_float_wav_keeps_a_peak_above_full_scale() -> None:
    result = run_delivery(make_reply(make_tone(0.5, peak=2.0)), output_format="wav", bit_depth=32)
    assert np.array_equal(read_artefact(result)[0], make_tone(0.5, peak=2.0).waveform)
    assert result["warnings"] == []


def test_stems_are_lowered_by_one_gain_so_that_they_still_sum_to_the_mix() -> None:
    loud, quiet = make_tone(0.5, peak=2.0), make_tone(0.5, peak=0.25, frequency=1000)
    result = run_delivery(
        Reply(stems={"loud": Output(loud, "loud"), "quiet": Output(quiet, "quiet")}), output_format="wav", bit_depth=24
    )
    summed = sum(read_artefact(stem)[0] for stem in result["stems"].values())
    mix = loud.waveform + quiet.waveform
    gain = float((summed * mix).sum() / (mix * mix).sum())
    assert np.abs(summed - gain * mix).max() < 1e-5
    assert len(result["warnings"]) == 1


def test_an_item_of_a_batch_equals_the_item_alone() -> None:
    loud, quiet = make_tone(0.5, peak=2.0), make_tone(0.5, peak=0.25)
    batch = run_delivery(Reply(outputs=[Output(loud, "a"), Output(quiet, "b")]))
    alone = run_delivery(make_reply(quiet, "b"))
    assert batch["outputs"][1]["sha256"] == alone["sha256"]
    assert len(batch["warnings"]) == 1 and batch["warnings"][0].startswith("a:")


@pytest.mark.parametrize(("mode", "quiet"), [("peak", 0.01), ("loudness", 0.01)])
def test_normalize_sets_the_level(mode: Literal["peak", "loudness"], quiet: float) -> None:
    from audio.dsp.loudness import integrated_loudness, true_peak_db

    result = run_delivery(make_reply(make_tone(1.5, peak=quiet)), normalize=mode, loudness_lufs=-20.0)
    waveform, rate = read_artefact(result)
    audio = Audio(np.ascontiguousarray(waveform), rate)
    if mode == "peak":
        assert true_peak_db(audio) == pytest.approx(-1.0, abs=0.05)
    else:
        assert integrated_loudness(audio) == pytest.approx(-20.0, abs=0.2)
    assert result["warnings"] == []


def test_normalizing_silence_is_a_warning() -> None:
    result = run_delivery(make_reply(make_silence(2)), normalize="loudness")
    assert not read_artefact(result)[0].any()
    assert any("silent" in warning for warning in result["warnings"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_audio_that_is_not_finite_is_an_internal_error(value: float) -> None:
    audio = make_tone(0.1)
    audio.waveform[1, 100] = value
    with pytest.raises(InternalError):
        run_delivery(make_reply(audio))


def test_audio_without_samples_is_an_internal_error() -> None:
    with pytest.raises(InternalError):
        run_delivery(make_reply(make_silence(0)))


def test_the_operations_waveform_is_not_changed() -> None:
    audio = make_tone(0.5, peak=2.0)
    run_delivery(make_reply(audio), output_format="mp3", normalize="loudness")
    assert np.array_equal(audio.waveform, make_tone(0.5, peak=2.0).waveform)


@given(st.text())
def test_any_text_becomes_a_safe_file_name(name: str) -> None:
    safe = make_file_name(name)
    assert 0 < len(safe.encode()) <= 120 and "/" not in safe and not safe.startswith(".") and safe.isprintable()
