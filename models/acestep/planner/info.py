"""What is known of a planner without loading it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.family import ModelInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerModelInfo(ModelInfo):
    """A planner of ACE-Step 1.5.

    Args:
        licence: of the weights.
        hub_id: of a published model.
    """

    licence: str
    hub_id: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "family": "acestep_planner",
            "licence": self.licence,
            "available": self.availability.to_json(),
        } | ({"hub_id": self.hub_id} if self.hub_id else {})
