"""The text that conditions ACE-Step: its prompts, and their tokens as the text encoder gives them.

The literals are what the model was trained on, byte by byte: https://github.com/ace-step/ACE-Step-1.5,
acestep/constants.py (TASK_INSTRUCTIONS, SFT_GEN_PROMPT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from models.acestep.metas import INSTRUMENTAL, Metas
from models.acestep.request import Song, Task

if TYPE_CHECKING:
    import tokenizers
    from torch import nn

MAX_TEXT_TOKENS: Final = 256
MAX_LYRIC_TOKENS: Final = 2048

_INSTRUCTIONS: Final[dict[Task, str]] = {
    "text2music": "Fill the audio semantic mask based on the given conditions:",
    "cover": "Generate audio semantic tokens based on the given conditions:",
    "repaint": "Repaint the mask area based on the given conditions:",
    "extract": "Extract the {tracks} track from the audio:",
    "lego": "Generate the {tracks} track based on the audio context:",
    "complete": "Complete the input track with {tracks}:",
}
_WITHOUT_TRACKS: Final[dict[Task, str]] = {
    "extract": "Extract the track from the audio:",
    "lego": "Generate the track based on the audio context:",
    "complete": "Complete the input track:",
}


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A song's text as the condition encoder takes it.

    Args:
        text: `[1, L, D]`: the text encoder's last hidden states of the text prompt; L is at most 256.
        lyrics: `[1, M, D]`: the embeddings of the lyric prompt's tokens; M is at most 2,048.
        text_tokens_cut: how many tokens of the caption and the metas were beyond the limit.
        lyric_tokens_cut: how many tokens of the lyrics were beyond the limit.
    """

    text: torch.Tensor
    lyrics: torch.Tensor
    text_tokens_cut: int
    lyric_tokens_cut: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each prompt that was cut."""
        sentences = []
        if self.text_tokens_cut:
            sentences.append(
                f"The caption and the metas after it were cut by {self.text_tokens_cut} tokens: the model reads "
                f"{MAX_TEXT_TOKENS} tokens. Shorten the caption."
            )
        if self.lyric_tokens_cut:
            sentences.append(
                f"The lyrics were cut by {self.lyric_tokens_cut} tokens: the model reads {MAX_LYRIC_TOKENS} tokens. "
                "Shorten the lyrics."
            )
        return tuple(sentences)


def build_instruction(task: Task, tracks: Sequence[str] = ()) -> str:
    """Returns the instruction of a task.

    A song with audio codes has the instruction of `cover` (its codes stand for the source).

    Args:
        tracks: for `extract` and `lego` one, for `complete` one or more; other tasks have none.
    """
    names = " | ".join(track.upper() for track in tracks)
    return _INSTRUCTIONS[task].format(tracks=names) if names else _WITHOUT_TRACKS.get(task, _INSTRUCTIONS[task])


def build_text_prompt(song: Song, instruction: str) -> str:
    """Returns what the text encoder reads: instruction, caption and metas."""
    metas = _format_metas(song.metas)
    return f"# Instruction\n{instruction}\n\n# Caption\n{song.caption}\n\n# Metas\n{metas}<|endoftext|>\n"


def build_lyric_prompt(song: Song) -> str:
    """Returns what the lyric encoder reads: language and lyrics. Blank lyrics are those of instrumental music."""
    lyrics = song.lyrics if song.lyrics.strip() else INSTRUMENTAL
    return f"# Languages\n{song.language}\n\n# Lyric\n{lyrics}<|endoftext|>"


def _format_metas(metas: Metas) -> str:
    """Writes all four metas; those that are not known as N/A, and an unknown duration as 30 seconds."""
    return (
        f"- bpm: {metas.bpm or 'N/A'}\n"
        f"- timesignature: {metas.time_signature or 'N/A'}\n"
        f"- keyscale: {metas.key or 'N/A'}\n"
        f"- duration: {int(metas.duration or 30)} seconds\n"
    )


def tokenize_prompt(tokenizer: tokenizers.Tokenizer, prompt: str, limit: int) -> tuple[list[int], int]:
    """Returns the ids of a prompt and how many were cut to keep at most `limit`.

    The tokenizer appends `<|endoftext|>` to every text, also to one that ends with it and to one that is cut: so it was
    in training.
    """
    ids: list[int] = tokenizer.encode(prompt).ids
    cut = max(len(ids) - limit, 0)
    ends = tokenizer.num_special_tokens_to_add(is_pair=False)
    return (ids[: limit - ends] + ids[len(ids) - ends :] if cut else ids), cut


class TextEncoder:
    """Encodes the prompts of songs.

    Args:
        network: a Qwen3 model: token ids `[1, L]` to `last_hidden_state` `[1, L, D]`.
        tokenizer: the network's own.
    """

    def __init__(self, network: nn.Module, tokenizer: tokenizers.Tokenizer) -> None:
        self._network, self._tokenizer = network, tokenizer

    @torch.inference_mode()
    def encode(self, song: Song, instruction: str) -> EncodedText:
        """Encodes one song, without padding, so that a song's encoding does not depend on what is generated beside it.

        Lyrics are embedded and no more: the model has a lyric encoder of its own.

        Args:
            instruction: see `build_instruction`.
        """
        text, text_cut = self._tokenize(build_text_prompt(song, instruction), MAX_TEXT_TOKENS)
        lyrics, lyrics_cut = self._tokenize(build_lyric_prompt(song), MAX_LYRIC_TOKENS)
        hidden: torch.Tensor = self._network(input_ids=text).last_hidden_state
        embed: nn.Module = self._network.get_input_embeddings()  # type: ignore[operator]  # a transformers model has it
        return EncodedText(hidden, embed(lyrics), text_cut, lyrics_cut)

    def _tokenize(self, prompt: str, limit: int) -> tuple[torch.Tensor, int]:
        ids, cut = tokenize_prompt(self._tokenizer, prompt, limit)
        device = next(self._network.parameters()).device
        return torch.tensor([ids], device=device), cut
