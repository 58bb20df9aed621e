"""The worker against a platform that fails at random: every job must end with one result, or with a logged reason.

    python -m testing.chaos --jobs 300 --concurrency 1 3 4

The SDK's own loop runs in the worker. The control plane answers requests with statuses 400, 429 and 500, cuts
connections before and after it has read them, answers late or with garbage, hands over empty lists, jobs without an id
and jobs twice, and stops jobs at random moments. At the end the worker gets SIGTERM in the middle of its work.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from testing.control_plane import ControlPlane, Fault, start_control_plane
from testing.processes import HANDLER, Worker, start_worker

HTML = Fault(status=200, body=b"<html>Bad gateway</html>", content_type="text/html")
CUT, CUT_AFTER, SLOW = Fault(cut=True), Fault(cut=True, handled=True), Fault(delay_s=0.7, handled=True)
STATUSES = {f"status {status}": Fault(status=status) for status in (400, 429, 500)}
ANY_REQUEST = STATUSES | {"cut": CUT, "slow": SLOW}
NO_ID = {"input": {"operation": "health_check"}}
# The faults of each kind of request, with their probabilities in percent.
RATES: Mapping[str, Mapping[str, float]] = {
    "take": {"status 400": 2, "status 429": 1, "status 500": 3, "cut": 3, "slow": 3, "garbage": 2, "no list": 2}
    | {"empty list": 2, "no id": 4, "twice": 15},
    "stop": {"status 400": 2, "status 429": 1, "status 500": 3, "cut": 3, "slow": 3, "garbage": 2, "no list": 2},
    "done": {"status 400": 3, "status 429": 4, "status 500": 6, "cut": 4, "cut after": 4, "slow": 3}
    | {"confirmed by garbage": 3},
    "progress": {"status 400": 3, "status 429": 3, "status 500": 5, "cut": 5, "cut after": 3, "slow": 3},
    "ping": {"status 500": 5, "cut": 5},
}
FAULTS: Mapping[str, Fault] = ANY_REQUEST | {
    "cut after": CUT_AFTER,
    "garbage": HTML,
    "confirmed by garbage": replace(HTML, handled=True),
    "no list": Fault(status=200, body=b'"text"'),
    "empty list": Fault(status=200, body=b"[]"),
    "no id": Fault(handled=True, change=lambda jobs: [*jobs, NO_ID]),
    "twice": Fault(handled=True, change=lambda jobs: [*jobs, *jobs]),
}
ENDLESS = {"operation": "generate_music", "prompt": "piano", "model": "tiny", "duration": 600}
# What a worker is asked for, with the share of each.
JOBS: Mapping[str, tuple[float, Mapping[str, Any]]] = {
    "health": (35, {"operation": "health_check"}),
    "list": (10, {"operation": "list_models"}),
    "invalid": (10, {"operation": "generate_music", "prompt": 3}),
    "music": (20, {"operation": "generate_music", "prompt": "piano", "model": "tiny", "duration": 1}),
    "endless": (17, ENDLESS),  # stopped at a random moment
    "refused": (4, {"operation": "health_check"}),  # its result is refused, an error in its place is not
    "forbidden": (4, {"operation": "health_check"}),  # nothing about it is accepted
}
REFUSED, FORBIDDEN = Fault(status=400), Fault(status=403)
RESTOP_S = 3.0
SHUTDOWN_GRACE_S = 1.0
STOPPED = ("The job was cancelled and has stopped", "Job stopped.")
UNDELIVERED = "could not be delivered"
# None of these may stand in the worker's log.
SYMPTOMS = ("Traceback", "Exception in thread", "never retrieved", "Uncaught exception", "internal_error")


@dataclass
class Chaos:
    """Draws the faults of one run from its seed, and counts them."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def find_fault(self, kind: str, job_id: str, body: Any) -> Fault | None:
        """See `control_plane.FindFault`."""
        name, _, _ = job_id.partition("-")
        if kind == "done" and name == "forbidden":
            return FORBIDDEN
        if kind == "done" and name == "refused" and body["output"].get("error_code") != "delivery_failed":
            return REFUSED
        with self._lock:
            drawn = self._random.uniform(0, 100)
            for fault, rate in RATES[kind].items():
                drawn -= rate
                if drawn < 0:
                    self.counts[f"{kind}: {fault}"] += 1
                    return FAULTS[fault]
        return None

    def draw_jobs(self, count: int) -> list[str]:
        """The names of `count` jobs."""
        return self._random.choices(list(JOBS), [share for share, _ in JOBS.values()], k=count)

    def draw_delay_s(self) -> float:
        """How long after it is taken a job is stopped; often at once."""
        return self._random.choice((0.0, 0.0, self._random.uniform(0, 3)))


@dataclass
class Run:
    """One run: the jobs by id and everything that was observed of them."""

    plane: ControlPlane
    worker: Worker
    jobs: dict[str, str]
    stop_at: dict[str, float] = field(default_factory=dict)

    def read_log(self) -> dict[str, list[str]]:
        """The messages of the worker's log by job id."""
        messages: dict[str, list[str]] = {}
        for line in self.worker.read_output().splitlines():
            with suppress(ValueError):
                record = json.loads(line)
                messages.setdefault(record["requestId"] or "", []).append(record["message"])
        return messages

    def list_open(self) -> list[str]:
        """The jobs that have neither a result nor a logged reason."""
        log = self.read_log()
        reasons = (*STOPPED, UNDELIVERED)
        return [
            job
            for job in self.jobs
            if not self.plane.find_events(job, "done") and not any(r in m for m in log.get(job, ()) for r in reasons)
        ]

    def stop_endless(self, chaos: Chaos) -> None:
        """Stops each endless job some time after it was taken; again if the stop arrived before the job began."""
        now = time.monotonic()
        for job, name in self.jobs.items():
            if name == "endless" and self.plane.find_events(job, "take"):
                due = self.stop_at.setdefault(job, now + chaos.draw_delay_s())
                if due <= now:
                    self.stop_at[job] = now + RESTOP_S
                    self.plane.stop(job)

    def find_problems(self) -> list[str]:
        """A sentence for everything that must not happen."""
        log = self.read_log()
        problems = [f"the log contains {word!r}" for word in SYMPTOMS if word in self.worker.read_output()]
        for job, name in self.jobs.items():
            events = self.plane.find_events(job, "progress", "done")
            results = {json.dumps(event.body, sort_keys=True) for event in events if event.kind == "done"}
            messages = log.get(job, [])
            expected = 0 if name == "forbidden" or any(m in STOPPED for m in messages) else 1
            if len(results) != expected and not (name == "endless" and len(results) == 1):
                problems.append(f"{job} has {len(results)} results, not {expected}")
            if name == "forbidden" and not any(UNDELIVERED in message for message in messages):
                problems.append(f"{job} has no logged reason")
            if (started := messages.count("Started.")) != 1:
                problems.append(f"{job} ran {started} times")
            kinds = [event.kind for event in events]
            if "done" in kinds and "progress" in kinds[kinds.index("done") :]:
                problems.append(f"{job} has progress after its result")
        return problems


def run_chaos(home: Path, *, seed: int, jobs: int, concurrency: int) -> dict[str, Any]:
    """Runs `jobs` jobs under faults and returns the run's figures; `problems` lists what must not happen."""
    from testing.tiny_musicgen import write_checkpoint

    write_checkpoint(home / "models" / "tiny")
    chaos = Chaos(seed)
    settings = {"MODELS_DIR": str(home / "models"), "CONCURRENCY": str(concurrency)}
    settings["SHUTDOWN_GRACE_S"] = str(SHUTDOWN_GRACE_S)
    with start_control_plane() as plane, start_worker(HANDLER, [], home=home, env=plane.environment() | settings) as w:
        started = time.monotonic()
        names = chaos.draw_jobs(jobs)
        run = Run(plane, w, {f"{name}-{number}": name for number, name in enumerate(names)})
        plane.find_fault = chaos.find_fault
        for job, name in run.jobs.items():
            plane.submit(JOBS[name][1], job_id=job)
        _wait_until_ended(run, chaos, timeout_s=60 + 2.0 * jobs)
        problems = _check_shutdown(run, concurrency)
        posts = [event for event in plane.events if event.kind in ("done", "lost done")]
        log = w.read_output()
        return {
            "seed": seed,
            "concurrency": concurrency,
            "jobs": len(run.jobs),
            "seconds": round(time.monotonic() - started, 1),
            "faults": sum(chaos.counts.values()),
            "faults_by_kind": dict(sorted(chaos.counts.items())),
            "results": len({event.job_id for event in posts if event.kind == "done"}),
            "posts_of_results": len(posts),
            "stopped": sum("The job was cancelled and has stopped" in line for line in log.splitlines()),
            "undeliverable_and_logged": sum(UNDELIVERED in line for line in log.splitlines()),
            "problems": problems + run.find_problems(),
        }


def _wait_until_ended(run: Run, chaos: Chaos, *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (still_open := run.list_open()) and time.monotonic() < deadline:
        if run.worker.process.poll() is not None:
            raise AssertionError(f"seed {chaos.seed}: the worker ended with {still_open} open")
        run.stop_endless(chaos)
        time.sleep(0.1)
    assert not still_open, f"seed {chaos.seed}: {still_open} have not ended after {timeout_s:g} s"


def _check_shutdown(run: Run, concurrency: int) -> list[str]:
    """Ends the worker in the middle of its work; what must not happen then."""
    last = [run.plane.submit(ENDLESS, job_id=f"last-{number}") for number in range(concurrency)]
    for job in last:
        run.jobs[job] = "last"
        run.plane.wait(job, "take", timeout=60)
    time.sleep(1.0)  # one of them runs on the device then, and the others wait for it
    terminated = time.monotonic()
    run.worker.terminate()
    code = run.worker.exit_code(timeout=60)
    problems = [f"the worker ended with exit code {code}"] if code else []
    for job in last:
        events = run.plane.find_events(job, "done")
        if not events or events[0].body["output"]["error_code"] != "worker_restart":
            problems.append(f"{job} was not reported at the shutdown")
    if (seconds := time.monotonic() - terminated) > SHUTDOWN_GRACE_S + 30:
        problems.append(f"the shutdown took {seconds:.1f} s")
    return problems


def main() -> int:
    """Runs each concurrency with a seed of its own and prints the figures; returns 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300, help="jobs of each run (default: 300)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 3, 4], help="one run for each")
    parser.add_argument("--seed", type=int, default=None, help="of the first run; a random one if left out")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    failed = False
    for number, concurrency in enumerate(arguments.concurrency):
        print(f"chaos: seed {seed + number}, concurrency {concurrency}, {arguments.jobs} jobs", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            figures = run_chaos(Path(folder), seed=seed + number, jobs=arguments.jobs, concurrency=concurrency)
        print(json.dumps(figures, indent=2), flush=True)
        failed = failed or bool(figures["problems"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
