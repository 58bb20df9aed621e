"""Runs operations one after another; sound passes from step to step as it is, without being encoded."""

from __future__ import annotations

from operations.operation import Operation
from operations.pipeline.params import Params
from operations.pipeline.plan import Plan, plan, prepare
from operations.pipeline.run import run

__all__ = ["OPERATION", "Params", "Plan", "plan", "run"]

OPERATION = Operation(params=Params, prepare=prepare, plan=plan, run=run)
