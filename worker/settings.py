"""Every setting of the worker: one frozen value, read once from the environment. `os.environ` is read nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

MEBIBYTE = 1024 * 1024
SDK_LOG_LEVELS = ("NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR")


class SettingsError(ValueError):
    """A variable that cannot be read; the message names it and says what it takes."""


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in text.split(os.pathsep) if part)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _switch(text: str) -> bool:
    known = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
        "": False,
    }
    return known[text.strip().lower()]


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise ValueError("at least 1")
    return count


def _one_of(*names: str) -> Callable[[str], str]:
    known = {name: name for name in names}
    return lambda text: known[text.strip().upper()]


def _variable(name: str, parse: Callable[[str], Any], default: Any, *, secret: bool = False, doc: str) -> Any:
    metadata = {"variable": name, "parse": parse, "doc": doc, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class _Environment:
    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Reads every variable; an unreadable one raises `SettingsError` that names it, without its value."""
        environ = os.environ if environ is None else environ
        given = {
            f.name: _read(f.metadata, environ) for f in fields(cls) if environ.get(f.metadata["variable"], "") != ""
        }
        return cls(**given)

    def secrets(self) -> tuple[str, ...]:
        """The values that may stand in no log and no reply."""
        return tuple(str(getattr(self, f.name)) for f in fields(self) if f.metadata["secret"])


@dataclass(frozen=True, kw_only=True)
class Settings(_Environment):
    """The worker's settings, read by `Settings.from_env()`; a test compares the README's table with them."""

    rvc_models_dir: Path | None = _variable(
        "RVC_MODELS_DIR",
        Path,
        None,
        doc="Folder of voices, one sub-folder each; empty = `rvc_models` in `VOLUME_DIRS`, else in the working folder",
    )
    allow_voice_upload: bool = _variable(
        "ALLOW_VOICE_UPLOAD", _switch, False, doc="Requests may add voices to that folder (`add_voice`)"
    )
    models_dir: Path | None = _variable("MODELS_DIR", Path, None, doc="Folder of all other weights")
    preload: tuple[str, ...] = _variable(
        "PRELOAD", _names, (), doc="Models to load before the first job, `family/name`, by comma"
    )
    device: str = _variable("DEVICE", str, "auto", doc="`auto`, `cuda`, `cpu` or `mps`")
    model_memory_bytes: int = _variable(
        "MODEL_MEMORY_BYTES", int, 0, doc="Memory that loaded models may take; 0 = measured"
    )
    output_dir: Path = _variable("OUTPUT_DIR", Path, Path("output"), doc="Where a local run writes its audio")
    inline_budget_bytes: int = _variable(
        "INLINE_BUDGET_BYTES", int, 9_500_000, doc="Largest JSON reply that goes out inline"
    )
    max_input_bytes: int = _variable("MAX_INPUT_BYTES", int, 512 * MEBIBYTE, doc="Largest audio file taken in")
    max_input_seconds: float = _variable("MAX_INPUT_SECONDS", float, 7200.0, doc="Longest audio taken in, decoded")
    max_input_sample_rate: int = _variable(
        "MAX_INPUT_SAMPLE_RATE", int, 192_000, doc="Highest sample rate taken in, Hz"
    )
    max_input_channels: int = _variable(
        "MAX_INPUT_CHANNELS", int, 8, doc="Most channels taken in (more than 2 are downmixed)"
    )
    download_timeout_s: float = _variable("DOWNLOAD_TIMEOUT_S", float, 120.0, doc="Longest download of one audio URL")
    allow_private_urls: bool = _variable(
        "ALLOW_PRIVATE_URLS", _switch, False, doc="URLs may point to private addresses"
    )
    volume_dirs: tuple[Path, ...] = _variable(
        "VOLUME_DIRS", _paths, (Path("/runpod-volume"), Path("/workspace")), doc="Mounted volumes that paths may name"
    )
    bucket_endpoint_url: str = _variable("BUCKET_ENDPOINT_URL", str, "", doc="S3 endpoint that results are uploaded to")
    bucket_access_key_id: str = _variable("BUCKET_ACCESS_KEY_ID", str, "", secret=True, doc="Its access key id")
    bucket_secret_access_key: str = _variable("BUCKET_SECRET_ACCESS_KEY", str, "", secret=True, doc="Its secret key")
    bucket_name: str = _variable("BUCKET_NAME", str, "", doc="Its bucket")
    bucket_region: str = _variable("BUCKET_REGION", str, "", doc="Its region")
    suno_api_token: str = _variable("SUNO_API_TOKEN", str, "", secret=True, doc="Key of a Suno API provider")
    suno_api_base_url: str = _variable("SUNO_API_BASE_URL", str, "https://api.sunoapi.org", doc="Its API")
    suno_upload_base_url: str = _variable(
        "SUNO_UPLOAD_BASE_URL", str, "", doc="Its upload service; empty = the one that belongs to the API"
    )
    suno_callback_url: str = _variable(
        "SUNO_CALLBACK_URL",
        str,
        "https://callback.invalid/suno",
        doc="Callback that providers insist on; nothing has to listen there",
    )
    suno_rate_limit: int = _variable("SUNO_RATE_LIMIT", _count, 10, doc="Most Suno submissions a minute")
    concurrency: int = _variable("CONCURRENCY", _count, 1, doc="Jobs in hand at once (device work stays one at a time)")
    job_timeout_s: float = _variable(
        "JOB_TIMEOUT_S",
        float,
        0.0,
        doc="The endpoint's execution timeout in seconds: a job ends by itself before the platform ends it; 0 = none",
    )
    cancel_grace_s: float = _variable(
        "CANCEL_GRACE_S", float, 30.0, doc="Seconds that a cancelled job may take to stop before the worker restarts"
    )
    log_level: str = _variable(
        "LOG_LEVEL", _one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", doc="`DEBUG`, `INFO`, `WARNING` or `ERROR`"
    )


@dataclass(frozen=True, kw_only=True)
class Platform(_Environment):
    """What RunPod itself sets in a worker's environment; no setting for people, so not in the README's table."""

    endpoint_id: str = _variable("RUNPOD_ENDPOINT_ID", str, "", doc="Endpoint that this worker serves")
    pod_id: str = _variable("RUNPOD_POD_ID", str, "", doc="This worker's id")
    job_url: str = _variable("RUNPOD_WEBHOOK_GET_JOB", str, "", doc="Where jobs are taken from")
    done_url: str = _variable("RUNPOD_WEBHOOK_POST_OUTPUT", str, "", doc="Where results and progress are posted to")
    api_key: str = _variable("RUNPOD_AI_API_KEY", str, "", secret=True, doc="Key for both")
    realtime_port: int = _variable("RUNPOD_REALTIME_PORT", int, 0, doc="Port of the realtime API, 0 = none")
    sdk_log_level: str = _variable(
        "RUNPOD_LOG_LEVEL",
        _one_of(*SDK_LOG_LEVELS),
        "",
        doc="the SDK's own log level: `NOTSET`, `TRACE`, `DEBUG`, `INFO`, `WARN` or `ERROR`",
    )


def _read(metadata: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    try:
        return metadata["parse"](environ[metadata["variable"]])
    except (ValueError, KeyError) as error:
        raise SettingsError(f"{metadata['variable']} cannot be read. It is: {metadata['doc']}.") from error
