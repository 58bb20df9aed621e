"""Prompts and their encoding against diffusers' pipeline, on the same random text encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.acestep.metas import TRACKS, Metas
from models.acestep.network import Components
from models.acestep.request import Song, Task
from models.acestep.text import (
    MAX_LYRIC_TOKENS,
    MAX_TEXT_TOKENS,
    TextEncoder,
    build_instruction,
    build_lyric_prompt,
    build_text_prompt,
    tokenize_prompt,
)
from testing.acestep_reference import build_pipeline
from testing.tiny_acestep import build_tiny_components

TASKS: tuple[Task, ...] = ("text2music", "cover", "repaint", "extract", "lego", "complete")
SONG = Song(
    caption="Slow bossa nova with a nylon guitar",
    seed=0,
    lyrics="[Verse]\nSaudade, ação\n\n[Chorus - anthemic]\nLa la",
    language="pt",
    metas=Metas(bpm=96, key="F# minor", time_signature=3, duration=47.9),
)


@pytest.fixture(scope="module")
def components() -> Components:
    return build_tiny_components()


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return build_pipeline(build_tiny_components())


@pytest.fixture(scope="module")
def encoder(components: Components) -> TextEncoder:
    return TextEncoder(components.text_encoder, components.tokenizer)


@pytest.mark.parametrize("task", TASKS)
def test_the_instruction_of_a_task_is_the_published_one(task: Task, pipeline: Any) -> None:
    one = ("backing_vocals",) if task in ("extract", "lego") else ()
    for tracks in ((), one, ("drums", "bass") if task == "complete" else one):
        expected = pipeline._get_task_instruction(
            task, track_name=tracks[0] if one and tracks else None, complete_track_classes=list(tracks)
        )
        assert build_instruction(task, tracks) == expected


def test_instructions_name_tracks_in_capitals() -> None:
    assert build_instruction("extract", ["backing_vocals"]) == "Extract the BACKING_VOCALS track from the audio:"
    assert build_instruction("complete", ["drums", "bass"]) == "Complete the input track with DRUMS | BASS:"
    assert build_instruction("complete") == "Complete the input track:"
    assert all(track.upper() in build_instruction("lego", [track]) for track in TRACKS)


def test_the_text_prompt_has_instruction_caption_and_metas() -> None:
    assert build_text_prompt(SONG, build_instruction("text2music")) == (
        "# Instruction\nFill the audio semantic mask based on the given conditions:\n\n"
        "# Caption\nSlow bossa nova with a nylon guitar\n\n"
        "# Metas\n- bpm: 96\n- timesignature: 3\n- keyscale: F# minor\n- duration: 47 seconds\n<|endoftext|>\n"
    )
    unknown = build_text_prompt(Song(caption="x", seed=0), "do:")
    assert unknown.endswith(
        "- bpm: N/A\n- timesignature: N/A\n- keyscale: N/A\n- duration: 30 seconds\n<|endoftext|>\n"
    )


def test_the_lyric_prompt_has_the_language_and_the_lyrics() -> None:
    song = Song(caption="", seed=0, lyrics="[Verse]\nHello\n", language="de")
    assert build_lyric_prompt(song) == "# Languages\nde\n\n# Lyric\n[Verse]\nHello\n<|endoftext|>"


@pytest.mark.parametrize("lyrics", ["", " \n"])
def test_blank_lyrics_are_instrumental_music(lyrics: str) -> None:
    prompt = build_lyric_prompt(Song(caption="", seed=0, lyrics=lyrics))
    assert prompt == "# Languages\nen\n\n# Lyric\n[Instrumental]<|endoftext|>"


@pytest.mark.parametrize(
    ("caption", "lyrics"),
    [
        (SONG.caption, SONG.lyrics),
        ("", "[Instrumental]"),
        ("Ça c'est déjà vu. " * 60, "a line that is long enough\n" * 100),
    ],
)
@torch.no_grad()
def test_encoded_text_equals_that_of_diffusers_exactly(
    caption: str, lyrics: str, encoder: TextEncoder, pipeline: Any
) -> None:
    song = Song(caption=caption, seed=0, lyrics=lyrics, language=SONG.language, metas=SONG.metas)
    instruction = build_instruction("complete", ["strings"])
    ours = encoder.encode(song, instruction)
    text, _, embedded, _ = pipeline.encode_prompt(
        caption,
        lyrics,
        torch.device("cpu"),
        vocal_language="pt",
        audio_duration=47.9,
        instruction=instruction,
        bpm=96,
        keyscale="F# minor",
        timesignature="3",
    )
    assert torch.equal(ours.text, text)
    assert torch.equal(ours.lyrics, embedded)
    assert ours.text.shape[1] <= MAX_TEXT_TOKENS and ours.lyrics.shape[1] <= MAX_LYRIC_TOKENS


def test_a_prompt_that_is_cut_ends_as_every_prompt_does(components: Components) -> None:
    tokenizer = components.tokenizer
    end = tokenizer.token_to_id("<|endoftext|>")
    ids, cut = tokenize_prompt(tokenizer, "x" * 300, MAX_TEXT_TOKENS)
    assert (len(ids), cut, ids[-1], ids[-2] == end) == (256, 45, end, False)
    assert tokenize_prompt(tokenizer, "x" * 255, MAX_TEXT_TOKENS)[1] == 0
    assert tokenize_prompt(tokenizer, "x" * 256, MAX_TEXT_TOKENS)[1] == 1


def test_tokens_beyond_the_limits_are_counted_and_reported(encoder: TextEncoder) -> None:
    whole = encoder.encode(SONG, "do:")
    assert (whole.text_tokens_cut, whole.lyric_tokens_cut, whole.warnings) == (0, 0, ())
    rest = len(build_text_prompt(Song(caption="", seed=0), "do:").replace("<|endoftext|>", "")) + 2
    cut = encoder.encode(Song(caption="x" * 300, seed=0, lyrics="y" * 3000), "do:")
    assert cut.text_tokens_cut == 300 + rest - MAX_TEXT_TOKENS
    assert cut.lyric_tokens_cut > 900
    assert cut.warnings == (
        f"The caption and the metas after it were cut by {cut.text_tokens_cut} tokens: the model reads 256 tokens. "
        "Shorten the caption.",
        f"The lyrics were cut by {cut.lyric_tokens_cut} tokens: the model reads 2048 tokens. Shorten the lyrics.",
    )


def test_a_song_is_encoded_as_it_is_alone_whatever_was_encoded_before(encoder: TextEncoder) -> None:
    first = encoder.encode(SONG, "do:")
    encoder.encode(Song(caption="another " * 40, seed=1), "do:")
    again = encoder.encode(SONG, "do:")
    assert torch.equal(first.text, again.text) and torch.equal(first.lyrics, again.lyrics)
    assert first.text.shape[0] == 1
