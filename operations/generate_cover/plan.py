"""Resolves every model of a cover, and finds the parameters that have no effect, before any audio is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from audio.dsp.effects import VocalChain
from errors import ErrorCode, InvalidRequestError
from models import Models
from models.rvc.voices import Voice
from models.separation import plan_two_stems
from operations.generate_cover.conversion import ConversionPlan, F0Plan
from operations.generate_cover.mixing import MixPlan
from operations.generate_cover.params import Params
from operations.separation import SeparationPlan

VOCALS = "vocals"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do for a cover.

    Args:
        separation: of the song into vocals and instrumental; None if the request has the parts.
        conversion: of the vocals.
        convert_backup: whether the backing vocals are converted as well.
        mix: of the parts.
        return_stems: whether the reply has the parts too.
        parameters: values that are used in place of the request's.
        warnings: sentences for the reply.
    """

    separation: SeparationPlan | None
    conversion: ConversionPlan
    convert_backup: bool
    mix: MixPlan
    return_stems: bool
    parameters: dict[str, Any]
    warnings: tuple[str, ...]


def plan(params: Params, models: Models) -> Plan:
    """The plan of a request.

    Raises:
        UnknownNameError: a voice or model does not exist.
        ModelError: a voice or model cannot be used here.
        InvalidRequestError: the separation model does not separate vocals.
    """
    families = models.families
    voice = families.voices.find(params.voice_model)
    separation = _plan_separation(params.separation_model, models) if params.audio is not None else None
    conversion = ConversionPlan(
        voice=families.voices.resolve(voice.name),
        encoder=families.content_encoders.resolve(None),
        f0=_plan_f0(params, models) if voice.f0 else None,
        index_rate=params.index_rate if voice.index is not None else 0.0,
        protect=params.protect,
        rms_mix_rate=params.rms_mix_rate,
        fill_gaps=params.f0_fill_gaps,
        formant_shift=params.formant_shift,
        seed=params.seed,
        retrieval=params.retrieval,
    )
    return Plan(
        separation,
        conversion,
        convert_backup=params.convert_backup and params.backup_audio is not None,
        mix=MixPlan(
            semitones=params.pitch_change_all,
            chain=VocalChain(params.reverb_rm_size, params.reverb_damping, params.reverb_wet, params.reverb_dry),
            lead_gain_db=params.main_gain,
            backup_gain_db=params.backup_gain,
            instrumental_gain_db=params.inst_gain,
        ),
        return_stems=params.return_stems,
        parameters={
            "voice_model": voice.name,
            "separation_model": separation.model.name if separation else None,
            "index_rate": conversion.index_rate,
            "f0_method": conversion.f0.method.name if conversion.f0 else None,
        },
        warnings=(
            *voice.warnings,
            *(
                f"'{field}' has no effect {reason}."
                for field, has_effect, reason in _list_effects(params, voice)
                if field in params.model_fields_set and not has_effect
            ),
        ),
    )


def _plan_f0(params: Params, models: Models) -> F0Plan:
    return F0Plan(
        method=models.families.f0.resolve(params.f0_method),
        hop_length=params.crepe_hop_length,
        filter_radius=params.filter_radius,
        semitones=params.pitch_adjust + params.pitch_change_all,
        autotune=params.autotune,
        autotune_key=params.autotune_key,
    )


def _plan_separation(name: str | None, models: Models) -> SeparationPlan:
    family = models.families.separation
    model = family.resolve(name)
    stems = family.describe(model.name).stems
    if VOCALS not in stems:
        raise InvalidRequestError(
            f"'separation_model' is '{model.name}', which does not separate vocals. Its stems: {', '.join(stems)}.",
            code=ErrorCode.UNKNOWN_STEM,
            details={"field": "separation_model", "valid": list(stems)},
        )
    return SeparationPlan(model, plan_two_stems(stems, VOCALS, residual=True))


def _list_effects(params: Params, voice: Voice) -> Iterator[tuple[str, bool, str]]:
    """(field, whether it has an effect, why it has none)."""
    method = params.f0_method if voice.f0 else None
    no_f0 = f"because the voice '{voice.name}' takes no pitch"
    no_index = f"because the voice '{voice.name}' has no index"
    is_retrieving = voice.index is not None and params.index_rate > 0
    yield "crepe_hop_length", method == "mangio-crepe", "except with f0_method 'mangio-crepe'"
    yield "filter_radius", method == "harvest", "except with f0_method 'harvest'"
    for field in ("pitch_adjust", "f0_method", "f0_fill_gaps", "autotune", "protect"):
        yield field, voice.f0 or not getattr(params, field), no_f0
    yield "pitch_change_all", voice.f0 or not params.pitch_change_all, f"on the vocals {no_f0}"
    yield "autotune_key", voice.f0 and params.autotune > 0, "without 'autotune'"
    yield "index_rate", voice.index is not None or not params.index_rate, no_index
    yield "retrieval", is_retrieving, "without index retrieval"
    yield "protect", is_retrieving, "without index retrieval"
    for field in ("reverb_rm_size", "reverb_damping"):
        yield field, params.reverb_wet > 0, "with 'reverb_wet' 0"
    for field in ("backup_gain", "convert_backup"):
        yield field, params.backup_audio is not None or not getattr(params, field), "without 'backup_audio'"
    yield "separation_model", params.audio is not None, "without 'audio': nothing is separated"
