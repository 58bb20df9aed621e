"""The group of all subcommands. Each is built when it is called, so that the command line starts quickly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from music_worker.cli.connection import Options
from music_worker.cli.exit_codes import ExitCode, show_error
from music_worker.cli.operations import SHARED, list_commands, make_command
from music_worker.cli.options import add_shared_options
from music_worker.errors import MusicWorkerError

OTHERS = {
    "call": "Sends a request from a JSON file.",
    "wait": "Waits for a job by its id, and saves its result.",
    "cancel": "Cancels a job by its id.",
    "ui": "Opens the page in the browser.",
    "mcp": "Serves the operations as tools over the Model Context Protocol (stdio).",
    "login": "Saves the endpoint and its API key.",
    "logout": "Removes what `login` saved.",
}
EPILOG = """\b
Exit codes: 0 done, 1 the job failed, 2 wrong usage or an invalid request (nothing was sent), 3 the endpoint
cannot be used, 4 time-out (the job goes on), 5 the result cannot be fetched or written, 130 interrupted."""


class App(click.Group):
    """Finds subcommands by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*list_commands(), *OTHERS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        operations = list_commands()
        if name in operations:
            return make_command(operations[name])
        own_names = {operation.replace("_", "-"): operation for operation in operations.values()}
        if name in own_names:
            return make_command(own_names[name])
        if name in OTHERS:
            from music_worker.cli.others import COMMANDS

            return COMMANDS[name]
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from music_worker.schema import load_schemas

        operations = load_schemas().operations
        width = formatter.width - 22
        with formatter.section("Operations"):
            formatter.write_dl(
                [
                    (name, _shorten(str(operations[one].get("summary", "")), width))
                    for name, one in list_commands().items()
                ]
            )
        with formatter.section("Others"):
            formatter.write_dl(list(OTHERS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"{error.message.rstrip('.')}.{hint}", ctx=ctx) from None


def _shorten(sentence: str, width: int) -> str:
    return sentence if len(sentence) <= width else f"{sentence[: width - 4].rsplit(' ', 1)[0].rstrip(',:;')} ..."


def _remember_options(**given: Any) -> None:
    context = click.get_current_context()
    context.obj = Options().merge({key: given[key] for key in SHARED})


def _make_app() -> App:
    app = App(
        "music-worker",
        callback=_remember_options,
        help="Makes, separates, covers, mixes and analyses music with the music AI worker.",
        epilog=EPILOG,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "token_normalize_func": lambda token: token.replace("_", "-"),
            "max_content_width": 110,
        },
        params=[click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_show_version,
                             help="Show the version of the client and of the schemas.")],
        no_args_is_help=True,
    )  # fmt: skip
    return add_shared_options(app)


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value:
        return
    from importlib.metadata import version

    from music_worker.schema import load_schemas

    click.echo(f"music-worker {version('music-worker')} (schemas of worker {load_schemas().version})")
    ctx.exit()


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    return _run_guarded(lambda: _make_app().main(args=words, prog_name="music-worker", standalone_mode=False), as_json)


def _run_guarded(work: Callable[[], Any], as_json: bool) -> int:
    """Runs `work`; every way in which it ends becomes an exit code."""
    try:
        returned = work()
    except MusicWorkerError as error:
        return show_error(error, as_json=as_json)
    except click.ClickException as error:
        if as_json:
            return show_error(_make_usage_error(error), as_json=True)
        error.show()
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        sys.stdout = None  # nobody reads it any more, and Python would flush it at its end
        return ExitCode.OK
    return returned if isinstance(returned, int) else ExitCode.OK


def _make_usage_error(error: click.ClickException) -> MusicWorkerError:
    from music_worker.cli.exit_codes import RefusedError

    usage = MusicWorkerError(error.format_message())
    usage.code = "usage"
    return RefusedError(usage)
