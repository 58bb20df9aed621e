"""The SDK's local API, which RunPod's realtime endpoints use too, with more of the platform's routes, made safe.

A job starts when it is submitted, its status can be asked for while it runs, and it can be cancelled. A webhook is
refused, because the SDK would post results to any address. The job of a client that waited for it and is gone is
cancelled. SIGTERM ends a busy server in bounded time. A refused body is not repeated.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import uvicorn
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from runpod.serverless.modules.rp_fastapi import DefaultRequest, Job, JobOutput, WorkerAPI, job_list
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.runpod.adapter import STOPPING, Adapter
from worker.runpod.local_jobs import COMPLETED, FAILED, IN_PROGRESS, IN_QUEUE, LocalJobs

logger = logging.getLogger(__name__)

MAX_ERRORS_SHOWN = 20


def serve_api(adapter: Adapter, host: str, port: int, *, concurrency: int, shutdown_grace_s: float) -> None:
    """Serves the API on `host` and `port` until SIGTERM or SIGINT; `concurrency` jobs run at a time.

    Jobs that a client waits for then have `shutdown_grace_s` seconds to finish. Whoever can reach the port can run
    jobs: the API has no key of its own.
    """
    app = LocalApi(adapter, concurrency=concurrency).rp_app
    app.add_exception_handler(RequestValidationError, _refuse_body)
    logger.info("Local API on http://%s:%d", host, port)
    config = uvicorn.Config(CancelWhenClientLeaves(app), host=host, port=port, access_log=False)
    _Server(config, adapter, shutdown_grace_s).run()


class _Server(uvicorn.Server):
    """Ends the jobs that do not finish within `shutdown_grace_s` after a signal; their clients get an error."""

    def __init__(self, config: uvicorn.Config, adapter: Adapter, shutdown_grace_s: float) -> None:
        super().__init__(config)
        self._adapter = adapter
        self._shutdown_grace_s = shutdown_grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._shutdown_grace_s, self._adapter.end_jobs, STOPPING)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


class LocalApi(WorkerAPI):  # type: ignore[misc]  # the SDK has no types
    """The SDK's routes with jobs that run when they are submitted, and the platform's GET /status, /cancel and /health.

    POST /status waits until the job ends, as with the SDK.
    """

    def __init__(self, adapter: Adapter, *, concurrency: int) -> None:
        super().__init__(adapter.config)
        self._jobs = LocalJobs(adapter, concurrency)
        for path, route, method in (
            ("/status/{job_id}", self._show_status, "GET"),
            ("/cancel/{job_id}", self._cancel, "POST"),
            ("/health", self._show_health, "GET"),
        ):
            self.rp_app.add_api_route(path, route, methods=[method], response_model=None)

    async def _sim_run(self, job_request: DefaultRequest) -> JobOutput:
        return _refuse_webhook(job_request) or _respond(self._jobs.start(job_request.input).dump())

    async def _sim_runsync(self, job_request: DefaultRequest) -> JobOutput:
        return _refuse_webhook(job_request) or _respond(await self._jobs.start(job_request.input).wait())

    async def _sim_status(self, job_id: str) -> JobOutput:
        job = self._jobs.find(job_id)
        return await super()._sim_status(job_id) if job is None else _respond(await job.wait())

    async def _show_status(self, job_id: str) -> Response:
        return _respond(job.dump()) if (job := self._jobs.find(job_id)) else _report_unknown()

    async def _cancel(self, job_id: str) -> Response:
        if (job := self._jobs.find(job_id)) is None:
            return _report_unknown()
        job.cancel()
        return JSONResponse({"id": job.id, "status": job.status})

    async def _show_health(self) -> Response:
        """Counts of jobs and workers under the platform's names; this process is the one worker."""
        names = {"inQueue": IN_QUEUE, "inProgress": IN_PROGRESS, "completed": COMPLETED, "failed": FAILED}
        jobs = {name: self._jobs.count(status) for name, status in names.items()}
        running = int(jobs["inProgress"] > 0)
        workers = {
            "idle": 1 - running,
            "initializing": 0,
            "ready": 1,
            "running": running,
            "throttled": 0,
            "unhealthy": 0,
        }
        return JSONResponse({"jobs": jobs | {"retried": 0}, "workers": workers})

    async def _realtime(self, job: Job) -> Any:
        try:
            return await super()._realtime(job)
        finally:
            job_list.remove(job.id)  # the SDK forgets it for a cancelled job, and would name it in every heartbeat


class CancelWhenClientLeaves:
    """An ASGI application that cancels `app`'s work on a request when its client closes the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        messages: asyncio.Queue[Message] = asyncio.Queue()
        started = False

        async def forward_messages() -> None:
            """Ends when the client is gone, or has its response."""
            while (message := await receive())["type"] != "http.disconnect":
                messages.put_nowait(message)
            messages.put_nowait(message)

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        connected = asyncio.ensure_future(forward_messages())
        work = asyncio.ensure_future(self._app(scope, messages.get, send_and_note))
        try:
            await asyncio.wait([connected, work], return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not started:
                logger.info("The client closed the connection; its job is cancelled")
                work.cancel()
            await asyncio.wait([work])
        finally:
            connected.cancel()
            work.cancel()
        if not work.cancelled():
            work.result()


def _respond(body: bytes) -> Any:
    return Response(body, media_type="application/json")


def _report_unknown() -> Response:
    sentence = "There is no job of this id, or its result is no longer kept."
    return JSONResponse({"error": sentence}, status_code=404)


def _refuse_webhook(request: DefaultRequest) -> Any:
    """The refusal of a request with a webhook; None without one."""
    if not request.webhook:
        return None
    sentence = "The local API sends no webhooks. Leave 'webhook' out and read the response."
    return JSONResponse({"error": sentence}, status_code=422)


async def _refuse_body(request: object, error: Any) -> JSONResponse:
    """A refusal that repeats nothing of the body: a NaN, a lone surrogate or a deeply nested list in it would make the
    refusal itself fail with HTTP 500."""
    sentence = 'The body must be a JSON object with an "input" object, sent as Content-Type: application/json.'
    problems = [{"loc": [str(part) for part in problem["loc"]], "msg": problem["msg"]} for problem in error.errors()]
    return JSONResponse({"error": sentence, "detail": problems[:MAX_ERRORS_SHOWN]}, status_code=422)
