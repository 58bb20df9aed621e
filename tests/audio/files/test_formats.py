"""The table of output formats and the encodings that are chosen from it."""

from __future__ import annotations

from typing import Any

import pytest

from audio.files.formats import (
    ALL_BIT_DEPTHS,
    BITRATE_RANGE,
    FORMAT_NAMES,
    OUTPUT_FORMATS,
    Encoding,
    auto_encodings,
    suggested_encodings,
)
from errors import InvalidRequestError


def test_the_table_holds_every_format_name_once_in_order() -> None:
    assert tuple(OUTPUT_FORMATS) == FORMAT_NAMES == ("wav", "flac", "mp3", "ogg", "opus")
    assert [Encoding(name).content_type for name in FORMAT_NAMES] == [
        "audio/wav",
        "audio/flac",
        "audio/mpeg",
        "audio/ogg",
        "audio/ogg",
    ]
    assert Encoding("opus").extension == "opus"


def test_every_value_in_the_table_is_allowed_by_the_table() -> None:
    for entry in OUTPUT_FORMATS.values():
        assert bool(entry.bit_depths) != bool(entry.bitrates)
        for value in (entry.default, *entry.auto, *entry.suggested):
            assert value is None or value in entry.allowed


def test_the_request_fields_can_hold_every_allowed_value() -> None:
    assert ALL_BIT_DEPTHS == (16, 24, 32)
    assert BITRATE_RANGE == (12, 512)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flac", {"bit_depth": 32}, "16, 24, or wav"),
        ("wav", {"bit_depth": 8}, "16, 24, 32"),
        ("mp3", {"bitrate": 300}, "256, 320"),
        ("opus", {"bitrate": 1000}, "12 to 512"),
        ("ogg", {"bitrate": 8}, "64 to 500"),
        ("aac", {}, "wav, flac, mp3"),
    ],
)
def test_an_impossible_encoding_is_refused_with_the_allowed_values(
    name: Any, options: dict[str, int], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        Encoding(name, **options)


def test_an_option_of_the_other_kind_is_ignored() -> None:
    assert Encoding("mp3", bit_depth=7).request_fields == {"output_format": "mp3", "bitrate": 320}
    assert Encoding("flac", 24, bitrate=7).request_fields == {"output_format": "flac", "bit_depth": 24}


def test_only_float_wav_keeps_samples_above_full_scale() -> None:
    assert Encoding("wav", 32).keeps_overs
    assert not any(Encoding(name).keeps_overs for name in FORMAT_NAMES)


@pytest.mark.parametrize(("rate", "kbits"), [(8000, 64), (12000, 64), (16000, 160), (24000, 160), (32000, 320)])
def test_mp3_has_lower_bitrates_at_low_sample_rates(rate: int, kbits: int) -> None:
    assert Encoding("mp3").kbits_at(rate) == kbits
    assert Encoding("mp3", bitrate=32).kbits_at(rate) == 32
    assert Encoding("opus").kbits_at(rate) == 192


def test_auto_goes_from_wav_to_small_mp3() -> None:
    names = [(encoding.format, encoding.value) for encoding in auto_encodings(32, None)]
    assert names == [("wav", 32), ("flac", 24), ("mp3", 320), ("mp3", 192), ("mp3", 128)]
    assert [encoding.value for encoding in auto_encodings(16, None, formats=["mp3"])] == [320, 192, 128]


def test_a_requested_bitrate_limits_auto_and_leaves_no_duplicates() -> None:
    assert [encoding.value for encoding in auto_encodings(16, 160, formats=["mp3"])] == [160, 128]


def test_suggestions_go_from_large_to_small_within_each_format() -> None:
    suggested = suggested_encodings()
    for name in ("wav", "flac", "mp3", "opus"):
        values = [encoding.value for encoding in suggested if encoding.format == name]
        assert values and values == sorted(values, reverse=True)
