"""What the names in a request for a cover stand for, and which of its parameters change nothing. Loads no model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from errors import ErrorCode, InvalidRequestError, ModelError
from models import Models
from models.cache import Family
from models.demucs import DemucsFamily
from models.f0.contour import parse_key
from models.rvc import RvcFamily
from worker.job import Job

if TYPE_CHECKING:
    from operations.generate_cover import Params

VOCALS: Final = "vocals"


@dataclass(frozen=True, slots=True)
class Plan:
    """Engines by their canonical names.

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

    def parameters(self) -> dict[str, Any]:
        """Those that were used in place of the request's."""
        used: dict[str, Any] = {"voice_model": self.voice, "separation_model": self.separator}
        if not self.has_index:
            used["index_rate"] = 0.0
        if self.tracker is None:
            used["f0_method"] = None
        return used


def status(models: Models) -> str:
    """`ready`, or the first thing that is missing."""
    for name in ("rvc", "hubert", "f0"):
        word = models.families[name].status() if name in models.families else "not built in"
        if word != "ready":
            return word
    return "ready"


def is_key(text: str | None) -> bool:
    """Whether autotune knows that key."""
    try:
        parse_key(text)
    except InvalidRequestError:
        return False
    return True


def planned(params: Params, models: Models) -> Plan:
    """Resolves every name of the request, so that what is not here is told before anything is loaded."""
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
        raise ModelError(
            "This worker was built without the models that a cover needs.", code=ErrorCode.MODEL_UNAVAILABLE
        )
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
    for field, works, reason in (*_of_the_voice(params, plan), *_of_the_mix(params, plan)):
        if field in params.model_fields_set and not works:
            job.warn(f"'{field}' has no effect {reason}.")


def _of_the_voice(params: Params, plan: Plan) -> Iterable[tuple[str, bool, str]]:
    """(field, whether it has an effect, why not)."""
    pitched = plan.tracker is not None
    unpitched = f"because the voice '{plan.voice}' takes no pitch"
    yield "crepe_hop_length", plan.tracker == "mangio-crepe", "except with f0_method 'mangio-crepe'"
    yield "filter_radius", plan.tracker == "harvest", "except with f0_method 'harvest'"
    for field in ("pitch_adjust", "f0_method", "f0_fill_gaps", "autotune", "protect"):
        yield field, pitched or not getattr(params, field), unpitched
    yield "pitch_change_all", pitched or not params.pitch_change_all, f"on the vocal {unpitched}"
    yield "autotune_key", pitched and params.autotune > 0, "without 'autotune'"
    drawn = plan.has_index and params.index_rate > 0
    yield "index_rate", plan.has_index or not params.index_rate, f"because the voice '{plan.voice}' has no index"
    yield "retrieval", drawn, "without an index to search"
    yield "protect", drawn, "without an index, from which it protects"


def _of_the_mix(params: Params, plan: Plan) -> Iterable[tuple[str, bool, str]]:
    """(field, whether it has an effect, why not)."""
    for field in ("reverb_rm_size", "reverb_damping"):
        yield field, params.reverb_wet > 0, "with 'reverb_wet' 0"
    for field in ("backup_gain", "convert_backup"):
        yield field, params.backup_audio is not None or not getattr(params, field), "without 'backup_audio'"
    yield "separation_model", plan.separator is not None, "without 'audio': nothing was separated"
