"""`music-worker mcp`: the operations as tools over the Model Context Protocol. Tools take and return paths of files.

A path is read only below the folders that the user allows. Results are written to one folder, and never overwrite.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from music_worker.errors import ConfigurationError, InputError, MusicWorkerError
from music_worker.files import VOLUMES, find_input_fields
from music_worker.schema import Schema, load_schemas
from music_worker.validation import check_params

if TYPE_CHECKING:
    from mcp import types
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server

    from music_worker.cli.connection import Options
    from music_worker.client import AsyncClient
    from music_worker.jobs import Progress
    from music_worker.results import Result

DEFAULT_OUTPUT = "music-worker-output"
DROPPED_FIELDS = ("delivery",)  # results are always written here
DROPPED_KEYWORDS = ("title", "engines", "becomes", "left_out", "aliases", "input", "summary", "empty_is_absent")
OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["operation", "job_id", "files", "reply"],
    "properties": {
        "operation": {"type": "string"},
        "job_id": {"type": "string"},
        "files": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "path"],
                "properties": {
                    "name": {"type": "string"},
                    "path": {"type": "string", "description": "Where the file was written."},
                    "format": {"type": "string"},
                    "duration": {"type": "number", "description": "In seconds."},
                },
            },
        },
        "reply": {"type": "object", "description": "The worker's reply without the content of files."},
    },
}


@dataclass(frozen=True, slots=True)
class Folders:
    """Where files may be.

    Args:
        allowed: inputs are read below these; the first is the one that relative paths start from.
        output: results are written here.
    """

    allowed: tuple[Path, ...]
    output: Path

    @classmethod
    def build(cls, allowed: Sequence[str], output: str | None) -> Folders:
        """Raises `ConfigurationError` for a folder that does not exist."""
        found = []
        for name in allowed:
            folder = Path(name).expanduser().resolve()
            if not folder.is_dir():
                raise ConfigurationError(f"The folder {folder} does not exist.")
            found.append(folder)
        return cls(tuple(found), Path(output).expanduser().resolve() if output else found[0] / DEFAULT_OUTPUT)

    def resolve(self, text: str, field: str) -> str:
        """The path of an input, or the address as it is.

        Raises `InputError` for a path outside of the folders: a symbolic link does not lead out of them either.
        """
        if text.startswith(("http://", "https://")):
            return text
        if text.startswith("data:"):
            raise InputError(f"{field}: tools take paths of files, not their content. Save it to a file.")
        try:
            path = (self.allowed[0] / Path(text).expanduser()).resolve()
            is_file = path.is_file()
        except (OSError, ValueError, RuntimeError):
            raise InputError(f"{field}: this is not the path of a file.") from None
        if text.startswith(VOLUMES) and not path.exists():
            return text  # a file on the worker's volume
        if not any(path.is_relative_to(folder) for folder in (*self.allowed, self.output)):
            folders = ", ".join(str(folder) for folder in self.allowed)
            raise InputError(f"{field}: {path} is outside of the folders that may be read: {folders}.")
        if not is_file:
            raise InputError(f"{field}: there is no file {path}.")
        return str(path)


def make_tools(only: Iterable[str] = ()) -> list[types.Tool]:
    """One tool for each operation, or for those that are named."""
    from mcp import types

    operations = load_schemas().operations
    if unknown := [name for name in only if name not in operations]:
        raise ConfigurationError(f"There is no operation {', '.join(unknown)}. Valid: {', '.join(operations)}.")
    names = list(only) or list(operations)
    return [
        types.Tool(
            name=name,
            title=name.replace("_", " ").capitalize(),
            description=str(operations[name].get("summary", "")),
            input_schema=make_input_schema(operations[name]),
            output_schema=OUTPUT_SCHEMA,
            annotations=types.ToolAnnotations(
                read_only_hint=name in ("health_check", "list_models"),
                destructive_hint=False,
                open_world_hint=True,
            ),
        )
        for name in names
    ]


def make_input_schema(schema: Schema) -> dict[str, Any]:
    """The operation's schema for a tool: inputs are paths, and notes for programs are left out."""
    content = copy.deepcopy(dict(schema))
    for name in DROPPED_FIELDS:
        content.get("properties", {}).pop(name, None)
    return {"type": "object", **_simplify(content)}


def _simplify(schema: Any, *, is_properties: bool = False) -> Any:
    if isinstance(schema, list):
        return [_simplify(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: _simplify(value, is_properties=key in ("properties", "$defs"))
        for key, value in schema.items()
        if is_properties or key not in DROPPED_KEYWORDS
    }
    if "input" in schema and not is_properties:
        kept["description"] = f"{schema.get('description', '')} The path of a file, or an http(s) URL.".strip()
    return kept


def resolve_inputs(value: Any, fields: frozenset[str], resolve: Callable[[str, str], str], where: str = "") -> Any:
    """`value` with every input, at any depth, as `resolve` gives it."""
    if isinstance(value, Mapping):
        return {
            key: resolve_inputs(item, fields, resolve, f"{where}.{key}" if where else str(key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [resolve_inputs(item, fields, resolve, f"{where}.{number}") for number, item in enumerate(value)]
    if isinstance(value, str) and where.rpartition(".")[2] in fields and not value.startswith("$"):
        return resolve(value, where)
    return value


class ToolServer:
    """Answers to the client: lists the tools, and runs a job for each call."""

    def __init__(self, client: AsyncClient, folders: Folders, *, only: Iterable[str] = ()) -> None:
        self._client = client
        self._folders = folders
        self._tools = make_tools(only)

    def build(self) -> Server[Any]:
        """The server of the SDK."""
        from mcp.server.lowlevel import Server

        return Server(
            "music-worker",
            version=load_schemas().version,
            instructions="Makes, separates, covers, mixes and analyses music. Tools take paths of files and write their"
            f" results to {self._folders.output}. Call list_models to see the models and voices.",
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
        )

    async def list_tools(
        self, ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        from mcp import types

        return types.ListToolsResult(tools=self._tools)

    async def call_tool(
        self, ctx: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        """Runs the operation. What goes wrong with it is told in the result, so that the caller can correct it."""
        from mcp import MCPError, types

        if params.name not in {tool.name for tool in self._tools}:
            raise MCPError(types.INVALID_PARAMS, f"There is no tool '{params.name[:64]}'.")

        async def report(progress: Progress) -> None:
            from music_worker.cli.progress import describe_stage

            await ctx.session.report_progress(progress.percent or 0.0, 100.0, describe_stage(progress))

        try:
            result = await self._run(params.name, params.arguments or {}, report)
            return await self._describe(result, params.arguments or {})
        except MusicWorkerError as error:
            text = f"{error.message} [{error.code}]"
            return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)

    async def _run(self, operation: str, arguments: Mapping[str, Any], report: Callable[[Progress], Any]) -> Result:
        """Runs a job. When the caller cancels, the job is cancelled on the platform."""
        import anyio

        check_params(operation, arguments)
        given = {name: value for name, value in arguments.items() if name not in DROPPED_FIELDS}
        resolved = resolve_inputs(given, find_input_fields(operation), self._folders.resolve)
        job = await self._client.submit(operation, resolved)
        try:
            return await job.wait(on_progress=report)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await job.cancel()
            raise

    async def _describe(self, result: Result, arguments: Mapping[str, Any]) -> types.CallToolResult:
        import anyio.to_thread
        from mcp import types

        from music_worker.cli.saving import describe_file, describe_reply, make_base_name, save_files

        def save() -> dict[str, Path]:
            base = make_base_name(arguments)
            has_input = any(isinstance(arguments.get(name), str) for name in find_input_fields(result.operation))
            folder = str(self._folders.output)
            return save_files(result, output=None, base=base, has_input=has_input, folder=folder)

        saved = await anyio.to_thread.run_sync(save)
        files = result.all_files()
        listed = [describe_file(name, files[name], path) for name, path in saved.items()]
        lines = [_describe_saved(entry) for entry in listed]
        lines += describe_reply(result)
        lines += [f"Warning: {warning}" for warning in result.warnings]
        content = {
            "operation": result.operation,
            "job_id": result.job_id,
            "files": listed,
            "reply": dict(result.reply),
        }
        return types.CallToolResult(
            content=[types.TextContent(text="\n".join(lines) or "Done.")], structured_content=content
        )


def _describe_saved(entry: Mapping[str, Any]) -> str:
    duration = entry.get("duration")
    length = f" ({duration:g} s)" if isinstance(duration, float) else ""
    return f"{entry['name']}: {entry['path']}{length}"


def serve(options: Options, *, folders: Sequence[str], output: str | None, only: Iterable[str] = ()) -> None:
    """Serves on standard input and output until the client closes them.

    Raises:
        ConfigurationError: the package mcp is not installed, a folder does not exist, or no endpoint is known.
    """
    try:
        import anyio
        import mcp.server.stdio  # noqa: F401
    except ImportError:
        raise ConfigurationError("The MCP server needs the package mcp. Install music-worker[mcp].") from None
    anyio.run(_serve, options, Folders.build(folders, output), tuple(only))


async def _serve(options: Options, folders: Folders, only: tuple[str, ...]) -> None:
    from mcp.server.stdio import stdio_server

    from music_worker.client import AsyncClient

    if options.local:
        client = await AsyncClient.local(options.repository, volumes=options.volumes)
    else:
        client = AsyncClient(url=options.url, endpoint_id=options.endpoint, volumes=options.volumes)
    server = ToolServer(client, folders, only=only).build()
    async with client, stdio_server() as (read_stream, write_stream):
        await server.run(read_stream, write_stream, server.create_initialization_options())
