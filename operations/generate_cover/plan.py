"""Resolves every model of a cover, and finds the parameters that have no effect, before any audio is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from audio.dsp.effects import VocalChain
from errors import InvalidRequestError, sanitize
from models import Models, demo
from models.rvc.sidecar import SIDECAR
from models.rvc.voices import Voice
from operations.generate_cover.conversion import ConversionPlan, F0Plan
from operations.generate_cover.mixing import MixPlan
from operations.generate_cover.params import Params
from operations.generate_cover.routes import RoutePlan, plan_route


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do for a cover.

    Args:
        route: what is separated before the conversion.
        conversion: of the lead vocals.
        backup: of the backing vocals; None if they stay as they are.
        mix: of the parts.
        return_stems: whether the reply has the parts too.
        parameters: values that are used in place of the request's.
        warnings: sentences for the reply.
    """

    route: RoutePlan
    conversion: ConversionPlan
    backup: ConversionPlan | None
    mix: MixPlan
    return_stems: bool
    parameters: dict[str, Any]
    warnings: tuple[str, ...]

    def with_autotune_key(self, key: str) -> Plan:
        """The same plan with the vocals tuned to another key."""

        def retune(conversion: ConversionPlan) -> ConversionPlan:
            f0 = conversion.f0
            return conversion if f0 is None else replace(conversion, f0=replace(f0, autotune_key=key))

        return replace(
            self, conversion=retune(self.conversion), backup=None if self.backup is None else retune(self.backup)
        )


def plan(params: Params, models: Models) -> Plan:
    """The plan of a request.

    Raises:
        UnknownNameError: a voice or model does not exist.
        ModelError: a voice or model cannot be used here; `model_missing`: none of a role that the request requires.
        InvalidRequestError: a model is for something else, or `pitch_adjust` is `auto` and the voice's usual pitch is
            not known.
    """
    voice = models.families.voices.find(params.voice_model)
    conversion = _plan_conversion(params, voice, params.pitch_adjust, models)
    route = plan_route(params, models)
    has_backup = params.backup_audio is not None or route.splits_lead
    backup_voice, backup = voice, None
    if has_backup and params.convert_backup:
        if params.backup_voice_model is not None:
            backup_voice = models.families.voices.find(params.backup_voice_model)
        pitch_adjust = params.pitch_adjust if params.backup_pitch_adjust is None else params.backup_pitch_adjust
        backup = _plan_conversion(params, backup_voice, pitch_adjust, models, lead=conversion)
    separation = route.song.separation.model if route.song else None
    return Plan(
        route,
        conversion,
        backup,
        mix=MixPlan(
            semitones=params.pitch_change_all,
            chain=VocalChain(params.reverb_rm_size, params.reverb_damping, params.reverb_wet, params.reverb_dry),
            lead_gain_db=params.main_gain,
            backup_gain_db=params.backup_gain,
            instrumental_gain_db=params.inst_gain,
            reverb_return=params.reverb_return,
        ),
        return_stems=params.return_stems,
        parameters={
            "voice_model": voice.name,
            "embedder": conversion.encoder.name,
            "separation_model": separation.name if separation else None,
            "karaoke_model": route.lead.model if route.lead else None,
            "dereverb_model": route.dry.model if route.dry else None,
            "index_rate": conversion.index_rate,
            "f0_method": conversion.f0.method.name if conversion.f0 else None,
        },
        warnings=(
            *voice.warnings,
            *(backup_voice.warnings if backup_voice is not voice else ()),
            *route.warnings,
            *(
                f"'{field}' has no effect {reason}."
                for field, has_effect, reason in _list_effects(params, voice, route)
                if field in params.model_fields_set and not has_effect
            ),
        ),
    )


def _plan_conversion(
    params: Params,
    voice: Voice,
    pitch_adjust: float | Literal["auto"],
    models: Models,
    *,
    lead: ConversionPlan | None = None,
) -> ConversionPlan:
    """The conversion to a voice; of backing vocals, `lead` is that of the lead vocals, whose `auto` pitch they take."""
    embedder = params.embedder if voice.name == params.voice_model else None
    return ConversionPlan(
        voice=models.families.voices.resolve(voice.name),
        encoder=models.families.content_encoders.resolve(voice.choose_encoder(embedder)),
        f0=_plan_f0(params, voice, pitch_adjust, models, requires_voice_f0=lead is None) if voice.f0 else None,
        index_rate=params.index_rate if voice.index is not None else 0.0,
        protect=params.protect,
        rms_mix_rate=params.rms_mix_rate,
        fill_gaps=params.f0_fill_gaps,
        formant_shift=params.formant_shift,
        seed=params.seed,
        retrieval=params.retrieval,
    )


def _plan_f0(
    params: Params,
    voice: Voice,
    pitch_adjust: float | Literal["auto"],
    models: Models,
    *,
    requires_voice_f0: bool,
) -> F0Plan:
    voice_f0 = params.voice_f0_hz or voice.f0_hz
    if pitch_adjust == "auto" and requires_voice_f0 and voice_f0 is None:
        problem = (
            f"is 'auto', and the usual pitch of the voice '{sanitize(voice.name)}' is not known: send 'voice_f0_hz', "
            f'the median of what the voice sings, or put a {SIDECAR} with {{"f0_hz": ...}} into the voice\'s folder'
        )
        errors = [{"field": "pitch_adjust", "problem": problem}]
        raise InvalidRequestError(f"'pitch_adjust' {problem}.", details={"errors": errors, "faults": errors})
    return F0Plan(
        method=models.families.f0.resolve(_choose_f0_method(params, voice, models)),
        hop_length=params.crepe_hop_length,
        filter_radius=params.filter_radius,
        pitch_adjust=None if pitch_adjust == "auto" else pitch_adjust,
        key_change=params.pitch_change_all,
        voice_f0=voice_f0,
        autotune=params.autotune,
        autotune_key=params.autotune_key,
    )


def _choose_f0_method(params: Params, voice: Voice, models: Models) -> str:
    """The request's, or for a demo voice one that needs no download."""
    is_free = "f0_method" not in params.model_fields_set and models.families.voices.find_demo(voice.name)
    return demo.F0_METHOD if is_free else params.f0_method


def _list_effects(params: Params, voice: Voice, route: RoutePlan) -> Iterator[tuple[str, bool, str]]:
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
    has_backup = params.backup_audio is not None or route.splits_lead
    for field in ("backup_gain", "convert_backup"):
        yield field, has_backup or not getattr(params, field), "without 'backup_audio' or a split of the song's vocals"
    for field in ("backup_pitch_adjust", "backup_voice_model"):
        yield field, has_backup and params.convert_backup, "unless backing vocals are converted ('convert_backup')"
    yield "voice_f0_hz", params.pitch_adjust == "auto", "without 'pitch_adjust': 'auto'"
    yield "separation_model", params.audio is not None, "without 'audio': nothing is separated"
    yield "lead_split", params.audio is not None or params.lead_split == "off", "without 'audio': nothing is separated"
    yield "karaoke_model", route.lead is not None, "because lead and backing vocals are not split"
    yield "dereverb_model", route.dry is not None, "with 'dereverb': 'off'"
    yield "reverb_return", route.dry is not None or not params.reverb_return, "because no reverb is removed"
