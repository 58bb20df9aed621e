"""`Client` and `AsyncClient`: one endpoint, its operations as typed methods, its jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self

from music_worker._generated import AsyncOperationMethods, OperationMethods
from music_worker.config import resolve_endpoint
from music_worker.exchange import AsyncRunner, Flow, RunnerT, SyncRunner
from music_worker.files import UploadTarget, prepare
from music_worker.jobs import (
    AsyncJob,
    Job,
    OnProgress,
    OnProgressAsync,
    cancel_when_interrupted,
    wait_for_reply,
)
from music_worker.local import LocalWorker
from music_worker.results import Result, Storage, read_result
from music_worker.transport import RUNSYNC_LIMIT_BYTES, Endpoint, Patience


@dataclass(frozen=True, slots=True)
class Health:
    """What the endpoint says of itself: counts of its workers and jobs by state."""

    workers: Mapping[str, int]
    jobs: Mapping[str, int]


class _Connection(Generic[RunnerT]):
    """What both clients are made of."""

    _runner_type: type[RunnerT]
    _worker: LocalWorker | None = None

    def __init__(  # noqa: PLR0913  (options by keyword)
        self,
        *,
        url: str | None = None,
        endpoint_id: str | None = None,
        api_key: str | None = None,
        upload: UploadTarget | None = None,
        volumes: Mapping[str, str | Path] | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Without `url` and `endpoint_id`, the endpoint of the environment or of `music-worker login` is used.

        Args:
            url: the address of a worker's local API or of an endpoint, such as `http://localhost:8000`.
            endpoint_id: the id of an endpoint on RunPod.
            api_key: for the endpoint; default for RunPod: RUNPOD_API_KEY, else the one that `login` saved.
            upload: where inputs go that are too large for a request; default: the bucket that is configured, if any.
            volumes: folders of this machine by the worker's folder that they are, for results on its volume.
            patience: times to wait and to repeat.
        """
        settings = resolve_endpoint(url=url, endpoint_id=endpoint_id, api_key=api_key, patience=patience)
        self._endpoint: Endpoint = settings.endpoint
        self._upload = upload or settings.upload
        self._runner: RunnerT = self._runner_type()
        self._storage = Storage(volumes={folder: Path(here) for folder, here in (volumes or {}).items()})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.url!r})"

    @property
    def url(self) -> str:
        """The endpoint's address."""
        return self._endpoint.url

    def _own(self, worker: LocalWorker) -> Self:
        """The worker lives as long as this client."""
        self._worker = worker
        self._endpoint = replace(self._endpoint, check_worker=worker.check)
        return self

    def _stop_worker(self) -> None:
        if self._worker is not None:
            self._worker.stop()

    def _submit(self, operation: str, params: Mapping[str, Any]) -> Flow[dict[str, Any]]:
        present = {name: value for name, value in params.items() if value is not None}
        limit = RUNSYNC_LIMIT_BYTES if self._endpoint.limits_size else None
        prepared = yield from prepare(operation, present, limit_bytes=limit, upload=self._upload)
        return (yield from self._endpoint.submit({"operation": operation, "params": prepared}))

    def _run(
        self,
        operation: str,
        params: Mapping[str, Any],
        *,
        on_progress: OnProgressAsync | None,
        timeout_s: float | None,
    ) -> Flow[Result]:
        accepted = yield from self._submit(operation, params)
        job_id = str(accepted["id"])
        wait = wait_for_reply(self._endpoint, accepted, on_progress=on_progress, timeout_s=timeout_s)
        reply = yield from cancel_when_interrupted(self._endpoint, wait, job_id)
        return read_result(reply, job_id=job_id, storage=self._storage)

    def _check_health(self) -> Flow[Health]:
        status = yield from self._endpoint.fetch_health()
        workers, jobs = status.get("workers"), status.get("jobs")
        return Health(workers if isinstance(workers, Mapping) else {}, jobs if isinstance(jobs, Mapping) else {})


class Client(OperationMethods, _Connection[SyncRunner]):
    """A blocking client. It can be used from several threads; close it or use it in a `with` block."""

    _runner_type = SyncRunner

    @classmethod
    def local(cls, repository: str | Path | None = None, **options: Any) -> Self:
        """A client of a worker that is started on this machine and stopped with the client.

        Args:
            repository: the worker's repository; default: MUSIC_WORKER_REPOSITORY, else the current folder or one above.
            options: `python`, `env`, `start_timeout_s`, `command` of `LocalWorker`; the others are the client's own.
        """
        worker, options = _make_worker(repository, options)
        worker.start()
        try:
            return cls(url=worker.url, **options)._own(worker)
        except BaseException:
            worker.stop()
            raise

    def submit(self, operation: str, params: Mapping[str, Any] | None = None) -> Job:
        """Starts a job.

        Args:
            operation: its name, as in `generate_music`.
            params: its parameters; audio fields take what `AudioInput` says.
        """
        accepted = self._runner.run(self._submit(operation, params or {}))
        return Job(self._endpoint, self._runner, accepted, storage=self._storage)

    def run(
        self,
        operation: str,
        params: Mapping[str, Any] | None = None,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Starts a job and waits for its result. Ctrl-C cancels the job on the platform. See `Job.wait`."""
        return self._runner.run(self._run(operation, params or {}, on_progress=on_progress, timeout_s=timeout_s))

    def job(self, job_id: str) -> Job:
        """A job that was submitted before."""
        return Job(self._endpoint, self._runner, {"id": job_id}, storage=self._storage)

    def health(self) -> Health:
        """The endpoint's workers and jobs, counted by the platform."""
        return self._runner.run(self._check_health())

    def close(self) -> None:
        """Closes connections, and stops the worker of `local`. Jobs on an endpoint go on."""
        self._runner.close()
        self._stop_worker()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(AsyncOperationMethods, _Connection[AsyncRunner]):
    """`Client` for asyncio."""

    _runner_type = AsyncRunner

    @classmethod
    async def local(cls, repository: str | Path | None = None, **options: Any) -> Self:
        """As `Client.local`."""
        worker, options = _make_worker(repository, options)
        await asyncio.to_thread(worker.start)
        try:
            return cls(url=worker.url, **options)._own(worker)
        except BaseException:
            worker.stop()
            raise

    async def submit(self, operation: str, params: Mapping[str, Any] | None = None) -> AsyncJob:
        """As `Client.submit`."""
        accepted = await self._runner.run(self._submit(operation, params or {}))
        return AsyncJob(self._endpoint, self._runner, accepted, storage=self._storage)

    async def run(
        self,
        operation: str,
        params: Mapping[str, Any] | None = None,
        *,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """As `Client.run`; a cancelled task cancels the job on the platform."""
        flow = self._run(operation, params or {}, on_progress=on_progress, timeout_s=timeout_s)
        return await self._runner.run(flow)

    def job(self, job_id: str) -> AsyncJob:
        """A job that was submitted before."""
        return AsyncJob(self._endpoint, self._runner, {"id": job_id}, storage=self._storage)

    async def health(self) -> Health:
        """As `Client.health`."""
        return await self._runner.run(self._check_health())

    async def close(self) -> None:
        """Closes connections, and stops the worker of `local`. Jobs on an endpoint go on."""
        await self._runner.close()
        await asyncio.to_thread(self._stop_worker)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _make_worker(repository: str | Path | None, options: dict[str, Any]) -> tuple[LocalWorker, dict[str, Any]]:
    """The worker to start, and the options that are left for the client."""
    names = ("python", "env", "start_timeout_s", "command")
    own = {name: options[name] for name in names if name in options}
    return LocalWorker(repository, **own), {name: value for name, value in options.items() if name not in own}
