"""Latents of the rendered pieces, and batches of crops with what a request could say of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from demo.training.compose import Piece, compose
from demo.training.songs import clock, text
from demo.training.songs.networks import SongNetworks, Texts
from demo.training.songs.vae import HELD_OUT, LATENTS
from models.acestep.request import Task
from models.acestep.text import (
    MAX_LYRIC_TOKENS,
    MAX_TEXT_TOKENS,
    build_instruction,
    build_lyric_prompt,
    build_text_prompt,
    tokenize_prompt,
)

if TYPE_CHECKING:
    import tokenizers

_TASKS: tuple[Task, ...] = ("text2music", "cover", "repaint")
_TASK_WEIGHTS = (76, 12, 12)
_REFERENCE_SHARE = 0.08  # of the batches, which have a part of each piece as reference
_DROP_SHARE = 0.1
REFERENCE_FRAMES = 750


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops and their conditions.

    Args:
        latents: `[B, T, C]`.
        context: `[B, T, 2 C]`.
        texts: of all items.
        references: `[B, 750, C]`, or `[1, 750, C]` of silence.
        dropped: `[B]`: True for items without conditions.
        bpm, first_token: `[B]`.
        rows: the pieces.
        shows_clock: whether the context has the latents of silence throughout, and so the clock.
    """

    latents: torch.Tensor
    context: torch.Tensor
    texts: Texts
    references: torch.Tensor
    dropped: torch.Tensor
    bpm: torch.Tensor
    first_token: torch.Tensor
    rows: tuple[int, ...]
    shows_clock: bool


class Crops:
    """Draws batches from the latents of pieces that are not held out."""

    def __init__(self, networks: SongNetworks, tokenizer: tokenizers.Tokenizer, seed: int) -> None:
        self._latents = torch.from_numpy(np.load(LATENTS)).float()
        self._pieces: list[Piece] = [compose(index) for index in range(len(self._latents))]
        self._silence = clock.make_silence()
        self._networks, self._tokenizer, self._rng = networks, tokenizer, random.Random(seed)

    def draw(self, size: int, frames: int, *, task: Task | None = None) -> Batch:
        """Draws `size` crops of `frames` latents, which begin at an even latent.

        Args:
            task: of all items; None: a random one.
        """
        rng = self._rng
        task = task or rng.choices(_TASKS, _TASK_WEIGHTS)[0]
        rows = [rng.randrange(HELD_OUT, len(self._latents)) for _ in range(size)]
        starts = [2 * rng.randrange((self._latents.shape[1] - frames) // 2 + 1) for _ in rows]
        latents = torch.stack([self._latents[row, at : at + frames] for row, at in zip(rows, starts, strict=True)])
        silence = torch.stack([self._silence[0, at : at + frames] for at in starts])
        source, mask = silence, torch.ones_like(silence)
        if task == "cover":
            source = resynthesize(self._networks, latents)
        elif task == "repaint":
            length = rng.randint(frames // 4, frames * 4 // 5)
            first = rng.randrange(frames - length)
            mask = torch.zeros_like(mask)
            mask[:, first : first + length] = 1
            source = torch.where(mask > 0, silence, latents)
        pieces = [self._pieces[row] for row in rows]
        references = self._silence[:, :REFERENCE_FRAMES]
        if rng.random() < _REFERENCE_SHARE:
            references = self._latents[rows][:, :REFERENCE_FRAMES]
        return Batch(
            latents,
            torch.cat([source, mask], dim=-1),
            self._write_texts(pieces, task),
            references,
            torch.tensor([rng.random() < _DROP_SHARE for _ in rows]),
            torch.tensor([float(piece.bpm) for piece in pieces]),
            torch.tensor(starts) // 2,
            tuple(rows),
            task == "text2music",
        )

    def _write_texts(self, pieces: Sequence[Piece], task: Task) -> Texts:
        songs = [text.write_song(piece, self._rng) for piece in pieces]
        instruction = build_instruction(task)
        rows = [
            tokenize_prompt(self._tokenizer, build_text_prompt(song, instruction), MAX_TEXT_TOKENS)[0] for song in songs
        ]
        length = max(map(len, rows))
        lyrics, _ = tokenize_prompt(self._tokenizer, build_lyric_prompt(songs[0]), MAX_LYRIC_TOKENS)
        return Texts(
            torch.tensor([row + [0] * (length - len(row)) for row in rows]),
            torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows]),
            torch.tensor([lyrics]),
        )


@torch.no_grad()
def resynthesize(networks: SongNetworks, latents: torch.Tensor) -> torch.Tensor:
    """Returns what is left of latents `[B, T, C]` after audio codes, as the worker's covers see their source."""
    quantized, _ = networks.audio_tokenizer.tokenize(latents, clock.make_silence()[:, :REFERENCE_FRAMES])
    resynthesized: torch.Tensor = networks.audio_token_detokenizer(quantized)
    return resynthesized[:, : latents.shape[1]]
