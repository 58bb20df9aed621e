"""The command line of `python handler.py`: jobs from the platform, RunPod's local API, or one job run locally."""

from __future__ import annotations

import argparse
import base64
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from worker import logs
from worker.job import build_job, read_job_id
from worker.request_file import MARK, RequestFileError, inline_files
from worker.runpod.adapter import Adapter, CatchErrors, RunJob, set_sdk_log_level
from worker.runpod.fitness import report_unfit
from worker.runpod.progress import report_progress
from worker.settings import SDK_LOG_LEVELS, Platform, Settings, SettingsError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
TEST_INPUT = "test_input.json"
LOCAL_BUDGET_BYTES = 4_000_000_000
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

HELP = """\
Without arguments and outside of RunPod, the worker runs one local job: it reads test_input.json (from the current
folder, else from the folder of handler.py), writes the audio to OUTPUT_DIR (default: output/ beside handler.py) and
prints the reply as JSON without the audio. Exit codes: 0 success, 1 error (message on stderr), 130 interrupted.
On RunPod, the worker takes jobs until it is stopped.

  python handler.py --test_input '{"input": {"operation": "health_check"}}'
  python handler.py --test_input @examples/separate.json    (in the file, "@inputs/song.flac" inlines a file beside it)
  python handler.py --rp_serve_api --rp_api_port 8000
"""

Preload = Callable[[Settings], Mapping[str, str]]
"""Loads the models of `PRELOAD`; returns those that cannot be loaded, each with the reason (`handler.preload`)."""

CheckDevice = Callable[[Settings], dict[str, Any]]
"""Returns a reply with `error` if the worker cannot compute on its device (`handler.check_device`)."""


class CommandLineError(Exception):
    """The worker cannot start, or the local job cannot be read or written; the message is a sentence for the user."""


def main(run_job: RunJob, *, preload: Preload, check_device: CheckDevice, catch_errors: CatchErrors) -> int:
    """Does what the arguments and the environment ask for, and returns the exit code."""
    try:
        return _run(_parse_arguments(), run_job, preload=preload, check_device=check_device, catch_errors=catch_errors)
    except (CommandLineError, SettingsError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return EXIT_INTERRUPTED


def _run(
    arguments: argparse.Namespace,
    run_job: RunJob,
    *,
    preload: Preload,
    check_device: CheckDevice,
    catch_errors: CatchErrors,
) -> int:
    settings, platform = Settings.from_env(), Platform.from_env()
    logs.configure(
        level=settings.log_level,
        as_json=bool(platform.endpoint_id),
        secrets=settings.secrets() + platform.secrets(),
    )
    _require_temporary_folder(settings)
    if arguments.unknown:
        logger.warning("Unknown arguments are ignored: %s", " ".join(arguments.unknown))
    serves_api = arguments.rp_serve_api or platform.realtime_port
    if not serves_api and (arguments.test_input is not None or not platform.job_url):
        return run_local_job(run_job, arguments.test_input, settings=settings)
    if error := check_device(settings).get("error"):
        logger.error("The worker cannot start: %s", error)
        if not serves_api:
            report_unfit(error)
        return EXIT_FAILED
    for name, reason in preload(settings).items():  # the worker starts all the same, or it would restart for ever
        logger.warning("PRELOAD of %s failed; it is loaded when a request first needs it. %s", name, reason)
    set_sdk_log_level(settings, platform, arguments.rp_log_level)
    adapter = Adapter(run_job, catch_errors, settings=settings, platform=platform)
    if serves_api:
        from worker.runpod.local_api import serve_api

        # RunPod's proxy reaches a realtime endpoint from outside of the container.
        host, port = ("0.0.0.0", platform.realtime_port)
        if arguments.rp_serve_api:
            host, port = arguments.rp_api_host, arguments.rp_api_port
        serve_api(
            adapter,
            host,
            port,
            concurrency=settings.concurrency,
            shutdown_grace_s=settings.shutdown_grace_s,
        )
    else:
        from worker.runpod.job_loop import take_jobs

        take_jobs(adapter, settings, platform)
    return 0


def _require_temporary_folder(settings: Settings) -> None:
    """Stops a worker that could not keep a long input or result, and names the folder."""
    from audio.temporary import try_writing

    try:
        try_writing(settings.temp_dir or Path(tempfile.gettempdir()))
    except OSError as error:
        folder = f"TMPDIR is {settings.temp_dir}, which" if settings.temp_dir else "The folder for temporary files"
        raise CommandLineError(
            f"{folder} cannot be written: {error.strerror}. Long audio is kept there; set TMPDIR to a folder that can "
            "be written."
        ) from None


def _fail(sentence: str) -> int:
    sys.stderr.write(f"Error: {sentence}\n")
    return EXIT_FAILED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandLineError(f"{message[:1].upper()}{message[1:]}. See --help.")


def _parse_arguments() -> argparse.Namespace:
    """The SDK's flags, parsed before the SDK is imported so that a mistake gets a sentence and `--help` is ours."""
    parser = _Parser(
        prog="python handler.py",
        description="A RunPod worker for music.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--test_input", "--test-input", metavar="JSON", help='run this one job, {"input": {...}} or @file'
    )
    parser.add_argument("--rp_serve_api", action="store_true", help="serve RunPod's local API (/run, /runsync)")
    parser.add_argument("--rp_api_host", default="localhost", metavar="HOST", help="its host (default: localhost)")
    parser.add_argument("--rp_api_port", default=8000, type=int, metavar="PORT", help="its port (default: 8000)")
    parser.add_argument("--rp_api_concurrency", default=1, type=_parse_one, metavar="1", help=argparse.SUPPRESS)
    parser.add_argument("--rp_log_level", type=str.upper, choices=SDK_LOG_LEVELS, help="the SDK's own log level")
    parser.add_argument("--rp_debugger", action="store_true", help="add the SDK's timings to each reply (platform)")
    arguments, unknown = parser.parse_known_args()
    arguments.unknown = unknown
    return arguments


def _parse_one(text: str) -> int:
    if text != "1":
        raise argparse.ArgumentTypeError(
            "only 1 works in RunPod's local API; set CONCURRENCY to run several jobs at once"
        )
    return 1


def run_local_job(run_job: RunJob, test_input: str | None, *, settings: Settings, root: Path = ROOT) -> int:
    """Runs the job in `test_input` (JSON or @file), else the one in test_input.json. Returns the exit code, 0 or 1.

    Args:
        root: the repository; test_input.json is searched there after the current folder, and a relative `OUTPUT_DIR`
            is a folder there.
    """
    raw_job = _read_job(test_input, root)
    if settings.inline_budget_bytes == Settings.inline_budget_bytes:  # no platform limits the reply's size here
        settings = replace(settings, inline_budget_bytes=LOCAL_BUDGET_BYTES)
    job_id = read_job_id(raw_job)
    output_dir = root / settings.output_dir
    with logs.job_context(job_id), report_progress(Platform(), job_id) as progress:
        job = build_job(
            raw_job, job_id=job_id, timeout_s=settings.job_timeout_s, report=progress.report, output_dir=output_dir
        )
        reply = run_job(job, settings)
    shown = _write_artefacts(reply, _OutputFolder(output_dir))
    can_print_unicode = "utf" in (sys.stdout.encoding or "").lower()
    sys.stdout.write(json.dumps(shown, indent=2, ensure_ascii=not can_print_unicode) + "\n")
    return _fail(str(reply["error"])) if "error" in reply else 0


def _read_job(test_input: str | None, root: Path) -> Any:
    """The job that `--test_input` has as JSON, or the one in the file that it names, else in test_input.json."""
    if test_input is not None and not test_input.startswith(MARK):
        return _parse_job("--test_input", test_input)
    path = _find_test_input(root) if test_input is None else Path(test_input.removeprefix(MARK))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CommandLineError(f"{path.name} cannot be read as UTF-8 text.") from None
    except OSError as error:
        raise CommandLineError(f"{path.name} cannot be read: {error.strerror}.") from None
    try:
        return inline_files(_parse_job(path.name, text), path.parent, root=root)
    except RequestFileError as error:
        raise CommandLineError(str(error)) from None


def _find_test_input(root: Path) -> Path:
    for folder in (Path.cwd(), root):
        if (path := folder / TEST_INPUT).is_file():
            return path
    raise CommandLineError(
        f"There is no {TEST_INPUT} in the current folder or beside handler.py. Write one, or pass --test_input JSON."
    )


def _parse_job(name: str, text: str) -> Any:
    try:
        raw_job = json.loads(text)
    except RecursionError:
        raise CommandLineError(f"{name} is nested too deeply to be read.") from None
    except json.JSONDecodeError as error:
        position = f"{error.msg}, line {error.lineno}, column {error.colno}"
        raise CommandLineError(f'{name} is not valid JSON ({position}). It must be {{"input": {{...}}}}.') from None
    except ValueError:  # a number of thousands of digits
        raise CommandLineError(f"{name} contains a number that cannot be read.") from None
    return {"id": "local", **raw_job} if isinstance(raw_job, dict) else raw_job


class _OutputFolder:
    """The folder that artefacts are written to; an existing file is kept unless it has the same content."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, name: str, content: bytes) -> Path:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            path = self._find_free_path(Path(name).name or "audio", content)
            path.write_bytes(content)
        except OSError as error:
            raise CommandLineError(f"The audio cannot be written to {self._path}: {error.strerror}.") from None
        return path

    def _find_free_path(self, name: str, content: bytes) -> Path:
        path, number = self._path / name, 1
        stem, suffix = path.stem, path.suffix
        while path.exists() and not (path.stat().st_size == len(content) and path.read_bytes() == content):
            number += 1
            path = self._path / f"{stem}-{number}{suffix}"
        return path


def _write_artefacts(value: Any, folder: _OutputFolder) -> Any:
    """`value` with the base64 of each artefact replaced by a note; `output_file` names the file that has it."""
    if isinstance(value, Mapping):
        shown = {key: _write_artefacts(item, folder) for key, item in value.items()}
        for key in ("output_audio", "output_file"):
            encoded = value.get(key)
            if isinstance(encoded, str):
                path = folder.write(str(value.get("filename", "")), base64.b64decode(encoded))
                sys.stderr.write(f"Wrote {path}\n")
                shown |= {key: f"<{len(encoded)} characters of base64>", "output_file": str(path)}
        return shown
    if isinstance(value, (list, tuple)):
        return [_write_artefacts(item, folder) for item in value]
    return value
