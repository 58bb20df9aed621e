"""From RunPod's SDK to `serve` and back: the command line, the platform's loop, the local API. Knows no operation.

The SDK is used as it is. What it leaves open is closed here: a job runs in a thread that can be told to stop and is
awaited before the next one, and only a reply that is sure to arrive is handed back.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

from errors import InternalError, RequestError
from worker import logs
from worker.runpod import cli as local
from worker.runpod.progress import reporting
from worker.settings import Platform, Settings, SettingsError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
SDK_LEVELS = ("NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR")

HELP = """\
Without arguments and off the platform: runs test_input.json (of this folder, else the one beside handler.py), writes
the audio below OUTPUT_DIR (default: output/ beside handler.py) and prints the reply as JSON without it. The exit code
is 0, or 1 with a sentence on what is wrong. On RunPod: takes jobs until it is stopped.

  python handler.py --test_input '{"input": {"operation": "health_check"}}'
  python handler.py --rp_serve_api --rp_api_port 8000
"""


class Serve(Protocol):
    """The handler as the adapter calls it: never raises but for KeyboardInterrupt and its like."""

    def __call__(
        self,
        job: object,
        *,
        settings: Settings,
        cancel: threading.Event | None = None,
        report: Callable[[Any], None] | None = None,
    ) -> dict[str, Any]: ...


Preload = Callable[[Settings], dict[str, Any]]


class StartError(Exception):
    """The worker cannot start; the message is a sentence for whoever started it."""


class QuietReply(dict[str, Any]):
    """A reply whose text form tells its keys only: at its DEBUG level the SDK logs replies, base64 and all."""

    def __repr__(self) -> str:
        return f"<reply with {', '.join(self)}>"

    __str__ = __repr__


class Adapter:
    """Runs jobs for the SDK in `settings.concurrency` threads.

    Args:
        abandon: ends the process; called where a cancelled job does not stop within `settings.cancel_grace_s`, since
            nothing else frees the device then.
    """

    def __init__(
        self,
        serve: Serve,
        *,
        settings: Settings,
        platform: Platform,
        abandon: Callable[[], None] | None = None,
    ) -> None:
        self._serve = serve
        self._settings = settings
        self._platform = platform
        self._abandon = abandon or _exit_now
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="job")
        self.config: dict[str, Any] = {"handler": self.run, "concurrency_modifier": self._concurrency}

    async def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """What the SDK calls. Cancelled, it ends when the job has ended, so that the next one runs alone."""
        cancel = threading.Event()
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._work, job, cancel)
        try:
            reply = await asyncio.shield(work)
        except asyncio.CancelledError:
            cancel.set()
            await self._ended(work, str(job.get("id")))
            raise
        if reply.get("refresh_worker"):
            self.config["refresh_worker"] = True  # the SDK ends its loop after this job, and tells the platform
        return reply

    def _work(self, job: dict[str, Any], cancel: threading.Event) -> dict[str, Any]:
        job_id = str(job.get("id", ""))
        with logs.job_context(job_id):
            with reporting(self._platform, job_id) as report:
                reply = self._serve(job, settings=self._settings, cancel=cancel, report=report)
            return _sendable(reply, self._settings)

    async def _ended(self, work: asyncio.Future[dict[str, Any]], job_id: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.cancel_grace_s
        while not work.done() and loop.time() < deadline:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work], timeout=max(deadline - loop.time(), 0.01))
        with logs.job_context(job_id):
            if work.done():
                logger.info("Stopped on request")
                return
            logger.error("The cancelled job did not stop in %g s; this worker restarts", self._settings.cancel_grace_s)
        self._abandon()

    def _concurrency(self, current: int) -> int:
        return self._settings.concurrency


def start(serve: Serve, preload: Preload) -> int:
    """What `python handler.py` does, told by arguments and environment. Returns the exit code."""
    try:
        return _start(serve, preload)
    except (StartError, SettingsError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return EXIT_INTERRUPTED


def _start(serve: Serve, preload: Preload) -> int:
    arguments, unknown = _parser().parse_known_args()
    settings, platform = Settings.from_env(), Platform.from_env()
    logs.configure(
        level=settings.log_level,
        as_json=bool(platform.endpoint_id),
        secrets=settings.secrets() + platform.secrets(),
    )
    if unknown:
        logger.warning("Arguments that are not known here: %s", " ".join(unknown))
    serves_api = arguments.rp_serve_api or platform.realtime_port
    if not serves_api and (arguments.test_input is not None or not platform.job_url):
        return local.run(serve, arguments.test_input, settings=settings, root=ROOT)
    if settings.preload and (error := preload(settings).get("error")):
        logger.error("PRELOAD could not be done: %s", error)
        return EXIT_FAILED

    _quieten_sdk(settings, platform, arguments.rp_log_level)
    adapter = Adapter(serve, settings=settings, platform=platform)
    if arguments.rp_serve_api:
        _serve_api(adapter, arguments.rp_api_host, arguments.rp_api_port)
    elif platform.realtime_port:
        _serve_api(adapter, "0.0.0.0", platform.realtime_port)
    else:
        _take_jobs(adapter)
    return 0


def _quieten_sdk(settings: Settings, platform: Platform, asked: str | None) -> None:
    """The SDK's own level is DEBUG, a line a poll; ours counts unless theirs was asked for."""
    from runpod.serverless.modules.rp_logger import RunPodLogger

    ours = logs.PLATFORM_LEVELS.get(settings.log_level, settings.log_level)
    RunPodLogger().level = asked or platform.sdk_log_level or ours


def _take_jobs(adapter: Adapter) -> None:
    import runpod

    runpod.serverless.start(adapter.config)


def _serve_api(adapter: Adapter, host: str, port: int) -> None:
    """The SDK's local API, save that it repeats no refused body: a NaN, a lone surrogate or a deep list in it would
    make the refusal itself fail, as HTTP 500."""
    from fastapi.exceptions import RequestValidationError
    from runpod.serverless.modules.rp_fastapi import WorkerAPI

    api = WorkerAPI(adapter.config)
    api.rp_app.add_exception_handler(RequestValidationError, _refuse)
    logger.info("Local API on http://%s:%d", host, port)
    api.start_uvicorn(api_host=host, api_port=port)


async def _refuse(request: object, error: Any) -> Any:
    from fastapi.responses import JSONResponse

    sentence = 'The body must be a JSON object with an "input" object, sent as Content-Type: application/json.'
    faults = [{"loc": [str(part) for part in fault["loc"]], "msg": fault["msg"]} for fault in error.errors()]
    return JSONResponse({"error": sentence, "detail": faults[:20]}, status_code=422)


def _sendable(reply: object, settings: Settings) -> dict[str, Any]:
    """The reply as it can travel: strict JSON, within the budget, `error` a sentence; else the error that says so."""
    from worker.output.strict_json import dump_json

    try:
        if not isinstance(reply, dict) or not reply or not isinstance(reply.get("error", "-"), str):
            raise InternalError("The worker made a reply that cannot be sent. Nothing is wrong with the request.")
        dump_json(reply, budget_bytes=settings.inline_budget_bytes)
        return QuietReply(reply)
    except RequestError as error:
        logger.error("The reply was not sendable: %s", error.error_code)
        return QuietReply(error.reply())


def _exit_now() -> NoReturn:
    logging.shutdown()
    for child in multiprocessing.active_children():  # the SDK's heartbeat would outlive this process
        child.kill()
    sys.stdout.flush()
    os._exit(EXIT_FAILED)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartError(f"{message[:1].upper()}{message[1:]}. See --help.")


def _parser() -> argparse.ArgumentParser:
    """The SDK's flags, so that a mistake in them gets a sentence before it is imported, and `--help` is ours."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="python handler.py", description="A RunPod worker for music.", epilog=HELP)
    parser.formatter_class = formatter
    parser.add_argument("--test_input", "--test-input", metavar="JSON", help='run this one job, {"input": {...}}')
    parser.add_argument("--rp_serve_api", action="store_true", help="serve RunPod's local API (/run, /runsync)")
    parser.add_argument("--rp_api_host", default="localhost", metavar="HOST", help="its host (default: localhost)")
    parser.add_argument("--rp_api_port", default=8000, type=int, metavar="PORT", help="its port (default: 8000)")
    parser.add_argument("--rp_api_concurrency", default=1, type=_one, metavar="1", help=argparse.SUPPRESS)
    parser.add_argument("--rp_log_level", type=str.upper, choices=SDK_LEVELS, help="the SDK's own log level")
    parser.add_argument("--rp_debugger", action="store_true", help="add the SDK's timings to each reply (platform)")
    return parser


def _one(text: str) -> int:
    if text != "1":
        raise argparse.ArgumentTypeError("only 1 works in RunPod's local API; set CONCURRENCY for jobs side by side")
    return 1
