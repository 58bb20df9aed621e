"""Options made from an operation's schema, and those that all commands share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from music_worker.naming import OUTPUT_FIELDS, Name
from music_worker.schema import Kind, Schema, read_kind

CommandT = TypeVar("CommandT", bound=click.Command)

ENGINES = {"acestep": "ACE-Step", "musicgen": "MusicGen", "suno": "Suno"}
TYPE_NAMES = {"integer": "N", "number": "X", "string": "TEXT", "boolean": "true|false", "object": "JSON"}
PARAMETERS, RESULT, COMMAND = "Parameters", "Result", "Endpoint and job"
MAX_CHOICES_SHOWN = 60


class FieldType(click.ParamType):  # type: ignore[type-arg]  # older versions of click are not generic
    """Text that the schema reads later, so that all errors are told together and in the worker's words."""

    name = "value"

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return describe_kind(self._kind)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The choices that begin with what is typed; files for inputs."""
        if self._kind.input:
            return [CompletionItem(incomplete, type="file")]
        choices = self._kind.choices or read_kind(self._kind.items).choices
        return [CompletionItem(str(choice)) for choice in choices if str(choice).startswith(incomplete)]


class SectionedOption(click.Option):
    """An option with the section of the help that it is in. Its further names are not shown."""

    def __init__(self, *args: Any, section: str = COMMAND, **more: Any) -> None:
        super().__init__(*args, **more)
        self.section = section

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None or len(self.opts) < 2 or self.opts[0].startswith("-o"):
            return record
        head = self.opts[0]
        if self.secondary_opts:
            head += f" / {self.secondary_opts[0]}"
        if not self.is_flag:
            head += f" {self.make_metavar(ctx)}"
        return head, record[1]


class SectionedCommand(click.Command):
    """A command whose help has its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(parameter, "section", COMMAND), []).append(record)
        for title in sorted(sections, key=lambda title: (title in (COMMAND,), title == RESULT, title != PARAMETERS)):
            with formatter.section(title):
                formatter.write_dl(sections[title])


def make_field_options(schema: Schema, name: Name) -> Iterator[click.Parameter]:
    """An argument for the parameter that needs no name, and an option for every parameter."""
    from music_worker.naming import order_fields

    fields = order_fields(schema)
    more = {own: [other for other, target in name.options.items() if target == own] for own in fields}
    for field, one in fields.items():
        kind = read_kind(one)
        if field == name.positional:
            count = -1 if "array" in kind.types and "string" not in kind.types and "$ref" in kind.items else 1
            is_file = field == "steps"
            yield click.Argument(
                ["positional"], required=False, nargs=1 if is_file else count, metavar=_name_argument(field, kind)
            )
        spellings = [field, *more[field], *[alias for alias in one.get("aliases", ()) if alias not in fields]]
        options = list(dict.fromkeys(f"--{spelling.replace('_', '-').lower()}" for spelling in spellings))
        help_text = _describe_field(one)
        if kind.types == {"boolean"}:
            yield SectionedOption(
                [f"{options[0]}/--no-{options[0][2:]}", *options[1:], field],
                default=None,
                help=help_text,
                section=_choose_section(field, one),
            )
            continue
        yield SectionedOption(
            [*options, field],
            type=FieldType(kind),
            multiple="array" in kind.types,
            default=None,
            help=help_text,
            section=_choose_section(field, one),
        )


def _choose_section(field: str, schema: Schema) -> str:
    if field in OUTPUT_FIELDS:
        return RESULT
    engines = [ENGINES.get(str(engine), str(engine)) for engine in schema.get("engines", ())]
    return f"Parameters of {' and '.join(engines)}" if engines else PARAMETERS


def _describe_field(schema: Schema) -> str:
    text = str(schema.get("description", ""))
    default = schema.get("default")
    if default not in (None, "") and "Default:" not in text:
        shown = str(default).lower() if isinstance(default, bool) else default
        text = f"{text} Default: {shown}."
    if reason := schema.get("left_out"):
        text = f"{text} Left out, with a warning: {reason}."
    return text.strip()


def _name_argument(field: str, kind: Kind) -> str:
    if field == "steps":
        return "[STEPS.json]"
    if "$ref" in kind.items:
        return "[FILE[:NAME=VALUE,...]]..."
    return f"[{'FILE|URL' if kind.input else field.upper()}]"


def describe_kind(kind: Kind) -> str:
    """What an option takes, for its help."""
    if kind.input:
        return "FILE|URL"
    choices = "|".join(str(choice) for choice in kind.choices)
    if kind.choices:
        return choices if len(choices) <= MAX_CHOICES_SHOWN else "NAME"
    low, high = kind.bounds
    if kind.types & {"integer", "number"} and low is not None and high is not None and high < 1e9:
        return f"{low:g}..{high:g}"
    if "array" in kind.types and "string" not in kind.types:
        return f"{describe_kind(read_kind(kind.items)) if kind.items and '$ref' not in kind.items else 'JSON'},..."
    scalar = next((name for name in TYPE_NAMES if name in kind.types), "string")
    return TYPE_NAMES[scalar]


def add_shared_options(command: CommandT) -> CommandT:
    """Adds where the job goes, and how its output looks."""
    command.params += [
        _option("--local", is_flag=True, default=None, help="Start the worker of this repository for the command."),
        _option("--repository", metavar="FOLDER", help="Its folder, if it is not the current one. With --local."),
        _option("--url", metavar="URL", help="A worker's local API, such as http://localhost:8000."),
        _option("--endpoint", metavar="ID", help="An endpoint on RunPod. Its key: RUNPOD_API_KEY, or `login`."),
        _option(
            "--volume",
            "volumes",
            multiple=True,
            callback=_read_volumes,
            metavar="WORKER=HERE",
            help="A folder of this machine that is the worker's volume: /runpod-volume=/mnt/volume.",
        ),
        _option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                help="Longest wait for the job, which goes on. Default: no limit."),
        _option("--json", "as_json", is_flag=True, default=None, help="Print one JSON document on stdout."),
        _option("--quiet", is_flag=True, default=None, help="Show no progress and no facts, only paths."),
        _option("--check/--no-check", default=None, help="Compare the worker's schemas with these. Default: yes."),
    ]  # fmt: skip
    return command


def add_delivery_options(command: CommandT, *, request: bool = True) -> CommandT:
    """Adds what happens with the result.

    Args:
        request: whether the command sends a request, which can be shown or left running.
    """
    command.params += [
        _option("-o", "--output", metavar="PATH", section=RESULT,
                help="File or folder (ends with a slash) of the result; `-` is stdout. Nothing is overwritten."),
        _option("--play", is_flag=True, section=RESULT, help="Play the result, if a player is installed."),
        _option("--waveform/--no-waveform", default=None, section=RESULT,
                help="Draw the waveform. Default: on a terminal."),
    ]  # fmt: skip
    if request:
        command.params += [
            _option("--detach", is_flag=True, help="Print the job's id and do not wait (see `wait`)."),
            _option("--dry-run", is_flag=True, help="Print the request as JSON and send nothing."),
        ]
    return command


def _option(*names: str, **more: Any) -> SectionedOption:
    return SectionedOption(list(names), **more)


def _read_volumes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Mapping[str, str]:
    pairs = [value.partition("=") for value in values]
    if any(not theirs or not ours for theirs, _, ours in pairs):
        raise click.BadParameter("must be WORKER=HERE, such as /runpod-volume=/mnt/volume.")
    return {theirs: ours for theirs, _, ours in pairs}
