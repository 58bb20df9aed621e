"""Tells what audio is like: tempo, beats, key, chords, loudness, silence, spectrum, clipping, pitch; draws pictures."""

from __future__ import annotations

from operations.analyze.params import Params
from operations.analyze.plan import plan
from operations.analyze.run import run
from operations.operation import Operation

OPERATION = Operation(params=Params, plan=plan, run=run)
