"""Resolves what `analyze` needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models import Models
from models.f0.estimator import F0Estimator
from models.family import ModelHandle
from operations.analyze.params import Feature, Params

if TYPE_CHECKING:
    from models.beat_this.tracker import BeatTracker

NO_MODEL = "none"
MUSIC_FEATURES: frozenset[Feature] = frozenset({"tempo", "beats", "downbeats", "time_signature", "key", "chords"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to analyse.

    Args:
        features: what the reply tells.
        needs_music: whether beats, key or chords are needed, also for a picture.
        beats: the model that finds beats; None: signal processing, or no beats are needed.
        f0: the f0 method; None without `pitch`.
    """

    params: Params
    features: frozenset[Feature]
    needs_music: bool
    beats: ModelHandle[BeatTracker] | None
    f0: ModelHandle[F0Estimator] | None


def plan(params: Params, models: Models) -> Plan:
    """Refuses a beat model and an f0 method that cannot be used here."""
    features = params.list_features()
    needs_music = params.picture or bool(features & MUSIC_FEATURES)
    return Plan(
        params,
        features,
        needs_music,
        beats=_plan_beats(params.beat_model, models) if needs_music else None,
        f0=models.families.f0.resolve(params.f0_method) if "pitch" in features else None,
    )


def _plan_beats(name: str | None, models: Models) -> ModelHandle[BeatTracker] | None:
    if name == NO_MODEL:
        return None
    family = models.families.beats
    return family.find_best() if name is None else family.resolve(name)
