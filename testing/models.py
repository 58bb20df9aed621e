"""Families and models for tests: complete sets in which everything that a test does not name is empty."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models import Models
from models.acestep.family import AceStepFamily
from models.acestep.planner.family import PlannerFamily
from models.beat_this import BeatThisFamily
from models.checkpoints.locations import WeightLocations
from models.demucs import DemucsFamily
from models.encodec.family import EncodecFamily
from models.f0 import PitchFamily
from models.family import ModelFamily
from models.hubert.family import HubertFamily
from models.musicgen import MusicGenFamily
from models.registry import Families
from models.rvc import RvcFamily, Voices
from models.separation import SeparationFamily
from models.separation_models import SeparationModels
from models.suno import SunoConfig, SunoFamily


def empty_families() -> Families:
    """Every family as it is on a worker without weights, voices, a hub or a provider."""
    weights = WeightLocations()
    music = MusicGenFamily(weights)
    return Families(
        suno=SunoFamily(SunoConfig(token="")),
        music=music,
        songs=AceStepFamily(weights),
        planners=PlannerFamily(weights),
        separation=SeparationModels([DemucsFamily(weights)]),
        voices=RvcFamily(Voices([])),
        content_encoders=HubertFamily(weights),
        f0=PitchFamily(weights),
        codecs=EncodecFamily(weights, music),
        beats=BeatThisFamily(weights),
    )


def make_models(
    *, device: str = "cpu", budget_bytes: int = 10**9, **families: ModelFamily[Any] | SeparationModels
) -> Models:
    """`Models` with the given families, by their fields in `Families`; all others are empty.

    A family of separation models is given alone, or with others as `SeparationModels`.
    """
    fields: dict[str, Any] = dict(families)
    if isinstance(separation := fields.get("separation"), SeparationFamily):
        fields["separation"] = SeparationModels([separation])
    return Models(replace(empty_families(), **fields), device=device, budget_bytes=budget_bytes)


def list_as_json(family: ModelFamily[Any] | SeparationModels) -> list[dict[str, Any]]:
    """The family's part of a reply of list_models."""
    return [model.to_json() for model in family.list_models()]
