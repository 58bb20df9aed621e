"""A worker with fake operations behind the real adapter, for tests that run it in a process of its own."""

from __future__ import annotations

import base64
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from errors import CancelledError, ErrorCode, InvalidRequestError, MemoryNotFreedError, ModelError
from handler import catch_errors
from worker.job import Job
from worker.runpod import cli
from worker.settings import Settings

logger = logging.getLogger("worker.fake")


@dataclass(frozen=True)
class Call:
    """The arguments of a fake operation."""

    values: Mapping[str, Any]
    settings: Settings
    job: Job


def echo(call: Call) -> dict[str, Any]:
    return {"success": True, "echo": call.values.get("value"), "budget": call.settings.inline_budget_bytes}


def refuse(call: Call) -> dict[str, Any]:
    raise InvalidRequestError("'duration' must be at most 600.", details={"field": "duration"})


def steps(call: Call) -> dict[str, Any]:
    """`count` steps of 20 ms; each is reported and checks for cancelling, like a generation."""
    count = int(call.values.get("count", 100))
    for step in range(count):
        if call.job.cancel.is_set():
            logger.info("stopped at step %d", step)
            raise CancelledError("The job was cancelled.")
        call.job.report({"stage": "steps", "percent": round(100 * step / count, 1)})
        time.sleep(0.02)
    return {"success": True, "steps": count}


def ignore_cancel(call: Call) -> dict[str, Any]:
    """Reports progress for `seconds` and never checks whether it is cancelled."""
    end = time.monotonic() + float(call.values["seconds"])
    while time.monotonic() < end:
        call.job.report({"stage": "sleep", "percent": 0.0})
        time.sleep(0.05)
    return {"success": True}


def unserializable(call: Call) -> dict[str, Any]:
    """Returns a value that JSON cannot represent."""
    values = {"nan": float("nan"), "bytes": b"\xff", "surrogate": "\ud800", "object": object(), "set": {1}}
    return {"success": True, "value": values[call.values["value"]]}


def empty(call: Call) -> dict[str, Any]:
    return {}


def huge(call: Call) -> dict[str, Any]:
    return {"success": True, "output_audio": "A" * int(call.values["size"])}


def make_audio(call: Call) -> dict[str, Any]:
    """Returns inline audio, and logs the key and the base64, which the log must mask."""
    logger.info("key %s", call.settings.suno_api_token)
    audio = base64.b64encode(bytes(range(256)) * 64).decode()
    logger.info("made %s", audio)
    artefact = {"output_audio": audio, "filename": "../song.wav", "format": "wav"}
    return {"success": True, **artefact, "outputs": [artefact]}


def exhaust(call: Call) -> dict[str, Any]:
    raise MemoryNotFreedError("The device ran out of memory, twice. Ask for less.")


def crash(call: Call) -> dict[str, Any]:
    raise KeyError("/home/someone/secret-value")


def leave(call: Call) -> dict[str, Any]:
    """Raises what a library may raise to end the process."""
    raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[call.values["by"]]


class _UnwritableReply(dict[str, Any]):
    def items(self) -> Any:
        raise MemoryError


def exhaust_memory(call: Call) -> dict[str, Any]:
    """Returns a reply for whose JSON there is no memory."""
    return _UnwritableReply(success=True)


OPERATIONS = MappingProxyType(
    {
        f.__name__: f
        for f in (
            echo,
            refuse,
            steps,
            ignore_cancel,
            unserializable,
            empty,
            huge,
            make_audio,
            exhaust,
            crash,
            leave,
            exhaust_memory,
        )
    }
)


def run_job(job: Job, settings: Settings) -> dict[str, Any]:
    values: Any = job.input
    return catch_errors(lambda: OPERATIONS[values["operation"]](Call(values, settings, job)))


def preload(settings: Settings) -> dict[str, str]:
    return {name: f"Unknown model family '{name}'. Valid: good." for name in settings.preload if name != "good"}


def check_device(settings: Settings) -> dict[str, Any]:
    if settings.device != "cuda":
        return {}
    return ModelError("The host's driver is too old.", code=ErrorCode.DEVICE_UNAVAILABLE).to_reply()


if __name__ == "__main__":
    sys.exit(cli.main(run_job, preload=preload, check_device=check_device, catch_errors=catch_errors))
