"""The steps of a cover: what is looked up first, the parts, the new voice, the mix. See generate_cover."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from audio.effects import VocalChain, processed
from audio.long import at_rate
from audio.mix import Silence, fitted, mixed, placed
from audio.pitch_shift import shifted_blocks
from audio.recording import Sound, blocks, keep
from audio.resample import resampled_blocks, resampled_length
from audio.sound import Waveform
from errors import InvalidRequestError, ModelError
from models import Models
from models.cache import Family
from models.demucs import DemucsFamily
from models.demucs.segments import Passes
from models.demucs.stems import plan_two_stems, separate
from models.rvc import RvcFamily
from models.rvc.conversion_settings import Conversion
from models.rvc.pitch.keys import parse_key
from worker.job import Job

if TYPE_CHECKING:
    from operations.generate_cover import Params

STEM_FIELDS: Final = ("voice_audio", "instrument_audio", "backup_audio")
MEMORY_BYTES: Final = 128 << 20  # of each sound that is made; beyond, it goes to disk
LEAST_SAMPLE_RATE: Final = 44_100
LEAD_DB, BACKUP_DB, INSTRUMENTAL_DB = -4.0, -6.0, -7.0
"""Levels of the parts before the request's gains, as AICoverGen's covers are mixed."""
VOCALS: Final = "vocals"
_HEARING: Final = 0.2  # of the stage `pitch`

Progress = Callable[[float], None]
Curve = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request's names stand for.

    Args:
        voice: of the family `rvc`.
        tracker: of the family `f0`; None for a voice that takes no pitch.
        encoder: of the family `hubert`.
        separator: of the family `demucs`; None where the parts were given.
        has_index: whether the voice has an index.
    """

    voice: str
    tracker: str | None
    encoder: str
    separator: str | None
    has_index: bool

    def parameters(self, params: Params) -> dict[str, Any]:
        """Those that were used in place of the request's."""
        used: dict[str, Any] = {"voice_model": self.voice, "separation_model": self.separator}
        if not self.has_index:
            used["index_rate"] = 0.0
        if self.tracker is None:
            used["f0_method"] = None
        return used


@dataclass(frozen=True, slots=True)
class Parts:
    """The song's parts, each from the song's first sample on."""

    vocal: Sound
    instrumental: Sound
    backup: Sound | None = None

    @property
    def all(self) -> tuple[Sound, ...]:
        return (self.vocal, self.instrumental, *((self.backup,) if self.backup else ()))


@dataclass(frozen=True, slots=True)
class Sung:
    """The vocals in the new voice, dry; `backup` None where it stays as it is."""

    lead: Sound
    backup: Sound | None = None


def is_key(text: str | None) -> bool:
    """Whether autotune knows that key."""
    try:
        parse_key(text)
    except InvalidRequestError:
        return False
    return True


def status(models: Models) -> str:
    """`ready`, or the first thing that is missing."""
    for name in ("rvc", "hubert", "f0"):
        word = models.families[name].status() if name in models.families else "not built in"
        if word != "ready":
            return word
    return "ready"


def planned(params: Params, models: Models) -> Plan:
    """Resolves every name of the request; loads nothing."""
    voice = cast(RvcFamily, _family("rvc", models)).voices.find(params.voice_model)
    return Plan(
        voice=voice.name,
        tracker=_family("f0", models).resolve(params.f0_method) if voice.f0 else None,
        encoder=_family("hubert", models).resolve(None),
        separator=_separator(params, models) if params.audio is not None else None,
        has_index=voice.index is not None,
    )


def _family(name: str, models: Models) -> Family:
    if name not in models.families:
        raise ModelError("This worker was built without voice conversion.", code="not_built_in")
    return models.families[name]


def _separator(params: Params, models: Models) -> str:
    family = cast(DemucsFamily, _family("demucs", models))
    name = family.resolve(params.separation_model)
    stems = family.abilities(name).stems
    if stems is not None and VOCALS not in stems:
        raise InvalidRequestError(
            f"'separation_model' is '{name}', which does not separate vocals. Its stems: {', '.join(stems)}.",
            details={"field": "separation_model", "valid": list(stems)},
        )
    return name


def warn_of_what_is_idle(params: Params, plan: Plan, job: Job) -> None:
    """Names every parameter of the request that changes nothing here."""
    given = params.model_fields_set
    for field, works, reason in _conditions(params, plan):
        if field in given and not works:
            job.warn(f"'{field}' has no effect {reason}.")


def _conditions(params: Params, plan: Plan) -> Iterable[tuple[str, bool, str]]:
    """(field, whether it has an effect, why not)."""
    pitched = plan.tracker is not None
    unpitched = f"because the voice '{plan.voice}' takes no pitch"
    yield "crepe_hop_length", plan.tracker == "mangio-crepe", "except with f0_method 'mangio-crepe'"
    yield "filter_radius", plan.tracker == "harvest", "except with f0_method 'harvest'"
    for field in ("pitch_adjust", "f0_method", "f0_fill_gaps", "autotune", "protect"):
        yield field, pitched or not getattr(params, field), unpitched
    yield "pitch_change_all", pitched or not params.pitch_change_all, f"on the vocal {unpitched}"
    yield "autotune_key", pitched and params.autotune > 0, "without 'autotune'"
    yield "protect", not params.f0_fill_gaps, "with 'f0_fill_gaps', which leaves no unvoiced sounds to protect"
    yield "index_rate", plan.has_index or not params.index_rate, f"because the voice '{plan.voice}' has no index"
    yield "retrieval", plan.has_index and params.index_rate > 0, "without an index to look into"
    for field in ("reverb_rm_size", "reverb_damping"):
        yield field, params.reverb_wet > 0, "with 'reverb_wet' 0"
    for field in ("backup_gain", "convert_backup"):
        yield field, params.backup_audio is not None or not getattr(params, field), "without 'backup_audio'"
    yield "separation_model", plan.separator is not None, "without 'audio': nothing was separated"


def given(job: Job) -> Parts:
    """The parts as the request brought them."""
    return Parts(*(job.long_audio.get(field) for field in STEM_FIELDS))  # type: ignore[arg-type]


def taken_apart(plan: Plan, job: Job, models: Models) -> Parts:
    """The song's vocal and the rest of it, which sum to the song."""
    song = job.long_audio["audio"]

    def separated(engine: Any) -> Mapping[str, Sound]:
        two = plan_two_stems(engine.stems, VOCALS, residual=True)
        coming = separate(engine, song, two, Passes(), job.progress)
        return keep(coming, two.outputs, like=song, memory_bytes=2 * MEMORY_BYTES, stack=job.closing)

    with job.stage("separate", (0.0, 0.3)):
        stems = models.run("demucs", cast(str, plan.separator), separated, check=job.check)
    return Parts(stems[VOCALS], stems[f"no_{VOCALS}"])


def sung(parts: Parts, params: Params, plan: Plan, *, job: Job, models: Models) -> Sung:
    """The vocal, and the backing vocals where that is asked for, in the new voice."""
    start = 0.3 if plan.separator else 0.0
    if parts.backup is None or not params.convert_backup:
        return Sung(_converted(parts.vocal, (start, 0.8), params, plan, job, models))
    lead = _converted(parts.vocal, (start, 0.4), params, plan, job, models)
    return Sung(lead, _converted(parts.backup, (0.4, 0.8), params, plan, job, models))


def _converted(  # noqa: PLR0913
    vocal: Sound, span: tuple[float, float], params: Params, plan: Plan, job: Job, models: Models
) -> Sound:
    """A vocal in the new voice: mono, at the voice's rate, dry, silent where the vocal is."""
    from models.rvc.heard import hear

    start, end = span
    middle = start + 0.3 * (end - start)
    with job.stage("pitch", (start, middle)):
        heard = hear(vocal, _share(job.progress, 0.0, _HEARING))
        f0 = _f0(heard.waveform, params, plan, job, models) if plan.tracker else None
    settings = Conversion(
        semitones=0.0,  # the curve is transposed already
        index_rate=params.index_rate if plan.has_index else 0.0,
        protect=params.protect,
        rms_mix_rate=params.rms_mix_rate,
        filter_radius=params.filter_radius,
        formant_shift=params.formant_shift,
        seed=params.seed,
        retrieval=params.retrieval,
    )

    def sing(encoder: Any, singer: Any) -> Sound:
        length = max(resampled_length(vocal.num_samples, vocal.sample_rate, singer.sample_rate), 1)
        coming = singer.convert(heard, f0, encoder, settings, job.progress)
        shape = Silence(singer.sample_rate, 1, length)
        return _kept(fitted(coming, channels=1, num_samples=length), shape, job)

    with job.stage("convert", (middle, end)):
        return models.run(
            "hubert",
            plan.encoder,
            lambda encoder: models.run("rvc", plan.voice, lambda singer: sing(encoder, singer), check=job.check),
            check=job.check,
        )


def _f0(waveform: Any, params: Params, plan: Plan, job: Job, models: Models) -> Curve:
    """The pitch to sing, in Hz at 100 frames a second."""
    from models.rvc.pitch.curve import autotune, fill_gaps, transpose

    def track(tracker: Any) -> Curve:
        return cast(
            Curve,
            tracker.track(
                waveform,
                hop_length=params.crepe_hop_length,
                filter_radius=params.filter_radius,
                progress=_share(job.progress, _HEARING, 1.0),
            ),
        )

    f0 = models.run("f0", cast(str, plan.tracker), track, check=job.check)
    f0 = transpose(fill_gaps(f0) if params.f0_fill_gaps else f0, params.pitch_adjust + params.pitch_change_all)
    return autotune(f0, strength=params.autotune, key=params.autotune_key) if params.autotune else f0


def mixed_stems(parts: Parts, sung: Sung, params: Params, job: Job) -> dict[str, Sound]:
    """Every part as it stands in the mix, by name: processed, at its level, all of one rate, width and length."""
    rate = max(parts.instrumental.sample_rate, LEAST_SAMPLE_RATE)
    with job.stage("key", (0.8, 0.85)):
        band = _in_key(at_rate(parts.instrumental, rate, job.closing), params, job)
    with job.stage("key", (0.85, 0.9)):
        choir = _choir(parts, sung, rate, params, job)
    length = max(resampled_length(part.num_samples, part.sample_rate, rate) for part in parts.all)
    shape = Silence(rate, max(part.channels for part in parts.all), length)
    with job.stage("mix", (0.9, 0.95)):
        lead = _lead(sung.lead, shape, params, job)
    levels = {"vocals": (lead, LEAD_DB + params.main_gain)}
    if choir is not None:
        levels["backup"] = (choir, BACKUP_DB + params.backup_gain)
    levels["instrumental"] = (band, INSTRUMENTAL_DB + params.inst_gain)
    return dict(zip(levels, placed(list(levels.values())), strict=True))


def _choir(parts: Parts, sung: Sung, rate: int, params: Params, job: Job) -> Sound | None:
    """The backing vocals in the cover's key, which they are in already where they were converted."""
    if sung.backup is not None:
        return at_rate(sung.backup, rate, job.closing)
    return None if parts.backup is None else _in_key(at_rate(parts.backup, rate, job.closing), params, job)


def _lead(dry: Sound, shape: Sound, params: Params, job: Job) -> Sound:
    """The converted vocal through the chain, as wide and as long as the mix."""
    rate, length = shape.sample_rate, resampled_length(dry.num_samples, dry.sample_rate, shape.sample_rate)
    coming = resampled_blocks(blocks(dry), dry.sample_rate, rate, num_samples=dry.num_samples, length=length)
    chain = VocalChain(params.reverb_rm_size, params.reverb_damping, params.reverb_wet, params.reverb_dry)
    made = processed(coming, chain, sample_rate=rate, channels=shape.channels, num_samples=shape.num_samples)
    return _kept(made, shape, job)


def _in_key(sound: Sound, params: Params, job: Job) -> Sound:
    if not params.pitch_change_all:
        return sound
    return _kept(shifted_blocks(sound, params.pitch_change_all, job.progress), sound, job)


def summed(stems: Mapping[str, Sound], job: Job) -> Sound:
    """The cover."""
    whole = mixed(list(stems.values()))
    with job.stage("mix", (0.95, 1.0)):
        return _kept(blocks(whole), whole, job)


def _kept(coming: Iterable[Waveform], like: Sound, job: Job) -> Sound:
    parts = ({"sound": block} for block in _checked(coming, job))
    return keep(parts, ("sound",), like=like, memory_bytes=MEMORY_BYTES, stack=job.closing)["sound"]


def _checked(coming: Iterable[Waveform], job: Job) -> Iterable[Waveform]:
    for block in coming:
        job.check()
        yield block


def _share(progress: Progress, start: float, end: float) -> Progress:
    """A part of a stage's progress."""
    return lambda fraction: progress(start + (end - start) * fraction)
