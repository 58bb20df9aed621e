"""Sounds on disk: what they hold, that nothing is left behind, and that they leave like sounds in memory."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audio import Audio
from audio.disk import materialize, require_disk_space
from audio.dsp.gain import normalize as normalize_in_memory
from audio.dsp.long import MixView, at_rate, bring_below_full_scale, normalize
from audio.dsp.loudness import integrated_loudness, true_peak_db
from audio.dsp.resample import resample, resample_blocks
from audio.files.decode import DecodeLimits, decode, decode_sound
from audio.files.encode import Encoding, encode
from audio.types import DiskAudio, in_memory, iter_blocks
from errors import AudioError

Waveform = NDArray[np.float32]
LIMITS = DecodeLimits(max_bytes=1 << 30, max_seconds=7200, max_sample_rate=192_000, max_channels=8)


def noise(channels: int, num_samples: int, seed: int = 0, level: float = 0.2) -> Waveform:
    generator = np.random.default_rng(seed)
    return (level * generator.standard_normal((channels, num_samples))).astype(np.float32)


def recorded(waveform: Waveform, sample_rate: int = 44_100) -> DiskAudio:
    recording = DiskAudio(waveform.shape[0], sample_rate)
    recording.append(waveform)
    return recording


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Temporary files go to a folder that must be empty throughout, and every one of them must be closed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = open_files()
    yield
    assert list(tmp_path.iterdir()) == [] and open_files() == before


@settings(deadline=None, max_examples=40)
@given(
    channels=st.integers(1, 2),
    sizes=st.lists(st.integers(0, 5000), max_size=6),
    start=st.integers(0, 9000),
    count=st.integers(0, 9000),
)
def test_what_was_appended_is_read_back_from_anywhere(channels: int, sizes: list[int], start: int, count: int) -> None:
    parts = [noise(channels, size, seed) for seed, size in enumerate(sizes)]
    whole = np.concatenate([np.zeros((channels, 0), np.float32), *parts], axis=1)
    with DiskAudio(channels, 8000) as recording:
        for part in parts:
            recording.append(part)
        np.testing.assert_array_equal(recording.read(start, count), whole[:, start : start + count])
        assert recording.num_samples == whole.shape[1]
        assert recording.peak == pytest.approx(float(np.abs(whole).max(initial=0)))
        assert recording.duration == whole.shape[1] / 8000


def test_a_recording_has_no_name_and_its_space_is_given_back(nothing_left: None, tmp_path: Path) -> None:
    with recorded(noise(2, 50_000)):
        assert list(tmp_path.iterdir()) == []


def test_blocks_are_consecutive() -> None:
    waveform = noise(2, 10_000)
    with recorded(waveform) as recording:
        for sound in (recording, Audio(waveform, 44_100)):
            parts = list(iter_blocks(sound, 3000))
            assert [part.shape[1] for part in parts] == [3000, 3000, 3000, 1000]
            np.testing.assert_array_equal(np.concatenate(parts, axis=1), waveform)
        np.testing.assert_array_equal(in_memory(recording).waveform, waveform)


def test_a_full_disk_is_a_clear_error() -> None:
    with DiskAudio(1, 8000) as recording:
        recording._file.close()
        recording._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        with pytest.raises(AudioError, match="disk is full"):
            recording.append(noise(1, 1000))


def test_too_much_for_the_disk_is_refused_before_the_work() -> None:
    with pytest.raises(AudioError) as caught:
        require_disk_space(1 << 60)
    assert caught.value.error_code == "disk_full"
    require_disk_space(0)


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_sounds_that_come_in_step_are_kept_in_memory_or_on_disk(nothing_left: None, memory_bytes: int) -> None:
    first, second = noise(2, 5000), noise(2, 5000, 1)
    parts = [{"a": first[:, s : s + 700], "b": second[:, s : s + 700]} for s in range(0, 5000, 700)]
    with ExitStack() as stack:
        kept = materialize(iter(parts), ["a", "b"], like=Audio(first, 8000), memory_bytes=memory_bytes, stack=stack)
        assert isinstance(kept["a"], Audio if memory_bytes else DiskAudio)
        np.testing.assert_array_equal(kept["a"].read(0, 9999), first)
        np.testing.assert_array_equal(kept["b"].read(0, 9999), second)
        assert kept["a"].sample_rate == 8000


def test_what_breaks_off_leaves_nothing_on_disk(nothing_left: None) -> None:
    def broken() -> Iterator[dict[str, Waveform]]:
        yield {"a": noise(1, 100)}
        raise RuntimeError("broken")

    with ExitStack() as stack:
        before = open_files()
        with pytest.raises(RuntimeError):
            materialize(broken(), ["a"], like=Audio(noise(1, 500), 8000), memory_bytes=0, stack=stack)
        assert open_files() == before


@pytest.mark.parametrize("rates", [(48_000, 44_100), (44_100, 48_000), (8000, 44_100), (192_000, 44_100)])
@pytest.mark.parametrize("size", [777, 65_536])
def test_resampling_by_blocks_is_resampling_at_once(rates: tuple[int, int], size: int) -> None:
    waveform = noise(2, 30_000)
    whole = resample(Audio(waveform, rates[0]), rates[1]).waveform
    coming = (waveform[:, start : start + size] for start in range(0, 30_000, size))
    made = list(resample_blocks(coming, *rates, num_samples=30_000, length=whole.shape[1]))
    np.testing.assert_allclose(np.concatenate(made, axis=1), whole, atol=1e-5)


def flac(waveform: Waveform, sample_rate: int = 44_100) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform.T, sample_rate, format="FLAC", subtype="PCM_24")
    return file.getvalue()


@pytest.mark.parametrize("memory_bytes", [0, 100_000, 1 << 30, None])
def test_a_long_file_is_decoded_to_disk_and_is_the_same_sound(nothing_left: None, memory_bytes: int | None) -> None:
    data = flac(noise(2, 200_000))
    expected = decode(data, limits=LIMITS).audio
    sound = decode_sound(data, limits=LIMITS, memory_bytes=memory_bytes).sound
    assert isinstance(sound, DiskAudio) == (memory_bytes in (0, 100_000))
    np.testing.assert_array_equal(sound.read(0, 1 << 30), expected.waveform)
    assert (sound.sample_rate, sound.channels, sound.peak) == (44_100, 2, expected.peak)
    if isinstance(sound, DiskAudio):
        sound.close()


def test_a_long_file_of_unknown_length_moves_to_disk_on_the_way(nothing_left: None) -> None:
    """A wav whose header leaves its size open: only while decoding does it turn out to be long."""
    file = io.BytesIO()
    soundfile.write(file, noise(2, 300_000).T, 44_100, format="WAV", subtype="FLOAT")
    data = bytearray(file.getvalue())
    at = data.index(b"data") + 4
    data[at : at + 4] = data[4:8] = b"\xff\xff\xff\xff"
    sound = decode_sound(bytes(data), limits=LIMITS, memory_bytes=100_000).sound
    assert isinstance(sound, DiskAudio)
    np.testing.assert_array_equal(sound.read(0, 1 << 30), noise(2, 300_000))
    sound.close()


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_long_audio_with_nan_is_refused_and_leaves_nothing(nothing_left: None, spoil: float) -> None:
    waveform = noise(2, 100_000)
    waveform[0, 90_000] = spoil
    file = io.BytesIO()
    soundfile.write(file, waveform.T, 44_100, format="WAV", subtype="FLOAT")
    with pytest.raises(AudioError) as caught:
        decode_sound(file.getvalue(), limits=LIMITS, memory_bytes=1000)
    assert caught.value.error_code == "nan_audio"


ENCODINGS = [
    Encoding("wav", 16),
    Encoding("wav", 24),
    Encoding("wav", 32),
    Encoding("flac", 16),
    Encoding("flac", 24),
    Encoding("mp3", bitrate=128),
    Encoding("ogg", bitrate=128),
    Encoding("opus", bitrate=96),
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_a_recording_is_written_as_the_same_sound_in_memory_is(nothing_left: None, encoding: Encoding) -> None:
    waveform = noise(2, 60_000, level=0.4)  # peaks above full scale
    assert np.abs(waveform).max() > 1
    from_memory, from_disk = io.BytesIO(), io.BytesIO()
    expected = encode(Audio(waveform, 44_100), encoding, from_memory)
    with recorded(waveform) as recording:
        written = encode(recording, encoding, from_disk)
    assert (written.sample_rate, written.num_samples) == (expected.sample_rate, expected.num_samples)
    assert written.warnings == expected.warnings
    if encoding.format in ("wav", "flac"):
        ours, theirs = (soundfile.read(io.BytesIO(f.getvalue()))[0] for f in (from_disk, from_memory))
        np.testing.assert_allclose(ours, theirs, atol=2**-14 if encoding.bits == 16 else 1e-6)


def test_one_gain_brings_all_recordings_below_full_scale() -> None:
    quiet, loud = noise(2, 10_000), noise(2, 10_000, 1, level=0.5)
    with recorded(quiet) as first, recorded(loud) as second:
        (a, b), gain_db = bring_below_full_scale([first, second])
        assert gain_db is not None and gain_db < 0 and b.peak == pytest.approx(0.9999)
        np.testing.assert_allclose(a.read(0, 10_000) / b.read(0, 10_000), quiet / loud, rtol=1e-4)
        assert bring_below_full_scale([first]) == ((first,), None)


@pytest.mark.parametrize("mode", ["none", "peak", "loudness"])
def test_recordings_are_normalised_as_sounds_in_memory_are(mode: str) -> None:
    waveforms = [noise(2, 80_000, seed, level=0.05) for seed in range(2)]
    expected = normalize_in_memory([Audio(w, 44_100) for w in waveforms], mode, loudness_lufs=-30)  # type: ignore[arg-type]
    with recorded(waveforms[0]) as first, recorded(waveforms[1]) as second:
        done = normalize([first, second], mode, loudness_lufs=-30)  # type: ignore[arg-type]
        for ours, theirs in zip(done.sounds, expected.sounds, strict=True):
            np.testing.assert_allclose(ours.read(0, 1 << 20), theirs.waveform, atol=1e-4)


def test_a_loudness_out_of_reach_is_reached_as_far_as_the_peak_allows() -> None:
    with recorded(noise(2, 80_000, level=0.1)) as recording:
        done = normalize([recording], "loudness", loudness_lufs=0.0)
        assert true_peak_db(done.sounds[0]) == pytest.approx(-1.0, abs=0.05)
        assert done.loudness_lufs == pytest.approx(integrated_loudness(done.sounds[0]), abs=0.05)
        assert done.loudness_lufs is not None and done.loudness_lufs < -1


def test_silence_on_disk_stays_silence() -> None:
    with recorded(np.zeros((2, 50_000), np.float32)) as recording:
        for mode in ("peak", "loudness"):
            done = normalize([recording], mode)
            assert done.gain_db is None and done.sounds == (recording,)


def test_loudness_and_peak_by_blocks_are_those_of_the_whole() -> None:
    waveform = noise(2, 300_000)
    with recorded(waveform) as recording, ExitStack() as stack:
        sound = Audio(waveform, 44_100)
        assert integrated_loudness(recording) == pytest.approx(integrated_loudness(sound))
        assert true_peak_db(recording) == pytest.approx(true_peak_db(sound))
        assert MixView([recording, recording]).peak == pytest.approx(2 * sound.peak)
        assert at_rate(recording, 44_100, stack) is recording
        faster = at_rate(recording, 48_000, stack)
        np.testing.assert_allclose(faster.read(0, 1 << 20), resample(sound, 48_000).waveform, atol=1e-5)
