"""The subcommands that are no operation: call, wait, cancel, ui, mcp, login, logout."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from music_worker.cli.connection import Options, connect
from music_worker.cli.exit_codes import print_json
from music_worker.cli.operations import DELIVERY, SHARED, choose_format
from music_worker.cli.options import SectionedCommand, SectionedOption, add_delivery_options, add_shared_options
from music_worker.cli.values import parse_unknown, read_request


def _split(given: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
    """The shared options, and the rest."""
    options = click.get_current_context().find_object(Options) or Options()
    return options.merge({key: given.pop(key) for key in SHARED if key in given}), given


def _call(request: str, unknown: tuple[str, ...], **given: Any) -> None:
    from music_worker.cli.jobs import Delivery, read_job_request, run_job
    from music_worker.schema import load_schemas

    options, rest = _split(given)
    delivery = Delivery(**{key: rest[key] for key in DELIVERY})
    operation, params = read_job_request(read_request(request))
    more = dict(parse_unknown(text) for text in unknown)
    params |= more
    found = load_schemas().find(operation)
    if found is not None:
        params = choose_format(found[1], params, delivery.output)
    if found is None and options.check is False:
        _call_unchecked(operation, params, options, delivery)
        return
    run_job(operation, params, options=options, delivery=delivery, unknown=params if options.check is False else more)


def _call_unchecked(operation: str, params: dict[str, Any], options: Options, delivery: Any) -> None:
    """An operation that only a newer worker has."""
    from music_worker.cli.jobs import finish_job

    with connect(options) as client:
        finish_job(client.submit(operation, params), options=options, delivery=delivery, params=params)


def _wait(job_id: str, **given: Any) -> None:
    from music_worker.cli.jobs import Delivery, finish_job

    options, rest = _split(given)
    delivery = Delivery(output=rest["output"], play=rest["play"], waveform=rest["waveform"])
    with connect(options) as client:
        finish_job(client.job(job_id), options=options, delivery=delivery, params={})


def _cancel(job_id: str, **given: Any) -> None:
    options, _ = _split(given)
    with connect(options) as client:
        client.job(job_id).cancel()
    if options.as_json:
        print_json({"job_id": job_id, "cancelled": True})
    elif not options.quiet:
        click.echo(f"Job {job_id} is cancelled.", err=True)


def _ui(host: str, port: int | None, browser: bool, **given: Any) -> None:
    from music_worker.ui_server import serve

    options, _ = _split(given)
    with connect(options) as client:
        serve(client, host=host, port=port, open_browser=browser)


def _mcp(folder: tuple[str, ...], output: str | None, tools: tuple[str, ...], **given: Any) -> None:
    from music_worker.mcp_server import serve

    options, _ = _split(given)
    serve(options, folders=folder or (os.getcwd(),), output=output, only=tools)


def _login(**given: Any) -> None:
    from music_worker.config import get_config_dir, save_login

    bucket = _make_bucket(given)
    url, endpoint = given["url"], given["endpoint"]
    if url and endpoint:
        raise click.UsageError("Give either --endpoint or --url.")
    if not url and not endpoint:
        endpoint = click.prompt("Endpoint id (in the address of its page on RunPod)", err=True)
    key = _read_key(bool(endpoint)) if endpoint or given["with_key"] else None
    login = save_login(endpoint_id=endpoint, url=url, api_key=key, bucket=bucket)
    place = {"keyring": "in the system's keyring", "file": f"in {get_config_dir()}, in a file that only you can read"}
    click.echo(f"Saved {'endpoint ' + endpoint if endpoint else url}.", err=True)
    if login.key_place:
        click.echo(f"The API key is {place[login.key_place]}.", err=True)
    if given["verify"]:
        _verify(url, endpoint, key)


def _read_key(is_of_runpod: bool) -> str | None:
    """The key from RUNPOD_API_KEY (for RunPod only), from standard input, or typed without being shown."""
    if is_of_runpod and (key := os.environ.get("RUNPOD_API_KEY")):
        click.echo("The key of RUNPOD_API_KEY is saved.", err=True)
        return key
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip() or None
    return str(click.prompt("API key (not shown)", hide_input=True, err=True))


def _make_bucket(given: dict[str, Any]) -> Any:
    values = {name: given[f"bucket_{name}"] for name in ("endpoint_url", "name", "access_key_id", "region")}
    if not values["endpoint_url"]:
        return None
    from music_worker.bucket import Bucket

    secret = os.environ.get("BUCKET_SECRET_ACCESS_KEY") or click.prompt(
        "Secret access key of the bucket (not shown)", hide_input=True, err=True
    )
    named = {name: value for name, value in values.items() if value}
    return Bucket(**{"name": "", "access_key_id": "", **named}, secret_access_key=secret)


def _verify(url: str | None, endpoint: str | None, key: str | None) -> None:
    """Asks the endpoint for its health, so that a wrong key shows now."""
    from music_worker.client import Client

    with Client(url=url, endpoint_id=endpoint, api_key=key) as client:
        health = client.health()
    workers = ", ".join(f"{count} {state}" for state, count in health.workers.items() if count) or "none running"
    click.echo(f"The endpoint answers. Workers: {workers}.", err=True)


def _logout() -> None:
    from music_worker.config import delete_login

    delete_login()
    click.echo("The saved endpoint and key are removed.", err=True)


def _make(name: str, callback: Any, text: str, parameters: list[click.Parameter]) -> click.Command:
    return SectionedCommand(name, callback=callback, params=parameters, help=text)


_CALL = _make(
    "call",
    _call,
    "Sends a request from a JSON file, from standard input (`-`), or as JSON on the command line.\n\nThe file has the"
    ' body of a RunPod job, {"input": {"operation": ..., "params": {...}}}, or its input alone. Paths in it are'
    " relative to the current folder. With --no-check it is sent even if the client's schema does not know it.",
    [
        click.Argument(["request"], metavar="REQUEST.json"),
        SectionedOption(["--param", "unknown"], multiple=True, metavar="NAME=VALUE", help="A parameter more."),
    ],
)
_JOB_ID = [click.Argument(["job_id"])]
COMMANDS: dict[str, click.Command] = {
    "call": add_shared_options(add_delivery_options(_CALL)),
    "wait": add_shared_options(
        add_delivery_options(
            _make("wait", _wait, "Waits for a job and saves its result. Ctrl-C cancels the job.", list(_JOB_ID)),
            request=False,
        )
    ),
    "cancel": add_shared_options(_make("cancel", _cancel, "Cancels a job.", list(_JOB_ID))),
    "ui": add_shared_options(
        _make(
            "ui",
            _ui,
            "Serves the page on this machine and opens it in the browser. Ctrl-C ends it.",
            [
                SectionedOption(["--host"], default="127.0.0.1", help="Address of this machine. Default: 127.0.0.1."),
                SectionedOption(["--port"], type=int, default=None, help="Default: 7861, or a free one."),
                SectionedOption(["--browser/--no-browser"], default=True, help="Open the browser. Default: yes."),
            ],
        )
    ),
    "mcp": add_shared_options(
        _make(
            "mcp",
            _mcp,
            "Serves the operations as tools over the Model Context Protocol, on standard input and output.\n\nTools"
            " take and return paths of files. Files are read only below the folders that are allowed.",
            [
                SectionedOption(
                    ["--folder"],
                    multiple=True,
                    metavar="FOLDER",
                    help="A folder whose files tools may read. Repeatable. Default: the current one.",
                ),
                SectionedOption(
                    ["-o", "--output"],
                    metavar="FOLDER",
                    help="Where results go. Default: music-worker-output in the first of those folders.",
                ),
                SectionedOption(
                    ["--tool", "tools"],
                    multiple=True,
                    metavar="OPERATION",
                    help="Serve this operation only. Repeatable. Default: all.",
                ),
            ],
        )
    ),
    "login": _make(
        "login",
        _login,
        "Saves the endpoint and its API key.\n\nThe key of RunPod is RUNPOD_API_KEY if that is set; else it is asked"
        " for, or read from standard input. It goes to the system's keyring, else to a file that only you can read, and"
        " is never shown.",
        [
            SectionedOption(["--endpoint"], metavar="ID", help="The id of an endpoint on RunPod."),
            SectionedOption(["--url"], metavar="URL", help="The address of a worker's local API."),
            SectionedOption(["--with-key"], is_flag=True, help="Save a key with --url, too."),
            SectionedOption(["--bucket-endpoint-url"], metavar="URL", help="An S3 bucket for large inputs."),
            SectionedOption(["--bucket-name"], metavar="NAME", help="Its name."),
            SectionedOption(["--bucket-access-key-id"], metavar="ID", help="Its access key id."),
            SectionedOption(["--bucket-region"], metavar="REGION", help="Its region."),
            SectionedOption(["--verify/--no-verify"], default=True, help="Ask the endpoint for its health."),
        ],
    ),
    "logout": _make("logout", _logout, "Removes the saved endpoint and its key.", []),
}
