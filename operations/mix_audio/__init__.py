"""Mixes tracks: levels, pans, positions, fades, ducking, tempo and key of each, and effects on the whole."""

from __future__ import annotations

from operations.mix_audio.params import Params
from operations.mix_audio.run import Plan, plan, run
from operations.operation import Operation

__all__ = ["OPERATION", "Params", "Plan", "plan", "run"]

OPERATION = Operation(params=Params, plan=plan, run=run)
