"""Tells what audio is like: tempo, beats, key, chords, loudness, silence, spectrum, clipping, pitch; draws pictures."""

from __future__ import annotations

from operations.analyze.params import Params
from operations.analyze.plan import Plan, plan
from operations.analyze.run import run
from operations.operation import Operation, PlannedArtefacts


def list_artefacts(plan: Plan) -> PlannedArtefacts:
    return PlannedArtefacts(files=("waveform", "spectrogram") if plan.params.picture else ())


OPERATION = Operation(params=Params, plan=plan, run=run, artefacts=list_artefacts)
