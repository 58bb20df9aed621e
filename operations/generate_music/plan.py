"""Resolves the model and checks the request against it, before any audio is downloaded."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from audio import Audio
from audio.dsp.edit import fade_in, fade_out, trim_silence
from errors import ErrorCode, InvalidRequestError
from models import Models
from models.demucs.catalog import DEFAULT_MODEL
from models.family import LOCAL, ModelHandle
from models.musicgen.catalog import DEMO
from models.musicgen.family import MusicGenFamily, MusicModelInfo
from models.musicgen.request import GenerationRequest, Sampling
from models.separation import plan_stems
from operations.generate_music.params import Params
from operations.params import MAX_SEED
from operations.separation import SeparationPlan

if TYPE_CHECKING:
    from models.musicgen.engine import Engine
    from models.musicgen.multiband_diffusion import MultiBandDiffusion

DEFAULT_STRIDE_SHARE = 0.6  # of the window, if the default stride does not fit into it
MELODY_STEMS = ("vocals", "other")  # on these MusicGen's melody models were trained


@dataclass(frozen=True, slots=True)
class Finishing:
    """What is done to a clip before its delivery: trimming, then fades of the given lengths in seconds."""

    trim: bool
    fade_in: float
    fade_out: float

    @classmethod
    def of(cls, params: Params) -> Self:
        return cls(params.trim_silence, params.fade_in, params.fade_out)

    def apply(self, clip: Audio) -> Audio:
        trimmed = trim_silence(clip) if self.trim else clip
        return fade_out(fade_in(trimmed, self.fade_in), self.fade_out)


@dataclass(frozen=True, slots=True)
class MusicPlan:
    """What to generate with which model.

    Args:
        model: the language model and codec.
        info: what the model can do.
        decoder: in place of the codec's own; None: the codec's own.
        request: without the audio of `melody` and `prompt`, which is loaded later.
        melody_separation: removes drums and bass from the melody; None: the melody is taken as it is.
        continuation: start and end of the part that is continued, in seconds; None as the end: the recording's end.
        finishing: of every clip.
        warnings: sentences for the reply.
    """

    model: ModelHandle[Engine]
    info: MusicModelInfo
    decoder: ModelHandle[MultiBandDiffusion] | None
    request: GenerationRequest
    melody_separation: SeparationPlan | None
    continuation: tuple[float, float | None]
    finishing: Finishing
    warnings: tuple[str, ...]


def plan_music(params: Params, models: Models) -> MusicPlan:
    """The plan of a request for a local model.

    Raises:
        UnknownNameError: the model does not exist.
        ModelError: it cannot be used here.
        InvalidRequestError: it does not support what the request asks for.
    """
    if params.style_audio is not None:
        raise InvalidRequestError(
            "'style_audio' cannot be used: no model that runs here takes a style. Describe the style in 'prompt', or "
            "send a melody as 'melody_audio'.",
            code=ErrorCode.OPTION_UNSUPPORTED,
        )
    family = models.families.music
    conditioning = "melody" if params.melody_audio is not None else "text"
    model = family.resolve(params.model, conditioning=conditioning)
    info = family.describe(model.name)
    if conditioning not in info.conditioning:
        raise _no_melody(model.name, family)
    separation = _plan_melody_separation(models) if params.melody_audio is not None else None
    descriptions = [params.describe(prompt) for prompt in params.prompts for _ in range(params.n_samples)]
    return MusicPlan(
        model,
        info,
        family.resolve_diffusion(model.name) if params.mbd else None,
        GenerationRequest(
            descriptions=descriptions,
            seeds=_choose_seeds(params, len(descriptions)),
            duration=params.duration,
            stride=_choose_stride(params, info),
            sampling=Sampling(params.temperature, params.top_k, params.top_p, params.cfg_coef),
            negative=params.negative_prompt.strip(),
            include_prompt=params.include_prompt,
            partial=params.partial,
        ),
        separation,
        (params.continuation_start, params.continuation_end),
        Finishing.of(params),
        (*model.warnings, *_list_warnings(params, model.name, separation)),
    )


def _no_melody(model: str, family: MusicGenFamily) -> InvalidRequestError:
    local = [info.name for info in family.list_models() if "melody" in info.conditioning and info.availability == LOCAL]
    return InvalidRequestError(
        f"The model '{model}' takes no melody. Leave out 'melody_audio', or use "
        f"{', '.join(local) or 'melody, melody-large, stereo-melody or stereo-melody-large'}.",
        code=ErrorCode.OPTION_UNSUPPORTED,
    )


def _plan_melody_separation(models: Models) -> SeparationPlan | None:
    """None if Demucs is not on this worker and cannot be downloaded. Raises `ModelError` if its files are broken."""
    family = models.families.separation
    if not family.describe(DEFAULT_MODEL).availability.is_usable:
        return None
    return SeparationPlan(family.resolve(DEFAULT_MODEL), plan_stems(MELODY_STEMS, stems=MELODY_STEMS, residual=False))


def _choose_seeds(params: Params, count: int) -> list[int]:
    if isinstance(params.seed, list):
        return params.seed
    first = secrets.randbelow(2**32) if params.seed is None else params.seed
    return [(first + index) % (MAX_SEED + 1) for index in range(count)]


def _choose_stride(params: Params, info: MusicModelInfo) -> float:
    if params.extend_stride < info.window:
        return params.extend_stride
    if "extend_stride" in params.model_fields_set:
        raise InvalidRequestError(
            f"'extend_stride' is {params.extend_stride:g} s, but it must be below the window of '{info.name}', "
            f"{info.window:g} s.",
            details={"field": "extend_stride", "window_s": info.window},
        )
    return DEFAULT_STRIDE_SHARE * info.window


def _list_warnings(params: Params, model: str, separation: SeparationPlan | None) -> Iterator[str]:
    if model == DEMO:
        yield (
            "This is the model 'demo', a small demonstration that comes with the worker; it does not show the quality "
            "of MusicGen. For real music set MODELS_DIR to a folder with a MusicGen checkpoint, or ask for 'model': "
            "'small', 'medium' or 'large', which are downloaded if the worker can reach the Hugging Face hub."
        )
    if "" in (prompt.strip() for prompt in params.prompts):
        yield "A clip without a prompt is generated without guidance, and sounds worse than one with a description."
    if params.melody_audio is not None and separation is None:
        yield (
            "The melody was taken from the whole mix, including drums and bass: the separation model "
            f"'{DEFAULT_MODEL}' is not on this worker."
        )
