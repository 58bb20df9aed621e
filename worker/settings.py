"""Every setting of the worker: one frozen value, read once from the environment. `os.environ` is read nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

MEBIBYTE = 1024 * 1024


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


def _variable(name: str, parse: Callable[[str], Any], default: Any, *, secret: bool = False, doc: str) -> Any:
    metadata = {"variable": name, "parse": parse, "doc": doc, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The worker's settings, read by `Settings.from_env()`; a test compares the README's table with them."""

    rvc_models_dir: Path | None = _variable("RVC_MODELS_DIR", Path, None, doc="Folder of voices, one sub-folder each")
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
        "SUNO_UPLOAD_BASE_URL", str, "https://sunoapiorg.redpandaai.co", doc="Its upload service"
    )
    suno_callback_url: str = _variable("SUNO_CALLBACK_URL", str, "", doc="Callback that providers insist on")
    suno_rate_limit: int = _variable("SUNO_RATE_LIMIT", int, 10, doc="Most Suno submissions a minute")
    concurrency: int = _variable("CONCURRENCY", int, 1, doc="Jobs in hand at once (device work stays one at a time)")
    log_level: str = _variable("LOG_LEVEL", str, "INFO", doc="`DEBUG`, `INFO`, `WARNING` or `ERROR`")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Reads every variable; an unreadable one raises `SettingsError` that names it, without its value."""
        environ = os.environ if environ is None else environ
        given = {
            f.name: _read(f.metadata, environ) for f in fields(cls) if environ.get(f.metadata["variable"], "") != ""
        }
        return cls(**given)


def _read(metadata: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    try:
        return metadata["parse"](environ[metadata["variable"]])
    except (ValueError, KeyError) as error:
        raise SettingsError(f"{metadata['variable']} cannot be read. It is: {metadata['doc']}.") from error
