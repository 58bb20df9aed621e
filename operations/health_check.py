"""Reports whether the worker is healthy, its device and what is loaded. Imports no model library."""

from __future__ import annotations

import functools
import time
import tomllib
from pathlib import Path
from typing import Any

from models import Models
from models.device import GIBIBYTE, Gpu
from operations.operation import Operation, load_operations
from operations.params import Params as BaseParams
from worker.job import Job
from worker.reply import Reply


class Params(BaseParams):
    """There are no parameters."""


def plan(params: Params, models: Models) -> None:
    """Nothing to prepare."""


def run(plan: None, job: Job, models: Models) -> Reply:
    """The readiness of every operation; `degraded` if one that is not optional is not ready."""
    operations = load_operations()
    readiness = {name: operation.readiness(models) for name, operation in operations.items()}
    is_healthy = all(readiness[name].is_ready or operation.optional for name, operation in operations.items())
    gpu = models.gpu
    voices = models.families.voices.list_models()
    return Reply(
        fields={
            "status": "healthy" if is_healthy else "degraded",
            "device": models.device.partition(":")[0],
            "gpu_available": gpu is not None,
            "available_models": [voice.name for voice in voices if voice.availability.is_usable],
            "version": read_version(),
            "gpu": None if gpu is None else _describe_gpu(gpu),
            "operations": {name: one.to_json() for name, one in readiness.items()},
            "loaded_models": models.list_loaded(),
            "uptime_s": round(time.monotonic() - models.started, 1),
        }
    )


@functools.cache
def read_version() -> str:
    """The worker's version, from pyproject.toml."""
    project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def _describe_gpu(gpu: Gpu) -> dict[str, Any]:
    total, free = (round(size / GIBIBYTE, 2) for size in (gpu.total_bytes, gpu.free_bytes))
    return {"name": gpu.name, "total_gb": total, "free_gb": free}


OPERATION = Operation(params=Params, plan=plan, run=run)
