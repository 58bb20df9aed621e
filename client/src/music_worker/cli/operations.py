"""One subcommand for each operation, made from its schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from music_worker.cli.connection import Options
from music_worker.cli.options import (
    PARAMETERS,
    SectionedCommand,
    SectionedOption,
    add_delivery_options,
    add_shared_options,
    make_field_options,
)
from music_worker.cli.values import find_item, parse_item, parse_unknown, parse_value, parse_values, read_request
from music_worker.naming import NAMES, Name, get_name
from music_worker.schema import Schema, load_schemas, read_kind

SHARED = ("local", "repository", "url", "endpoint", "volumes", "timeout_s", "as_json", "quiet", "check")
DELIVERY = ("output", "play", "waveform", "detach", "dry_run")
EXAMPLES: Mapping[str, str] = {
    "generate_music": 'music-worker music "calm piano, 80 bpm" --duration 20 -o piano.wav',
    "edit_music": 'music-worker edit song.mp3 --task repaint --prompt "a guitar solo" --repainting-start 10',
    "plan_music": 'music-worker plan "a cheerful song about spring" --mode sample',
    "generate_cover": "music-worker cover song.mp3 --voice my_voice",
    "separate": "music-worker separate song.mp3 --two-stems vocals -o stems/",
    "mix_audio": "music-worker mix drums.wav:gain_db=4 bass.wav:pan=0.2 vocals.wav --master glue",
    "encode_audio": "music-worker encode song.mp3 -o codes/",
    "decode_audio": "music-worker decode codes.npz -o song.wav",
    "analyze": "music-worker analyze song.mp3",
    "pipeline": "music-worker pipeline steps.json",
    "extend_via_suno": "music-worker extend song.mp3 --continue-at 60",
    "add_voice": "music-worker add-voice my_voice --archive my_voice.zip",
}


def list_commands() -> dict[str, str]:
    """The operation of each subcommand, those that are used most first."""
    operations = load_schemas().operations
    order = [name for name in NAMES if name in operations] + [name for name in operations if name not in NAMES]
    return {get_name(name, operations[name]).command: name for name in order}


def make_command(operation: str) -> click.Command:
    """The subcommand of an operation."""
    schema = load_schemas().operations[operation]
    name = get_name(operation, schema)

    def call(**given: Any) -> None:
        _run(operation, schema, name, given)

    command = SectionedCommand(
        name.command,
        params=[
            *make_field_options(schema, name),
            SectionedOption(
                ["--param", "unknown"],
                multiple=True,
                metavar="NAME=VALUE",
                section=PARAMETERS,
                help="A parameter that a newer worker knows; JSON or text.",
            ),
        ],
        callback=call,
        help=f"{schema.get('summary', '')}\n\nExample:\n\n\b\n    {EXAMPLES[operation]}"
        if operation in EXAMPLES
        else str(schema.get("summary", "")),
        short_help=str(schema.get("summary", "")),
    )
    return add_shared_options(add_delivery_options(command))


def _run(operation: str, schema: Schema, name: Name, given: dict[str, Any]) -> None:
    options = click.get_current_context().find_object(Options) or Options()
    options = options.merge({key: given.pop(key) for key in SHARED})
    from music_worker.cli.jobs import Delivery, run_job

    delivery = Delivery(**{key: given.pop(key) for key in DELIVERY})
    unknown = dict(parse_unknown(text) for text in given.pop("unknown"))
    params = {**read_params(schema, name, given), **unknown}
    params = choose_format(schema, params, delivery.output)
    run_job(operation, params, options=options, delivery=delivery, unknown=unknown)


def read_params(schema: Schema, name: Name, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as JSON values, from the options and the argument."""
    fields: Mapping[str, Schema] = schema.get("properties", {})
    definitions: Mapping[str, Schema] = schema.get("$defs", {})
    params: dict[str, Any] = {}
    argument = given.get("positional")
    if argument not in (None, ()):
        if given.get(name.positional) not in (None, ()):
            raise click.UsageError(f"The {name.positional} is given twice: without a name, and as an option.")
        params |= _read_argument(argument, name.positional, fields[name.positional], definitions)
    for field, value in given.items():
        if field == "positional" or value in (None, ()):
            continue
        if isinstance(value, tuple):
            params[field] = parse_values(value, fields[field], definitions)
        else:
            params[field] = value if isinstance(value, bool) else parse_value(value, fields[field], definitions)
    return params


def _read_argument(argument: Any, field: str, schema: Schema, definitions: Mapping[str, Schema]) -> dict[str, Any]:
    item = find_item(read_kind(schema), definitions)
    if isinstance(argument, tuple):
        assert item is not None, "only lists of objects take several arguments"
        return {field: [parse_item(text, item, definitions) for text in argument]}
    if item is None:
        return {field: parse_value(argument, schema, definitions)}
    value = read_request(argument)
    if isinstance(value, Mapping):
        from music_worker.cli.jobs import read_job_request

        if "input" in value or "operation" in value:
            return read_job_request(value)[1]
        return dict(value)
    return {field: value}


def choose_format(schema: Schema, params: dict[str, Any], output: str | None) -> dict[str, Any]:
    """The parameters with the format that the name of the output asks for."""
    field = schema.get("properties", {}).get("output_format")
    if field is None or output in (None, "-") or not (suffix := Path(str(output)).suffix.lower().lstrip(".")):
        return params
    if str(output).endswith(("/", "\\")) or Path(str(output)).is_dir():
        return params
    formats = [choice for choice in read_kind(field).choices if choice != "auto"]
    if suffix not in formats:
        raise click.UsageError(
            f"The worker writes no .{suffix} files. Name the output .{', .'.join(map(str, formats))}, or a folder."
        )
    asked = params.get("output_format", "auto")
    if asked not in ("auto", suffix):
        raise click.UsageError(f"The output is named .{suffix}, and --output-format is {asked}.")
    return {**params, "output_format": suffix}
