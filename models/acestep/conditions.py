"""What the transformer is conditioned on: text, lyrics and timbre as one sequence, and the latents of the source."""

from __future__ import annotations

from typing import Any, Final

import torch

from models.acestep.edit import Window
from models.acestep.request import Song, Task
from models.acestep.sampler import KeptLatents

MIN_FRAMES: Final = 128  # 5.12 s; shorter music is sampled with silence after it, and cut


class ConditionEncoder:
    """Encodes the conditions of one clip at a time, so that there is no padding for the transformer to see.

    Args:
        network: diffusers' `AceStepConditionEncoder`.
        silence: `[1, T, C]`, latents of silence.
        timbre_frames: latents of the reference.
    """

    def __init__(self, network: Any, silence: torch.Tensor, timbre_frames: int) -> None:
        self._network, self._silence, self._timbre_frames = network, silence, timbre_frames
        self._timbre_of_silence: torch.Tensor | None = None

    def encode_timbre(self, reference: torch.Tensor | None) -> torch.Tensor:
        """`[1, 1, E]` of a reference's latents `[1, T, C]`; without a reference, of silence, which is encoded once."""
        if reference is not None:
            return self._encode_timbre(reference)
        if self._timbre_of_silence is None:
            self._timbre_of_silence = self._encode_timbre(self._silence[:, : self._timbre_frames])
        return self._timbre_of_silence

    def _encode_timbre(self, latents: torch.Tensor) -> torch.Tensor:
        weight = self._network.text_projector.weight
        order = torch.zeros(1, dtype=torch.long, device=weight.device)  # the only reference of the only clip
        timbre, _ = self._network.timbre_encoder(latents.to(weight.device, weight.dtype), order)
        encoded: torch.Tensor = timbre
        return encoded

    def encode_lyrics(self, embeddings: torch.Tensor) -> torch.Tensor:
        """`[1, M, E]` of the lyrics' token embeddings `[1, M, D]`."""
        is_lyric = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        encoded: torch.Tensor = self._network.lyric_encoder(inputs_embeds=embeddings, attention_mask=is_lyric)
        return encoded

    def join(self, lyrics: torch.Tensor, timbre: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """`[1, M + 1 + L, E]`: encoded lyrics, encoded timbre, and the text encoder's hidden states `[1, L, D]`."""
        return torch.cat([lyrics, timbre, self._network.text_projector(text)], dim=1)


def choose_instruction_task(song: Song, task: Task) -> Task:
    """The task whose instruction the text has: audio codes stand for the source of a cover.

    A task with a source of its own does not use codes.
    """
    return "cover" if song.codes and task == "text2music" else task


def extend_with_silence(latents: torch.Tensor, silence: torch.Tensor, num_frames: int) -> torch.Tensor:
    """`[1, num_frames, C]`: the latents as far as they go, then silence as it is at that time."""
    latents = latents[:, :num_frames]
    return torch.cat([latents, make_silence(silence, num_frames)[:, latents.shape[1] :].to(latents)], dim=1)


def make_silence(silence: torch.Tensor, num_frames: int) -> torch.Tensor:
    """`[1, num_frames, C]` of the latents of silence, which are repeated if they are shorter."""
    return silence.repeat(1, -(-num_frames // silence.shape[1]), 1)[:, :num_frames]


def make_context(source: torch.Tensor, is_generated: torch.Tensor | None = None) -> torch.Tensor:
    """`[1, T, 2 C]` for the transformer: the source's latents `[1, T, C]`, and a mask of 1 in generated frames.

    Args:
        is_generated: `[1, T, 1]`; None: all are.
    """
    mask = torch.ones_like(source)
    return torch.cat([source, mask if is_generated is None else mask * is_generated], dim=-1)


def mark_window(window: Window, num_frames: int, device: torch.device) -> torch.Tensor:
    """`[1, num_frames, 1]`: True in the frames of a window."""
    frame = torch.arange(num_frames, device=device)
    return ((frame >= window.first_frame) & (frame < window.end_frame))[None, :, None]


def keep_outside(window: Window, source: torch.Tensor, num_steps: int) -> KeptLatents:
    """How the frames outside a window are held to the source's latents `[1, T, C]`.

    Args:
        num_steps: of the sampler.
    """
    is_generated = mark_window(window, source.shape[1], source.device)
    frame = torch.arange(source.shape[1], device=source.device)
    distance = torch.maximum(window.first_frame - frame, frame - (window.end_frame - 1)).clamp(min=0)
    # Falls in a straight line over the frames of the fade; without a fade the sampled latents stay as they are.
    fade = window.latent_fade_frames
    weights = 1 - distance / (fade + 1) if fade else torch.ones_like(distance, dtype=torch.float32)
    return KeptLatents(
        source, is_generated, window.count_injected_steps(num_steps), weights.clamp(min=0)[None, :, None]
    )
