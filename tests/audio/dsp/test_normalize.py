"""Normalisation: one gain for sources that play together, and the requested peak or loudness, in memory or on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import Audio
from audio.dsp.gain import GainView, from_db
from audio.dsp.loudness import integrated_loudness, true_peak_db
from audio.dsp.mix import mix
from audio.dsp.normalize import NormalizeMode, normalize
from audio.types import AudioSource, Waveform, in_memory
from testing.open_files import list_open_files
from testing.repository import ROOT
from testing.signals import copy_to_disk, make_noise, make_tone

RATE = 44100
ROUNDING_DB = 1e-3


def read_waveform(source: AudioSource) -> Waveform:
    return in_memory(source).waveform


def make_stems() -> list[Audio]:
    return [
        make_tone(3.0, level=0.2),
        make_tone(2.0, level=0.05, channels=1),
        in_memory(GainView(make_tone(3.0), -30.0)),
    ]


def make_drums(seconds: float = 4.0) -> Audio:
    times = np.arange(int(44100 * seconds)) / 44100
    hits = np.sin(2 * np.pi * 80 * times) * np.exp(-((4 * times) % 1) * 12)
    return Audio(np.tile(hits, (2, 1)).astype(np.float32), 44100)


def make_clicks_over_a_quiet_sine(seconds: float = 6.0, channels: int = 2) -> Audio:
    """A sine at -26 dBFS with a click near full scale every second: loudness needs much gain, peaks allow little."""
    times = np.arange(round(seconds * RATE)) / RATE
    waveform = np.tile(0.05 * np.sin(2 * np.pi * 440 * times), (channels, 1))
    waveform[:, RATE // 2 :: RATE] = 0.9
    return Audio(waveform.astype(np.float32), RATE)


def test_none_changes_nothing() -> None:
    sources = make_stems()
    done = normalize(sources, "none")
    assert done.gain_db is None and all(a is b for a, b in zip(done.sources, sources, strict=True))


def test_peak_sets_the_highest_true_peak_to_minus_1_dbtp() -> None:
    sources = make_stems()
    done = normalize(sources, "peak")
    assert max(true_peak_db(source) for source in done.sources) == pytest.approx(-1.0, abs=0.01)
    assert done.gain_db is not None
    for before, after in zip(sources, done.sources, strict=True):
        np.testing.assert_allclose(read_waveform(after), before.waveform * from_db(done.gain_db), rtol=1e-5)


@pytest.mark.parametrize("target", [-30.0, -23.0, -16.0])
def test_loudness_within_reach_is_one_gain(target: float) -> None:
    sources = make_stems()
    done = normalize(sources, "loudness", loudness_lufs=target)
    assert integrated_loudness(mix(done.sources)) == pytest.approx(target, abs=0.05)
    assert done.limited_db == 0.0 and done.gain_db is not None
    for before, after in zip(sources, done.sources, strict=True):
        np.testing.assert_allclose(read_waveform(after), before.waveform * from_db(done.gain_db), rtol=1e-5)


@pytest.mark.parametrize("target", [-12.0, -10.0])
def test_the_limiter_keeps_the_requested_loudness_below_the_ceiling(target: float) -> None:
    song = mix([make_drums(), make_tone(4.0, level=0.2)])
    done = normalize([song], "loudness", loudness_lufs=target)
    assert integrated_loudness(done.sources[0]) == pytest.approx(target, abs=0.15)
    assert true_peak_db(done.sources[0]) <= -1.0 + ROUNDING_DB
    assert done.limited_db > 0.0


def test_makeup_gain_is_bounded_and_the_result_reports_its_loudness() -> None:
    done = normalize([make_drums()], "loudness", loudness_lufs=-9.0)
    assert done.gain_db == pytest.approx(-9.0 - integrated_loudness(make_drums()) + 9.0, abs=0.01)
    assert done.loudness_lufs == pytest.approx(integrated_loudness(done.sources[0]), abs=0.01)
    assert done.loudness_lufs is not None and done.loudness_lufs < -10.0
    assert true_peak_db(done.sources[0]) <= -1.0 + ROUNDING_DB


def test_stems_limited_together_keep_their_balance_at_every_sample() -> None:
    sources = [make_drums(), make_tone(4.0, level=0.1)]
    done = normalize(sources, "loudness", loudness_lufs=-12.0)
    assert done.limited_db > 0.0
    assert all(true_peak_db(source) <= -1.0 + ROUNDING_DB for source in done.sources)
    loud = (np.abs(sources[0].waveform) > 0.01) & (np.abs(sources[1].waveform) > 0.01)
    first, second = (
        read_waveform(after)[loud] / before.waveform[loud] for before, after in zip(sources, done.sources, strict=True)
    )
    np.testing.assert_allclose(first, second, rtol=1e-3)


@pytest.mark.parametrize("mode", ["peak", "loudness"])
def test_silence_stays_silence(mode: NormalizeMode) -> None:
    silence = Audio(np.zeros((2, 44100), np.float32), 44100)
    done = normalize([silence], mode)
    assert done.gain_db is None and done.sources[0] is silence


def test_a_silent_stem_among_others_stays_silent() -> None:
    silence = Audio(np.zeros((2, 44100), np.float32), 44100)
    done = normalize([silence, make_tone(1.0)], "loudness")
    assert done.sources[0].peak == 0.0 and done.sources[1].peak > 0.0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.floats(-60.0, 30.0), st.floats(-40.0, -6.0), st.integers(1, 60_000), st.integers(1, 2))
def test_the_ceiling_holds_for_every_target(
    seed: int, level_db: float, target: float, num_samples: int, channels: int
) -> None:
    noise = np.random.default_rng(seed).standard_normal((channels, num_samples)) * from_db(level_db)
    (source,) = normalize([Audio(noise.astype(np.float32), 44100)], "loudness", loudness_lufs=target).sources
    assert true_peak_db(source) <= -1.0 + ROUNDING_DB
    assert read_waveform(source).shape == (channels, num_samples)


def normalize_on_disk(
    sources: Sequence[Audio], mode: NormalizeMode, lufs: float
) -> tuple[list[Waveform], float | None]:
    with ExitStack() as stack:
        done = normalize([stack.enter_context(copy_to_disk(source)) for source in sources], mode, loudness_lufs=lufs)
        return [read_waveform(source) for source in done.sources], done.loudness_lufs


STORED = {
    "clicks": lambda: [make_clicks_over_a_quiet_sine()],
    "longer clicks": lambda: [make_clicks_over_a_quiet_sine(20.0)],
    "mono clicks": lambda: [make_clicks_over_a_quiet_sine(channels=1)],
    "stems": lambda: [make_clicks_over_a_quiet_sine(7.0), make_tone(5.0, level=0.02, channels=1), make_drums(3.0)],
    "silence": lambda: [Audio(np.zeros((2, 50_000), np.float32), RATE)],
    "a few samples": lambda: [Audio(np.full((2, 3), 0.5, np.float32), RATE)],
}


@pytest.mark.parametrize("mode", ["none", "peak", "loudness"])
@pytest.mark.parametrize("name", STORED)
def test_audio_on_disk_is_normalised_to_the_same_samples_as_in_memory(name: str, mode: NormalizeMode) -> None:
    sources = STORED[name]()
    expected = normalize(sources, mode, loudness_lufs=-14.0)
    waveforms, loudness_lufs = normalize_on_disk(sources, mode, -14.0)
    assert loudness_lufs == expected.loudness_lufs
    for waveform, source in zip(waveforms, expected.sources, strict=True):
        np.testing.assert_array_equal(waveform, read_waveform(source))


@pytest.mark.parametrize("seconds", [6.0, 20.0])
def test_a_quiet_sine_with_clicks_reaches_the_requested_loudness_on_disk(seconds: float) -> None:
    (waveform,), loudness_lufs = normalize_on_disk([make_clicks_over_a_quiet_sine(seconds)], "loudness", -14.0)
    audio = Audio(waveform, RATE)
    assert loudness_lufs == pytest.approx(-14.0, abs=0.1)
    assert integrated_loudness(audio) == pytest.approx(-14.0, abs=0.1)
    assert true_peak_db(audio) <= -1.0 + ROUNDING_DB


def test_stems_on_disk_reach_the_requested_loudness_together() -> None:
    sources = [make_clicks_over_a_quiet_sine(), make_tone(6.0, level=0.02), make_tone(5.0, level=0.01, channels=1)]
    waveforms, _ = normalize_on_disk(sources, "loudness", -16.0)
    stems_out = [Audio(waveform, RATE) for waveform in waveforms]
    assert integrated_loudness(mix(stems_out)) == pytest.approx(-16.0, abs=0.1)
    assert max(true_peak_db(stem) for stem in stems_out) <= -1.0 + ROUNDING_DB


def test_normalisation_on_disk_leaves_no_file_open() -> None:
    before = list_open_files()
    normalize_on_disk([make_clicks_over_a_quiet_sine()], "loudness", -14.0)
    assert not list_open_files() - before


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np
from audio.dsp.normalize import normalize
from audio.types import DiskAudio, iter_blocks

RATE = 44100
def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if key in line).split()[1]) * 1024

def measure(minutes):
    song = DiskAudio(2, RATE)
    second = (0.02 * np.random.default_rng(0).standard_normal((2, RATE))).astype(np.float32)
    second[:, 1000] = 0.9
    for _ in range(round(60 * minutes)):
        song.append(second)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    done = normalize([song], "loudness", loudness_lufs=-20)
    for block in iter_blocks(done.sources[0]):
        pass
    assert done.limited_db > 0
    return status("VmHWM") - before

measure(0.1)
print(json.dumps([measure(minutes) for minutes in json.loads(sys.argv[1])]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from /proc")
def test_normalising_a_long_song_takes_bounded_memory() -> None:
    """An envelope of 6 minutes would take 64 MB; several are in use at once."""
    command = [sys.executable, "-c", MEASURE, json.dumps([6])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0] < 150e6


def test_a_loudness_out_of_reach_on_disk_is_approached_below_the_ceiling() -> None:
    (waveform,), loudness_lufs = normalize_on_disk([Audio(make_noise(2, 80_000, level=0.1), RATE)], "loudness", 0.0)
    audio = Audio(waveform, RATE)
    assert true_peak_db(audio) == pytest.approx(-1.0, abs=0.05) and true_peak_db(audio) <= -1.0 + ROUNDING_DB
    assert loudness_lufs == pytest.approx(integrated_loudness(audio), abs=0.05)
    assert loudness_lufs is not None and loudness_lufs < -1


def test_loudness_and_true_peak_on_disk_are_those_in_memory() -> None:
    audio = Audio(make_noise(2, 300_000), RATE)
    with copy_to_disk(audio) as stored:
        assert integrated_loudness(stored) == integrated_loudness(audio)
        assert true_peak_db(stored) == true_peak_db(audio)
        assert mix([stored, stored]).peak == pytest.approx(2 * audio.peak)


@pytest.mark.parametrize("mode", ["peak", "loudness"])
def test_silence_on_disk_is_returned_as_the_same_object(mode: NormalizeMode) -> None:
    with copy_to_disk(Audio(np.zeros((2, 50_000), np.float32), RATE)) as silence:
        done = normalize([silence], mode)
        assert done.gain_db is None and done.sources == (silence,)
