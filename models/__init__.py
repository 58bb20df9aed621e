"""Engines by family. Each family is a module with `CATALOG` (importable without torch) and `load()`."""

from models.cache import Models

__all__ = ["Models"]
