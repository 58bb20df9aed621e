"""Every setting of the worker: one frozen value, read once from the environment. `os.environ` is read nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

MEBIBYTE = 1024 * 1024
MIN_INLINE_BUDGET_BYTES = 100_000  # health_check and every error need less
MAX_SECONDS = 365 * 24 * 3600
SDK_LOG_LEVELS = ("NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Group = Literal["models", "limits", "delivery", "suno", "runtime", "platform"]


class SettingsError(ValueError):
    """A variable with an invalid value; the message names the variable and what it accepts, never the value."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """What a variable accepts, in words, and how to parse it; `parse` raises `ValueError` for anything else."""

    accepts: str
    parse: Callable[[str], T_co]


def integer(minimum: int, maximum: int | None = None) -> Kind[int]:
    """Whole numbers from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        number = int(text)
        if number < minimum or (maximum is not None and number > maximum):
            raise ValueError("out of range")
        return number

    return Kind(f"a whole number of at least {minimum}" if maximum is None else f"{minimum} to {maximum}", parse)


def seconds(*, zero: bool) -> Kind[float]:
    """Seconds above 0, or 0 as well, up to a year: the system's clocks cannot wait for any number of seconds."""

    def parse(text: str) -> float:
        number = float(text)
        if not (0 < number <= MAX_SECONDS or (number == 0 and zero)):
            raise ValueError("out of range")
        return number

    return Kind(f"seconds, {'0 or more' if zero else 'more than 0'} and at most {MAX_SECONDS}", parse)


def choice(*names: str) -> Kind[str]:
    """One of `names`, in upper or lower case."""

    def parse(text: str) -> str:
        name = text.strip().upper()
        if name not in names:
            raise ValueError("unknown name")
        return name

    return Kind(f"one of {', '.join(names)}", parse)


def parse_switch(text: str) -> bool:
    """True or False, for the usual words of environment variables."""
    word = text.strip().lower()
    if word not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise ValueError("neither on nor off")
    return word in ("1", "true", "yes", "on")


SWITCH = Kind("1 or 0", parse_switch)
TEXT = Kind("text", str)
DEVICE = Kind(
    "one of auto, cuda, cpu, mps; CUDA_VISIBLE_DEVICES chooses one of several GPUs",
    lambda text: choice("AUTO", "CUDA", "CPU", "MPS").parse(text).lower(),
)
PATH = Kind("a path", Path)
PATHS = Kind(
    f"paths separated by '{os.pathsep}'", lambda text: tuple(Path(part) for part in text.split(os.pathsep) if part)
)
NAMES = Kind("names separated by commas", lambda text: tuple(part.strip() for part in text.split(",") if part.strip()))


def variable(  # noqa: PLR0913  (half of them by keyword)
    name: str, kind: Kind[T], default: T, *, group: Group, doc: str, secret: bool = False
) -> T:
    """A field that is read from the environment variable `name`. `group` and `doc` are for the documentation."""
    metadata = {"variable": name, "kind": kind, "group": group, "doc": doc, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class _Environment:
    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Reads every variable; one that is empty counts as unset. Raises `SettingsError` for an invalid value."""
        environ = os.environ if environ is None else environ
        values = {
            f.name: _read(f.metadata["variable"], f.metadata["kind"], environ)
            for f in fields(cls)
            if environ.get(f.metadata["variable"], "") != ""
        }
        return cls(**values)

    def secrets(self) -> tuple[str, ...]:
        """The values that no log and no reply may contain."""
        return tuple(str(getattr(self, f.name)) for f in fields(self) if f.metadata["secret"])


def _read(name: str, kind: Kind[Any], environ: Mapping[str, str]) -> Any:
    try:
        return kind.parse(environ[name])
    except ValueError as error:
        raise SettingsError(f"{name} has an invalid value. It accepts {kind.accepts}.") from error


@dataclass(frozen=True, kw_only=True)
class Settings(_Environment):
    """The worker's settings, read by `Settings.from_env()`; the documentation's tables are generated from them."""

    rvc_models_dir: Path | None = variable(
        "RVC_MODELS_DIR",
        PATH,
        None,
        group="models",
        doc="Folder of RVC voices, one sub-folder per voice. Default: `rvc_models` in the first of `VOLUME_DIRS` that"
        " has it, else in the working folder.",
    )
    allow_voice_upload: bool = variable(
        "ALLOW_VOICE_UPLOAD",
        SWITCH,
        False,
        group="models",
        doc="Allows requests to add voices to that folder (`add_voice`), and to name voices on the Hugging Face hub"
        " (`hf://<user>/<repo>`).",
    )
    models_dir: Path | None = variable("MODELS_DIR", PATH, None, group="models", doc="Folder of all other weights.")
    hf_hub_cache: Path | None = variable(
        "HF_HUB_CACHE",
        PATH,
        None,
        group="models",
        doc="Folder that models are downloaded to. Default: `HF_HOME/hub` if `HF_HOME` is set, else"
        " `huggingface-cache/hub` on the first of `VOLUME_DIRS` that can be written, else the Hugging Face client's own"
        " cache.",
    )
    hf_home: Path | None = variable(
        "HF_HOME",
        PATH,
        None,
        group="models",
        doc="Folder of the Hugging Face client; its `hub` is the cache of models.",
    )
    pin_models: bool = variable(
        "PIN_MODELS",
        SWITCH,
        True,
        group="models",
        doc="Downloads the pinned revision of each published model that has one. `0` downloads the newest revision. A"
        " model that is here already is not downloaded again.",
    )
    demo_models: bool = variable(
        "DEMO_MODELS",
        SWITCH,
        True,
        group="models",
        doc="Whether the worker has its demo models, which answer a request that names no model if no real one is here."
        " `0`: such a request is refused, so that an endpoint whose volume is missing does not reply with demo sound.",
    )
    torch_home: Path | None = variable(
        "TORCH_HOME",
        PATH,
        None,
        group="models",
        doc="torch's cache. Demucs checkpoints that torch downloaded to its `hub/checkpoints` are used. Default:"
        " `torch` in `XDG_CACHE_HOME`.",
    )
    cache_home: Path = variable(
        "XDG_CACHE_HOME", PATH, Path("~/.cache"), group="models", doc="Folder in which torch's cache is by default."
    )
    preload: tuple[str, ...] = variable(
        "PRELOAD",
        NAMES,
        (),
        group="models",
        doc="Models to load and warm up before the first job, as `family/name`, separated by commas. One that cannot be"
        " loaded is logged, and loaded when a request needs it.",
    )
    device: str = variable(
        "DEVICE",
        DEVICE,
        "auto",
        group="models",
        doc="Device to compute on: `auto`, `cuda` (the first GPU; `CUDA_VISIBLE_DEVICES` chooses another one), `cpu` or"
        " `mps`.",
    )
    cuda_graphs: bool = variable(
        "CUDA_GRAPHS",
        SWITCH,
        True,
        group="models",
        doc="Replays MusicGen's decoding steps on a GPU as CUDA graphs, which is faster. `0` launches each kernel by"
        " itself, to find out whether a GPU error comes from the graphs.",
    )
    model_memory_bytes: int = variable(
        "MODEL_MEMORY_BYTES",
        integer(0),
        0,
        group="models",
        doc="Memory budget for loaded models, in bytes. `0` = auto-detect.",
    )
    inline_budget_bytes: int = variable(
        "INLINE_BUDGET_BYTES",
        integer(MIN_INLINE_BUDGET_BYTES),
        9_500_000,
        group="limits",
        doc="Largest JSON reply with inline audio, in bytes. RunPod silently discards replies over 10 MB. Local runs"
        " have no limit unless this is set.",
    )
    max_input_bytes: int = variable(
        "MAX_INPUT_BYTES", integer(1), 512 * MEBIBYTE, group="limits", doc="Largest input file, in bytes."
    )
    max_input_seconds: float = variable(
        "MAX_INPUT_SECONDS", seconds(zero=False), 7200.0, group="limits", doc="Longest input audio, in seconds."
    )
    max_decoded_bytes: int = variable(
        "MAX_DECODED_BYTES",
        integer(1),
        4 * 1024 * MEBIBYTE,
        group="limits",
        doc="Largest input audio after decoding, in bytes: 4 for each sample. 4 GiB are three hours of stereo at"
        " 48 kHz. Audio of more than 256 MiB is kept in the temporary folder.",
    )
    max_input_sample_rate: int = variable(
        "MAX_INPUT_SAMPLE_RATE",
        integer(8000),
        192_000,
        group="limits",
        doc="Highest sample rate of input audio, in Hz.",
    )
    max_input_channels: int = variable(
        "MAX_INPUT_CHANNELS",
        integer(1),
        8,
        group="limits",
        doc="Most channels of input audio. More than 2 are downmixed to stereo.",
    )
    download_timeout_s: float = variable(
        "DOWNLOAD_TIMEOUT_S",
        seconds(zero=False),
        120.0,
        group="limits",
        doc="Time limit for the download of one input URL, in seconds.",
    )
    allow_private_urls: bool = variable(
        "ALLOW_PRIVATE_URLS",
        SWITCH,
        False,
        group="limits",
        doc="Allows URLs that point to private addresses. Only for trusted networks.",
    )
    volume_dirs: tuple[Path, ...] = variable(
        "VOLUME_DIRS",
        PATHS,
        (Path("/runpod-volume"), Path("/workspace")),
        group="delivery",
        doc="Mounted volumes: input paths must be below one of them, and `delivery: volume` writes to the first one.",
    )
    output_dir: Path = variable(
        "OUTPUT_DIR",
        PATH,
        Path("output"),
        group="delivery",
        doc="Folder for the audio of local runs. A relative path is a folder in the repository.",
    )
    bucket_endpoint_url: str = variable(
        "BUCKET_ENDPOINT_URL", TEXT, "", group="delivery", doc="Endpoint of the S3 bucket for results."
    )
    bucket_access_key_id: str = variable(
        "BUCKET_ACCESS_KEY_ID", TEXT, "", group="delivery", secret=True, doc="Access key id of the bucket."
    )
    bucket_secret_access_key: str = variable(
        "BUCKET_SECRET_ACCESS_KEY", TEXT, "", group="delivery", secret=True, doc="Secret access key of the bucket."
    )
    bucket_name: str = variable("BUCKET_NAME", TEXT, "", group="delivery", doc="Name of the bucket.")
    bucket_region: str = variable("BUCKET_REGION", TEXT, "", group="delivery", doc="Region of the bucket.")
    suno_api_token: str = variable(
        "SUNO_API_TOKEN", TEXT, "", group="suno", secret=True, doc="API key of a Suno provider."
    )
    suno_api_base_url: str = variable(
        "SUNO_API_BASE_URL", TEXT, "https://api.sunoapi.org", group="suno", doc="URL of the provider's API."
    )
    suno_upload_base_url: str = variable(
        "SUNO_UPLOAD_BASE_URL",
        TEXT,
        "",
        group="suno",
        doc="URL of the provider's upload service. Default: the one that belongs to the API.",
    )
    suno_callback_url: str = variable(
        "SUNO_CALLBACK_URL",
        TEXT,
        "https://callback.invalid/suno",
        group="suno",
        doc="Callback URL that providers require. Nothing has to listen there.",
    )
    suno_rate_limit: int = variable(
        "SUNO_RATE_LIMIT", integer(1), 10, group="suno", doc="Maximum Suno submissions per minute."
    )
    concurrency: int = variable(
        "CONCURRENCY",
        integer(1),
        1,
        group="runtime",
        doc="Maximum concurrent jobs. GPU work is always serialized.",
    )
    job_timeout_s: float = variable(
        "JOB_TIMEOUT_S",
        seconds(zero=True),
        0.0,
        group="runtime",
        doc="The endpoint's execution timeout, in seconds. A job then ends by itself shortly before the platform would"
        " end it. `0` = none.",
    )
    cancel_grace_s: float = variable(
        "CANCEL_GRACE_S",
        seconds(zero=True),
        30.0,
        group="runtime",
        doc="Seconds that a cancelled job may take to stop before the worker restarts. Other jobs on it then end with"
        " `worker_restart`.",
    )
    shutdown_grace_s: float = variable(
        "SHUTDOWN_GRACE_S",
        seconds(zero=True),
        30.0,
        group="runtime",
        doc="Seconds that running jobs may take to finish after SIGTERM. Then they end with `worker_restart`, and after"
        " at most `CANCEL_GRACE_S` more the process ends.",
    )
    temp_dir: Path | None = variable(
        "TMPDIR",
        PATH,
        None,
        group="runtime",
        doc="Folder of temporary files: long audio, and results before their delivery. Default: `/tmp`.",
    )
    log_level: str = variable(
        "LOG_LEVEL",
        choice("DEBUG", "INFO", "WARNING", "ERROR"),
        "INFO",
        group="runtime",
        doc="Log level: `DEBUG`, `INFO`, `WARNING` or `ERROR`.",
    )

    def find_torch_home(self) -> Path:
        """torch's cache, as torch itself finds it (`torch.hub.get_dir`)."""
        return Path(os.path.expanduser(self.torch_home or self.cache_home / "torch"))


@dataclass(frozen=True, kw_only=True)
class Platform(_Environment):
    """What RunPod itself sets in a worker's environment; these are not settings for users."""

    endpoint_id: str = variable(
        "RUNPOD_ENDPOINT_ID", TEXT, "", group="platform", doc="Id of the endpoint that this worker serves."
    )
    pod_id: str = variable("RUNPOD_POD_ID", TEXT, "", group="platform", doc="Id of this worker.")
    job_url: str = variable("RUNPOD_WEBHOOK_GET_JOB", TEXT, "", group="platform", doc="URL that jobs are taken from.")
    done_url: str = variable(
        "RUNPOD_WEBHOOK_POST_OUTPUT", TEXT, "", group="platform", doc="URL that results and progress are posted to."
    )
    api_key: str = variable("RUNPOD_AI_API_KEY", TEXT, "", group="platform", secret=True, doc="Key for both.")
    realtime_port: int = variable(
        "RUNPOD_REALTIME_PORT", integer(0, 65535), 0, group="platform", doc="Port of the realtime API; 0 = none."
    )
    sdk_log_level: str = variable(
        "RUNPOD_LOG_LEVEL", choice(*SDK_LOG_LEVELS), "", group="platform", doc="The SDK's own log level."
    )
