"""What can go wrong, as one exception tree. Every exception has a `code`, a message for people, and `details`.

MusicWorkerError
├── WorkerError                 the worker refused the request or could not do it: the reply's error code
├── ConfigurationError          no endpoint, no key, or settings that cannot be read or written
├── InputError                  an input that cannot be read
│   └── InputTooLargeError      a request that is over the platform's limit; nothing was sent
├── UploadError                 the bucket did not take an input
├── EndpointError               the endpoint did not answer as it should
│   ├── ConnectionFailedError   nothing was sent: no connection could be made
│   ├── AuthenticationError     the API key is missing, wrong, or not allowed to use the endpoint
│   ├── EndpointNotFoundError   there is no such endpoint
│   ├── QueueFullError          the endpoint takes no more jobs at present
│   ├── RequestRejectedError    the endpoint rejected the request itself
│   └── SubmissionUnknownError  the job was sent and no answer came: it may be running
├── JobError                    a submitted job did not end with a result
│   ├── JobFailedError          the worker stopped or crashed
│   ├── JobTimedOutError        the platform ended the job at its execution timeout
│   ├── JobCancelledError       the job was cancelled
│   ├── JobNotFoundError        the platform does not know the job, or keeps its result no longer
│   ├── ReplyMissingError       the job is completed, but its reply is lost
│   └── WaitTimeoutError        the time to wait is up; the job goes on
├── DownloadError               a result cannot be fetched
│   ├── LinkExpiredError        the link to it is no longer valid
│   └── ChecksumError           what arrived is not what the worker made
├── OutputError                 a result cannot be written or decoded
│   └── DiskFullError           the disk is full
└── LocalWorkerError            the worker of `Client.local` does not start or has ended
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class MusicWorkerError(Exception):
    """Base of every exception of this package.

    Args:
        message: what happened and what to do next, for people.
        details: what a program can use; never an API key.
        job_id: the job that it is about, if there is one.
    """

    code: str = "client_error"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None, job_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})
        self.job_id = job_id


class WorkerError(MusicWorkerError):
    """The worker's own error reply: `code` is its `error_code`, see docs/errors.md."""

    def __init__(
        self, code: str, message: str, details: Mapping[str, Any] | None = None, *, job_id: str | None = None
    ) -> None:
        super().__init__(message, details=details, job_id=job_id)
        self.code = code


class ConfigurationError(MusicWorkerError):
    """No endpoint or key is known, or the settings cannot be read or written."""

    code = "configuration"


class InputError(MusicWorkerError):
    """An input cannot be read, or is not of a kind that can be sent."""

    code = "input"


class InputTooLargeError(InputError):
    """The request is over the platform's limit. Nothing was sent."""

    code = "input_too_large_to_send"


class UploadError(MusicWorkerError):
    """The bucket did not take an input. No job was started."""

    code = "upload_failed"


class EndpointError(MusicWorkerError):
    """The endpoint did not answer as it should."""

    code = "endpoint_unavailable"


class ConnectionFailedError(EndpointError):
    """No connection could be made, and nothing was sent."""

    code = "connection_failed"


class AuthenticationError(EndpointError):
    """The API key is missing, wrong, or not allowed to use the endpoint."""

    code = "authentication"


class EndpointNotFoundError(EndpointError):
    """There is no such endpoint."""

    code = "endpoint_not_found"


class QueueFullError(EndpointError):
    """The endpoint takes no more jobs at present. No job was started."""

    code = "queue_full"


class RequestRejectedError(EndpointError):
    """The endpoint rejected the request itself. No job was started."""

    code = "request_rejected"


class SubmissionUnknownError(EndpointError):
    """The job was sent and no usable answer came: it may be running, so it is not sent again."""

    code = "submission_unknown"


class JobError(MusicWorkerError):
    """A submitted job did not end with a result."""

    code = "job_error"


class JobFailedError(JobError):
    """The job failed without an error reply of the worker: the worker stopped or crashed."""

    code = "job_failed"


class JobTimedOutError(JobError):
    """The platform ended the job at its execution timeout or time to live."""

    code = "job_timed_out"


class JobCancelledError(JobError):
    """The job was cancelled."""

    code = "job_cancelled"


class JobNotFoundError(JobError):
    """The platform does not know the job, or no longer keeps its result."""

    code = "job_not_found"


class ReplyMissingError(JobError):
    """The job is completed, but the platform has no reply of it."""

    code = "reply_missing"


class WaitTimeoutError(JobError, TimeoutError):
    """The time to wait is up. The job goes on; `job_id` resumes it."""

    code = "wait_timeout"


class DownloadError(MusicWorkerError):
    """A result cannot be fetched."""

    code = "download_failed"


class LinkExpiredError(DownloadError):
    """The link to a result is no longer valid."""

    code = "link_expired"


class ChecksumError(DownloadError):
    """The bytes that arrived are not those that the worker made."""

    code = "checksum"


class OutputError(MusicWorkerError):
    """A result cannot be written or decoded."""

    code = "output"


class DiskFullError(OutputError):
    """The disk that a result is written to is full."""

    code = "disk_full_here"


class LocalWorkerError(MusicWorkerError):
    """The local worker does not start, or has ended."""

    code = "local_worker"
