"""What the planner wrote is read, however it wrote it; what is out of range is as if it had not been written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.acestep.metas import LANGUAGES, TIME_SIGNATURES, Metas
from models.acestep.planner.parse import parse_plan
from models.acestep.planner.prompts import format_thoughts
from models.acestep.planner.request import PlannedSong

PLAN = """<think>
bpm: 73
caption: A calm piano: soft,
  with strings
\tand a flute.
duration: 273
genres: Chinese folk
keyscale: G major
language: 'no'
timesignature: 4/4
</think>

# Languages
no

# Lyric
[Verse]
a line: with a colon

</think> stays
<|im_end|>
ignored"""


def test_a_whole_plan_is_read() -> None:
    assert parse_plan(PLAN) == PlannedSong(
        caption="A calm piano: soft, with strings and a flute.",
        lyrics="[Verse]\na line: with a colon\n\n</think> stays",
        metas=Metas(bpm=73, key="G major", time_signature=4, duration=273),
        language="no",
        genres="Chinese folk",
    )


@pytest.mark.parametrize("line", ["bpm: 20", "bpm: 1200", "bpm: fast", "bpm:", "bpm: -120", "bpm: 9999999999999"])
def test_a_tempo_that_cannot_be_is_left_out(line: str) -> None:
    assert parse_plan(f"<think>\n{line}\nkeyscale: A minor\n</think>").metas == Metas(key="A minor")


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("f♯ minor", "F# minor"),
        ("Bb major", "Bb major"),
        ("E♭ Minor", "Eb minor"),
        ("A min", "A minor"),
        ("C", None),
        ("H major", None),
    ],
)
def test_keys_are_spelled_in_one_way(value: str, key: str | None) -> None:
    assert parse_plan(f"keyscale: {value}").metas.key == key


@pytest.mark.parametrize(("value", "language"), [("EN", "en"), ("yue", "yue"), ("klingon", None), ("", None)])
def test_only_languages_that_there_are_count(value: str, language: str | None) -> None:
    assert parse_plan(f"language: {value}").language == language


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("|-\n  One.\n  Two.", "One. Two."),
        (">\n  One.\n\n  Two.", "One. Two."),
        ('"quoted"', "quoted"),
        ("'it''s'", "it's"),
        ("'", "'"),
        ("\n  below", "below"),
        ("unindented\nsecond line", "unindented second line"),
        ("one\ncaption: two", "one caption: two"),
    ],
)
def test_a_caption_may_be_written_in_every_way_of_yaml(caption: str, expected: str) -> None:
    assert parse_plan(f"<think>\ncaption: {caption}\nduration: 20\n</think>").caption == expected


@pytest.mark.parametrize("text", ["", "</think>", "<think>", "no plan at all", "\x00\ufffd"])
def test_what_is_no_plan_gives_nothing(text: str) -> None:
    assert parse_plan(text) == PlannedSong(caption=None, lyrics=None, metas=Metas(), language=None)


@pytest.mark.parametrize("header", ["", "# Lyric\n", "# Lyrics\n\n", "\n\n# lyric\n", "# Languages\nen\n\n# Lyric\n"])
def test_the_lyrics_come_without_their_header(header: str) -> None:
    assert parse_plan(f"<think>\n</think>{header}[Verse]\n# la\n<|im_end|>").lyrics == "[Verse]\n# la"


@given(
    caption=st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"))).map(lambda text: f"A{text}"),
    bpm=st.integers(30, 300),
    duration=st.integers(10, 600),
    language=st.sampled_from(LANGUAGES),
    beats=st.sampled_from(TIME_SIGNATURES),
)
def test_thoughts_are_read_as_they_were_written(
    caption: str, bpm: int, duration: int, language: str, beats: int
) -> None:
    metas = Metas(bpm=bpm, key="C# minor", time_signature=beats, duration=duration)
    song = PlannedSong(caption=caption, lyrics=None, metas=metas, language=language)
    assert parse_plan(f"<think>\n{format_thoughts(song, duration)}\n</think>\n\n") == song
