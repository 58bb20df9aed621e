"""Says whether the worker can work, on which device, and what is loaded; at once, without any model library."""

from __future__ import annotations

import time
from typing import Any

from models import Models
from models.device import GIBIBYTE, Gpu
from operations.operation import load_operations
from operations.params import Params as BaseParams
from operations.version import version
from worker.job import Job
from worker.reply import Reply


class Params(BaseParams):
    """Takes nothing."""


def run(params: Params, job: Job, models: Models) -> Reply:
    """Every operation's own word on whether it is ready; `degraded` where one is not, although it should be."""
    operations = {name: operation.readiness(models) for name, operation in load_operations().items()}
    wanting = [name for name, word in operations.items() if word != "ready" and not load_operations()[name].optional]
    gpu = models.gpu
    voices = models.families.voices.list_models()
    return Reply(
        fields={
            "status": "degraded" if wanting else "healthy",
            "device": models.device.partition(":")[0],
            "gpu_available": gpu is not None,
            "available_models": [voice.name for voice in voices if voice.availability.is_usable],
            "version": version(),
            "gpu": _gpu(gpu),
            "operations": operations,
            "loaded_models": models.loaded(),
            "uptime_s": round(time.monotonic() - models.started, 1),
        }
    )


def _gpu(gpu: Gpu | None) -> dict[str, Any] | None:
    if gpu is None:
        return None
    total, free = (round(size / GIBIBYTE, 2) for size in (gpu.total_bytes, gpu.free_bytes))
    return {"name": gpu.name, "total_gb": total, "free_gb": free}
