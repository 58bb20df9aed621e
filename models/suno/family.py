"""Suno as a family of models: rows of list_models, why it cannot be used, and the one engine of the process."""

from __future__ import annotations

import threading
from typing import Any

from errors import ErrorCode, UpstreamError
from models.suno.catalog import CATALOG, DEFAULT_VERSION, find_version
from models.suno.client import HttpClient
from models.suno.config import SunoConfig
from models.suno.engine import SunoEngine
from models.suno.polling import Clock


class SunoFamily:
    """Suno's versions at one provider. The engine uses no device memory, so it is kept here and not in the cache.

    Args:
        config: the provider; may lack its key, then only using the engine fails.
        http: sends the requests; only needed with a key.
        clock: replaced in tests.
    """

    name = "suno"

    def __init__(self, config: SunoConfig, *, http: HttpClient | None = None, clock: Clock | None = None) -> None:
        self.config = config
        self._http = http
        self._clock = clock
        self._lock = threading.Lock()
        self._engine: SunoEngine | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One row for each version that is known, with its limits."""
        problem = self.config.find_problem()
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
        return self.config.find_problem() or "ready"

    def search_paths(self) -> list[str]:
        """None: nothing of Suno lies on a disk."""
        return []

    def resolve(self, name: str | None) -> str:
        """The version's own spelling; an unknown one passes as it is."""
        return find_version(name or DEFAULT_VERSION)[0].name

    def memory_bytes(self, name: str) -> int:
        """Nothing is held on the device."""
        return 0

    def load(self, name: str, *, device: str) -> SunoEngine:
        """The engine, the same for all versions and devices."""
        return self.engine()

    def engine(self) -> SunoEngine:
        """The engine that all jobs share. Raises `UpstreamError` (`not_configured`) where there can be none."""
        problem = self.config.find_problem()
        if problem:
            raise UpstreamError(
                f"Suno cannot be used on this worker: {problem}. Set it in the endpoint's environment.",
                code=ErrorCode.NOT_CONFIGURED,
            )
        assert self._http is not None, "a family with a key needs an HTTP client"
        with self._lock:
            if self._engine is None:
                self._engine = SunoEngine(self.config, http=self._http, clock=self._clock)
            return self._engine
