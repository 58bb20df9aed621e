"""Width, length and sum of sources that play together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from audio import Audio
from audio.dsp.gain import GainView
from audio.dsp.mix import PaddedView, Silence, fit_length, match_shapes, mix
from audio.types import AudioSource, Waveform, iter_blocks
from testing.repository import ROOT
from testing.signals import make_tone

RATE = 44_100


def read_whole(source: AudioSource, frames: int = 1000) -> Waveform:
    return np.concatenate(list(iter_blocks(source, frames)), axis=1)


def test_sources_become_as_wide_as_the_widest_and_as_long_as_the_longest() -> None:
    mono, stereo = make_tone(0.1, channels=1), make_tone(0.2)
    first, second = match_shapes([GainView(mono, -6.0), GainView(stereo, 3.0)])
    assert read_whole(first).shape == read_whole(second).shape == stereo.waveform.shape
    np.testing.assert_allclose(
        read_whole(first)[:, : mono.num_samples], np.repeat(mono.waveform, 2, 0) * 10 ** (-6 / 20)
    )
    assert not read_whole(first)[:, mono.num_samples :].any()
    np.testing.assert_allclose(read_whole(second), stereo.waveform * 10 ** (3 / 20), rtol=1e-6)
    assert first.peak == pytest.approx(np.abs(read_whole(first)).max(), rel=1e-6)
    assert first.duration == stereo.duration


def test_padding_never_drops_a_channel_or_a_sample() -> None:
    with pytest.raises(AssertionError, match="do not fit"):
        PaddedView(make_tone(0.1), 1, 44100)
    with pytest.raises(AssertionError, match="4410 samples do not fit into 100"):
        PaddedView(make_tone(0.1), 2, 100)


@given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    widths=st.lists(st.sampled_from([1, 2]), min_size=4, max_size=4),
    frames=st.integers(1, 4000),
)
def test_a_mix_is_the_sum_of_its_sources(lengths: list[int], widths: list[int], frames: int) -> None:
    generator = np.random.default_rng(5)
    sources = [
        Audio(generator.standard_normal((width, length)).astype(np.float32), RATE)
        for width, length in zip(widths, lengths, strict=False)
    ]
    width = max(source.channels for source in sources)
    expected = np.zeros((width, max(lengths)))
    for source in sources:
        expected[:, : source.num_samples] += 0.5 * source.waveform
    result = mix([GainView(source, -6.0205999) for source in sources])
    np.testing.assert_allclose(read_whole(result, frames), expected, atol=1e-6)


def test_a_mix_is_not_clipped() -> None:
    loud = Audio(np.full((2, 100), 0.9, np.float32), RATE)
    assert mix([loud, loud]).peak == pytest.approx(1.8)


@given(
    parts=st.lists(arrays.arrays(np.float32, st.tuples(st.just(1), st.integers(0, 50)), elements=st.just(1.0))),
    length=st.integers(1, 200),
)
def test_blocks_are_cut_or_padded_to_a_length(parts: list[Waveform], length: int) -> None:
    result = np.concatenate(list(fit_length(parts, num_samples=length)), axis=1)
    count = min(sum(part.shape[1] for part in parts), length)
    assert result.shape == (1, length)
    assert (result[:, :count] == 1).all() and (result[:, count:] == 0).all()


def test_silence_has_a_shape_and_only_zeros() -> None:
    silence = Silence(RATE, 2, 1500)
    assert read_whole(silence).shape == (2, 1500) and not read_whole(silence).any()
    assert (silence.peak, silence.duration) == (0.0, 1500 / RATE)


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np
from contextlib import ExitStack
from audio.disk import materialize_one
from audio.dsp.effects import VocalChain, apply_vocal_chain
from audio.dsp.gain import GainView
from audio.dsp.mix import Silence, match_shapes, mix
from audio.dsp.pitch_shift import shift_pitch
from audio.types import DiskAudio, iter_blocks

RATE = 44100
def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if key in line).split()[1]) * 1024

def store(blocks, like, stack):
    return materialize_one(blocks, like=like, memory_bytes=1 << 20, stack=stack)

def song(minutes, stack, channels):
    noise = (0.1 * np.random.default_rng(0).standard_normal((channels, RATE))).astype(np.float32)
    audio = stack.enter_context(DiskAudio(channels, RATE))
    for _ in range(round(60 * minutes)):
        audio.append(noise)
    return audio

def cover(minutes, semitones):
    with ExitStack() as stack:
        vocals, instrumental = song(minutes, stack, 1), song(minutes, stack, 2)
        if semitones:
            shifted = shift_pitch(instrumental, semitones, lambda fraction: None)
            instrumental = store(shifted, instrumental, stack)
        shape = Silence(RATE, 2, instrumental.num_samples)
        vocals = apply_vocal_chain(
            iter_blocks(vocals), VocalChain(), sample_rate=RATE, channels=2, num_samples=shape.num_samples
        )
        stems = match_shapes([GainView(store(vocals, shape, stack), -4.0), GainView(instrumental, -7.0)])
        return store(iter_blocks(mix(stems)), shape, stack).peak

def measure(minutes, semitones):
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    assert cover(minutes, semitones) > 0
    return status("VmHWM") - before

cover(0.1, 1.0)
print(json.dumps([measure(float(minutes), float(semitones)) for minutes, semitones in json.loads(sys.argv[1])]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from /proc")
def test_five_minutes_take_little_more_memory_than_half_a_one() -> None:
    command = [sys.executable, "-c", MEASURE, json.dumps([(0.5, 0), (5, 0)])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    short, long = json.loads(done.stdout)
    assert long < short + 30e6 < 150e6
