"""What the planner is asked and what it returns. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from models.acestep.metas import Metas

PlanMode = Literal["metas", "inspire", "format", "understand"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LmSampling:
    """How the planner's tokens are drawn.

    Args:
        temperature: at least 0; 0 always takes the most likely token.
        top_k: how many of the most likely tokens are candidates; 0 = all.
        top_p: the candidates are the smallest set of tokens with this probability; 1 = off.
        repetition_penalty: 1 = off.
        cfg_coef: classifier-free guidance of the audio codes; 1 = no guidance.
        negative_prompt: takes the place of the caption in the unconditional branch; empty: the trained one.
    """

    temperature: float = 0.85
    top_k: int = 0
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    cfg_coef: float = 2.5
    negative_prompt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What to plan. Its values have been validated.

    Args:
        mode: `metas`: the metas of a song with this caption and these lyrics; `inspire`: a whole song from a short
            query; `format`: a caption and lyrics rewritten; `understand`: what a song with these codes is.
        caption: or the query of `inspire`.
        lyrics: empty: none.
        instrumental: for `inspire`: whether the song has no vocals.
        metas: what is known; it is kept.
        language: of the vocals, if it is known; it is kept.
        codes: for `understand`.
        write_caption: for `metas`: whether the planner writes a caption of its own.
        write_language: for `metas`: whether the planner names the language.
        seed: of the tokens that are drawn.
        sampling: how tokens are drawn.
    """

    mode: PlanMode
    seed: int
    caption: str = ""
    lyrics: str = ""
    instrumental: bool = False
    metas: Metas = field(default_factory=Metas)
    language: str | None = None
    codes: tuple[int, ...] = ()
    write_caption: bool = True
    write_language: bool = True
    sampling: LmSampling = field(default_factory=LmSampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSong:
    """What the planner wrote.

    Args:
        caption, lyrics, metas, language: of the song; None or empty if the planner did not write it.
        genres: a line of the modes `inspire`, `format` and `understand`; empty if there is none.
        warnings: sentences for the reply: lyrics that were cut.
    """

    caption: str | None
    lyrics: str | None
    metas: Metas
    language: str | None
    genres: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesRequest:
    """Audio codes to generate for a planned song.

    Args:
        caption: the caller's own, which stands in the prompt.
        lyrics: of the song.
        song: what was planned: its caption, metas and language stand in the planner's thoughts.
        duration: of the song in seconds; it has five codes a second.
        seeds: one for each clip.
        sampling: how codes are drawn.
    """

    caption: str
    lyrics: str
    song: PlannedSong
    duration: float
    seeds: tuple[int, ...]
    sampling: LmSampling = field(default_factory=LmSampling)
