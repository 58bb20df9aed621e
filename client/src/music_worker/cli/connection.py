"""Which endpoint a command talks to, and the comparison of its schemas with those that this package ships."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from music_worker.schema import compare, load_schemas, read_schemas

if TYPE_CHECKING:
    from music_worker.client import Client

CHECK_TIMEOUT_S = 20.0
CHECKED_FOR_S = 24 * 3600.0
UNKNOWN_FOR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Options:
    """The options that all commands share, before or after the subcommand.

    Args:
        local: start the worker of a repository for this command.
        volumes: folders of this machine by the worker's folder that they are.
        timeout_s: the longest wait for a job.
        check: compare the server's schemas.
    """

    local: bool = False
    repository: str | None = None
    url: str | None = None
    endpoint: str | None = None
    volumes: Mapping[str, str] = field(default_factory=dict)
    as_json: bool = False
    quiet: bool = False
    timeout_s: float | None = None
    check: bool = True

    def merge(self, given: Mapping[str, Any]) -> Options:
        """These options with those that are `given` in their place."""
        merged = replace(self, **{name: value for name, value in given.items() if value not in (None, (), {})})
        named = [name for name in ("local", "url", "endpoint") if getattr(merged, name)]
        if len(named) > 1:
            raise click.UsageError(f"Use only one of {' and '.join(f'--{name}' for name in named)}.")
        if merged.repository and not merged.local:
            raise click.UsageError("--repository goes with --local.")
        return merged


@contextmanager
def connect(options: Options) -> Iterator[Client]:
    """Yields a client of the endpoint. A local worker runs as long as the block."""
    from music_worker.client import Client

    if options.local:
        if not options.quiet and not options.as_json:
            click.echo("Starting the worker on this machine ...", err=True)
        with Client.local(options.repository, volumes=options.volumes) as client:
            yield client
        return
    with Client(url=options.url, endpoint_id=options.endpoint, volumes=options.volumes) as client:
        yield client


def find_differences(client: Client, options: Options) -> list[str]:
    """What differs between the endpoint's schemas and the shipped ones, in sentences; empty if nothing does.

    An endpoint is asked once a day. One that does not answer within 20 s is left alone: its job matters more.
    """
    if not options.check:
        return []
    cache = None if options.local else _find_cache(client.url)
    if cache is not None and (known := _read_cache(cache)) is not None:
        return known
    reply = _fetch_schemas(client)
    sentences = [] if reply is None else compare(load_schemas(), read_schemas(reply)).describe()
    if cache is not None:
        lifetime_s = UNKNOWN_FOR_S if reply is None else CHECKED_FOR_S
        _write_cache(cache, {"version": load_schemas().version, "until": time.time() + lifetime_s, "said": sentences})
    return sentences


def _fetch_schemas(client: Client) -> Mapping[str, Any] | None:
    """The reply with the schemas; None if it does not come in time, or the worker has none."""
    from music_worker.errors import EndpointError, MusicWorkerError, WaitTimeoutError

    try:
        job = client.submit("list_models", {"schemas": True})
        try:
            return job.wait(timeout_s=CHECK_TIMEOUT_S, cancel_on_interrupt=True).reply
        except WaitTimeoutError:
            job.cancel()
            return None
    except EndpointError:
        raise
    except MusicWorkerError:
        return None


def _find_cache(url: str) -> Path:
    from music_worker.config import get_config_dir

    return get_config_dir() / "schemas" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"


def _read_cache(path: Path) -> list[str] | None:
    """What was said at the last comparison, if it is still valid."""
    try:
        entry = json.loads(path.read_bytes())
        if entry["version"] == load_schemas().version and 0 < entry["until"] - time.time() <= CHECKED_FOR_S:
            return [str(sentence) for sentence in entry["said"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _write_cache(path: Path, entry: Mapping[str, Any]) -> None:
    """Without a folder to write to, the endpoint is asked again at the next command."""
    from music_worker.downloads import PartialFile
    from music_worker.errors import OutputError

    try:
        with PartialFile(path, overwrite=True) as part:
            part.append(json.dumps(entry).encode())
            part.finish()
    except OutputError:
        return
