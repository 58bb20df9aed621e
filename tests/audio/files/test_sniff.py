"""Containers are detected from their bytes alone."""

from __future__ import annotations

import io
import struct

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audio.files.decode import FORMATS
from audio.files.formats import Encoding
from audio.files.sniff import SNIFF_BYTES, sniff
from testing.signals import encode_file, encode_with_ffmpeg, make_tone, needs_ffmpeg


def write_with_libsndfile(form: str, subtype: str) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, make_tone(0.2).waveform.T, 44100, format=form, subtype=subtype)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("form", "subtype", "container"),
    [
        ("WAV", "PCM_16", "wav"),
        ("WAVEX", "FLOAT", "wav"),
        ("RF64", "PCM_24", "wav"),
        ("W64", "PCM_16", "w64"),
        ("AIFF", "PCM_24", "aiff"),
        ("AIFF", "ULAW", "aiff"),  # AIFF-C
        ("FLAC", "PCM_16", "flac"),
    ],
)
def test_files_written_by_libsndfile_are_recognised(form: str, subtype: str, container: str) -> None:
    assert sniff(write_with_libsndfile(form, subtype)) == container


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "ogg", "opus"])
def test_files_we_write_are_recognised(form: str) -> None:
    assert sniff(encode_file(make_tone(0.5), Encoding(form))[:SNIFF_BYTES]) == form  # type: ignore[arg-type]


@needs_ffmpeg
@pytest.mark.parametrize(
    ("options", "suffix", "container"),
    [
        (("-c:a", "aac"), "m4a", "m4a"),
        (("-c:a", "alac"), "m4a", "m4a"),
        (("-c:a", "aac"), "aac", "aac"),
        (("-c:a", "libopus"), "webm", "webm"),
        (("-c:a", "flac"), "mka", "webm"),
        (("-c:a", "flac"), "ogg", "ogg"),
        (("-id3v2_version", "3", "-metadata", "title=x"), "mp3", "mp3"),
        (("-id3v2_version", "0", "-write_xing", "0"), "mp3", "mp3"),
        (("-b:a", "32k", "-ar", "16000", "-ac", "1"), "mp3", "mp3"),
        (("-b:a", "64k", "-c:a", "mp2", "-f", "mp2"), "mp2", "mp3"),
    ],
)
def test_files_written_by_ffmpeg_are_recognised(options: tuple[str, ...], suffix: str, container: str) -> None:
    assert sniff(encode_with_ffmpeg(make_tone(1.0), *options, suffix=suffix)[:SNIFF_BYTES]) == container


def test_an_id3_tag_larger_than_the_head_counts_as_mp3() -> None:
    size = bytes([0, 0x7F, 0x7F, 0x7F])  # 2 MiB, seven bits a byte
    assert sniff(b"ID3\x04\x00\x00" + size + bytes(1000)) == "mp3"


def test_flac_after_an_id3_tag_is_recognised() -> None:
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 0, 5]) + bytes(5)
    assert sniff(tag + encode_file(make_tone(0.1), Encoding("flac"))) == "flac"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"R",
        b"RIFF\0\0\0\0AVI LIST",
        b"<!DOCTYPE html><html>",
        b'{"detail": "not found"}',
        b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1/secret.ts\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\xff\xd8\xff\xe0" + bytes(100),
        b"\xff\xfb" + b"\xff" * 100,
        struct.pack(">I4s4s", 24, b"ftyp", b"heic") + bytes(20),
    ],
)
def test_data_that_is_not_audio_is_not_recognised(head: bytes) -> None:
    assert sniff(head) is None


@given(st.binary(max_size=200))
def test_random_bytes_give_a_known_format_or_none(head: bytes) -> None:
    assert sniff(head) in {None, *FORMATS}
