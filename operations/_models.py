"""The models as the settings ask for them: the one place where the two meet, for neither knows the other."""

from __future__ import annotations

from models import Models
from models.registry import build
from worker.settings import Settings


def models_for(settings: Settings) -> Models:
    """Every family, nothing loaded yet; folders, hub and device are looked at when a request needs them."""
    return build(
        device=settings.device,
        budget_bytes=settings.model_memory_bytes,
        models_dir=settings.models_dir,
        volume_dirs=settings.volume_dirs,
    )
