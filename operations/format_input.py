"""Answers to `format_input` of the ACE-Step API: the planner rewrites a caption and lyrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import BeforeValidator, Field

from models import Models
from operations.acestep_api.params import ApiParams, becomes, list_own_names, parse_as, to_text
from operations.acestep_api.results import write_beats
from operations.operation import Operation
from operations.params import Int, Text
from operations.plan_music import Params as PlanParams
from operations.plan_music import get_readiness
from operations.plan_music.plan import Plan, plan_song
from operations.plan_music.run import run_planner
from worker.job import Job
from worker.reply import Reply


class Params(ApiParams):
    """What to rewrite. The metas may stand in `param_obj`, as in the ACE-Step API."""

    prompt: Text = Field("", description="Describes the music.", json_schema_extra=becomes("prompt"))
    lyrics: str = Field("", max_length=5000, description="The words to sing.", json_schema_extra=becomes("lyrics"))
    temperature: float | None = Field(
        None, description="Randomness. Default: 0.85.", json_schema_extra=becomes("lm_temperature")
    )
    audio_duration: float | None = Field(
        None, description="Length in seconds, which is kept.", json_schema_extra=becomes("duration")
    )
    bpm: Int | None = Field(None, description="Tempo, which is kept.", json_schema_extra=becomes("bpm"))
    key_scale: str | None = Field(None, description="Key, which is kept.", json_schema_extra=becomes("key"))
    time_signature: Annotated[str | None, BeforeValidator(to_text, json_schema_input_type=str | int | None)] = Field(
        None, description="Beats per bar, which are kept.", json_schema_extra=becomes("time_signature")
    )
    vocal_language: str | None = Field(
        None, description="Language, which is kept.", json_schema_extra=becomes("vocal_language")
    )
    lm_model_path: str | None = Field(None, description="Name of the planner.", json_schema_extra=becomes("planner"))


def plan(params: Params, models: Models) -> Plan:
    """The plan of plan_music in mode `format`."""
    names = list_own_names(Params)
    values = {names[name]: getattr(params, name) for name in params.model_fields_set}
    if values.get("vocal_language") == "unknown":
        del values["vocal_language"]
    parsed = parse_as(PlanParams, {"mode": "format", **values}, source=Params)
    return plan_song(parsed, models)


def run(plan: Plan, job: Job, models: Models) -> Reply:
    reply = run_planner(plan, job, models)
    fields = reply.fields
    renamed = {"key_scale": fields["key"], "time_signature": write_beats(fields["time_signature"])}
    return replace(reply, fields={**fields, **renamed}, parameters={})


OPERATION = Operation(params=Params, plan=plan, run=run, readiness=get_readiness, optional=True)
