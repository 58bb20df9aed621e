"""Pieces of the demo's composer as stems: what is known of them, and that each stem is exact."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from numpy.typing import NDArray

from demo.training.compose import BEATS_PER_BAR, DRUM_CHANNEL, compose, describe_piece, encode_midi
from demo.training.render import STEM_CHANNELS, STEM_LEVELS_DB, render_stems
from demo.training.styles import KEYS, SCALES

needs_fluidsynth = pytest.mark.skipif(not shutil.which("fluidsynth"), reason="fluidsynth is not installed")


@pytest.mark.parametrize("seed", [0, 1, 50_000])
def test_the_truth_of_a_piece_names_its_tempo_key_and_a_chord_of_the_key_for_each_bar(seed: int) -> None:
    piece = compose(seed, "full")
    truth = json.loads(json.dumps(describe_piece(piece)))
    assert (truth["bpm"], truth["key"], len(truth["chords"])) == (piece.bpm, piece.key, piece.bars)
    assert truth["chords"][2]["start_s"] == pytest.approx(2 * BEATS_PER_BAR * 60 / piece.bpm, abs=1e-3)
    scale = {(piece.tonic + step) % 12 for step in SCALES[piece.mode]}
    assert {KEYS.index(chord["root"]) for chord in truth["chords"]} <= scale


def test_an_arrangement_that_is_asked_for_replaces_that_of_the_seed_and_leaves_the_rest() -> None:
    drums_only = next(seed for seed in range(100) if compose(seed).arrangement == "drums")
    full = compose(drums_only, "full")
    assert full.arrangement == "full" and "drums" in full.parts and len(full.parts) > 2
    assert (full.bpm, full.key) == (compose(drums_only).bpm, compose(drums_only).key)


def test_the_stems_share_out_all_notes_of_a_piece() -> None:
    piece = compose(50_000, "full")
    channels = sorted(channel for stem in STEM_CHANNELS.values() for channel in stem)
    assert channels == sorted({*piece.instruments, DRUM_CHANNEL})

    def count_notes(midi: bytes) -> int:
        return sum(midi.count(bytes((0x90 | channel, note.pitch, note.velocity))) for channel, note in named)

    named = {(note.channel, note) for note in piece.notes}
    parts = [count_notes(encode_midi(piece, stem)) for stem in STEM_CHANNELS.values()]
    assert all(parts) and sum(parts) == count_notes(encode_midi(piece))


@needs_fluidsynth
def test_rendered_stems_repeat_for_a_seed_at_their_levels_with_the_bass_below_the_rest() -> None:
    stems = render_stems(50_000, seconds=3)
    again = render_stems(50_000, seconds=3)
    assert list(stems) == ["drums", "bass", "other"]
    for name, stem in stems.items():
        assert stem.shape == (2, 3 * 44_100) and stem.dtype == np.float32
        assert np.array_equal(stem, again[name])
        level = 10 * np.log10(np.mean(stem.astype(np.float64) ** 2))
        assert STEM_LEVELS_DB[0] - 0.1 <= level <= STEM_LEVELS_DB[1] + 0.1

    def find_median_hz(stem: NDArray[np.float32]) -> float:
        power = np.cumsum(np.abs(np.fft.rfft(stem[0])) ** 2)
        return float(np.searchsorted(power, power[-1] / 2) / 3)

    assert find_median_hz(stems["bass"]) < 250 < find_median_hz(stems["other"])
