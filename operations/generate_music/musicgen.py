"""Music by a local MusicGen or AudioGen: resolves the model, prepares the audio inputs, generates the clips."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audio import Audio
from audio.dsp.edit import CutView
from audio.dsp.resample import resample_source
from audio.types import SAMPLE_BYTES, AudioSource, in_memory
from errors import AudioError, ErrorCode, InvalidRequestError
from models import Models
from models.encodec.codes_file import CodesFile
from models.family import LOCAL, ModelHandle
from models.musicgen.family import MusicGenFamily, MusicModelInfo
from models.musicgen.request import MAX_DRIFT_DB, GenerationRequest, GenerationResult, Sampling
from models.separation import plan_stems
from operations.clips import MEMORY_BYTES, ClipStore, Finishing, choose_seeds, require_room
from operations.engines import MusicEngine, list_unused
from operations.generate_music.continuation import check_continuation, read_file, read_lists
from operations.generate_music.params import MIN_CONTINUATION_S, Params, add_facts, describe_bpm
from operations.listening import listen
from operations.separation import SeparationPlan, separate_stems
from worker.job import Job
from worker.reply import Output, Reply

if TYPE_CHECKING:
    from models.musicgen.engine import Engine
    from models.musicgen.multiband_diffusion import MultiBandDiffusion

DEFAULT_DURATION_S = 10.0
DEFAULT_STRIDE_SHARE = 0.6  # of the window, if the default stride does not fit into it
MELODY_STEMS = ("vocals", "other")  # on these MusicGen's melody models were trained
MELODY_MARGIN_S = 31.0  # of melody after the clip's end: the last window is conditioned as a whole
MAX_MELODY_HZ = 48_000  # a higher sample rate would only take memory: the models work at 32 and 44.1 kHz
SEPARATED = 0.1  # of the progress, if there is a melody
GENERATED = 0.95


@dataclass(frozen=True, slots=True)
class MusicPlan:
    """What to generate with which model.

    Args:
        model: the language model and codec.
        info: what the model can do.
        decoder: in place of the codec's own; None: the codec's own.
        request: without the audio of `melody` and `prompt`, which is loaded later.
        melody_separation: removes drums and bass from the melody; None: the melody is taken as it is.
        continuation_codes: codes to continue that the request has in lists.
        continuation: start and end of the part that is continued, in seconds; None as the end: the recording's end.
        heard: which of `bpm` and `key` are those of the recording.
        finishing: of every clip.
        warnings: sentences for the reply.
    """

    model: ModelHandle[Engine]
    info: MusicModelInfo
    decoder: ModelHandle[MultiBandDiffusion] | None
    request: GenerationRequest
    melody_separation: SeparationPlan | None
    continuation_codes: CodesFile | None
    continuation: tuple[float, float | None]
    heard: frozenset[str]
    finishing: Finishing
    warnings: tuple[str, ...]


def plan_musicgen(params: Params, models: Models) -> MusicPlan:
    """The plan of a request for a local model.

    Raises:
        UnknownNameError: the model does not exist.
        ModelError: it cannot be used here.
        InvalidRequestError: it does not support what the request asks for.
    """
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
            seeds=choose_seeds(params.seed, len(descriptions)),
            duration=DEFAULT_DURATION_S if params.duration is None else params.duration,
            stride=_choose_stride(params, info),
            sampling=_choose_sampling(params),
            negative=params.negative_prompt.strip(),
            include_prompt=params.include_prompt,
            partial=params.partial,
        ),
        separation,
        _plan_continuation(params, model.name, info.window, models),
        (params.continuation_start, params.continuation_end),
        params.heard,
        params.finishing(),
        (*model.warnings, *_list_plan_warnings(params, separation)),
    )


def _plan_continuation(params: Params, model: str, window: float, models: Models) -> CodesFile | None:
    """The request's lists of codes; what is wrong with them is told at once if the model's checkpoint is here."""
    codes = read_lists(params)
    if codes is not None and models.families.music.find_checkpoint(model) is not None:
        check_continuation(codes, model, window, models)
    return codes


def _no_melody(model: str, family: MusicGenFamily) -> InvalidRequestError:
    local = [info.name for info in family.list_models() if "melody" in info.conditioning and info.availability == LOCAL]
    return InvalidRequestError(
        f"The model '{model}' takes no melody. Leave out 'melody_audio', or use "
        f"{', '.join(local) or 'melody, melody-large, stereo-melody or stereo-melody-large'}.",
        code=ErrorCode.OPTION_UNSUPPORTED,
    )


def _plan_melody_separation(models: Models) -> SeparationPlan | None:
    """None if no model that removes drums and bass is here or can be downloaded. Raises `ModelError` if its files are
    broken."""
    family = models.families.separation
    model = family.resolve(None)
    info = family.describe(model.name)
    if not info.availability.is_usable or not set(MELODY_STEMS) <= set(info.stems):
        return None
    return SeparationPlan(model, plan_stems(MELODY_STEMS, stems=MELODY_STEMS, residual=False))


def _choose_sampling(params: Params) -> Sampling:
    given = Sampling(params.temperature, params.top_k, params.top_p)
    return given if params.cfg_coef is None else replace(given, cfg_coef=params.cfg_coef)


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


def _list_plan_warnings(params: Params, separation: SeparationPlan | None) -> Iterator[str]:
    if "" in (prompt.strip() for prompt in params.prompts):
        yield "A clip without a prompt is generated without guidance, and sounds worse than one with a description."
    if params.melody_audio is not None and separation is None:
        yield (
            "The melody was taken from the whole mix, including drums and bass, because no separation model that "
            "removes them, such as 'htdemucs', is on this worker."
        )


def run_musicgen(plan: MusicPlan, job: Job, models: Models, *, memory_bytes: int = MEMORY_BYTES) -> Reply:
    """Runs `plan`.

    Args:
        memory_bytes: the most that all clips together may take in memory; beyond, they are on disk until the job ends.
    """
    for warning in plan.warnings:
        job.warn(warning)
    heard = _hear(plan, job)
    facts = (describe_bpm(heard.get("bpm")), heard.get("key") or "")
    request = replace(
        plan.request,
        descriptions=[add_facts(description, *facts) for description in plan.request.descriptions],
        melody=prepare_melody(plan, job, models),
        prompt=_cut_continuation(plan, job),
        prompt_codes=_read_codes(plan, job, models),
    )
    clips, result = _generate(plan, request, job, models, memory_bytes)
    if not result.complete:
        job.deadline = None  # it has passed; delivering the finished part takes little time
    for warning in _list_warnings(request, clips, result):
        job.warn(warning)
    seeds = list(request.seeds)
    outputs = [
        Output(
            clip,
            f"music_{index + 1}" if len(clips) > 1 else "music",
            {"seed": seed, "prompt": description},
        )
        for index, (clip, seed, description) in enumerate(zip(clips, seeds, request.descriptions, strict=False))
    ]
    return Reply(
        fields={
            "model_used": plan.model.name,
            "seed": seeds[0],
            "seeds": seeds,
            "steps_per_s": round(result.steps_per_s, 2),
            "licence": plan.info.licence,
        },
        outputs=outputs,
        parameters={
            "model": plan.model.name,
            "seed": seeds if len(seeds) > 1 else seeds[0],
            "extend_stride": request.stride,
            "duration": request.duration,
            "cfg_coef": request.sampling.cfg_coef,
            **heard,
        },
        unused=list_unused(Params, MusicEngine.MUSICGEN),
    )


def _hear(plan: MusicPlan, job: Job) -> dict[str, Any]:
    """`bpm` and `key` of the recording, for those that are `auto`; None, with a warning, for what is not heard."""
    if not plan.heard:
        return {}
    field = "continuation_audio" if "continuation_audio" in job.audio else "melody_audio"
    music = listen(job.audio[field], job)
    found = {"bpm": round(music.tempo.bpm) if music.tempo else None, "key": music.keys[0].name if music.keys else None}
    for name in sorted(plan.heard):
        if found[name] is None:
            job.warn(f"No {'tempo' if name == 'bpm' else 'key'} was heard in '{field}', so '{name}' was left out.")
    return {name: found[name] for name in plan.heard}


def prepare_melody(plan: MusicPlan, job: Job, models: Models) -> Audio | None:
    """The part of the melody that the clip can follow, without drums and bass."""
    recording = job.audio.get("melody_audio")
    if recording is None:
        return None
    seconds = min(recording.duration, plan.request.duration + MELODY_MARGIN_S)
    part = CutView(recording, 0, int(seconds * recording.sample_rate))
    melody = in_memory(resample_source(part, min(part.sample_rate, MAX_MELODY_HZ), job.exit_stack))
    if plan.melody_separation is None:
        return melody
    return _remove_drums_and_bass(melody, plan.melody_separation, job, models)


def _remove_drums_and_bass(melody: Audio, plan: SeparationPlan, job: Job, models: Models) -> Audio:
    with job.stage("melody", (0.0, SEPARATED)):
        stems = separate_stems(plan, melody, job=job, models=models, memory_bytes=2 * melody.waveform.nbytes)
    vocals, other = (stems[name].read(0, melody.num_samples) for name in MELODY_STEMS)
    return Audio(vocals + other, melody.sample_rate)


def _cut_continuation(plan: MusicPlan, job: Job) -> Audio | None:
    """The part of the recording that is continued."""
    recording = job.audio.get("continuation_audio")
    if recording is None:
        return None
    start, end = plan.continuation[0], plan.continuation[1] or recording.duration
    if end > recording.duration + 1e-3 or recording.duration - start < MIN_CONTINUATION_S:
        raise AudioError(
            f"'continuation_audio' is {recording.duration:.2f} s long: 'continuation_start' and 'continuation_end' "
            f"must lie within it, at least {MIN_CONTINUATION_S} s apart.",
            code=ErrorCode.CONTINUATION_OUT_OF_RANGE,
            details={"duration": round(recording.duration, 3)},
        )
    window = plan.info.window
    if end - start >= window:
        raise AudioError(
            f"The part to continue is {end - start:.1f} s long, but it must be shorter than the window of "
            f"'{plan.model.name}', {window:g} s. Set 'continuation_start' to {end - 0.6 * window:.1f} to continue from "
            "its end.",
            code=ErrorCode.CONTINUATION_TOO_LONG,
            details={"length": round(end - start, 3), "window_s": window},
        )
    first, last = round(start * recording.sample_rate), round(end * recording.sample_rate)
    return in_memory(CutView(recording, first, last))


def _read_codes(plan: MusicPlan, job: Job, models: Models) -> NDArray[np.int16] | None:
    """The codes that are continued, of all codebooks of the model."""
    codes = plan.continuation_codes or read_file(job)
    if codes is None:
        return None
    models.families.music.download(plan.model.name, job)  # the codec of a published model is known with its files
    return check_continuation(codes, plan.model.name, plan.info.window, models)


def _generate(
    plan: MusicPlan, request: GenerationRequest, job: Job, models: Models, memory_bytes: int
) -> tuple[list[AudioSource], GenerationResult]:
    """The finished clips, and what else is known of them."""
    started = time.monotonic()
    seconds = request.duration
    if request.include_prompt and request.prompt is not None:
        seconds += request.prompt.duration
    elif request.include_prompt and request.prompt_codes is not None:
        seconds += plan.info.window  # the most that the codes may be
    needed_bytes = len(request.seeds) * round(seconds * plan.info.sample_rate) * plan.info.channels * SAMPLE_BYTES
    require_room(needed_bytes, memory_bytes)

    def generate(
        engine: Engine, decoder: MultiBandDiffusion | None = None
    ) -> tuple[list[AudioSource], GenerationResult]:
        job.timings["load_s"] = time.monotonic() - started
        store = ClipStore(len(request.seeds), plan.finishing, memory_bytes=memory_bytes, stack=job.exit_stack)
        return store.clips, engine.generate(request, progress=job.progress, decoder=decoder, on_clip=store.add)

    with job.stage("generate", (0.0 if request.melody is None else SEPARATED, GENERATED)):
        if plan.decoder is None:
            clips, result = models.run(plan.model, generate, observer=job)
        else:
            clips, result = models.run_pair(plan.model, plan.decoder, generate, observer=job)
    job.timings.update(result.timings)
    return clips, result


def _list_warnings(request: GenerationRequest, clips: Sequence[AudioSource], result: GenerationResult) -> list[str]:
    """What of the result differs from the request."""
    warnings = []
    if not result.complete:
        seconds = sum(clip.duration for clip in clips)
        warnings.append(
            f"Time ran out: {len(clips)} of {len(request.descriptions)} clips, {seconds:.1f} s in total, were "
            "generated. Ask for less, or raise the execution timeout."
        )
    drift = max((abs(level - levels[0]) for levels in result.window_levels_db for level in levels), default=0.0)
    if drift > MAX_DRIFT_DB:
        warnings.append(
            f"The loudness drifted by {drift:.1f} dB over the windows of a clip, and was brought back to within "
            f"{MAX_DRIFT_DB:g} dB of its beginning."
        )
    return warnings
