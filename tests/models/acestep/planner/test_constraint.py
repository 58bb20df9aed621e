"""Plans that the grammar allows: every field, in order, with a value that there is."""

from __future__ import annotations

import pytest

from models.acestep.planner.constraint import MAX_CAPTION_TOKENS, PlanGrammars
from models.acestep.planner.parse import parse_plan
from models.acestep.planner.vocabulary import Vocabulary
from testing.planner_grammar import make_logits, run_grammar
from testing.tiny_planner import make_planner_tokenizer

TOKENIZER = make_planner_tokenizer()
SIZE = TOKENIZER.get_vocab_size()
VOCABULARY = Vocabulary(TOKENIZER, SIZE)
GRAMMARS = PlanGrammars(VOCABULARY)

UPSTREAM = [
    (0, {}, {"caption"}, "", "bpm: 83\nduration: 80\nkeyscale: C minor\nlanguage: en\ntimesignature: 3\n"),
    (
        1,
        {"bpm": "77", "language": "yue"},
        {"caption"},
        "",
        "bpm: 77\nduration: 61\nkeyscale: Gb major\nlanguage: yue\ntimesignature: 4\n",
    ),
    (
        2,
        {"duration": "33", "keyscale": "C♯ major"},
        {"caption", "language"},
        "",
        "bpm: 168\nduration: 33\nkeyscale: C♯ major\ntimesignature: 2\n",
    ),
    (
        4,
        {"keyscale": "G minor"},
        set(),
        "<think>\nbpm: 120\ncaption: A slow song with piano.\n  la la\nduration:",
        "bpm: 120\ncaption: A slow song with piano.\n  la la\nduration: 98\nkeyscale: G minor\nlanguage: vi\n"
        "timesignature: 3\n",
    ),
]
"""What `MetadataConstrainedLogitsProcessor` of ace-step15-fork 20260212 allowed as the most likely tokens of the same
tokenizer with the same logits: seed, given fields, skipped fields, script, plan."""


def write_plan(
    script: str = "",
    *,
    seed: int = 0,
    given: dict[str, str] | None = None,
    skipped: set[str] | None = None,
    max_lyrics: int | None = None,
) -> tuple[str, list[int], bool]:
    grammar = GRAMMARS.start(
        given=given or {},
        skipped={"genres"} | (skipped or set()) if max_lyrics is None else skipped or set(),
        lyrics=max_lyrics is not None,
        max_lyrics=max_lyrics or 0,
    )
    tokens, is_complete = run_grammar(grammar, VOCABULARY, make_logits(VOCABULARY, SIZE, seed=seed, script=script))
    return VOCABULARY.decode(tokens), tokens, is_complete


@pytest.mark.parametrize(("seed", "given", "skipped", "script", "plan"), UPSTREAM)
def test_the_tokens_are_those_that_upstreams_state_machine_allows(
    seed: int, given: dict[str, str], skipped: set[str], script: str, plan: str
) -> None:
    text, tokens, _ = write_plan(script, seed=seed, given=given, skipped=skipped)
    assert text == f"<think>\n{plan}"
    assert tokens == VOCABULARY.encode(text)


@pytest.mark.parametrize("seed", range(20))
def test_every_plan_has_all_fields_with_values_that_there_are(seed: int) -> None:
    text, _, is_complete = write_plan(f"<think>\nbpm: {90 + seed}\ncaption: A song.\nduration:", seed=seed)
    song = parse_plan(text)
    assert is_complete and song.caption == "A song." and song.metas.bpm == 90 + seed and song.language
    assert song.metas.key and song.metas.time_signature and song.metas.duration
    names = [line.partition(":")[0] for line in text.splitlines()]
    assert names == ["<think>", "bpm", "caption", "duration", "keyscale", "language", "timesignature"]


@pytest.mark.parametrize("start", ["  ", " ", "\t"])
def test_a_line_of_the_caption_that_begins_with_a_blank_continues_it(start: str) -> None:
    caption = f"A slow song.\n{start}With piano\n{start}and drums.\n"
    text, _, _ = write_plan(f"<think>\nbpm: 120\ncaption: {caption}duration: 20\n")
    assert f"\ncaption: {caption}duration: 20\n" in text


@pytest.mark.parametrize("line", ["keyscale: A\n", "The next line.\n", "</think>", "<|im_end|>", "<|audio_code_3|>"])
def test_whatever_else_follows_the_caption_the_next_field_does(line: str) -> None:
    text, _, is_complete = write_plan(f"<think>\nbpm: 120\ncaption: A slow song.\n{line}")
    assert text.startswith("<think>\nbpm: 120\ncaption: A slow song.\nduration: ")
    assert is_complete and parse_plan(text).metas.duration


def test_a_caption_holds_neither_codes_nor_special_tokens_nor_backticks() -> None:
    script = "<think>\nbpm: 120\ncaption: A<|audio_code_3|>`<|im_end|><|endoftext|></think> song\n"
    _, tokens, _ = write_plan(script)
    caption = tokens[: tokens.index(VOCABULARY.encode("duration")[0])][1:]
    unwanted = {*VOCABULARY.blocked, VOCABULARY.special.turn_end, *VOCABULARY.encode("`")}
    assert not unwanted & set(caption) and max(caption) < VOCABULARY.num_text


def test_a_caption_is_not_empty() -> None:
    text, _, _ = write_plan("<think>\nbpm: 120\ncaption:\n\n")
    assert parse_plan(text).caption


def test_a_caption_without_end_is_ended() -> None:
    text, tokens, is_complete = write_plan("<think>\nbpm: 120\ncaption:" + " slow" * 2 * MAX_CAPTION_TOKENS)
    assert is_complete and text.count(" slow") == MAX_CAPTION_TOKENS
    assert len(tokens) < MAX_CAPTION_TOKENS + 60


def test_indented_lines_without_end_are_ended() -> None:
    text, _, is_complete = write_plan("<think>\nbpm: 120\ncaption: A" + "\n " * 2 * MAX_CAPTION_TOKENS)
    assert is_complete and parse_plan(text).metas.time_signature


def test_the_language_is_the_most_likely_one() -> None:
    logits = make_logits(VOCABULARY, SIZE, script="<think>\nbpm: 120\nduration: 20\nkeyscale: A minor\nlanguage: yu")
    grammar = GRAMMARS.start(given={}, skipped={"caption", "genres"})
    tokens, _ = run_grammar(grammar, VOCABULARY, logits)
    assert "\nlanguage: yue\n" in VOCABULARY.decode(tokens)


def test_genres_are_one_line_that_is_not_empty() -> None:
    script = "<think>\nbpm: 120\ncaption: A song.\nduration: 20\ngenres: pop, slow song\nkeyscale: A minor\n"
    text, _, _ = write_plan(script, max_lyrics=0)
    assert "\ngenres: pop, slow song\nkeyscale: A minor\n" in text
    text, _, _ = write_plan(script.replace(" pop, slow song\nkeyscale: A minor\n", "\n\n\n\n"), max_lyrics=0)
    assert parse_plan(text).genres and parse_plan(text).metas.key


PLAN = (
    "<think>\nbpm: 120\ncaption: A song.\nduration: 20\ngenres: pop\nkeyscale: A minor\nlanguage: en\n"
    "timesignature: 4\n</think>"
)


def test_lyrics_follow_until_the_end_of_the_turn_without_codes() -> None:
    text, tokens, is_complete = write_plan(f"{PLAN}\n\n# Lyric\n[Verse]\n<|audio_code_1|>la\n<|im_end|>", max_lyrics=99)
    assert is_complete and text.startswith(f"{PLAN}\n\n# Lyric\n[Verse]\n") and text.endswith("la\n<|im_end|>")
    assert max(tokens) < VOCABULARY.num_text


def test_lyrics_that_are_too_long_are_cut_and_said_to_be_incomplete() -> None:
    text, _, is_complete = write_plan(PLAN + " la" * 50, max_lyrics=10)
    assert not is_complete and text == PLAN + " la" * 10


def test_a_plan_of_given_values_leaves_nothing_to_choose() -> None:
    given = {"bpm": "99", "duration": "20", "keyscale": "A minor", "language": "no", "timesignature": "3"}
    text, _, is_complete = write_plan(given=given, skipped={"caption"})
    assert is_complete
    assert text == "<think>\nbpm: 99\nduration: 20\nkeyscale: A minor\nlanguage: no\ntimesignature: 3\n"
