"""The exit codes of `music-worker`, and how errors are shown."""

from __future__ import annotations

import json
import sys
from enum import IntEnum

import click

from music_worker.errors import (
    ConfigurationError,
    DownloadError,
    EndpointError,
    InputError,
    LocalWorkerError,
    MusicWorkerError,
    OutputError,
    UploadError,
    WaitTimeoutError,
)


class ExitCode(IntEnum):
    """Documented in the package's README."""

    OK = 0
    JOB_FAILED = 1  # the worker refused the request, or the job failed
    USAGE = 2  # wrong usage, or a request that the schema does not allow: nothing was sent
    ENDPOINT = 3  # the endpoint cannot be used: address, key, queue, or the local worker does not start
    TIMEOUT = 4  # the time to wait is up; the job goes on
    RESULT = 5  # the result cannot be fetched or written
    INTERRUPTED = 130


class RefusedError(MusicWorkerError):
    """The request was refused on this machine, before anything was sent.

    Args:
        code: of the worker's reply to the same request.
    """

    def __init__(self, error: MusicWorkerError) -> None:
        super().__init__(error.message, details=error.details)
        self.code = error.code


_CODES: tuple[tuple[type[MusicWorkerError], ExitCode], ...] = (
    (RefusedError, ExitCode.USAGE),
    (InputError, ExitCode.USAGE),
    (WaitTimeoutError, ExitCode.TIMEOUT),
    (DownloadError, ExitCode.RESULT),
    (OutputError, ExitCode.RESULT),
    (EndpointError, ExitCode.ENDPOINT),
    (UploadError, ExitCode.ENDPOINT),
    (ConfigurationError, ExitCode.ENDPOINT),
    (LocalWorkerError, ExitCode.ENDPOINT),
)


def get_exit_code(error: MusicWorkerError) -> ExitCode:
    """The exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.JOB_FAILED)


def show_error(error: MusicWorkerError, *, as_json: bool) -> ExitCode:
    """Writes the error to stderr, or as JSON to stdout, and returns the exit code."""
    code = get_exit_code(error)
    if as_json:
        report = {"error": error.message, "error_code": error.code, "details": error.details}
        if error.job_id:
            report["job_id"] = error.job_id
        print_json({**report, "exit_code": int(code)})
    else:
        click.secho("Error: ", fg="red", bold=True, err=True, nl=False)
        click.echo(f"{error.message} [{error.code}]", err=True)
        if error.job_id:
            click.echo(f"Job: {error.job_id}", err=True)
    return code


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
    sys.stdout.flush()
