"""Every format survives a round trip: length, sample rate, channels, and the samples within the noise of the format."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audio import Audio
from audio.dsp.resample import resample
from audio.files.decode import decode
from audio.files.encode import encode
from audio.files.formats import FORMAT_NAMES, OUTPUT_FORMATS, Encoding, FormatName
from audio.files.ogg import OggError, iter_pages, set_serial
from audio.files.quantize import is_on_16_bit_grid
from testing.signals import LIMITS, copy_to_disk, encode_file, make_noise, make_tone, measure_snr_db, needs_ffmpeg

ALL = [
    (Encoding("wav", 16), 79.0),  # theory: 79.8 for this level, step**2 / 4 of dither and rounding
    (Encoding("wav", 24), 130.0),
    (Encoding("wav", 32), 280.0),
    (Encoding("flac", 16), 79.0),
    (Encoding("flac", 24), 130.0),
    (Encoding("mp3"), 40.0),
    (Encoding("mp3", bitrate=128), 20.0),
    (Encoding("ogg"), 20.0),
    (Encoding("ogg", bitrate=500), 30.0),
    (Encoding("opus"), 20.0),
]


def describe_encoding(encoding: object) -> str:
    return f"{encoding.format}-{encoding.bits}-{encoding.kbits}" if isinstance(encoding, Encoding) else ""


def decode_audio(data: bytes) -> Audio:
    return decode(data, limits=LIMITS).audio


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [16000, 32000, 44100, 48000])
@pytest.mark.parametrize(("encoding", "least_snr_db"), ALL, ids=describe_encoding)
def test_a_round_trip_keeps_length_rate_channels_and_samples(
    encoding: Encoding, least_snr_db: float, sample_rate: int, channels: int
) -> None:
    audio = make_tone(1.3, sample_rate=sample_rate, channels=channels)
    stream = io.BytesIO()
    written = encode(audio, encoding, stream)
    back = decode_audio(stream.getvalue())
    assert (written.sample_rate, written.channels) == (back.sample_rate, back.channels)
    assert back.num_samples == written.num_samples
    assert back.channels == channels
    expected = resample(audio, written.sample_rate)
    assert written.sample_rate == sample_rate or written.warnings
    assert back.num_samples == expected.num_samples
    assert measure_snr_db(expected, back) > least_snr_db


@pytest.mark.parametrize("encoding", [encoding for encoding, _ in ALL], ids=describe_encoding)
def test_the_same_audio_gives_the_same_bytes(encoding: Encoding) -> None:
    assert encode_file(make_tone(0.5), encoding) == encode_file(make_tone(0.5), encoding)


@pytest.mark.parametrize("num_samples", [1, 2, 3, 100, 576, 1105, 1152, 1153, 16385, 70000])
@pytest.mark.parametrize("form", FORMAT_NAMES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_round_trip_keeps_any_length(form: FormatName, num_samples: int, channels: int) -> None:
    audio = Audio(make_tone(2.0, sample_rate=48000, channels=channels).waveform[:, :num_samples], 48000)
    assert decode_audio(encode_file(audio, Encoding(form))).waveform.shape == (channels, num_samples)


def test_long_vorbis_does_not_crash_the_process() -> None:
    """libsndfile's stack overflows when a block of about 100,000 frames is written at once."""
    audio = make_tone(30.0, sample_rate=8000, channels=1)
    assert decode_audio(encode_file(audio, Encoding("ogg", bitrate=64))).num_samples == audio.num_samples


@pytest.mark.parametrize("kbits", OUTPUT_FORMATS["mp3"].bitrates)
def test_mp3_files_have_the_requested_bitrate(kbits: int) -> None:
    audio = make_tone(4.0, channels=1)
    data = encode_file(audio, Encoding("mp3", bitrate=kbits))
    assert len(data) * 8 / 4.0 / 1000 == pytest.approx(kbits, rel=0.05)
    excess = decode_audio(data).num_samples - audio.num_samples
    # Below 64 kbit/s a frame has no room for the tag that carries the length: delay and padding stay.
    assert excess == 0 if kbits >= 64 else 0 <= excess < 3 * 1152


@pytest.mark.parametrize(("form", "kbits"), [("ogg", 96), ("ogg", 256), ("opus", 64), ("opus", 160)])
def test_ogg_and_opus_files_are_near_the_target_bitrate(form: FormatName, kbits: int) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 48000 * 4)) * 0.1
    data = encode_file(Audio(noise.astype(np.float32), 48000), Encoding(form, bitrate=kbits))
    assert len(data) * 8 / 4.0 / 1000 == pytest.approx(kbits, rel=0.35)


@pytest.mark.parametrize(("rate", "kept"), [(96000, 48000), (88200, 48000), (40000, 44100), (11025, 11025)])
def test_mp3_resamples_unsupported_rates_with_a_warning(rate: int, kept: int) -> None:
    written = encode(make_tone(0.5, sample_rate=rate), Encoding("mp3", bitrate=64), io.BytesIO())
    assert written.sample_rate == kept
    assert bool(written.warnings) == (rate != kept)


def test_mp3_at_a_low_sample_rate_warns_of_the_lower_bitrate() -> None:
    written = encode(make_tone(0.5, sample_rate=16000), Encoding("mp3"), io.BytesIO())
    assert "160" in written.warnings[0]


@needs_ffmpeg
@pytest.mark.parametrize("form", FORMAT_NAMES)
def test_ffmpeg_decodes_every_format_we_write(form: FormatName) -> None:
    audio = make_tone(1.0, sample_rate=48000)
    file = encode_file(audio, Encoding(form))
    there_and_back = read_by_ffmpeg(file)
    assert abs(there_and_back.num_samples - audio.num_samples) < 1200
    assert there_and_back.channels == 2


def read_by_ffmpeg(file: bytes) -> Audio:
    command = ["ffmpeg", "-v", "error", "-xerror", "-i", "pipe:0", "-f", "wav", "-c:a", "pcm_f32le", "pipe:1"]
    return decode_audio(subprocess.run(command, input=file, capture_output=True, check=True).stdout)


# --- integers and floats


@pytest.mark.parametrize("form", ["wav", "flac"])
def test_16_bit_audio_survives_bit_by_bit(form: FormatName) -> None:
    integers = np.random.default_rng(3).integers(-32768, 32768, (2, 50000)).astype(np.int16)
    stream = io.BytesIO()
    soundfile.write(stream, integers.T, 44100, format="WAV", subtype="PCM_16")
    again = encode_file(decode_audio(stream.getvalue()), Encoding(form, 16))
    back, _ = soundfile.read(io.BytesIO(again), dtype="int16")
    np.testing.assert_array_equal(back.T, integers)


@pytest.mark.parametrize("form", ["wav", "flac"])
def test_24_bit_audio_survives_bit_by_bit(form: FormatName) -> None:
    integers = np.random.default_rng(3).integers(-(1 << 23), 1 << 23, (2, 50000)).astype(np.int32) << 8
    stream = io.BytesIO()
    soundfile.write(stream, integers.T, 44100, format="WAV", subtype="PCM_24")
    again = encode_file(decode_audio(stream.getvalue()), Encoding(form, 24))
    back, _ = soundfile.read(io.BytesIO(again), dtype="int32")
    np.testing.assert_array_equal(back.T, integers)


def test_float_wav_keeps_values_above_full_scale() -> None:
    loud = Audio(make_tone(0.5).waveform * 10, 44100)
    np.testing.assert_array_equal(decode_audio(encode_file(loud, Encoding("wav", 32))).waveform, loud.waveform)


@pytest.mark.parametrize(
    "encoding", [encoding for encoding, _ in ALL if not encoding.keeps_overs], ids=describe_encoding
)
def test_other_formats_lower_the_level_of_values_above_full_scale_with_a_warning(encoding: Encoding) -> None:
    loud = Audio(make_tone(1.0, sample_rate=48000).waveform * 10, 48000)
    stream = io.BytesIO()
    written = encode(loud, encoding, stream)
    assert any("lowered by" in warning for warning in written.warnings)
    assert measure_snr_db(loud, decode_audio(stream.getvalue())) > 20.0  # clipping would leave about 5 dB


def test_dither_preserves_a_tone_below_one_16_bit_step() -> None:
    """Rounding alone would remove a tone of half a step; with dither it keeps its level below the noise."""
    times = np.arange(44100 * 4) / 44100
    quiet = Audio((0.5 / 32768 * np.sin(2 * np.pi * 441 * times))[None].astype(np.float32), 44100)
    back = decode_audio(encode_file(quiet, Encoding("wav", 16))).waveform[0]
    spectrum = np.abs(np.fft.rfft(back)) / len(back) * 2
    assert spectrum[441 * 4] == pytest.approx(0.5 / 32768, rel=0.05)
    assert np.delete(spectrum[100:], 441 * 4 - 100).max() < 0.1 / 32768


def test_digital_silence_within_dithered_audio_stays_silent() -> None:
    waveform = make_tone(1.0).waveform.copy()
    waveform[:, 10000:20000] = 0.0
    back = decode_audio(encode_file(Audio(waveform, 44100), Encoding("flac", 16))).waveform
    assert not back[:, 10000:20000].any()
    assert not is_on_16_bit_grid(Audio(waveform, 44_100))


def test_full_scale_itself_is_not_lowered() -> None:
    stream = io.BytesIO()
    written = encode(Audio(np.ones((1, 100), np.float32), 44100), Encoding("wav", 16), stream)
    assert written.warnings == ()
    assert decode_audio(stream.getvalue()).peak == np.float32(32767 / 32768)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3000),
    st.integers(1, 2),
    st.sampled_from([8000, 22050, 44100, 48000, 96000, 192000]),
    st.sampled_from([Encoding("wav", 16), Encoding("wav", 24), Encoding("wav", 32), Encoding("flac")]),
    st.integers(0, 2**32),
)
def test_lossless_formats_are_within_one_step(
    num_samples: int, channels: int, sample_rate: int, encoding: Encoding, seed: int
) -> None:
    waveform = np.random.default_rng(seed).uniform(-1, 0.999, (channels, num_samples)).astype(np.float32)
    back = decode_audio(encode_file(Audio(waveform, sample_rate), encoding))
    assert back.sample_rate == sample_rate
    steps = {16: 1.5 / 32768, 24: 0.51 / 8388608, 32: 0.0}
    assert np.abs(back.waveform - waveform).max() <= steps[encoding.bits]


# --- files above 4 GiB


class Discarding(io.RawIOBase):
    """Keeps the first kilobyte and counts the rest."""

    def __init__(self) -> None:
        self.head, self.size = b"", 0

    def write(self, data: Any) -> int:
        self.head += bytes(data[: max(1024 - len(self.head), 0)])
        self.size += len(data)
        return len(data)


@pytest.mark.slow
def test_a_wav_beyond_4_gib_is_rf64() -> None:
    """A waveform of a single repeated sample takes no memory; the bytes written are counted and discarded."""
    num_samples = (1 << 29) + 5
    waveform: NDArray[np.float32] = np.broadcast_to(np.float32(0.25), (2, num_samples))
    stream = Discarding()
    encode(Audio(waveform, 48000), Encoding("wav", 32), cast(BinaryIO, stream))
    riff, _, wave, ds64, _, riff_size, data_size, samples = struct.unpack_from("<4sI4s4sIQQQ", stream.head)
    assert (riff, wave, ds64) == (b"RF64", b"WAVE", b"ds64")
    assert (riff_size, data_size, samples) == (stream.size - 8, num_samples * 8, num_samples)
    with soundfile.SoundFile(io.BytesIO(stream.head)) as file:
        assert (file.format, file.samplerate, file.channels) == ("RF64", 48000, 2)


def test_a_wav_below_4_gib_states_its_sizes() -> None:
    data = encode_file(make_tone(0.1, channels=1), Encoding("wav", 24))
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    assert len(data) % 2 == 0


# --- audio on disk

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
def test_audio_on_disk_is_written_like_the_same_audio_in_memory(no_files_left: Path, encoding: Encoding) -> None:
    waveform = make_noise(2, 60_000, level=0.4)  # peaks above full scale
    assert np.abs(waveform).max() > 1
    from_memory, from_disk = io.BytesIO(), io.BytesIO()
    expected = encode(Audio(waveform, 44_100), encoding, from_memory)
    with copy_to_disk(Audio(waveform, 44_100)) as stored:
        written = encode(stored, encoding, from_disk)
    assert (written.sample_rate, written.num_samples) == (expected.sample_rate, expected.num_samples)
    assert written.warnings == expected.warnings
    if encoding.format in ("wav", "flac"):
        ours, theirs = (soundfile.read(io.BytesIO(f.getvalue()))[0] for f in (from_disk, from_memory))
        np.testing.assert_allclose(ours, theirs, atol=2**-14 if encoding.bits == 16 else 1e-6)


# --- ogg pages


def test_a_new_serial_number_keeps_pages_valid_and_samples_equal() -> None:
    data = encode_file(make_tone(1.0), Encoding("ogg"))
    stream = io.BytesIO(data)
    set_serial(stream, 77)
    assert {page.data[14:18] for page in iter_pages(stream)} == {struct.pack("<I", 77)}
    assert all(page.is_intact for page in iter_pages(stream))
    np.testing.assert_array_equal(decode_audio(stream.getvalue()).waveform, decode_audio(data).waveform)


def test_reading_the_pages_of_a_cut_off_ogg_is_an_error() -> None:
    with pytest.raises(OggError):
        list(iter_pages(io.BytesIO(encode_file(make_tone(0.5), Encoding("ogg"))[:-10])))
