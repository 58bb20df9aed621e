"""The grammar, the prompts and the reading of plans against the original server's code, as ace-step15-fork 20260212 has
it: token for token, with the same tokenizer and the same logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers
from acestep.constrained_logits_processor import MetadataConstrainedLogitsProcessor
from acestep.llm_inference import LLMHandler
from loguru import logger

from models.acestep.metas import Metas
from models.acestep.planner.constraint import PlanGrammars
from models.acestep.planner.parse import parse_plan
from models.acestep.planner.prompts import encode_plan_prompt, format_thoughts
from models.acestep.planner.request import PlanMode, PlannedSong, PlanRequest
from models.acestep.planner.vocabulary import Vocabulary
from testing.planner_grammar import Logits, make_logits, run_grammar
from testing.tiny_planner import make_planner_tokenizer

TOKENIZER = make_planner_tokenizer()
SIZE = TOKENIZER.get_vocab_size()
VOCABULARY = Vocabulary(TOKENIZER, SIZE)
GRAMMARS = PlanGrammars(VOCABULARY)
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FastTokenizer: Any = transformers.PreTrainedTokenizerFast
logger.disable("acestep")


@pytest.fixture(scope="module")
def upstream() -> MetadataConstrainedLogitsProcessor:
    tokenizer = FastTokenizer(tokenizer_object=TOKENIZER, eos_token="<|im_end|>")
    return MetadataConstrainedLogitsProcessor(tokenizer, genres_vocab_path="/none")


def run_upstream(
    processor: Any, logits: Logits, *, given: Mapping[str, str], skipped: set[str], writes_lyrics: bool
) -> list[int]:
    """The most likely tokens that the original state machine allows, until the end of the turn."""
    processor.reset()
    processor.set_user_metadata(dict(given))
    processor.set_skip_caption("caption" in skipped)
    processor.set_skip_language("language" in skipped)
    processor.set_skip_genres("genres" in skipped)
    processor.set_generation_phase("understand" if writes_lyrics else "cot")
    processor.set_stop_at_reasoning(not writes_lyrics)
    tokens: list[int] = []
    while not tokens or tokens[-1] != VOCABULARY.special.turn_end:
        assert len(tokens) < 1000, VOCABULARY.decode(tokens)
        allowed = processor(torch.tensor([[0, *tokens]]), logits(len(tokens))[None])
        tokens.append(int(allowed.argmax()))
        processor.update_state(tokens[-1])
    return tokens


GIVEN: list[dict[str, str]] = [
    {},
    {"bpm": "77"},
    {"duration": "33", "keyscale": "C♯ major"},
    {"timesignature": "6", "language": "yue"},
    {"bpm": "300", "duration": "600", "keyscale": "A minor", "language": "no", "timesignature": "2"},
]


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("skips_language", [False, True])
def test_values_are_those_that_upstream_allows_for_random_logits(
    upstream: Any, given: dict[str, str], skips_language: bool
) -> None:
    skipped = {"caption", "genres", *(["language"] if skips_language and "language" not in given else [])}
    for seed in range(8):
        logits = make_logits(VOCABULARY, SIZE, seed=seed)
        tokens, _ = run_grammar(GRAMMARS.start(given=given, skipped=skipped), VOCABULARY, logits)
        expected = run_upstream(upstream, logits, given=given, skipped=skipped, writes_lyrics=False)
        assert tokens == expected[:-1]  # upstream ends the turn instead of the thoughts


@pytest.mark.parametrize(
    "caption", ["A slow song.", "A slow song.\n  With piano\n  and drums.", "Drums: fast, with: colons\n\tand a tab"]
)
@pytest.mark.parametrize("given", GIVEN)
def test_captions_end_where_they_end_upstream(upstream: Any, caption: str, given: dict[str, str]) -> None:
    script = f"<think>\nbpm: {given.get('bpm', 120)}\ncaption: {caption}\nduration:"
    for seed in range(4):
        logits = make_logits(VOCABULARY, SIZE, seed=seed, script=script)
        tokens, _ = run_grammar(GRAMMARS.start(given=given, skipped={"genres"}), VOCABULARY, logits)
        expected = run_upstream(upstream, logits, given=given, skipped={"genres"}, writes_lyrics=False)
        assert tokens == expected[:-1]


@pytest.mark.parametrize("lyrics", ["# Lyric\n[Verse]\nla la\n", "\n\n# Lyric\n[Instrumental]"])
def test_plans_with_lyrics_are_those_of_upstream(upstream: Any, lyrics: str) -> None:
    """The genres are given: upstream checks them against a list of 178,571, and without it loses a character."""
    given = {"genres": "slow piano, drums"}
    script = (
        "<think>\nbpm: 120\ncaption: A song.\nduration: 100\ngenres: slow piano, drums\nkeyscale: A minor\n"
        f"language: en\ntimesignature: 3\n</think>{lyrics}<|im_end|>"
    )
    logits = make_logits(VOCABULARY, SIZE, script=script)
    grammar = GRAMMARS.start(given=given, lyrics=True, max_lyrics=1000)
    tokens, is_complete = run_grammar(grammar, VOCABULARY, logits)
    assert is_complete and VOCABULARY.decode(tokens) == script
    assert tokens == run_upstream(upstream, logits, given=given, skipped=set(), writes_lyrics=True)


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    handler = LLMHandler(persistent_storage_path=str(tmp_path_factory.mktemp("handler")))
    handler.llm_tokenizer = FastTokenizer(tokenizer_object=TOKENIZER, chat_template=CHAT)
    return handler


def test_prompts_of_plans_are_those_of_upstream(handler: Any) -> None:
    caption, lyrics = "Slow piano: a song", "[Verse]\nla la\n\n[Chorus]\nla"
    codes = "<|audio_code_3|><|audio_code_199|>"
    expected: dict[PlanMode, str] = {
        "metas": handler.build_formatted_prompt(caption, lyrics),
        "inspire": handler.build_formatted_prompt_for_inspiration(caption, instrumental=True),
        "format": handler.build_formatted_prompt_for_format(caption, lyrics),
        "understand": handler.build_formatted_prompt_for_understanding(codes),
    }
    for mode, prompt in expected.items():
        request = PlanRequest(mode=mode, seed=0, caption=caption, lyrics=lyrics, instrumental=True, codes=(3, 199))
        assert VOCABULARY.decode(encode_plan_prompt(request, VOCABULARY)) == prompt


SONGS = [
    PlannedSong(caption="A slow song", lyrics=None, metas=Metas(bpm=120), language=None),
    PlannedSong(
        caption="Piano: it's slow, and then the drums come in with a long line that is wrapped, and wrapped again, "
        * 2,
        lyrics=None,
        metas=Metas(bpm=60, key="F# minor", time_signature=3, duration=212),
        language="no",
    ),
]


@pytest.mark.parametrize("song", SONGS)
def test_thoughts_are_written_as_upstream_writes_them(handler: Any, song: PlannedSong) -> None:
    metadata = {
        "bpm": song.metas.bpm,
        "caption": song.caption,
        "duration": 100,
        "keyscale": song.metas.key,
        "language": song.language,
        "timesignature": str(song.metas.time_signature) if song.metas.time_signature else None,
    }
    assert f"<think>\n{format_thoughts(song, 100)}\n</think>" == handler._format_metadata_as_cot(metadata)


def test_a_plan_is_read_as_upstream_reads_it(handler: Any) -> None:
    text = (
        "<think>\nbpm: 73\ncaption: A calm piano: soft,\n  with strings.\nduration: 273\ngenres: Chinese folk\n"
        "keyscale: G major\nlanguage: en\ntimesignature: 4\n</think>\n\n# Lyric\n[Verse]\nla la\n<|im_end|>"
    )
    metadata, _ = handler.parse_lm_output(text)
    song = parse_plan(text)
    assert song.lyrics == handler._extract_lyrics_from_output(text)
    assert metadata == {
        "bpm": song.metas.bpm,
        "caption": song.caption,
        "duration": song.metas.duration,
        "genres": song.genres,
        "keyscale": song.metas.key,
        "language": song.language,
        "timesignature": str(song.metas.time_signature),
    }
