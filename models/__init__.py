"""Models by family: found in folders or on the hub, loaded once, run one at a time. Importable without torch."""

from models.registry import Models

__all__ = ["Models"]
