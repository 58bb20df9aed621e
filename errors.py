"""What can go wrong with a request, as one exception tree, and the error codes that replies carry.

RequestError                a sentence for the caller, an error code, optional details
├── InvalidRequestError     the JSON breaks a rule of the API
│   └── UnknownNameError    an operation, model or voice that does not exist
├── AudioError              an audio field that cannot be used
├── SourceError             a URL or volume path that is not allowed or cannot be read
├── DeliveryError           the result cannot be delivered in the requested way
├── DiskFullError           a temporary file cannot be written
├── ModelError              weights that are missing, damaged, or of a kind that is not run here
├── DeviceMemoryError       the device cannot hold the work, even with no other model loaded
│   └── MemoryNotFreedError the failed work left memory allocated
├── DeviceError             the GPU cannot be used, or failed and takes no more work from this process
├── UpstreamError           a provider (Suno) failed or rejected the request
├── CancelledError          the platform cancelled the job
├── DeadlineError           the job's time is up
├── WorkerRestartError      the worker ends before the job does
└── InternalError           a bug in the worker

HttpError                   an HTTP exchange failed; the sender of the request turns it into one of the above
├── NotSentError            nothing was sent
└── NoResponseError         the request may have been received
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Self

MAX_NAME_SHOWN = 64


class ErrorCode(StrEnum):
    """Every `error_code` of a reply, with what it means and what the caller can do. docs/errors.md is generated."""

    meaning: str
    remedy: str

    def __new__(cls, code: str, meaning: str, remedy: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning, member.remedy = meaning, remedy
        return member

    INVALID_REQUEST = (
        "invalid_request",
        "The request breaks a rule of the API; `details.errors` lists every validation error.",
        "Correct the fields that the message names.",
    )
    UNKNOWN_OPERATION = (
        "unknown_operation",
        "The operation does not exist.",
        "Use one of the names in `details.valid`.",
    )
    UNKNOWN_MODEL = (
        "unknown_model",
        "The model does not exist.",
        "Call `list_models` and use one of its names.",
    )
    UNKNOWN_STEM = (
        "unknown_stem",
        "The model does not separate a stem of that name.",
        "Use one of the names in `details.valid`.",
    )
    UNKNOWN_NAME = (
        "unknown_name",
        "A name does not exist.",
        "Use one of the names in `details.valid`.",
    )
    INVALID_MODEL_NAME = (
        "invalid_model_name",
        "The model name is not a plain folder name.",
        "Use a name that `list_models` returns.",
    )
    OPTION_UNSUPPORTED = (
        "option_unsupported",
        "The chosen model does not support a parameter of the request.",
        "Leave the parameter out, or choose a model that supports it.",
    )
    INVALID_BASE64 = (
        "invalid_base64",
        "The string is not valid base64 data.",
        "Encode the file again; a URL or volume path avoids base64 altogether.",
    )
    EMPTY_AUDIO = (
        "empty_audio",
        "The audio field or the file behind it is empty, or the audio has no samples.",
        "Send a file that contains audio.",
    )
    SILENT_AUDIO = (
        "silent_audio",
        "The audio is silent, and the operation needs sound in it.",
        "Send a recording with sound.",
    )
    EMPTY_FILE = (
        "empty_file",
        "The file is empty.",
        "Send the file again.",
    )
    INVALID_AUDIO = (
        "invalid_audio",
        "The audio cannot be used.",
        "Send the audio in another format, for example wav or flac.",
    )
    NAN_AUDIO = (
        "nan_audio",
        "The audio contains NaN or infinite samples.",
        "Export the file again; a plug-in probably wrote invalid samples.",
    )
    CORRUPT_AUDIO = (
        "corrupt_audio",
        "The audio file is damaged or cut short.",
        "Export or download the file again.",
    )
    UNSUPPORTED_AUDIO_FORMAT = (
        "unsupported_audio_format",
        "The file is not in a supported audio format.",
        "Send wav, flac, mp3, ogg, opus, aiff, m4a, aac or webm.",
    )
    DECODER_MISSING = (
        "decoder_missing",
        "This format needs ffmpeg, which is not installed here.",
        "Install ffmpeg, or send wav, flac, mp3, ogg, opus or aiff.",
    )
    INPUT_TOO_LARGE = (
        "input_too_large",
        "The file has more bytes than the worker accepts.",
        "Send a smaller file, or raise `MAX_INPUT_BYTES`.",
    )
    AUDIO_TOO_LONG = (
        "audio_too_long",
        "The audio is longer than allowed, or decodes to more bytes than allowed.",
        "Send shorter audio or a lower sample rate, or raise `MAX_INPUT_SECONDS` or `MAX_DECODED_BYTES`.",
    )
    AUDIO_TOO_SHORT = (
        "audio_too_short",
        "The audio is too short for this operation.",
        "Send longer audio.",
    )
    SAMPLE_RATE_TOO_HIGH = (
        "sample_rate_too_high",
        "The sample rate is above the limit.",
        "Resample the file, or raise `MAX_INPUT_SAMPLE_RATE`.",
    )
    SAMPLE_RATE_TOO_LOW = (
        "sample_rate_too_low",
        "The sample rate is below the limit.",
        "Send audio with a higher sample rate.",
    )
    TOO_MANY_CHANNELS = (
        "too_many_channels",
        "The audio has more channels than allowed.",
        "Downmix the file, or raise `MAX_INPUT_CHANNELS`.",
    )
    CONTINUATION_OUT_OF_RANGE = (
        "continuation_out_of_range",
        "`continuation_start` and `continuation_end` do not lie within the audio.",
        "Choose positions within the audio.",
    )
    CONTINUATION_TOO_LONG = (
        "continuation_too_long",
        "The part to continue does not fit into the model's window.",
        "Set `continuation_start` later, as the message says.",
    )
    SOURCE_UNAVAILABLE = (
        "source_unavailable",
        "The URL or path of the input cannot be read.",
        "Check the URL or path.",
    )
    UNSUPPORTED_URL = (
        "unsupported_url",
        "The URL is not a public http(s) URL, or it redirects to one that is not.",
        "Use a public http(s) URL without a user name.",
    )
    PRIVATE_URL = (
        "private_url",
        "The URL points to a private address.",
        "Use a public URL, or set `ALLOW_PRIVATE_URLS=1` on a trusted network.",
    )
    URL_UNREACHABLE = (
        "url_unreachable",
        "The URL could not be reached, or the transfer was interrupted.",
        "Check the URL and try again.",
    )
    HTTP_STATUS = (
        "http_status",
        "The server answered with an HTTP error status.",
        "Check that the URL is valid and has not expired.",
    )
    DOWNLOAD_TIMEOUT = (
        "download_timeout",
        "The download took longer than allowed.",
        "Use a faster server, or raise `DOWNLOAD_TIMEOUT_S`.",
    )
    PATH_NOT_ALLOWED = (
        "path_not_allowed",
        "The path lies outside the mounted volumes.",
        "Use a path below one of `VOLUME_DIRS`.",
    )
    PATH_NOT_FOUND = (
        "path_not_found",
        "There is no such file on the mounted volume.",
        "Check the path.",
    )
    DELIVERY_FAILED = (
        "delivery_failed",
        "The result could not be delivered.",
        "Try again, or use another `delivery`.",
    )
    REPLY_TOO_LARGE = (
        "reply_too_large",
        "The result does not fit into an inline reply.",
        "Use a format or delivery that `details.would_fit` names.",
    )
    BUCKET_NOT_CONFIGURED = (
        "bucket_not_configured",
        "No bucket is configured.",
        "Set the `BUCKET_*` variables, send `s3Config`, or use another `delivery`.",
    )
    BUCKET_MISCONFIGURED = (
        "bucket_misconfigured",
        "The bucket's settings are incomplete, or the bucket refused them.",
        "Correct the `BUCKET_*` variables or `s3Config`.",
    )
    BUCKET_UPLOAD_FAILED = (
        "bucket_upload_failed",
        "The upload to the bucket failed.",
        "Try again, or use another `delivery`.",
    )
    VOLUME_UNAVAILABLE = (
        "volume_unavailable",
        "No volume is mounted, or it cannot be written.",
        "Mount a network volume, or use another `delivery`.",
    )
    DISK_FULL = (
        "disk_full",
        "The temporary disk, or the one that models are downloaded to, is full or cannot be written.",
        "Send shorter audio, ask for fewer stems or clips, or give the container (`TMPDIR`) or the volume more disk.",
    )
    MODEL_UNAVAILABLE = (
        "model_unavailable",
        "The model's files are not on this worker and could not be downloaded, or a package it needs is missing.",
        "Put the files below `MODELS_DIR`, or allow the download.",
    )
    MODEL_MISSING = (
        "model_missing",
        "The request requires a kind of model of which there is none on this worker.",
        "Install a model of the role that the message names, or leave the parameter at `auto`.",
    )
    MODEL_INCOMPLETE = (
        "model_incomplete",
        "Some of the model's files are missing.",
        "Copy the complete model folder.",
    )
    MODEL_UNSUPPORTED = (
        "model_unsupported",
        "The checkpoint is of a kind that this worker does not run.",
        "Choose another model.",
    )
    BROKEN_CHECKPOINT = (
        "broken_checkpoint",
        "The model file is damaged, or not what it should be.",
        "Replace the file with the one that its author published.",
    )
    UNSAFE_CHECKPOINT = (
        "unsafe_checkpoint",
        "The model file contains code or objects that this worker never loads.",
        "Use a checkpoint that contains only tensors and plain settings.",
    )
    MODEL_TOO_LARGE = (
        "model_too_large",
        "The model needs more memory than the worker may use.",
        "Choose a smaller model, or raise `MODEL_MEMORY_BYTES`.",
    )
    DEVICE_UNAVAILABLE = (
        "device_unavailable",
        "The GPU is there, but torch cannot use it.",
        "Update the driver, or set `DEVICE=cpu`.",
    )
    OUT_OF_MEMORY = (
        "out_of_memory",
        "The device ran out of memory, even with no other model loaded.",
        "Ask for less, or use a worker with more memory.",
    )
    DEVICE_LOST = (
        "device_lost",
        "The GPU failed during the job and takes no more work from this process; the worker restarts.",
        "Send the request again.",
    )
    VOICE_NOT_FOUND = (
        "voice_not_found",
        "No voice has that name.",
        "Call `list_models` and use one of its voices.",
    )
    NO_MODEL_FILE = (
        "no_model_file",
        "The voice's folder contains no checkpoint.",
        "Put the voice's `.pth` file into its folder.",
    )
    AMBIGUOUS_VOICE = (
        "ambiguous_voice",
        "The voice's folder contains several checkpoints or indexes.",
        "Leave one `.pth` and at most one `.index` there.",
    )
    INVALID_VOICE_NAME = (
        "invalid_voice_name",
        "The voice name is not allowed.",
        "Use letters, digits, spaces, `_`, `.`, `-`, `(` and `)`.",
    )
    VOICE_EXISTS = (
        "voice_exists",
        "A voice of that name exists already.",
        "Choose another name, or set `replace`.",
    )
    VOICE_UPLOAD_OFF = (
        "voice_upload_off",
        "Voice uploads are disabled.",
        "Set `ALLOW_VOICE_UPLOAD=1` on the worker.",
    )
    VOICE_FOLDER_UNAVAILABLE = (
        "voice_folder_unavailable",
        "There is no voice folder, or it cannot be written.",
        "Create the folder and set `RVC_MODELS_DIR`.",
    )
    INVALID_ARCHIVE = (
        "invalid_archive",
        "The archive is not a zip with one voice.",
        "Send a zip with one `.pth` and at most one `.index`.",
    )
    INVALID_CODES = (
        "invalid_codes",
        "The codes are damaged, ragged, out of range, or of another codec.",
        "Send `codes` as `encode_audio` returned them, with the model that made them.",
    )
    PROVIDER_FAILED = (
        "provider_failed",
        "The Suno provider reported a failure.",
        "Look at the provider's dashboard before you send the request again.",
    )
    NOT_CONFIGURED = (
        "not_configured",
        "`SUNO_API_TOKEN` is not set.",
        "Set it to your key at a Suno provider.",
    )
    BAD_KEY = (
        "bad_key",
        "The Suno provider rejected the API key.",
        "Check `SUNO_API_TOKEN` and `SUNO_API_BASE_URL`.",
    )
    ACCESS_DENIED = (
        "access_denied",
        "The Suno provider denied access.",
        "Check the key's permissions and its list of allowed addresses.",
    )
    WRONG_ADDRESS = (
        "wrong_address",
        "The Suno provider does not know the method.",
        "Check `SUNO_API_BASE_URL` and `SUNO_UPLOAD_BASE_URL`.",
    )
    INSUFFICIENT_CREDITS = (
        "insufficient_credits",
        "The Suno account has too few credits.",
        "Top up the account and send the request again.",
    )
    TEXT_TOO_LONG = (
        "text_too_long",
        "The Suno provider finds a text too long.",
        "Shorten `prompt`, `lyrics`, `style` or `title`.",
    )
    REQUEST_REFUSED = (
        "request_refused",
        "The Suno provider rejected the request's values.",
        "Change the values and send the request again.",
    )
    MODERATION = (
        "moderation",
        "Suno's moderation rejected the text.",
        "Rewrite prompt, lyrics, style or title.",
    )
    SOURCE_REFUSED = (
        "source_refused",
        "The Suno provider could not use the source audio.",
        "Use audio of your own.",
    )
    UPLOAD_FAILED = (
        "upload_failed",
        "The upload of the source audio to the Suno provider failed.",
        "Try again.",
    )
    RATE_LIMITED = (
        "rate_limited",
        "The Suno provider's rate limit, or this worker's, is reached.",
        "Try again in a minute, or lower `SUNO_RATE_LIMIT`.",
    )
    MAINTENANCE = (
        "maintenance",
        "The Suno provider is under maintenance.",
        "Try again later.",
    )
    PROVIDER_UNREACHABLE = (
        "provider_unreachable",
        "The Suno provider could not be reached.",
        "Try again later.",
    )
    SUBMIT_UNKNOWN = (
        "submit_unknown",
        "The submission was interrupted: it is not known whether the task exists and was paid.",
        "Look at the provider's dashboard before you send the request again.",
    )
    STILL_RUNNING = (
        "still_running",
        "The Suno task is not finished yet.",
        "Send `task_id` again later; this costs nothing.",
    )
    RESULT_UNUSABLE = (
        "result_unusable",
        "Suno's result cannot be downloaded or decoded.",
        "Send `task_id` again; this costs nothing.",
    )
    UNKNOWN_TASK = (
        "unknown_task",
        "The Suno provider does not know the task.",
        "Check the task id, the provider and the account.",
    )
    CANCELLED = (
        "cancelled",
        "The job was cancelled.",
        "Send the request again if you still need the result.",
    )
    DEADLINE_EXCEEDED = (
        "deadline_exceeded",
        "The job's time is up.",
        "Ask for less, or raise the execution timeout.",
    )
    WORKER_RESTART = (
        "worker_restart",
        "The worker ended before the job did: it was stopped, or another job on it did not stop.",
        "Send the request again.",
    )
    INVALID_SETTINGS = (
        "invalid_settings",
        "An environment variable of the worker is invalid.",
        "Correct the variable that the message names.",
    )
    INTERNAL_ERROR = (
        "internal_error",
        "An error in the worker itself.",
        "Report it with `details.error_id`, which the worker's log shows as well.",
    )


class RequestError(Exception):
    """A failure with a sentence that the caller can act on.

    Args:
        message: says what was received, what is allowed and what to do next. It quotes request values only through
            `sanitize`, and never contains a path outside the model folders, a host name, a key or base64.
        code: replaces the class's code.
        details: JSON values that help a program to react.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR
    refresh_worker: ClassVar[bool] = False

    def __init__(
        self, message: str, *, code: ErrorCode | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.details = dict(details or {})

    def to_reply(self) -> dict[str, Any]:
        """The failure reply: `error`, `error_code`, `details`, and `refresh_worker` if the worker must restart."""
        reply: dict[str, Any] = {"error": self.message, "error_code": self.error_code.value, "details": self.details}
        return reply | {"refresh_worker": True} if self.refresh_worker else reply


class InvalidRequestError(RequestError):
    """The JSON breaks a rule of the API."""

    code = ErrorCode.INVALID_REQUEST


class UnknownNameError(InvalidRequestError):
    """An operation, model or voice that does not exist."""

    code = ErrorCode.UNKNOWN_NAME


class AudioError(RequestError):
    """An audio field that cannot be used; the code says why."""

    code = ErrorCode.INVALID_AUDIO


class SourceError(RequestError):
    """A URL or volume path that is not allowed or cannot be read."""

    code = ErrorCode.SOURCE_UNAVAILABLE


class DeliveryError(RequestError):
    """The result cannot be delivered in the requested way."""

    code = ErrorCode.DELIVERY_FAILED


class DiskFullError(RequestError):
    """A temporary file cannot be written: its disk is full, or its folder is missing or read-only."""

    code = ErrorCode.DISK_FULL


class ModelError(RequestError):
    """A model whose files are missing, damaged, or of a kind that is not run here."""

    code = ErrorCode.MODEL_UNAVAILABLE


class DeviceMemoryError(RequestError):
    """The device cannot hold the work, even with no other model loaded. A smaller request runs on the same worker."""

    code = ErrorCode.OUT_OF_MEMORY


class MemoryNotFreedError(DeviceMemoryError):
    """The failed work left memory allocated, which only a restart frees."""

    refresh_worker = True


class DeviceError(RequestError):
    """The GPU cannot be used, or failed and takes no more work from this process. Only another worker can help."""

    code = ErrorCode.DEVICE_LOST
    refresh_worker = True


class UpstreamError(RequestError):
    """A provider (Suno) failed or rejected the request."""

    code = ErrorCode.PROVIDER_FAILED


class CancelledError(RequestError):
    """The platform cancelled the job."""

    code = ErrorCode.CANCELLED


class DeadlineError(RequestError):
    """The job's time is up."""

    code = ErrorCode.DEADLINE_EXCEEDED


class WorkerRestartError(RequestError):
    """The worker ends before the job does."""

    code = ErrorCode.WORKER_RESTART
    refresh_worker = True


class InternalError(RequestError):
    """A bug in the worker; the message says nothing about its inside."""

    code = ErrorCode.INTERNAL_ERROR


def unknown_name_error(kind: str, name: str, valid: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not in `valid`: lists the valid names and suggests the nearest."""
    names = sorted(valid)
    return UnknownNameError(
        f"Unknown {kind} '{sanitize(name)}'.{suggest_name(name, names)} Valid: {', '.join(names) or 'none'}.",
        code=ErrorCode.UNKNOWN_OPERATION if kind == "operation" else ErrorCode.UNKNOWN_MODEL,
        details={kind.replace(" ", "_"): sanitize(name), "valid": names},
    )


def suggest_name(name: str, valid: Iterable[str]) -> str:
    """` Did you mean '...'?`, or an empty string if no valid name is similar."""
    nearest = difflib.get_close_matches(name[:MAX_NAME_SHOWN].lower(), list(valid), n=1)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""


def sanitize(name: str) -> str:
    """A caller's string, safe to quote in a message: at most 64 characters, printable, encodable as UTF-8."""
    clean = "".join(c if c.isprintable() else "?" for c in name[: MAX_NAME_SHOWN + 1])
    return clean if len(name) <= MAX_NAME_SHOWN else clean[:MAX_NAME_SHOWN] + "..."


class HttpError(Exception):
    """An HTTP exchange failed. Its text is a sentence without URL, host or key; the caller decides what it means."""


class NotSentError(HttpError):
    """Nothing of the request was sent, so it had no effect and can be sent again."""


class NoResponseError(HttpError):
    """The request may have been received, and no complete response came back."""
