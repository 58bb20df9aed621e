"""Every supported container decodes, and every kind of unusable file has its own error."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import Audio
from audio.files.decode import Decoded, DecodeLimits, decode, decode_source
from audio.files.formats import Encoding
from audio.files.ogg import iter_pages
from audio.types import Check, DiskAudio
from errors import AudioError, CancelledError, DiskFullError
from testing.signals import LIMITS, encode_file, encode_with_ffmpeg, make_noise, make_tone, measure_snr_db, needs_ffmpeg

CUTTABLE = ["wav", "flac", "mp3", "ogg", "opus", "aiff", "w64", "rf64"]


def write_with_libsndfile(audio: Audio, form: str, subtype: str) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, audio.waveform.T, audio.sample_rate, format=form, subtype=subtype)
    return stream.getvalue()


def make_file(kind: str, audio: Audio | None = None) -> bytes:
    audio = audio or make_tone(2.0)
    special = {"aiff": ("AIFF", "PCM_24"), "w64": ("W64", "PCM_16"), "rf64": ("RF64", "PCM_16")}
    if kind in special:
        return write_with_libsndfile(audio, *special[kind])
    return encode_file(audio, Encoding(kind))  # type: ignore[arg-type]


def catch_error_code(data: bytes, limits: DecodeLimits = LIMITS) -> str:
    with pytest.raises(AudioError) as caught:
        decode(data, limits=limits)
    assert len(caught.value.message) < 400
    return caught.value.error_code


# --- supported files


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        ("WAV", "PCM_U8"),
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "PCM_32"),
        ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("WAV", "ULAW"),
        ("WAVEX", "PCM_16"),
        ("RF64", "FLOAT"),
        ("W64", "PCM_24"),
        ("AIFF", "PCM_16"),
        ("AIFF", "FLOAT"),
        ("FLAC", "PCM_24"),
    ],
)
def test_uncompressed_files_decode_like_in_libsndfile(form: str, subtype: str, channels: int) -> None:
    data = write_with_libsndfile(make_tone(0.7, sample_rate=22050, channels=channels), form, subtype)
    expected, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    decoded = decode(data, limits=LIMITS)
    assert decoded.audio.sample_rate == rate == 22050
    assert decoded.warnings == ()
    np.testing.assert_array_equal(decoded.audio.waveform, expected.T)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("options", "suffix", "container"),
    [
        (("-c:a", "aac", "-b:a", "256k"), "m4a", "m4a"),
        (("-c:a", "aac", "-b:a", "256k", "-movflags", "+faststart"), "m4a", "m4a"),
        (("-c:a", "aac", "-b:a", "256k"), "aac", "aac"),
        (("-c:a", "alac"), "m4a", "m4a"),
        (("-c:a", "libopus", "-b:a", "256k", "-ar", "48000"), "webm", "webm"),
        (("-c:a", "libvorbis", "-q:a", "9"), "webm", "webm"),
        (("-c:a", "flac"), "ogg", "ogg"),
        (("-c:a", "pcm_s24le", "-f", "aiff", "-c:a", "pcm_s24be"), "aiff", "aiff"),
        (("-c:a", "libmp3lame", "-q:a", "0"), "mp3", "mp3"),
    ],
)
def test_files_written_by_ffmpeg_decode_to_the_original(options: tuple[str, ...], suffix: str, container: str) -> None:
    audio = make_tone(2.0, sample_rate=48000)
    decoded = decode(encode_with_ffmpeg(audio, *options, suffix=suffix), limits=LIMITS)
    assert (decoded.format, decoded.audio.sample_rate, decoded.audio.channels) == (container, 48000, 2)
    assert measure_aligned_snr_db(audio, decoded.audio) > 30.0


def measure_aligned_snr_db(audio: Audio, other: Audio, most: int = 3000) -> float:
    """SNR after alignment: ADTS does not state the encoder's delay, and AAC pads the end."""
    middle = slice(audio.num_samples // 4, audio.num_samples // 4 + 20000)
    ours = audio.waveform[0, middle]
    there = other.waveform[0, middle.start : middle.stop + most]
    shift = int(np.argmax(np.correlate(there, ours)))
    return measure_snr_db(Audio(ours[None], 48000), Audio(there[None, shift : shift + len(ours)], 48000))


@needs_ffmpeg
def test_a_video_decodes_to_its_audio_track() -> None:
    data = encode_with_ffmpeg(
        make_tone(1.0), "-f", "lavfi", "-i", "color=size=64x64:duration=1", "-map", "0:a", "-map", "1:v", "-shortest",
        "-c:a", "aac", suffix="mp4",
    )  # fmt: skip
    assert decode(data, limits=LIMITS).audio.num_samples >= 44100


def test_values_above_full_scale_are_kept() -> None:
    loud = Audio(make_tone(0.5).waveform * 8, 44100)
    assert loud.peak > 1.5
    decoded = decode(write_with_libsndfile(loud, "WAV", "FLOAT"), limits=LIMITS)
    np.testing.assert_array_equal(decoded.audio.waveform, loud.waveform)


def test_a_file_object_decodes_like_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "sound.flac"
    path.write_bytes(make_file("flac"))
    with path.open("rb") as file:
        from_file = decode(file, limits=LIMITS)
    np.testing.assert_array_equal(from_file.audio.waveform, decode(path.read_bytes(), limits=LIMITS).audio.waveform)


@pytest.mark.parametrize("declared", [0, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_a_streamed_wav_without_sizes_decodes_completely(declared: int) -> None:
    audio = make_tone(0.5)
    data = bytearray(encode_file(audio, Encoding("wav", 32)))
    at = data.find(b"data")
    data[at + 4 : at + 8] = struct.pack("<I", declared)
    data[4:8] = struct.pack("<I", declared if declared == 0 else 0xFFFFFFFF)
    np.testing.assert_array_equal(decode(bytes(data), limits=LIMITS).audio.waveform, audio.waveform)


@needs_ffmpeg
@pytest.mark.parametrize("form", ["wav", "flac", "ogg", "webm", "aiff", "mp3"])
def test_files_that_ffmpeg_wrote_to_a_pipe_decode_completely(form: str) -> None:
    decoded = decode(encode_with_ffmpeg(make_tone(1.0), "-f", form, suffix=form, to_pipe=True), limits=LIMITS)
    assert abs(decoded.audio.duration - 1.0) < 0.06


@needs_ffmpeg
def test_a_variable_bitrate_mp3_without_a_tag_decodes_completely() -> None:
    """libsndfile alone estimates the length from the first frame's bitrate: here a fifth of the real one."""
    noise = np.random.default_rng(0).standard_normal((1, 44100 * 4)) * 0.3
    audio = Audio(np.concatenate([noise, np.zeros((1, 44100 * 16))], axis=1).astype(np.float32), 44100)
    data = encode_with_ffmpeg(audio, "-q:a", "4", "-write_xing", "0", "-id3v2_version", "0", suffix="mp3")
    guessed, _ = soundfile.read(io.BytesIO(data))
    assert len(guessed) < 44100 * 12
    decoded = decode(data, limits=LIMITS)
    assert abs(decoded.audio.num_samples - audio.num_samples) < 2 * 1152


def test_concatenated_mp3_files_are_all_decoded() -> None:
    one = encode_file(make_tone(1.0, channels=1), Encoding("mp3", bitrate=192))
    decoded = decode(one + one, limits=LIMITS)
    assert abs(decoded.audio.num_samples - 2 * 44100) < 5 * 1152
    assert decoded.warnings and "several mp3" in decoded.warnings[0]


def test_an_id3_tag_before_an_mp3_changes_nothing() -> None:
    data = encode_file(make_tone(1.0), Encoding("mp3"))
    tag = b"ID3\x04\x00\x00" + bytes([0, 1, 0, 0]) + bytes(1 << 14)
    np.testing.assert_array_equal(
        decode(tag + data, limits=LIMITS).audio.waveform, decode(data, limits=LIMITS).audio.waveform
    )


@needs_ffmpeg
@pytest.mark.parametrize("trailer", [bytes(6000), b"TAG" + bytes(125)])
@pytest.mark.parametrize("options", [(), ("-write_xing", "0")])
def test_a_trailer_after_an_mp3_changes_nothing(options: tuple[str, ...], trailer: bytes) -> None:
    data = encode_with_ffmpeg(make_tone(1.0), *options, suffix="mp3")
    np.testing.assert_array_equal(
        decode(data + trailer, limits=LIMITS).audio.waveform, decode(data, limits=LIMITS).audio.waveform
    )


def test_an_ogg_without_an_end_mark_is_accepted_with_a_warning() -> None:
    whole = list(iter_pages(io.BytesIO(encode_file(make_tone(3.0), Encoding("ogg")))))
    decoded = decode(b"".join(page.data for page in whole[:-1]), limits=LIMITS)
    assert decoded.audio.num_samples > 44100
    assert "end mark" in decoded.warnings[0]


# --- more than two channels

SPEAKERS = ("FL", "FR", "FC", "LFE", "BL", "BR")
STEREO_GAINS = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (0.7071, 0.7071),
    "LFE": (0, 0),
    "BL": (0.7071, 0),
    "BR": (0, 0.7071),
}


@needs_ffmpeg
@pytest.mark.parametrize("speaker", SPEAKERS)
@pytest.mark.parametrize(
    ("options", "suffix"),
    [(("-c:a", "pcm_s16le"), "wav"), (("-c:a", "libvorbis"), "ogg"), (("-c:a", "alac"), "m4a"), ((), "flac")],
)
def test_each_surround_channel_is_downmixed_to_its_side(speaker: str, options: tuple[str, ...], suffix: str) -> None:
    audio = make_tone(1.0, channels=1)
    pan = "pan=5.1|" + "|".join(f"{name}={'1' if name == speaker else '0'}*c0" for name in SPEAKERS)
    decoded = decode(encode_with_ffmpeg(audio, "-af", pan, *options, suffix=suffix), limits=LIMITS)
    assert "6 channels" in decoded.warnings[0]
    levels = decoded.audio.waveform[:, 5000:-5000].std(axis=1) / audio.waveform[:, 5000:-5000].std()
    np.testing.assert_allclose(levels, np.array(STEREO_GAINS[speaker]) / (1 + 2 * 0.7071), atol=0.02)


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8])
def test_a_downmix_of_full_scale_stays_within_full_scale(channels: int) -> None:
    data = write_with_libsndfile(Audio(np.ones((channels, 1000), np.float32), 44100), "WAV", "FLOAT")
    decoded = decode(data, limits=LIMITS)
    assert decoded.audio.channels == 2
    assert 0.99 < decoded.audio.peak <= 1.0 + 1e-6


# --- refused files


def test_an_empty_file_is_refused() -> None:
    assert catch_error_code(b"") == "empty_audio"


@pytest.mark.parametrize("kind", ["wav", "aiff", "flac"])
def test_a_file_without_samples_is_refused_as_empty(kind: str) -> None:
    form = {"wav": "WAV", "aiff": "AIFF", "flac": "FLAC"}[kind]
    assert (
        catch_error_code(write_with_libsndfile(Audio(np.zeros((2, 0), np.float32), 44100), form, "PCM_16"))
        == "empty_audio"
    )


@pytest.mark.parametrize("data", [b"hello world " * 100, b"\0" * 5000, b"#EXTM3U\nhttp://127.0.0.1/x.ts\n", b"x"])
def test_data_that_is_not_audio_is_refused_with_the_supported_formats(data: bytes) -> None:
    with pytest.raises(AudioError, match="flac, mp3") as caught:
        decode(data, limits=LIMITS)
    assert caught.value.error_code == "unsupported_audio_format"


@pytest.mark.parametrize("kind", CUTTABLE)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.98])
def test_a_cut_off_file_is_refused(kind: str, share: float) -> None:
    data = make_file(kind)
    assert catch_error_code(data[: int(share * len(data))]) == "corrupt_audio"


@needs_ffmpeg
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    ("options", "suffix"),
    [
        (("-c:a", "aac"), "m4a"),
        (("-c:a", "aac", "-movflags", "+faststart"), "m4a"),
        (("-c:a", "libopus"), "webm"),
    ],
)
def test_a_cut_off_file_that_needs_ffmpeg_is_refused(share: float, options: tuple[str, ...], suffix: str) -> None:
    data = encode_with_ffmpeg(make_tone(3.0), *options, suffix=suffix)
    assert catch_error_code(data[: int(share * len(data))]) == "corrupt_audio"


@pytest.mark.parametrize("kind", ["flac", "ogg", "opus"])
def test_a_file_damaged_in_the_middle_is_refused(kind: str) -> None:
    data = bytearray(make_file(kind))
    for at in range(len(data) // 2, len(data) // 2 + 60):
        data[at] ^= 0x5A
    assert catch_error_code(bytes(data)) == "corrupt_audio"


@pytest.mark.parametrize("damaged", [60, 4000])
def test_an_mp3_damaged_in_the_middle_is_refused_or_accepted_with_a_warning(damaged: int) -> None:
    data = bytearray(make_file("mp3"))
    data[len(data) // 2 : len(data) // 2 + damaged] = bytes(damaged)
    try:
        decoded = decode(bytes(data), limits=LIMITS)
    except AudioError as error:
        assert error.error_code == "corrupt_audio"
    else:
        assert decoded.audio.num_samples == 88200 or "damaged" in decoded.warnings[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("at", [0, 30000, 44099])
def test_a_sample_that_is_not_finite_is_refused(value: float, at: int) -> None:
    waveform = make_tone(1.0).waveform.copy()
    waveform[1, at] = value
    assert catch_error_code(write_with_libsndfile(Audio(waveform, 44100), "WAV", "FLOAT")) == "nan_audio"


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "opus"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"max_bytes": 1000}, "input_too_large"),
        ({"max_seconds": 1.9}, "audio_too_long"),
        ({"max_sample_rate": 44000}, "sample_rate_too_high"),
        ({"max_channels": 1}, "too_many_channels"),
    ],
)
def test_each_limit_has_its_own_error_code(kind: str, change: dict[str, int], code: str) -> None:
    assert catch_error_code(make_file(kind), replace(LIMITS, **change)) == code


@needs_ffmpeg
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"max_seconds": 1.9}, "audio_too_long"),
        ({"max_sample_rate": 44000}, "sample_rate_too_high"),
        ({"max_channels": 1}, "too_many_channels"),
    ],
)
def test_each_limit_applies_to_ffmpeg_too(change: dict[str, int], code: str) -> None:
    assert (
        catch_error_code(encode_with_ffmpeg(make_tone(2.0), "-c:a", "aac", suffix="m4a"), replace(LIMITS, **change))
        == code
    )


def test_audio_of_exactly_the_longest_length_is_accepted() -> None:
    assert decode(make_file("wav"), limits=replace(LIMITS, max_seconds=2.0)).audio.num_samples == 88200


def test_a_sample_rate_of_3_hz_is_refused() -> None:
    data = bytearray(encode_file(make_tone(0.1), Encoding("wav", 16)))
    data[24:28] = struct.pack("<I", 3)
    assert catch_error_code(bytes(data)) == "sample_rate_too_low"


def test_without_ffmpeg_an_m4a_is_refused_with_a_remedy() -> None:
    data = struct.pack(">I4s4s", 24, b"ftyp", b"M4A ") + bytes(500)
    with pytest.raises(AudioError, match="ffmpeg") as caught:
        decode(data, limits=LIMITS, ffmpeg="no-such-program")
    assert caught.value.error_code == "decoder_missing"


def test_without_ffmpeg_all_other_formats_decode() -> None:
    for kind in CUTTABLE:
        assert decode(make_file(kind), limits=LIMITS, ffmpeg="no-such-program").audio.num_samples


# --- long audio


@pytest.mark.parametrize("memory_bytes", [0, 100_000, 1 << 30, None])
def test_a_file_decodes_to_the_same_samples_in_both_storages(no_files_left: Path, memory_bytes: int | None) -> None:
    data = write_with_libsndfile(Audio(make_noise(2, 200_000), 44_100), "FLAC", "PCM_24")
    expected = decode(data, limits=LIMITS).audio
    audio = decode_source(data, limits=LIMITS, memory_bytes=memory_bytes).audio
    assert isinstance(audio, DiskAudio) == (memory_bytes in (0, 100_000))
    np.testing.assert_array_equal(audio.read(0, 1 << 30), expected.waveform)
    assert (audio.sample_rate, audio.channels, audio.peak) == (44_100, 2, expected.peak)
    if isinstance(audio, DiskAudio):
        audio.close()


def test_a_file_of_unknown_length_moves_to_disk_while_decoding(no_files_left: Path) -> None:
    """A wav whose header does not state its size: that it is long is known only while decoding."""
    file = io.BytesIO()
    soundfile.write(file, make_noise(2, 300_000).T, 44_100, format="WAV", subtype="FLOAT")
    data = bytearray(file.getvalue())
    at = data.index(b"data") + 4
    data[at : at + 4] = data[4:8] = b"\xff\xff\xff\xff"
    audio = decode_source(bytes(data), limits=LIMITS, memory_bytes=100_000).audio
    assert isinstance(audio, DiskAudio)
    np.testing.assert_array_equal(audio.read(0, 1 << 30), make_noise(2, 300_000))
    audio.close()


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_long_audio_with_nan_is_refused_and_leaves_no_file(no_files_left: Path, spoil: float) -> None:
    waveform = make_noise(2, 100_000)
    waveform[0, 90_000] = spoil
    file = io.BytesIO()
    soundfile.write(file, waveform.T, 44_100, format="WAV", subtype="FLOAT")
    with pytest.raises(AudioError) as caught:
        decode_source(file.getvalue(), limits=LIMITS, memory_bytes=1000)
    assert caught.value.error_code == "nan_audio"


# --- cancel, deadline and size


def count_calls(*, raise_at: int | None = None) -> tuple[list[None], Check]:
    """A `check` and the list of its calls; it ends the work at call number `raise_at`."""
    calls: list[None] = []

    def check() -> None:
        calls.append(None)
        if len(calls) == raise_at:
            raise CancelledError("The job was cancelled.")

    return calls, check


@pytest.mark.parametrize("form", ["FLAC", "WAV", "OGG", "MP3"])
def test_decoding_can_be_ended_before_each_block(no_files_left: Path, form: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((60 * 8000, 2), np.int16), 8000, format=form)
    calls, check = count_calls()
    decode_source(file.getvalue(), limits=LIMITS, memory_bytes=None, check=check)
    assert len(calls) >= 60 * 8000 * 2 / (1 << 17)
    calls, check = count_calls(raise_at=3)
    with pytest.raises(CancelledError):
        decode_source(file.getvalue(), limits=LIMITS, memory_bytes=1000, check=check)
    assert len(calls) == 3


@pytest.mark.parametrize("form", ["FLAC", "MP3"])  # its header states the length; its length is found while decoding
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_audio_that_decodes_to_too_many_bytes_is_refused(no_files_left: Path, form: str, channels: int) -> None:
    if form == "MP3" and channels == 6:
        pytest.skip("mp3 has at most two channels")
    file = io.BytesIO()
    soundfile.write(file, np.zeros((20 * 8000, channels), np.int16), 8000, format=form)
    needed = decode(file.getvalue(), limits=LIMITS).audio.waveform.nbytes
    decode(file.getvalue(), limits=replace(LIMITS, max_decoded_bytes=needed))
    with pytest.raises(AudioError, match=f"more than the accepted {needed - 1} bytes") as caught:
        decode_source(file.getvalue(), limits=replace(LIMITS, max_decoded_bytes=needed - 1), memory_bytes=1000)
    assert caught.value.error_code == "audio_too_long"
    assert caught.value.details == {"max_decoded_bytes": needed - 1}


def test_audio_whose_stated_length_does_not_fit_on_the_disk_is_refused_before_it_is_decoded() -> None:
    data = bytearray(make_file("flac"))
    data[21:26] = (data[21] | 0x0F).to_bytes() + b"\xff" * 4  # the number of samples in STREAMINFO: 2**36 - 1
    limits = replace(LIMITS, max_seconds=1e9, max_decoded_bytes=1 << 60)
    with pytest.raises(DiskFullError) as caught:
        decode_source(bytes(data), limits=limits, memory_bytes=1000)
    assert caught.value.details["needed_bytes"] == (2**36 - 1) * 2 * 4


# --- hostile files


@needs_ffmpeg
def test_ffmpeg_opens_only_the_given_file(tmp_path: Path) -> None:
    """A playlist named as m4a, and an mp4 that refers to another file: neither may make ffmpeg read elsewhere."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(encode_file(make_tone(1.0), Encoding("wav", 16)))
    ftyp = struct.pack(">I4s4sI", 16, b"ftyp", b"M4A ", 0)
    assert catch_error_code(ftyp + f"#EXTM3U\n#EXTINF:1,\n{secret}\n".encode() * 10) == "corrupt_audio"
    assert catch_error_code(ftyp + f"ffconcat version 1.0\nfile {secret}\n".encode() * 10) == "corrupt_audio"


@needs_ffmpeg
def test_ffmpeg_leaves_no_file_and_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = list_child_processes()
    good = encode_with_ffmpeg(make_tone(3.0), "-c:a", "aac", suffix="m4a")
    decode(good, limits=LIMITS)
    catch_error_code(good, replace(LIMITS, max_seconds=0.5))
    catch_error_code(good[:20000])
    assert list(tmp_path.iterdir()) == []
    assert list_child_processes() <= before


def list_child_processes() -> set[str]:
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return set(listed.read_text().split()) if listed.exists() else set()


def decode_or_refuse(data: bytes) -> Decoded[Audio] | None:
    try:
        return decode(data, limits=replace(LIMITS, max_seconds=30.0), ffmpeg="no-such-program")
    except AudioError:
        return None


HEADS: list[Callable[[], bytes]] = [
    lambda: b"",
    lambda: b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x02\0",
    lambda: b"RIFF\xff\xff\xff\xffWAVE",
    lambda: b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0",
    lambda: b"FORM\0\0\xff\xffAIFFCOMM\0\0\0\x12",
    lambda: b"fLaC\0\0\0\x22",
    lambda: b"OggS\0\2" + bytes(20) + b"\1\x1e\1vorbis",
    lambda: b"\xff\xfb\x90\x00",
    lambda: b"ID3\x04\0\0\0\0\0\x05",
    lambda: bytes.fromhex("726966662e91cf11a5d628db04c10000"),
]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(HEADS) - 1), st.binary(max_size=600))
def test_random_bytes_raise_only_audio_errors(head: int, rest: bytes) -> None:
    decode_or_refuse(HEADS[head]() + rest)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(CUTTABLE),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0.0, 1.0),
)
def test_files_with_changed_bytes_raise_only_audio_errors(
    kind: str, changes: list[tuple[int, int]], kept: float
) -> None:
    data = bytearray(SHORT_FILES[kind])
    for at, value in changes:
        data[at % len(data)] = value
    decoded = decode_or_refuse(bytes(data[: max(int(kept * len(data)), len(data) // 2)]))
    if decoded is not None:
        assert np.isfinite(decoded.audio.waveform).all() and decoded.audio.num_samples > 0


SHORT_FILES = {kind: make_file(kind, make_tone(0.1)) for kind in CUTTABLE}
