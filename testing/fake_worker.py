"""A worker with made-up operations behind the real adapter, for tests that drive it in a process of its own."""

from __future__ import annotations

import base64
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from errors import CancelledError, DeviceMemoryError, InvalidRequestError, ModelError
from worker.output import error_reply as failure
from worker.runpod import adapter as serverless
from worker.settings import Settings

logger = logging.getLogger("worker.fake")


@dataclass(frozen=True)
class Call:
    """What an operation here gets."""

    given: Mapping[str, Any]
    settings: Settings
    cancel: threading.Event = field(default_factory=threading.Event)
    report: Callable[[Any], None] = field(default=lambda update: None)


def echo(call: Call) -> dict[str, Any]:
    return {"success": True, "echo": call.given.get("value"), "budget": call.settings.inline_budget_bytes}


def refuse(call: Call) -> dict[str, Any]:
    raise InvalidRequestError("'duration' must be at most 600.", details={"field": "duration"})


def steps(call: Call) -> dict[str, Any]:
    """`count` steps of 20 ms, each reported, each a chance to stop: a generation as the adapter sees it."""
    count = int(call.given.get("count", 100))
    for step in range(count):
        if call.cancel.is_set():
            logger.info("stopped at step %d", step)
            raise CancelledError("The job was cancelled.")
        call.report({"stage": "steps", "percent": round(100 * step / count, 1)})
        time.sleep(0.02)
    return {"success": True, "steps": count}


def deaf(call: Call) -> dict[str, Any]:
    """Does not listen to being cancelled."""
    call.report({"stage": "deaf", "percent": 0.0})
    time.sleep(float(call.given["seconds"]))
    return {"success": True}


def odd(call: Call) -> dict[str, Any]:
    """Replies that JSON cannot carry."""
    values = {"nan": float("nan"), "bytes": b"\xff", "surrogate": "\ud800", "object": object(), "set": {1}}
    return {"success": True, "value": values[call.given["value"]]}


def empty(call: Call) -> dict[str, Any]:
    return {}


def huge(call: Call) -> dict[str, Any]:
    return {"success": True, "output_audio": "A" * int(call.given["size"])}


def sing(call: Call) -> dict[str, Any]:
    """A reply as an operation makes it, audio inline; says the key aloud, as no operation should."""
    logger.info("key %s", call.settings.suno_api_token)
    audio = base64.b64encode(bytes(range(256)) * 64).decode()
    logger.info("made %s", audio)
    artefact = {"output_audio": audio, "filename": "../song.wav", "format": "wav"}
    return {"success": True, **artefact, "outputs": [artefact]}


def exhaust(call: Call) -> dict[str, Any]:
    raise DeviceMemoryError("The device ran out of memory, twice. Ask for less.")


def crash(call: Call) -> dict[str, Any]:
    raise KeyError("/home/someone/secret-value")


OPERATIONS = MappingProxyType(
    {f.__name__: f for f in (echo, refuse, steps, deaf, odd, empty, huge, sing, exhaust, crash)}
)


def serve(job: Any, *, settings: Settings, **control: Any) -> dict[str, Any]:
    try:
        given = job["input"]
        return OPERATIONS[given["operation"]](Call(given, settings, **control))
    except Exception as error:
        return failure.reply_to(error)


def preload(settings: Settings) -> dict[str, Any]:
    if settings.preload == ("good",):
        return {}
    return ModelError("Unknown model family 'bad'. Valid: good.").reply()


if __name__ == "__main__":
    sys.exit(serverless.start(serve, preload))
