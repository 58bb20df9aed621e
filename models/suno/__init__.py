"""Suno through a provider that implements the sunoapi.org / kie.ai API: submit, poll, download."""

from models.suno.catalog import CATALOG, DEFAULT_VERSION
from models.suno.config import SunoConfig
from models.suno.family import SunoFamily

__all__ = ["CATALOG", "DEFAULT_VERSION", "SunoConfig", "SunoFamily"]
