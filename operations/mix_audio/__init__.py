"""Mixes tracks: levels, pans, positions, fades, ducking, tempo and key of each, and effects on the whole."""

from __future__ import annotations

from operations.mix_audio.params import Params
from operations.mix_audio.run import Plan, plan, run
from operations.operation import Operation, PlannedArtefacts

__all__ = ["OPERATION", "Params", "Plan", "plan", "run"]


def list_artefacts(plan: Plan) -> PlannedArtefacts:
    return PlannedArtefacts(1)


OPERATION = Operation(params=Params, plan=plan, run=run, artefacts=list_artefacts)
