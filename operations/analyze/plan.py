"""Resolves what `analyze` needs."""

from __future__ import annotations

from dataclasses import dataclass

from models import Models
from models.f0.estimator import F0Estimator
from models.family import ModelHandle
from operations.analyze.params import Feature, Params


@dataclass(frozen=True, slots=True)
class Plan:
    """What to analyse.

    Args:
        features: what the reply tells.
        f0: the f0 method; None without `pitch`.
    """

    params: Params
    features: frozenset[Feature]
    f0: ModelHandle[F0Estimator] | None


def plan(params: Params, models: Models) -> Plan:
    """Refuses an f0 method that cannot be used here."""
    features = params.list_features()
    return Plan(params, features, models.families.f0.resolve(params.f0_method) if "pitch" in features else None)
