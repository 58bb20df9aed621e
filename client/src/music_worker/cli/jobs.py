"""One job of the command line: checked, sent, watched, saved."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from music_worker.cli.connection import Options, connect, find_differences
from music_worker.cli.exit_codes import RefusedError, print_json
from music_worker.errors import WorkerError
from music_worker.validation import check_params

if TYPE_CHECKING:
    from music_worker.client import Client
    from music_worker.jobs import Job
    from music_worker.results import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What happens with a job's result.

    Args:
        output: a file or a folder, `-` for standard output, or None for the current folder.
        play: play the first audio file.
        waveform: draw it; None: on a terminal.
        detach: do not wait for the job.
        dry_run: print the request and send nothing.
    """

    output: str | None = None
    play: bool = False
    waveform: bool | None = None
    detach: bool = False
    dry_run: bool = False


def run_job(
    operation: str, params: Mapping[str, Any], *, options: Options, delivery: Delivery, unknown: Iterable[str] = ()
) -> None:
    """Runs an operation.

    Args:
        unknown: parameters that the shipped schema may not have.

    Raises:
        RefusedError: the schema does not allow the request; nothing was sent.
    """
    try:
        check_params(operation, params, allow_unknown=unknown)
    except WorkerError as error:
        raise RefusedError(error) from None
    if delivery.dry_run:
        print_json({"input": {"operation": operation, "params": params}})
        return
    with connect(options) as client:
        if operation != "list_models":
            for sentence in find_differences(client, options):
                _warn(sentence, options)
        if operation == "health_check":
            _tell_workers(client, options)
        job = client.submit(operation, params)
        if delivery.detach:
            _show_started(job, options)
            return
        finish_job(job, options=options, delivery=delivery, params=params)


def _tell_workers(client: Client, options: Options) -> None:
    """The endpoint's workers and jobs, which the platform counts."""
    if options.quiet or options.as_json:
        return
    health = client.health()
    for what, counts in (("workers", health.workers), ("jobs", health.jobs)):
        shown = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        click.echo(f"{what}: {shown or 'none'}", err=True)


def finish_job(job: Job, *, options: Options, delivery: Delivery, params: Mapping[str, Any]) -> None:
    """Waits for a job, saves its result and tells about it."""
    from music_worker.cli.progress import show_progress

    visible = sys.stderr.isatty() and not options.quiet
    with show_progress(visible=visible) as on_progress:
        try:
            result = job.wait(on_progress=on_progress, timeout_s=options.timeout_s, cancel_on_interrupt=True)
        except KeyboardInterrupt:
            click.echo(f"Job {job.id} is cancelled.", err=True)
            raise
    report(result, options=options, delivery=delivery, params=params)


def report(result: Result, *, options: Options, delivery: Delivery, params: Mapping[str, Any]) -> None:
    """Saves the files of a result, and tells what it is."""
    from music_worker.cli import saving

    if delivery.output == "-":
        for warning in result.warnings:
            _warn(warning, options)
        saving.write_to_stdout(result)
        return
    base = saving.make_base_name(params)
    has_input = any(isinstance(params.get(name), str) for name in ("audio", "voice_audio", "src_audio"))
    files = result.all_files()
    saved: dict[str, Path] = {}
    if files:
        saved = saving.save_files(result, output=delivery.output, base=base, has_input=has_input)
    elif delivery.output is not None:
        saved = {"reply": saving.save_reply(result, delivery.output)}
    if options.as_json:
        listed = [saving.describe_file(name, files[name], path) for name, path in saved.items() if name in files]
        print_json({"job_id": result.job_id, "operation": result.operation, "files": listed, "reply": result.reply})
    else:
        _tell(result, saved, options=options, delivery=delivery)
    if delivery.play:
        _play(result, saved, options)


def _tell(result: Result, saved: Mapping[str, Path], *, options: Options, delivery: Delivery) -> None:
    """What people want to know: facts and warnings to stderr, paths to stdout; without files, the facts to stdout."""
    from music_worker.cli import saving

    if not options.quiet:
        if result.operation == "list_models":
            from music_worker.cli.tables import show_models

            show_models(result.reply)
        else:
            for line in saving.describe_reply(result):
                click.echo(line, err=bool(result.outputs or result.stems))
    for warning in result.warnings:
        _warn(warning, options)
    audio = {**{output.filename: output for output in result.outputs}, **result.stems}
    files = result.all_files()
    wants_waveform = sys.stderr.isatty() if delivery.waveform is None else delivery.waveform
    for name, path in saved.items():
        if name in files and files[name] in audio.values() and wants_waveform and not options.quiet:
            _draw(path)
        click.echo(str(path))


def _draw(path: Path) -> None:
    from music_worker.cli.drawing import draw_waveform

    try:
        "█".encode(sys.stderr.encoding or "ascii")
    except UnicodeEncodeError:
        return
    for line in draw_waveform(path):
        click.secho(line, fg="cyan", err=True)


def _play(result: Result, saved: Mapping[str, Path], options: Options) -> None:
    from music_worker.cli.player import play

    audio = [*result.outputs, *result.stems.values()]
    path = next((path for name, path in saved.items() if result.all_files().get(name) in audio), None)
    if path is None:
        _warn("There is no audio to play.", options)
    elif problem := play(path):
        _warn(problem, options)


def _warn(sentence: str, options: Options) -> None:
    """Warnings are shown even if `--quiet`; with `--json` they are in the reply, and on stderr."""
    click.secho(f"Warning: {sentence}", fg="yellow", err=True)


def _show_started(job: Job, options: Options) -> None:
    if options.as_json:
        print_json({"job_id": job.id})
    else:
        click.echo(job.id)
        if not options.quiet:
            click.echo(f"The job is running. Wait for it: music-worker wait {job.id}", err=True)


def read_job_request(value: Any) -> tuple[str, dict[str, Any]]:
    """Operation and parameters of a request: the body of a RunPod job, its `input`, or the ACE-Step form of it."""
    if isinstance(value, Mapping) and isinstance(value.get("input"), Mapping):
        value = value["input"]
    if not isinstance(value, Mapping) or not isinstance(operation := value.get("operation"), str):
        raise click.UsageError(
            'A request is {"input": {"operation": NAME, "params": {...}}}, or its "input" alone. Got '
            + (json.dumps(value)[:60] if value is not None else "null")
            + "."
        )
    beside = {key: item for key, item in value.items() if key not in ("operation", "params")}
    params = value.get("params")
    if params is None:
        return operation, beside
    if not isinstance(params, Mapping):
        raise click.UsageError("'params' must be a JSON object.")
    if beside:
        raise click.UsageError(
            f"Parameters are both in 'params' and beside it: {', '.join(beside)}. Put all of them into 'params'."
        )
    return operation, dict(params)
