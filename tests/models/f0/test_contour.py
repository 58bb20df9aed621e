"""f0 contours: gaps, transposition, autotune, quantization; and the names of keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from errors import InvalidRequestError
from models.f0.contour import CHROMATIC, autotune, fill_gaps, parse_key, quantize_f0, transpose
from models.f0.estimator import F0Contour

KEYS = [None, "C major", "F# minor", "Bb", "Am", "chromatic"]
HZ = st.one_of(st.just(0.0), st.floats(50, 1100))
CONTOURS = st.lists(HZ, min_size=1, max_size=40).map(lambda values: np.array(values, np.float32))
STRENGTHS = st.floats(0, 1)
KEY = st.sampled_from(KEYS)


def measure_cents(f0: F0Contour, reference: F0Contour) -> NDArray[np.float64]:
    """Intervals in cents between two voiced contours."""
    return np.asarray(1200 * np.log2(f0.astype(np.float64) / reference))


def find_note(hz: float) -> float:
    return float(69 + 12 * np.log2(hz / 440))


@pytest.mark.parametrize(
    ("key", "classes"),
    [
        ("C major", {0, 2, 4, 5, 7, 9, 11}),
        ("C", {0, 2, 4, 5, 7, 9, 11}),
        ("CM", {0, 2, 4, 5, 7, 9, 11}),
        (" c  MAJOR ", {0, 2, 4, 5, 7, 9, 11}),
        ("Am", {0, 2, 4, 5, 7, 9, 11}),
        ("a minor", {0, 2, 4, 5, 7, 9, 11}),
        ("F# minor", {6, 8, 9, 11, 1, 2, 4}),
        ("F♯ min", {6, 8, 9, 11, 1, 2, 4}),
        ("Bb", {10, 0, 2, 3, 5, 7, 9}),
        ("bb maj", {10, 0, 2, 3, 5, 7, 9}),
        ("b minor", {11, 1, 2, 4, 6, 7, 9}),
        ("Cb", {11, 1, 3, 4, 6, 8, 10}),
    ],
)
def test_a_key_is_its_pitch_classes(key: str, classes: set[int]) -> None:
    assert set(parse_key(key)) == classes


def test_without_a_key_all_twelve_notes_are_allowed() -> None:
    assert parse_key(None) == parse_key("Chromatic") == CHROMATIC


@pytest.mark.parametrize("key", ["", "H major", "C dorian", "C##", "major", "C major minor", "\0", "C" * 1000])
def test_an_invalid_key_is_refused_with_examples_of_valid_ones(key: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"'C major'.*'chromatic'") as caught:
        parse_key(key)
    assert caught.value.error_code == "invalid_request"
    assert len(caught.value.message) < 300


@given(CONTOURS, STRENGTHS, KEY)
def test_autotune_keeps_unvoiced_frames_and_moves_f0_by_at_most_half_a_step(
    f0: F0Contour, strength: float, key: str | None
) -> None:
    tuned = autotune(f0, strength=strength, key=key)
    assert tuned.dtype == np.float32
    np.testing.assert_array_equal(tuned == 0, f0 == 0)
    widest = 50 if parse_key(key) == CHROMATIC else 100  # half of the scale's widest step
    assert np.all(np.abs(measure_cents(tuned[f0 > 0], f0[f0 > 0])) <= strength * widest + 0.01)


@given(CONTOURS, KEY)
def test_full_strength_gives_notes_of_the_key_and_a_second_pass_changes_nothing(f0: F0Contour, key: str | None) -> None:
    tuned = autotune(f0, strength=1, key=key)
    notes = np.array([find_note(float(hz)) for hz in tuned[tuned > 0]])
    np.testing.assert_allclose(notes, np.rint(notes), atol=1e-4)
    assert set(np.rint(notes).astype(int) % 12) <= set(parse_key(key))
    np.testing.assert_allclose(autotune(tuned, strength=1, key=key), tuned, rtol=1e-6)


@given(st.lists(st.floats(50, 1100), min_size=2, max_size=40), STRENGTHS, KEY)
def test_autotune_keeps_the_order_of_pitches(values: list[float], strength: float, key: str | None) -> None:
    f0 = np.sort(np.array(values, np.float32))
    tuned = autotune(f0, strength=strength, key=key).astype(np.float64)
    assert np.all(np.diff(tuned) >= -1e-3)


@given(CONTOURS, st.floats(-24, 24), KEY)
def test_autotune_of_strength_0_changes_nothing(f0: F0Contour, semitones: float, key: str | None) -> None:
    moved = autotune(transpose(f0, semitones), strength=0, key=key)
    np.testing.assert_array_equal(moved == 0, f0 == 0)
    np.testing.assert_allclose(measure_cents(moved[f0 > 0], f0[f0 > 0]), 100 * semitones, atol=1e-3)


@given(st.floats(50, 1100), st.integers(-12, 12))
def test_autotune_after_a_transposition_moves_f0_by_at_most_half_a_step(hz: float, semitones: int) -> None:
    f0 = np.array([hz], np.float32)
    moved = autotune(transpose(f0, semitones), strength=1)
    assert abs(measure_cents(moved, transpose(f0, semitones))[0]) <= 50.01


def test_half_the_strength_halves_the_distance() -> None:
    sharp = np.array([440 * 2 ** (30 / 1200)], np.float32)
    assert measure_cents(autotune(sharp, strength=0.5, key="A minor"), np.array([440.0], np.float32))[
        0
    ] == pytest.approx(15, abs=0.01)


def test_a_note_outside_the_key_moves_to_the_nearest_inside() -> None:
    c_sharp_and_a_bit = np.array([440 * 2 ** (-7.9 / 12)], np.float32)
    assert find_note(float(autotune(c_sharp_and_a_bit, strength=1, key="C")[0])) == pytest.approx(62, abs=1e-4)


def test_the_nearest_note_may_be_in_the_next_octave() -> None:
    almost_c = np.array([440 * 2 ** (2.9 / 12)], np.float32)
    assert find_note(float(autotune(almost_c, strength=1, key="Ab")[0])) == pytest.approx(72, abs=1e-4)


def test_gaps_are_interpolated_in_log_frequency_and_ends_are_held() -> None:
    filled = fill_gaps(np.array([0, 100, 0, 400, 0, 0], np.float32))
    np.testing.assert_allclose(filled, [100, 100, 200, 400, 400, 400], rtol=1e-6)


@given(CONTOURS)
def test_filling_gaps_changes_no_voiced_frame_and_leaves_no_gap(f0: F0Contour) -> None:
    filled = fill_gaps(f0)
    np.testing.assert_array_equal(filled[f0 > 0], f0[f0 > 0])
    assert np.all(filled > 0) or not f0.any()
    assert filled is not f0


@given(CONTOURS)
def test_quantization_is_that_of_rvc(f0: F0Contour) -> None:
    low, high = (1127 * np.log(1 + hz / 700) for hz in (50, 1100))
    mel = 1127 * np.log(1 + f0.astype(np.float64) / 700)
    mel[mel > 0] = (mel[mel > 0] - low) * 254 / (high - low) + 1
    mel[mel <= 1] = 1
    mel[mel > 255] = 255
    levels = quantize_f0(f0)
    assert levels.dtype == np.int64
    np.testing.assert_array_equal(levels, np.rint(mel))


def test_quantization_clips_to_levels_1_and_255() -> None:
    assert quantize_f0(np.array([0, 20, 50, 1100, 3000], np.float32)).tolist() == [1, 1, 1, 255, 255]
