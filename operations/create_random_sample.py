"""Answers to `create_random_sample` of the ACE-Step API: one of the worker's example songs. Needs no model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from pydantic import Field

from models import Models
from operations.acestep_api.params import ApiParams
from operations.acestep_api.results import write_beats
from operations.clips import Seed, choose_seeds
from operations.operation import Operation
from operations.plan_music.examples import draw_example
from worker.job import Job
from worker.reply import Reply


class Params(ApiParams):
    """Which kind of example to draw."""

    sample_type: Literal["simple_mode", "custom_mode"] = Field(
        "simple_mode",
        description="`simple_mode`: a short description of a song is what counts; `custom_mode`: the song written out."
        " Both return both.",
    )
    seed: Seed | None = Field(None, description="Decides which example is drawn. Default: random.")


def plan(params: Params, models: Models) -> int:
    """The seed."""
    return choose_seeds(params.seed, 1)[0]


def run(plan: int, job: Job, models: Models) -> Reply:
    example = asdict(draw_example(plan))
    beats = write_beats(example["time_signature"])
    renamed = {
        "prompt": example["caption"],
        "key_scale": example["key"],
        "keyscale": example["key"],
        "time_signature": beats,
        "timesignature": beats,
        "language": example["vocal_language"],
        "think": True,
    }
    return Reply(fields={**example, **renamed, "seed": plan}, parameters={"seed": plan})


OPERATION = Operation(params=Params, plan=plan, run=run)
