"""Suno as a family of models: rows of list_models, why it cannot be used, and the one engine of the process."""

from __future__ import annotations

import threading
from typing import Any

from errors import ErrorCode, UpstreamError
from models.suno.catalog import CATALOG, DEFAULT_VERSION, version_called
from models.suno.config import SunoConfig
from models.suno.deadline import Clock
from models.suno.engine import Suno
from models.suno.transport import Transport


class SunoFamily:
    """What `models.families["suno"]` is. Its engine holds no device memory, so it is kept here and not in the cache.

    Args:
        config: the provider; may lack its key, then only using the engine fails.
        transport, clock: replaced in tests.
    """

    name = "suno"

    def __init__(self, config: SunoConfig, *, transport: Transport | None = None, clock: Clock | None = None) -> None:
        self.config = config
        self._transport = transport
        self._clock = clock
        self._lock = threading.Lock()
        self._engine: Suno | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One row for each version that is known, with its limits."""
        problem = self.config.problem()
        return [
            {
                "name": version.name,
                "family": self.name,
                "default": version.name == DEFAULT_VERSION,
                "max_prompt_chars": version.prompt_chars,
                "max_style_chars": version.style_chars,
                "max_title_chars": version.title_chars,
                "max_source_s": version.upload_s,
                "max_output_s": version.output_s,
                "licence": "the provider's terms",
                "available": problem or "remote",
            }
            | ({"note": version.note} if version.note else {})
            for version in CATALOG.values()
        ]

    def status(self) -> str:
        """`ready`, or why not; asks no provider."""
        return self.config.problem() or "ready"

    def search_paths(self) -> list[str]:
        """None: nothing of Suno lies on a disk."""
        return []

    def resolve(self, name: str | None) -> str:
        """The version's own spelling; an unknown one passes as it is."""
        return version_called(name or DEFAULT_VERSION)[0].name

    def memory_bytes(self, name: str) -> int:
        """Nothing is held on the device."""
        return 0

    def load(self, name: str, *, device: str) -> Suno:
        """The engine, the same for all versions and devices."""
        return self.engine()

    def engine(self) -> Suno:
        """The engine that all jobs share. Raises `UpstreamError` (`not_configured`) where there can be none."""
        problem = self.config.problem()
        if problem:
            raise UpstreamError(
                f"Suno cannot be used on this worker: {problem}. Set it in the endpoint's environment.",
                code=ErrorCode.NOT_CONFIGURED,
            )
        with self._lock:
            if self._engine is None:
                self._engine = Suno(self.config, transport=self._transport, clock=self._clock)
            return self._engine
