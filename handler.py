"""The one door: a job comes in, a reply goes out. Never raises, never changes the job, imports nothing heavy itself."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from worker import logs
from worker.output import error_reply as failure
from worker.settings import Settings

if TYPE_CHECKING:
    from models import Models

settings_once = functools.cache(Settings.from_env)


@functools.cache
def models_once(settings: Settings) -> Models:
    from operations.build_models import models_for

    return models_for(settings)


def handler(job: object) -> dict[str, Any]:
    """Answers `{"input": {"operation": ..., "params": {...}}, "id"?}`: a success reply, or one with `error`."""
    with logs.job_context(logs.id_of(job)):
        return _guarded(lambda: serve(job, settings=settings_once()))


def serve(job: object, *, settings: Settings, **control: Any) -> dict[str, Any]:
    """`handler` for the adapter, which brings `cancel` (an Event) and `report` (takes progress updates)."""

    facts: dict[str, Any] = {}  # what the caller is told even where the work fails

    def work() -> dict[str, Any]:
        from operations.dispatch import answer

        return answer(job, settings=settings, models=models_once(settings), facts=facts, **control)

    return _guarded(work, facts)


def preload(settings: Settings) -> dict[str, Any]:
    """Loads the models that `PRELOAD` names; the reply has an `error` where one cannot be had."""
    return _guarded(lambda: models_once(settings).preload(settings.preload))


def _guarded(work: Callable[[], dict[str, Any] | None], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    try:
        return work() or {}
    except Exception as error:  # the one catch-all of this house
        return failure.reply_to(error, facts or {})


if __name__ == "__main__":
    from worker.runpod import adapter as serverless

    sys.exit(serverless.start(serve, preload))
