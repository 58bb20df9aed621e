"""What the ACE-Step engine is asked to generate and what it returns. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from audio import Audio
from audio.types import AudioSource
from models.acestep.metas import INSTRUMENTAL, Metas
from models.runtime.progress import Progress

Task = Literal["text2music", "cover", "repaint", "lego", "extract", "complete"]
InferMethod = Literal["ode", "sde"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionSampling:
    """How latents are sampled. Every value has been resolved for the model.

    Args:
        num_steps: of the sampler; 1..20 for a turbo model, 1..200 for the others.
        cfg_coef: classifier-free guidance scale; 1 = no guidance (turbo models have it distilled).
        shift: of the timesteps: t becomes s t / (1 + (s - 1) t).
        method: `ode`: Euler; `sde`: re-noises the prediction at every step.
        timesteps: strictly falling, in (0, 1]; takes the place of `num_steps` and `shift`.
        use_adg: angle-based instead of adaptive projected guidance.
        cfg_interval: guidance is applied while its start <= t <= its end; t is 1 at the beginning.
    """

    num_steps: int
    cfg_coef: float
    shift: float
    method: InferMethod = "ode"
    timesteps: tuple[float, ...] | None = None
    use_adg: bool = False
    cfg_interval: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Song:
    """One clip to generate.

    Args:
        caption: describes the music.
        lyrics: with section tags such as `[Verse]`.
        language: of the vocals; one of `metas.LANGUAGES`.
        metas: of the song; `duration` is what the text prompt says, not the length that is generated.
        seed: of the clip's noise.
        codes: audio codes of 5 Hz, 0..63,999, from a planner; None: none.
    """

    caption: str
    seed: int
    lyrics: str = INSTRUMENTAL
    language: str = "en"
    metas: Metas = field(default_factory=Metas)
    codes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repainting:
    """The window that a repaint (or a lego) generates anew.

    Args:
        start: seconds in the source; below 0 the result begins earlier than the source.
        end: seconds in the source; beyond its end the result is longer; None: the end of the source.
        strength: 0: what is outside the window stays; 1: it may follow the new part; outside the window the result has
            the source's own samples in any case, but for the cross-fade.
    """

    start: float = 0.0
    end: float | None = None
    strength: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SongRequest:
    """What to generate. Its values have been validated.

    Args:
        songs: one for each clip.
        duration: of the clips in seconds; unused when there is a source, whose length the clips have.
        sampling: how latents are sampled.
        task: what is done with the source; `text2music` has none.
        source: the recording that is edited, of any sample rate, mono or stereo.
        reference: a recording whose timbre and style the clips follow; None: none.
        tracks: for `lego` and `extract` one, for `complete` one or more names of `metas.TRACKS`.
        repainting: the window of `repaint`, and optionally of `lego`.
        cover_strength: the share of the steps that follows the source (or the codes), 0..1.
    """

    songs: Sequence[Song]
    duration: float
    sampling: DiffusionSampling
    task: Task = "text2music"
    source: AudioSource | None = None
    reference: AudioSource | None = None
    tracks: tuple[str, ...] = ()
    repainting: Repainting | None = None
    cover_strength: float = 1.0


@dataclass(frozen=True, slots=True)
class SongResult:
    """The clips in the order of the request's songs, and what they cost.

    Args:
        clips: all of them, unless `on_clip` has taken them; 48 kHz stereo, or the source's own rate and channels for an
            edit that keeps samples of the source (`repaint`).
        timings: seconds by stage: `text_s`, `conditions_s`, `decode_s` (the steps of the diffusion transformer),
            `codec_s`.
        steps: of the sampler, over all clips.
        warnings: sentences for the reply: lyrics or a caption that were cut, with the number of tokens.
    """

    clips: tuple[Audio, ...]
    timings: Mapping[str, float]
    steps: int
    warnings: tuple[str, ...] = ()


class SongEngine(Protocol):
    """What the operations use of a loaded ACE-Step model."""

    def generate(
        self, request: SongRequest, *, progress: Progress, on_clip: Callable[[Audio], None] | None = None
    ) -> SongResult:
        """The clips of `request`.

        Args:
            progress: is told the fraction that is done, at every step and every tile of the codec.
            on_clip: takes every clip as soon as it is done, in order; the result then has none.
        """
        ...

    def encode_codes(self, source: AudioSource, *, progress: Progress) -> tuple[int, ...]:
        """The audio codes of a recording, five a second, as the planner reads them; the last may contain silence."""
        ...
