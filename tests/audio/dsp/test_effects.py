"""The vocal chain equals pedalboard applied to the whole waveform, for any block sizes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audio.dsp.effects import END_FADE_S, VocalChain, apply_vocal_chain

Waveform = NDArray[np.float32]
RATE = 44_100


def make_vocal(num_samples: int, channels: int = 1, level: float = 0.5) -> Waveform:
    noise = np.random.default_rng(3).standard_normal((channels, num_samples))
    swell = np.abs(np.sin(np.arange(num_samples) / 7000))
    return (level * noise * swell).astype(np.float32)


def split_blocks(waveform: Waveform, sizes: list[int]) -> Iterator[Waveform]:
    start = 0
    for size in sizes:
        yield waveform[:, start : start + size]
        start += size
    yield waveform[:, start:]


def apply_pedalboard(waveform: Waveform, chain: VocalChain, sample_rate: int = RATE) -> Waveform:
    from pedalboard import Compressor, HighpassFilter, Reverb

    result = HighpassFilter(50)(waveform, sample_rate)
    result = Compressor(threshold_db=-15, ratio=4)(result, sample_rate)
    reverb = Reverb(
        room_size=chain.room_size, damping=chain.damping, wet_level=chain.wet, dry_level=chain.dry, width=1.0
    )
    return np.asarray(reverb(result, sample_rate), np.float32)


def run(blocks: Iterator[Waveform], chain: VocalChain, channels: int, num_samples: int, rate: int = RATE) -> Waveform:
    result = apply_vocal_chain(blocks, chain, sample_rate=rate, channels=channels, num_samples=num_samples)
    return np.concatenate(list(result), axis=1)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 70_000), max_size=8),
    tail=st.integers(0, 20_000),
    channels=st.sampled_from([1, 2]),
    rate=st.sampled_from([44_100, 48_000, 96_000]),
)
def test_any_block_sizes_give_the_result_of_pedalboard_on_the_whole(
    sizes: list[int], tail: int, channels: int, rate: int
) -> None:
    chain, waveform = VocalChain(), make_vocal(150_000, channels)
    whole = np.pad(np.repeat(waveform, 3 - channels, axis=0)[:2], ((0, 0), (0, tail)))
    result = run(split_blocks(waveform, sizes), chain, 2, 150_000 + tail, rate)
    settled = result.shape[1] - round(END_FADE_S * rate)
    assert result.shape == whole.shape and result.dtype == np.float32
    np.testing.assert_allclose(result[:, :settled], apply_pedalboard(whole, chain, rate)[:, :settled], atol=1e-6)


def test_the_chain_has_no_delay() -> None:
    impulse = np.zeros((1, RATE), np.float32)
    impulse[0, 1000] = 0.5
    result = run(iter([impulse]), VocalChain(), 2, RATE)
    assert np.abs(result).argmax(axis=1).tolist() == [1000, 1000]
    assert np.abs(result[:, :1000]).max() == 0
    assert result[0, 1000] == pytest.approx(0.8, rel=0.02)  # 0.5, and twice reverb_dry: pedalboard's scale


def test_loud_parts_are_compressed_four_to_one() -> None:
    times = np.arange(2 * RATE) / RATE
    levels = []
    for level_db in (-12.0, -4.0):  # of a sine's peak, which the compressor follows
        sine = np.asarray([10 ** (level_db / 20) * np.sin(2 * np.pi * 1000 * times)], np.float32)
        result = run(iter([sine]), VocalChain(wet=0.0, dry=1.0), 1, 2 * RATE)
        levels.append(20 * np.log10(float(np.abs(result[0, RATE : RATE + 4410]).max())))
    assert levels[1] - levels[0] == pytest.approx(8 / 4, abs=0.1)


def test_mono_becomes_stereo_before_the_reverb() -> None:
    result = run(iter([make_vocal(RATE)]), VocalChain(wet=1.0, dry=0.0), 2, RATE)
    assert np.asarray(np.corrcoef(result))[0, 1] < 0.9


def test_the_reverb_tail_follows_the_vocal() -> None:
    chain, waveform = VocalChain(room_size=0.8), make_vocal(RATE)
    result = run(iter([waveform]), chain, 2, 3 * RATE)
    expected = apply_pedalboard(np.pad(np.repeat(waveform, 2, axis=0), ((0, 0), (0, 2 * RATE))), chain)
    tail = slice(RATE, 3 * RATE - 500)
    assert np.abs(expected[:, RATE : RATE + 4000]).max() > 0.01
    np.testing.assert_allclose(result[:, tail], expected[:, tail], atol=1e-6)


def test_the_end_fades_out_if_the_vocal_is_the_longest() -> None:
    waveform = make_vocal(RATE, level=0.1) + np.float32(0.1)
    plain = apply_pedalboard(np.repeat(waveform, 2, axis=0), VocalChain())
    result = run(iter([waveform]), VocalChain(), 2, RATE)
    fade = round(END_FADE_S * RATE)
    np.testing.assert_allclose(result[:, :-fade], plain[:, :-fade], atol=1e-6)
    assert np.abs(result[:, -1]).max() < 1e-3 * np.abs(plain[:, -fade:]).max()


def test_silence_stays_exactly_silent() -> None:
    assert not run(iter([np.zeros((1, RATE), np.float32)]), VocalChain(), 2, RATE).any()


@pytest.mark.parametrize("num_samples", [1, 2, 3, 65, 882])
def test_very_short_vocals_keep_their_length(num_samples: int) -> None:
    result = run(iter([make_vocal(num_samples) + np.float32(0.1)]), VocalChain(), 2, num_samples)
    assert result.shape == (2, num_samples) and np.isfinite(result).all() and result[0, 0] != 0
