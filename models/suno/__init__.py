"""Suno through a provider that speaks the sunoapi.org / kie.ai contract. Knows no request, no worker and no device."""

from models.suno.catalog import CATALOG, DEFAULT_VERSION
from models.suno.config import SunoConfig
from models.suno.family import SunoFamily

__all__ = ["CATALOG", "DEFAULT_VERSION", "SunoConfig", "SunoFamily"]
