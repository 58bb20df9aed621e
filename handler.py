"""The RunPod entry point: one job in, one reply out. Importing this module imports no model library."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from worker import logs
from worker.job import Job, build_job, read_job_id
from worker.output.error_reply import build_error_reply
from worker.settings import Settings, SettingsError
from worker.stats import JobStats

if TYPE_CHECKING:  # pydantic is not needed before the first request
    from models import Models

read_settings = functools.cache(Settings.from_env)
_building = threading.Lock()


def get_models(settings: Settings) -> Models:
    """The models of this process; nothing is loaded before a request or `PRELOAD` needs it."""
    with _building:  # the first jobs may come at once: two sets of models would load every engine twice, in a race
        return _build_models(settings)


@functools.cache
def _build_models(settings: Settings) -> Models:
    from operations.build_models import models_for

    return models_for(settings)


@functools.cache
def get_stats() -> JobStats:
    """The jobs of this process, counted."""
    return JobStats()


def handler(job: object) -> dict[str, Any]:
    """Runs one job, `{"id", "input": {"operation": ..., "params": {...}}}`, and returns its reply.

    The reply is the operation's result, or `error`, `error_code` and `details`. The function never raises and never
    changes the job. `runpod.serverless.start({"handler": handler})` would work; `python handler.py` starts the SDK
    through `worker.runpod.adapter`, which calls `run_job` in a thread of its own and adds what the SDK lacks:
    cancelling, progress in order, and a check that the reply will arrive.
    """
    job_id = read_job_id(job)
    with logs.job_context(job_id):
        try:
            settings = read_settings()
        except SettingsError as error:
            return build_error_reply(error)
        return run_job(build_job(job, job_id=job_id, timeout_s=settings.job_timeout_s), settings)


def run_job(job: Job, settings: Settings) -> dict[str, Any]:
    """Runs `job` and returns its reply; never raises. The caller has entered the job's log context."""

    job.stats = get_stats()

    def run() -> dict[str, Any]:
        from operations.dispatch import dispatch

        return dispatch(job, settings=settings, models=get_models(settings))

    return catch_errors(run, job.details)


def preload(settings: Settings) -> dict[str, str]:
    """Loads and warms up the models that `PRELOAD` names; returns those that cannot be loaded, each with the reason."""

    def load(name: str) -> dict[str, Any]:
        get_models(settings).preload(name)
        return {}

    replies = {name: catch_errors(functools.partial(load, name)) for name in settings.preload}
    return {name: reply["error"] for name, reply in replies.items() if "error" in reply}


def check_device(settings: Settings) -> dict[str, Any]:
    """Returns a reply with `error` if the GPU of this machine cannot be used, which would fail every job."""

    def check() -> dict[str, Any]:
        from models.cuda_driver import check_device

        check_device(settings.device)
        return {}

    return catch_errors(check)


def catch_errors(
    work: Callable[[], dict[str, Any]], details: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The reply that `work` returns, or the error reply for what it raises: the only catch-all of the worker."""
    try:
        return work()
    except Exception as error:
        return build_error_reply(error, details)


if __name__ == "__main__":
    from worker.runpod import cli

    sys.exit(cli.main(run_job, preload=preload, check_device=check_device, catch_errors=catch_errors))
