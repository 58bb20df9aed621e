"""Reports whether the worker is healthy, what it cannot write or run, and what is loaded. Imports no model library."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from models import Models
from models.cuda_driver import describe_driver_problem, find_cuda_driver
from models.device import GIBIBYTE, Gpu
from models.family import Readiness
from operations.operation import Operation, load_operations
from operations.params import Params as BaseParams
from operations.version import read_version
from worker import volume
from worker.folders import describe_output_problem, describe_temporary_problem
from worker.job import Job
from worker.reply import Reply
from worker.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("device", "temporary_folder")  # without these checks no operation works


class Params(BaseParams):
    """There are no parameters."""


def plan(params: Params, models: Models) -> None:
    """Nothing to prepare."""


def run(plan: None, job: Job, models: Models) -> Reply:
    """The readiness of every operation, and of what the operations need.

    `degraded` if an operation that is not optional is not ready, or one of the checks `NEEDED` is not.
    """
    operations = load_operations()
    readiness = {name: operation.readiness(models) for name, operation in operations.items()}
    checks = check_worker(models, job.settings)
    is_healthy = all(checks[name].is_ready for name in NEEDED) and all(
        readiness[name].is_ready or operation.optional for name, operation in operations.items()
    )
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
            "checks": {name: one.to_json() for name, one in checks.items()},
            "loaded_models": models.list_loaded(),
            "stats": job.stats.to_json(),
            "uptime_s": round(time.monotonic() - models.started, 1),
        }
    )


def check_worker(models: Models, settings: Settings) -> dict[str, Readiness]:
    """What the operations need: the device, the folders that are written to, and the program ffmpeg."""
    ffmpeg = "" if shutil.which("ffmpeg") else "not installed: m4a, aac and webm input is refused"
    return {
        "device": Readiness(describe_driver_problem(settings.device, find_cuda_driver())),
        "temporary_folder": Readiness(describe_temporary_problem()),
        "volume": Readiness(volume.describe_problem(settings.volume_dirs)),
        "voice_folder": models.families.voices.folder_readiness(),
        "output_folder": Readiness(describe_output_problem(ROOT / settings.output_dir)),
        "ffmpeg": Readiness(ffmpeg),
    }


def _describe_gpu(gpu: Gpu) -> dict[str, Any]:
    total, free = (round(size / GIBIBYTE, 2) for size in (gpu.total_bytes, gpu.free_bytes))
    return {"name": gpu.name, "total_gb": total, "free_gb": free}


OPERATION = Operation(params=Params, plan=plan, run=run)
