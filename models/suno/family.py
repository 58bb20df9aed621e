"""The family `suno`: its versions for list_models, why it cannot be used, and the one engine of the process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from errors import ErrorCode, UpstreamError
from models.family import READY, REMOTE, ModelFamily, ModelHandle, ModelInfo, Readiness, unavailable
from models.suno.catalog import CATALOG, DEFAULT_VERSION, Version, find_version
from models.suno.client import HttpClient
from models.suno.config import SunoConfig
from models.suno.engine import SunoEngine
from models.suno.polling import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class SunoVersionInfo(ModelInfo):
    """A Suno version with its limits."""

    version: Version

    def to_json(self) -> dict[str, Any]:
        version = self.version
        return {
            "name": self.name,
            "family": "suno",
            "default": self.name == DEFAULT_VERSION,
            "max_prompt_chars": version.prompt_chars,
            "max_style_chars": version.style_chars,
            "max_title_chars": version.title_chars,
            "max_source_s": version.upload_s,
            "max_output_s": version.output_s,
            "licence": "the provider's terms",
            "available": self.availability.to_json(),
        } | ({"note": version.note} if version.note else {})


class SunoFamily(ModelFamily[SunoEngine]):
    """Suno through a provider. The engine takes no device memory, so it is kept here and not in the engine cache.

    Args:
        config: the provider; without a key only using the engine fails.
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

    def list_models(self) -> list[SunoVersionInfo]:
        problem = self.config.find_problem()
        availability = unavailable(problem) if problem else REMOTE
        return [
            SunoVersionInfo(name=version.name, availability=availability, version=version)
            for version in CATALOG.values()
        ]

    def readiness(self) -> Readiness:
        """Whether a provider is configured; sends nothing."""
        problem = self.config.find_problem()
        return Readiness(problem) if problem else READY

    def search_paths(self) -> list[str]:
        """None: Suno has no files here."""
        return []

    def resolve(self, name: str | None) -> ModelHandle[SunoEngine]:
        """The version in Suno's own spelling; an unknown one passes unchanged."""
        return ModelHandle(self, find_version(name or DEFAULT_VERSION)[0].name)

    def memory_bytes(self, name: str) -> int:
        """0: Suno takes no device memory."""
        return 0

    def load(self, name: str, *, device: str) -> SunoEngine:
        """The engine, which all versions and devices share."""
        return self.engine()

    def engine(self) -> SunoEngine:
        """The engine that all jobs share. Raises `UpstreamError` (`not_configured`) without a provider."""
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
