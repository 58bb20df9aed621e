"""What the names in a request for a cover stand for, and which of its parameters change nothing. Loads no model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from errors import InvalidRequestError
from models import Models
from models.f0 import F0Estimator
from models.f0.contour import parse_key
from models.family import READY, ModelHandle, Readiness
from worker.job import Job

if TYPE_CHECKING:
    from models.demucs.engine import Separator
    from models.hubert.encoder import ContentEncoder
    from models.rvc.converter import VoiceConverter
    from operations.generate_cover import Params

VOCALS: Final = "vocals"


@dataclass(frozen=True, slots=True)
class Plan:
    """The models of a cover.

    Args:
        voice: of the family `rvc`.
        tracker: of the family `f0`; None for a voice that takes no pitch.
        encoder: of the family `hubert`.
        separator: of the family `demucs`; None where the parts were given.
        has_index: whether the voice has an index.
    """

    voice: ModelHandle[VoiceConverter]
    tracker: ModelHandle[F0Estimator] | None
    encoder: ModelHandle[ContentEncoder]
    separator: ModelHandle[Separator] | None
    has_index: bool

    def parameters(self) -> dict[str, Any]:
        """Those that were used in place of the request's."""
        used: dict[str, Any] = {
            "voice_model": self.voice.name,
            "separation_model": self.separator.name if self.separator else None,
        }
        if not self.has_index:
            used["index_rate"] = 0.0
        if self.tracker is None:
            used["f0_method"] = None
        return used


def get_readiness(models: Models) -> Readiness:
    """`ready`, or the first thing that is missing."""
    families = models.families
    readiness = [family.readiness() for family in (families.voices, families.content_encoders, families.f0)]
    return next((one for one in readiness if not one.is_ready), READY)


def is_key(text: str | None) -> bool:
    """Whether autotune knows that key."""
    try:
        parse_key(text)
    except InvalidRequestError:
        return False
    return True


def planned(params: Params, models: Models) -> Plan:
    """Resolves every name of the request, so that what is not here is told before anything is loaded."""
    families = models.families
    voice = families.voices.find(params.voice_model)
    return Plan(
        voice=families.voices.resolve(voice.name),
        tracker=families.f0.resolve(params.f0_method) if voice.f0 else None,
        encoder=families.content_encoders.resolve(None),
        separator=_separator(params, models) if params.audio is not None else None,
        has_index=voice.index is not None,
    )


def _separator(params: Params, models: Models) -> ModelHandle[Separator]:
    family = models.families.separation
    handle = family.resolve(params.separation_model)
    name, stems = handle.name, family.describe(handle.name).stems
    if stems is not None and VOCALS not in stems:
        raise InvalidRequestError(
            f"'separation_model' is '{name}', which does not separate vocals. Its stems: {', '.join(stems)}.",
            details={"field": "separation_model", "valid": list(stems)},
        )
    return handle


def warn_of_what_is_idle(params: Params, plan: Plan, job: Job) -> None:
    """Names every parameter of the request that changes nothing here."""
    for field, works, reason in (*_of_the_voice(params, plan), *_of_the_mix(params, plan)):
        if field in params.model_fields_set and not works:
            job.warn(f"'{field}' has no effect {reason}.")


def _of_the_voice(params: Params, plan: Plan) -> Iterable[tuple[str, bool, str]]:
    """(field, whether it has an effect, why not)."""
    pitched = plan.tracker is not None
    unpitched = f"because the voice '{plan.voice.name}' takes no pitch"
    yield "crepe_hop_length", _method(plan) == "mangio-crepe", "except with f0_method 'mangio-crepe'"
    yield "filter_radius", _method(plan) == "harvest", "except with f0_method 'harvest'"
    for field in ("pitch_adjust", "f0_method", "f0_fill_gaps", "autotune", "protect"):
        yield field, pitched or not getattr(params, field), unpitched
    yield "pitch_change_all", pitched or not params.pitch_change_all, f"on the vocal {unpitched}"
    yield "autotune_key", pitched and params.autotune > 0, "without 'autotune'"
    drawn = plan.has_index and params.index_rate > 0
    yield "index_rate", plan.has_index or not params.index_rate, f"because the voice '{plan.voice.name}' has no index"
    yield "retrieval", drawn, "without an index to search"
    yield "protect", drawn, "without an index, from which it protects"


def _method(plan: Plan) -> str | None:
    return plan.tracker.name if plan.tracker else None


def _of_the_mix(params: Params, plan: Plan) -> Iterable[tuple[str, bool, str]]:
    """(field, whether it has an effect, why not)."""
    for field in ("reverb_rm_size", "reverb_damping"):
        yield field, params.reverb_wet > 0, "with 'reverb_wet' 0"
    for field in ("backup_gain", "convert_backup"):
        yield field, params.backup_audio is not None or not getattr(params, field), "without 'backup_audio'"
    yield "separation_model", plan.separator is not None, "without 'audio': nothing was separated"
