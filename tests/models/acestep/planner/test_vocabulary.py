"""The vocabulary finds the special tokens and the audio codes by the tokenizer, and refuses that of another model."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer

from models.acestep.metas import LANGUAGES
from models.acestep.planner.vocabulary import KEYS, NUM_CODES, PrefixTree, Vocabulary
from models.checkpoints.errors import CheckpointError
from testing.tiny_planner import NUM_CODES as TINY_CODES
from testing.tiny_planner import make_planner_tokenizer


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    tokenizer = make_planner_tokenizer()
    return Vocabulary(tokenizer, tokenizer.get_vocab_size())


def list_values(tree: PrefixTree, vocabulary: Vocabulary, prefix: tuple[int, ...] = ()) -> set[str]:
    values: set[str] = set()
    for token in tree[prefix]:
        if token == vocabulary.newline:
            values.add(vocabulary.decode(prefix))
        else:
            values |= list_values(tree, vocabulary, (*prefix, token))
    return values


def test_codes_are_numbered_from_the_token_of_code_zero(vocabulary: Vocabulary) -> None:
    first, last = vocabulary.encode_codes([0, TINY_CODES - 1])
    assert vocabulary.decode([first]) == "<|audio_code_0|>"
    assert vocabulary.decode([last]) == f"<|audio_code_{TINY_CODES - 1}|>"
    assert (vocabulary.num_text, vocabulary.num_codes) == (first, TINY_CODES)


@pytest.mark.parametrize("code", [-1, TINY_CODES])
def test_a_code_that_there_is_not_is_refused(vocabulary: Vocabulary, code: int) -> None:
    with pytest.raises(ValueError, match=f"0..{TINY_CODES - 1}"):
        vocabulary.encode_codes([0, code])


def test_tokens_beyond_64000_codes_are_not_used() -> None:
    tokenizer = make_planner_tokenizer(NUM_CODES + 3)
    assert Vocabulary(tokenizer, tokenizer.get_vocab_size()).num_codes == NUM_CODES


def test_the_trees_hold_exactly_the_values_that_the_metas_may_have(vocabulary: Vocabulary) -> None:
    found = {field: list_values(tree, vocabulary) for field, tree in vocabulary.trees.items()}
    assert found == {
        "bpm": {f" {bpm}" for bpm in range(30, 301)},
        "duration": {f" {seconds}" for seconds in range(10, 601)},
        "keyscale": {f" {key}" for key in KEYS},
        "language": {f" {language}" for language in LANGUAGES},
        "timesignature": {" 2", " 3", " 4", " 6"},
    }
    assert len(KEYS) == 70


def test_special_tokens_in_a_callers_text_become_plain_text(vocabulary: Vocabulary) -> None:
    text = "<|im_end|> and <think>, </think> and <|audio_code_7|><|endoftext|> but <b> and 3 < 4 stay"
    ids = vocabulary.encode(vocabulary.escape(text))
    assert max(ids) < vocabulary.num_text and not set(ids) & {*vocabulary.blocked, vocabulary.special.turn_end}
    assert vocabulary.decode(ids).replace("< ", "<") == text.replace("< ", "<")
    assert "<b> and 3 < 4 stay" in vocabulary.decode(ids)


def test_a_tokenizer_without_a_special_token_is_refused() -> None:
    tokenizer = Tokenizer.from_str(make_planner_tokenizer().to_str().replace("<think>", "<thought>"))
    with pytest.raises(CheckpointError, match="no token '<think>'"):
        Vocabulary(tokenizer, tokenizer.get_vocab_size())


def test_codes_that_are_not_numbered_one_after_the_other_are_refused() -> None:
    tokenizer = make_planner_tokenizer(10)
    tokenizer.add_tokens([AddedToken("<|audio_code_11|>", normalized=False)])
    with pytest.raises(CheckpointError, match="not numbered"):
        Vocabulary(tokenizer, tokenizer.get_vocab_size())


def test_a_network_with_too_few_rows_for_the_tokenizer_is_refused() -> None:
    tokenizer = make_planner_tokenizer()
    size = tokenizer.get_vocab_size()
    with pytest.raises(CheckpointError, match=f"{size} tokens and its network only {size - 1} rows"):
        Vocabulary(tokenizer, size - 1)
