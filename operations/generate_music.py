"""Makes music (or, with AudioGen, sounds) from a description; follows a melody or continues a recording where asked."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from audio import Audio
from audio.dsp.edit import fade_in, fade_out, trim_silence
from errors import AudioError, ErrorCode, InvalidRequestError
from models import Models
from models.family import LOCAL, ModelHandle, Readiness
from models.musicgen import MusicGenFamily
from models.musicgen.catalog import DEMO
from models.musicgen.family import MusicModelInfo
from models.musicgen.request import MAX_DRIFT_DB, GenerationRequest, GenerationResult, Sampling
from operations import _suno_song
from operations._melody import melody_of
from operations.params import AudioField, AudioOutParams, Int, NonEmptyText, Text
from worker.job import Job
from worker.reply import Output, Reply

if TYPE_CHECKING:
    from models.musicgen.engine import Engine
    from models.musicgen.multiband_diffusion import MultiBandDiffusion

MAX_ITEMS = 32
MAX_SEED = 2**53 - 1  # the largest whole number that every JSON reader keeps
SHORT_WINDOW_STRIDE = 0.6  # of the window, where the default stride does not fit into it
MIN_PROMPT_S = 0.1
MELODY_REST_S = 31.0  # beyond the piece's end: the last window is conditioned as a whole
KEY = re.compile(
    r"[A-Ga-g](#|b|♯|♭| sharp| flat)?( ?(m|min|minor|maj|major|dorian|phrygian|lydian|mixolydian|locrian))?"
)
TIME_SIGNATURE = re.compile(r"([1-9]|1\d|2[0-4])/(1|2|4|8|16)")

Seed = Annotated[Int, Field(ge=0, le=MAX_SEED)]


class Params(AudioOutParams):
    """What to make."""

    ALIASES: ClassVar[Mapping[str, str]] = {"description": "prompt", "text": "prompt", "guidance_scale": "cfg_coef"}

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_ITEMS)] | None = Field(
        None, description="what it shall sound like; a list makes a batch (also `description`, `text`)"
    )
    model: str | None = Field(None, max_length=200, description="as list_models names it; absent: the best one present")
    duration: float = Field(10.0, ge=0.5, le=600, description="s of new music; beyond the model's window it slides")
    n_samples: Int = Field(1, ge=1, le=8, description="pieces made of each prompt")
    seed: Seed | Annotated[list[Seed], Field(min_length=1, max_length=MAX_ITEMS)] | None = Field(
        None, description="of the first piece (the next has the next number), or a list; absent: random"
    )
    temperature: float = Field(1.0, ge=0, le=10, description="0 takes the likeliest code at every step")
    top_k: Int = Field(250, ge=0, le=2048, description="candidates at every step; 0: all")
    top_p: float = Field(0.0, ge=0, le=1, description="probability the candidates sum to; 0: off; goes before top_k")
    cfg_coef: float = Field(3.0, ge=0, le=30, description="weight of the prompt; 1: none (also `guidance_scale`)")
    extend_stride: float = Field(18.0, gt=0, le=60, description="s by which a window slides; must be below the window")
    negative_prompt: Text = Field("", description="what it shall not sound like")
    melody_audio: AudioField | None = Field(None, description="a melody to follow (melody models)")
    style_audio: AudioField | None = Field(None, description="a recording whose style to take (style models)")
    continuation_audio: AudioField | None = Field(None, description="a recording to continue")
    continuation_start: float = Field(0.0, ge=0, description="s into `continuation_audio` at which the part begins")
    continuation_end: float | None = Field(None, gt=0, description="s at which it ends; absent: at its end")
    include_prompt: bool = Field(True, description="begin with the part that is continued")
    bpm: float | None = Field(None, ge=20, le=300, description="beats a minute, added to the prompt")
    key: str | None = Field(None, max_length=20, description="such as `C minor` or `F# major`, added to the prompt")
    time_signature: str | None = Field(None, max_length=5, description="such as `3/4`, added to the prompt")
    lyrics: NonEmptyText | None = Field(
        None, max_length=_suno_song.LIMITS["lyrics"], description="the words to sing (`suno/...` models)"
    )
    style: NonEmptyText | None = Field(
        None, max_length=_suno_song.LIMITS["style"], description="genre, mood, voice (`suno/...` models)"
    )
    title: NonEmptyText | None = Field(None, max_length=_suno_song.LIMITS["title"], description="`suno/...` models")
    instrumental: bool = Field(False, description="without a voice (`suno/...` models)")
    max_wait_s: float | None = Field(None, ge=0, le=900, description="s; absent: 600 (`suno/...` models)")
    mbd: bool = Field(False, description="decode by Multi-Band Diffusion (32 kHz MusicGen): fewer artefacts, slower")
    trim_silence: bool = Field(False, description="cut silence off both ends")
    fade_in: float = Field(0.0, ge=0, le=60, description="s")
    fade_out: float = Field(0.0, ge=0, le=60, description="s")
    partial: bool = Field(False, description="where time runs out, return what is done by then, with a warning")

    def find_errors(self) -> Iterable[tuple[str, str]]:
        """What is wrong with fields that are right by themselves."""
        yield from _suno_song.faults(self)
        count = len(self.prompts) * self.n_samples
        suno = _suno_song.is_meant(self.model)
        if not suno and self.prompt is None and self.melody_audio is None and self.continuation_audio is None:
            yield "prompt", "is required unless there is 'melody_audio' or 'continuation_audio'"
        if count > MAX_ITEMS:
            yield "n_samples", f"makes {count} pieces with {len(self.prompts)} prompts; at most {MAX_ITEMS} are made"
        if isinstance(self.seed, list) and len(self.seed) != count:
            yield "seed", f"has {len(self.seed)} numbers for {count} pieces; give one number, or one for each piece"
        if self.continuation_audio is None and {"continuation_start", "continuation_end"} & self.model_fields_set:
            yield "continuation_audio", "is required with 'continuation_start' or 'continuation_end'"
        if self.continuation_end is not None and self.continuation_end - self.continuation_start < MIN_PROMPT_S:
            yield "continuation_end", f"must be at least {MIN_PROMPT_S} s after 'continuation_start'"
        if self.key is not None and not KEY.fullmatch(self.key.strip()):
            yield "key", "must be a note from A to G, with '#' or 'b', 'major' or 'minor' where wanted: 'F# minor'"
        if self.time_signature is not None and not TIME_SIGNATURE.fullmatch(self.time_signature):
            yield "time_signature", "must be beats over note value: '4/4', '3/4', '6/8'"

    @property
    def prompts(self) -> list[str]:
        """Always a list."""
        return self.prompt if isinstance(self.prompt, list) else [self.prompt or ""]


def get_readiness(models: Models) -> Readiness:
    return models.families.music.readiness()


def admit(params: Params, models: Models) -> None:
    """Refuses a model that is not here or cannot do what is asked for, before any sound is fetched."""
    if not _suno_song.is_meant(params.model):
        _Model.chosen(models.families.music, params)


def run(params: Params, job: Job, models: Models) -> Reply:
    """Checks the request against the model before anything is loaded, then generates."""
    if _suno_song.is_meant(params.model):
        description = _caption(params.prompts[0], params)
        return _suno_song.run(params, job, models, description=description, finish=lambda take: _finished(take, params))
    model = _Model.chosen(models.families.music, params)
    order = _order(params, job, models, model=model)
    _warn(params, job, model)
    generation = _generated(order, job, models, model=model)
    _warn_of(generation, order, job)
    pieces = [_finished(item, params) for item in generation.clips]
    seeds = list(order.seeds)
    outputs = [
        Output(piece, f"music_{index + 1}" if len(pieces) > 1 else "music", {"seed": seed, "prompt": text})
        for index, (piece, seed, text) in enumerate(zip(pieces, seeds, order.descriptions, strict=False))
    ]
    used = {"model": model.name, "seed": seeds if len(seeds) > 1 else seeds[0], "extend_stride": order.stride}
    return Reply(
        fields={
            "model_used": model.name,
            "seed": seeds[0],
            "seeds": seeds,
            "steps_per_s": round(generation.steps_per_s, 2),
            "licence": model.info.licence,
        },
        outputs=outputs,
        parameters=used,
    )


@dataclass(frozen=True)
class _Model:
    """What the request is held against."""

    handle: ModelHandle[Engine]
    info: MusicModelInfo
    decoder: ModelHandle[MultiBandDiffusion] | None

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def window(self) -> float:
        return self.info.window

    @classmethod
    def chosen(cls, family: MusicGenFamily, params: Params) -> _Model:
        """The model asked for, or the best present that takes what was sent; refuses what it cannot do."""
        if params.style_audio is not None:
            raise InvalidRequestError(
                "'style_audio' cannot be used: no model that runs here takes a style. Describe it in 'prompt', or send "
                "a melody as 'melody_audio'.",
                code=ErrorCode.OPTION_UNSUPPORTED,
            )
        wanted = "melody" if params.melody_audio is not None else "text"
        handle = family.resolve(params.model, conditioning=wanted)
        name, info = handle.name, family.describe(handle.name)
        if wanted not in info.conditioning:
            fitting = [m.name for m in family.list_models() if wanted in m.conditioning and m.availability == LOCAL]
            raise InvalidRequestError(
                f"The model '{name}' takes no melody. Leave 'melody_audio' out, or use "
                f"{', '.join(fitting) or 'melody, melody-large, stereo-melody or stereo-melody-large'}.",
                code=ErrorCode.OPTION_UNSUPPORTED,
            )
        return cls(handle, info, family.resolve_diffusion(name) if params.mbd else None)


def _order(params: Params, job: Job, models: Models, *, model: _Model) -> GenerationRequest:
    texts = [_caption(prompt, params) for prompt in params.prompts for _ in range(params.n_samples)]
    return GenerationRequest(
        descriptions=texts,
        seeds=_seeds(params, len(texts)),
        duration=params.duration,
        stride=_stride(params, model),
        sampling=Sampling(params.temperature, params.top_k, params.top_p, params.cfg_coef),
        negative=params.negative_prompt.strip(),
        melody=_melody(params, job, models),
        prompt=_prompt(params, job, model),
        include_prompt=params.include_prompt,
        partial=params.partial,
    )


def _caption(prompt: str, params: Params) -> str:
    """The text that the model reads: the prompt with tempo, key and meter behind it, unless they stand in it."""
    additions = [
        f"{params.bpm:g} bpm" if params.bpm is not None else "",
        params.key.strip() if params.key is not None else "",
        f"{params.time_signature} time" if params.time_signature is not None else "",
    ]
    text = prompt.strip()
    absent = [part for part in additions if part and part.lower() not in text.lower()]
    return ", ".join([part for part in (text.rstrip(" .,;"), *absent) if part]) if absent else text


def _seeds(params: Params, count: int) -> list[int]:
    if isinstance(params.seed, list):
        return params.seed
    first = secrets.randbelow(2**32) if params.seed is None else params.seed
    return [(first + index) % (MAX_SEED + 1) for index in range(count)]


def _stride(params: Params, model: _Model) -> float:
    if params.extend_stride < model.window:
        return params.extend_stride
    if "extend_stride" in params.model_fields_set:
        raise InvalidRequestError(
            f"'extend_stride' is {params.extend_stride:g} s, and must be below the window of '{model.name}', "
            f"{model.window:g} s.",
            details={"field": "extend_stride", "window_s": model.window},
        )
    return SHORT_WINDOW_STRIDE * model.window


def _prompt(params: Params, job: Job, model: _Model) -> Audio | None:
    """The part of the recording that is continued."""
    recording = job.audio.get("continuation_audio")
    if recording is None:
        return None
    start, end = params.continuation_start, params.continuation_end or recording.duration
    if end > recording.duration + 1e-3 or recording.duration - start < MIN_PROMPT_S:
        raise AudioError(
            f"'continuation_audio' is {recording.duration:.2f} s long: 'continuation_start' and 'continuation_end' "
            f"must lie within it, at least {MIN_PROMPT_S} s apart.",
            code=ErrorCode.CONTINUATION_OUT_OF_RANGE,
            details={"duration": round(recording.duration, 3)},
        )
    if end - start >= model.window:
        raise AudioError(
            f"The part to continue is {end - start:.1f} s long, and '{model.name}' sees less than {model.window:g} s. "
            f"Set 'continuation_start' to {end - 0.6 * model.window:.1f} to continue from its end.",
            code=ErrorCode.CONTINUATION_TOO_LONG,
            details={"length": round(end - start, 3), "window_s": model.window},
        )
    first, last = round(start * recording.sample_rate), round(end * recording.sample_rate)
    return Audio(recording.waveform[:, first:last], recording.sample_rate)


def _melody(params: Params, job: Job, models: Models) -> Audio | None:
    """The melody to follow, no more of it than the piece can take up."""
    recording = job.audio.get("melody_audio")
    if recording is None:
        return None
    needed = int(min(recording.duration, params.duration + MELODY_REST_S) * recording.sample_rate)
    return melody_of(Audio(recording.waveform[:, :needed], recording.sample_rate), job, models)


def _warn(params: Params, job: Job, model: _Model) -> None:
    if model.name == DEMO:
        job.warn(
            "This is the model 'demo', a small demonstration that comes with the worker; it is no measure of MusicGen. "
            "For real music set MODELS_DIR to a folder with a MusicGen checkpoint, or ask for 'model': 'small', "
            "'medium' or 'large', which is downloaded where the worker has a way to the Hugging Face hub."
        )
    if "" in (prompt.strip() for prompt in params.prompts):
        job.warn("A piece without a prompt is made without guidance, and sounds worse than one with a description.")


def _warn_of(generation: GenerationResult, order: GenerationRequest, job: Job) -> None:
    """What of the result is not as it was asked for."""
    if not generation.complete:
        made = sum(item.duration for item in generation.clips)
        job.deadline = None  # it has passed, and what is left to do is short: to hand over what there is
        job.warn(
            f"Time ran out: {len(generation.clips)} of {len(order.descriptions)} pieces, {made:.1f} s in all, were "
            "made. Ask for less, or raise the execution timeout."
        )
    drifts = [max(abs(level - levels[0]) for level in levels) for levels in generation.window_levels_db if levels]
    if max(drifts, default=0.0) > MAX_DRIFT_DB:
        job.warn(
            f"The loudness drifted by {max(drifts):.1f} dB over the piece's windows, and was brought back to within "
            f"{MAX_DRIFT_DB:g} dB of its beginning."
        )


def _generated(order: GenerationRequest, job: Job, models: Models, *, model: _Model) -> GenerationResult:
    started = time.monotonic()

    def generate(engine: Engine, decoder: MultiBandDiffusion | None = None) -> GenerationResult:
        job.timings["load_s"] = time.monotonic() - started
        return engine.generate(order, progress=job.progress, decoder=decoder)

    def run(engine: Engine) -> GenerationResult:
        if model.decoder is None:
            return generate(engine)
        return models.run(model.decoder, lambda decoder: generate(engine, decoder), check=job.check)

    start = 0.0 if order.melody is None else 0.1  # a melody was freed of drums and bass before
    with job.stage("generate", (start, 0.95)):
        generation = models.run(model.handle, run, check=job.check)
    job.timings.update(generation.timings)
    return generation


def _finished(piece: Audio, params: Params) -> Audio:
    trimmed = trim_silence(piece) if params.trim_silence else piece
    return fade_out(fade_in(trimmed, params.fade_in), params.fade_out)
