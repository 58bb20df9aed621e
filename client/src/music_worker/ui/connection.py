"""What the page knows of the worker: its models, its operations' state and its schemas, asked for in the background."""

from __future__ import annotations

import logging
import threading
from typing import Any

from music_worker.errors import MusicWorkerError
from music_worker.results import Result
from music_worker.schema import compare, load_schemas, read_schemas
from music_worker.ui.jobs import PageClient

logger = logging.getLogger(__name__)

MODEL_LISTS = (
    *("voices", "music", "planners", "separation", "suno"),
    *("f0_methods", "content_encoders", "codecs", "beat_models"),
)


class Connection:
    """Asks the worker for its lists; until it answers, the page uses the schemas that the client ships."""

    def __init__(self, client: PageClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._description: dict[str, Any] = {"state": "connecting"}
        self._thread: threading.Thread | None = None

    def connect(self) -> None:
        """Asks again, in the background. While it is asking, nothing happens."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._description = {"state": "connecting"}
            self._thread = threading.Thread(target=self._ask, name="connection", daemon=True)
            self._thread.start()

    def describe(self) -> dict[str, Any]:
        """`state` (connecting, ready, failed), and what the worker said."""
        with self._lock:
            return self._description

    def _ask(self) -> None:
        try:
            models = self._run("list_models", {"schemas": True})
            health = self._run("health_check", {})
        except MusicWorkerError as error:
            description: dict[str, Any] = {"state": "failed", "code": error.code, "message": error.message}
        except Exception:  # the page must not wait for ever
            logger.exception("The connection to the worker ended with an error of the page's server")
            description = {"state": "failed", "message": "The server of this page met an error. Its terminal shows it."}
        else:
            description = _describe(models, health)
        with self._lock:
            self._description = description

    def _run(self, operation: str, params: dict[str, Any]) -> Result:
        return self._client.submit(operation, params).wait()


def _describe(models: Result, health: Result) -> dict[str, Any]:
    schemas = read_schemas(models.reply)
    differences = compare(load_schemas(), schemas) if schemas.operations else None
    warnings = []
    if differences:
        warnings = [differences.describe()[0] + " The forms on this page follow the worker."]
    return {
        "state": "ready",
        "models": {name: models.get(name, []) for name in MODEL_LISTS},
        "operations": health.get("operations", {}),
        "device": health.get("device"),
        "version": health.get("version"),
        "schemas": dict(schemas.operations) or None,
        "warnings": warnings,
    }
