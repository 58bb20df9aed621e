"""A long run of mixed jobs in one worker: memory, descriptors, threads and temporary files must not grow.

    python -m testing.soak --jobs 360

The real worker runs under the SDK's own loop. Its jobs are music, separation, covers, new voices, songs of a Suno
provider, deliveries to an S3 bucket and to the volume, invalid requests, dead URLs and cancelled work. What the worker
and its child processes hold is measured after a third of the jobs and at the end.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from testing.control_plane import ControlPlane, start_control_plane
from testing.processes import HANDLER, Worker, start_worker
from testing.tiny_volume import MUSIC, SEPARATION, VOICE, list_settings, write_volume

TOLERANCE = 0.05
BUCKET = "songs"
DEAD_URL = "http://127.0.0.1:9/song.wav"
SUCCESS = "success"
CANCELLED = "cancelled"


@dataclass(frozen=True)
class JobKind:
    """A kind of job: its share of all jobs, what makes its input, and how it must end.

    `expected` is `success`, `cancelled` (the job is stopped as soon as it reports progress) or an error code.
    """

    share: float
    make_input: Callable[[random.Random], dict[str, Any]]
    expected: str = SUCCESS
    bucket: bool = False


@dataclass(frozen=True)
class Usage:
    """What the worker and its children hold. `temp_files` also counts those that were deleted while open."""

    rss_mb: float
    descriptors: int
    threads: int
    temp_files: int


@dataclass
class Run:
    """One run: the worker, the platform, and how each job must end."""

    plane: ControlPlane
    worker: Worker
    temp: Path
    s3_config: Mapping[str, str]
    expected: dict[str, str] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def submit(self, kinds: Mapping[str, JobKind], draw: random.Random, count: int) -> list[str]:
        """Queues one job of each kind and others by their shares, `count` in all; returns their ids."""
        others = draw.choices(list(kinds), [kind.share for kind in kinds.values()], k=count - len(kinds))
        jobs = []
        for name in draw.sample([*kinds, *others], k=count):
            kind, number = kinds[name], sum(self.names.values())
            self.names[name] += 1
            extra = {"s3Config": dict(self.s3_config)} if kind.bucket else {}
            job = self.plane.submit(kind.make_input(draw), job_id=f"{name}-{number}", **extra)
            self.expected[job] = kind.expected
            jobs.append(job)
        return jobs

    def finish(self, job: str) -> None:
        """Waits until the job has ended and notes it if it ended otherwise than expected."""
        if self.expected[job] == CANCELLED:
            self._cancel(job)
            return
        output = self.plane.result(job, timeout=180)["output"]
        ended = SUCCESS if output.get("success") is True else output.get("error_code")
        if ended != self.expected[job]:
            self.problems.append(f"{job} ended with {ended}, not {self.expected[job]}: {str(output)[:300]}")

    def _cancel(self, job: str) -> None:
        self.plane.wait(job, "progress", "done", timeout=180)
        self.plane.stop(job)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = [line for line in self.worker.read_output().splitlines() if job in line]
            if any("cancelled" in line or "stopped" in line for line in lines):
                return
            time.sleep(0.1)
        self.problems.append(f"{job} has not stopped 60 s after it was cancelled")

    def measure(self) -> Usage:
        """The usage once no job is running, after the last connections and threads of the jobs have ended."""
        time.sleep(2.0)
        processes = list(_list_processes(self.worker.process.pid))
        open_files = [target for pid in processes for target in _list_open_files(pid)]
        in_temp = [target for target in open_files if target.startswith(str(self.temp))]
        return Usage(
            rss_mb=round(sum(_read_status(pid, "VmRSS") for pid in processes) / 1024, 1),
            descriptors=len(open_files),
            threads=sum(_read_status(pid, "Threads") for pid in processes),
            temp_files=len(in_temp) + sum(1 for path in self.temp.rglob("*") if path.is_file()),
        )


def _list_processes(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _list_processes(int(child))


def _list_open_files(pid: int) -> list[str]:
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in the meantime
            found.append(os.readlink(path))
    return found


def _read_status(pid: int, name: str) -> int:
    """A number in /proc/<pid>/status; memory is in kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def list_job_kinds(volume: Path) -> dict[str, JobKind]:
    """Every kind of job. Songs are base64 or files on the volume."""
    from audio.files.formats import Encoding
    from testing.signals import encode_file, make_tone

    songs = [
        base64.b64encode(encode_file(make_tone(seconds, sample_rate=rate, channels=channels), encoding)).decode()
        for seconds, rate, channels, encoding in (
            (2.0, 44_100, 2, Encoding("wav")),
            (1.3, 22_050, 1, Encoding("flac")),
            (3.0, 48_000, 2, Encoding("mp3", bitrate=128)),
            (0.7, 16_000, 1, Encoding("ogg", bitrate=96)),
        )
    ]
    (volume / "song.wav").write_bytes(base64.b64decode(songs[0]))
    songs.append(str(volume / "song.wav"))

    def make_music(draw: random.Random, **fields: Any) -> dict[str, Any]:
        return {"operation": "generate_music", "prompt": "slow piano", "model": MUSIC, "duration": 1} | fields

    def make_long_music(draw: random.Random) -> dict[str, Any]:
        return make_music(draw, duration=round(draw.uniform(0.5, 6), 2), n_samples=draw.choice((1, 1, 2, 3)))

    def make_continuation(draw: random.Random) -> dict[str, Any]:
        return make_music(
            draw, continuation_audio=draw.choice(songs), continuation_end=0.6, output_format=draw.choice(("wav", "mp3"))
        )

    def make_separation(draw: random.Random) -> dict[str, Any]:
        return {"operation": "separate", "audio": draw.choice(songs), "model": SEPARATION, "output_format": "mp3"}

    def make_song_cover(draw: random.Random) -> dict[str, Any]:
        f0_method = draw.choice(("rmvpe", "pm", "harvest"))
        song = draw.choice(songs)
        return {"operation": "generate_cover", "audio": song, "voice_model": VOICE, "f0_method": f0_method}

    def make_stem_cover(draw: random.Random) -> dict[str, Any]:
        fields = {"voice_audio": draw.choice(songs), "instrument_audio": draw.choice(songs), "f0_method": "pm"}
        return {"operation": "generate_cover", "voice_model": VOICE, **fields}

    def make_voice(draw: random.Random) -> dict[str, Any]:
        archive = str(volume / "uploads" / "new.zip")
        return {"operation": "add_voice", "name": f"voice {draw.randrange(3)}", "archive": archive, "replace": True}

    def make_dead_url(draw: random.Random) -> dict[str, Any]:
        return {"operation": "separate", "audio": DEAD_URL, "model": SEPARATION}

    def make_broken(draw: random.Random) -> dict[str, Any]:
        data = base64.b64encode(b"RIFF" + draw.randbytes(4000)).decode()
        return {"operation": "separate", "audio": data, "model": SEPARATION}

    return {
        "health": JobKind(6, lambda draw: {"operation": "health_check"}),
        "list": JobKind(6, lambda draw: {"operation": "list_models", "schemas": True}),
        "music": JobKind(16, make_long_music),
        "continuation": JobKind(8, make_continuation),
        "separation": JobKind(8, make_separation),
        "bucket": JobKind(12, make_separation, bucket=True),
        "volume": JobKind(4, lambda draw: make_music(draw, delivery="volume", output_format="wav")),
        "song_cover": JobKind(6, make_song_cover),
        "stem_cover": JobKind(8, make_stem_cover),
        "voice": JobKind(5, make_voice),
        "suno": JobKind(3, lambda draw: {"operation": "extend_via_suno", "audio_id": "audio-1"}),
        "cancelled": JobKind(4, lambda draw: make_music(draw, duration=600), expected=CANCELLED),
        "dead_url": JobKind(5, make_dead_url, expected="url_unreachable"),
        "broken": JobKind(5, make_broken, expected="unsupported_audio_format"),
        "invalid": JobKind(4, lambda draw: make_music(draw, duration=-1), expected="invalid_request"),
    }


def run_soak(home: Path, *, jobs: int, seed: int, concurrency: int = 2) -> dict[str, Any]:
    """Runs `jobs` jobs and returns the run's figures; `problems` lists what must not happen.

    The first measurement is made after a third of the jobs, or as soon as each kind has run; `growth` has
    what is more than 5 % larger at the end.
    """
    from moto.server import ThreadedMotoServer

    from testing.suno_provider import TOKEN, Provider, serve_provider
    from testing.suno_scenarios import SCENARIOS

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the S3 server logs every request

    volume, temp = write_volume(home / "volume"), home / "temp"
    temp.mkdir()
    draw, started = random.Random(seed), time.monotonic()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    bucket = _create_bucket(f"http://{host}:{port}")
    with serve_provider(Provider(SCENARIOS["happy"], balance=10**9)) as provider, start_control_plane() as plane:
        env = plane.environment() | list_settings(volume)
        env |= {"SUNO_API_TOKEN": TOKEN, "SUNO_API_BASE_URL": provider.url, "SUNO_UPLOAD_BASE_URL": provider.url}
        env |= {"SUNO_RATE_LIMIT": "1000", "ALLOW_PRIVATE_URLS": "1", "CONCURRENCY": str(concurrency)}
        env |= {"TMPDIR": str(temp)}
        with start_worker(HANDLER, [], home=home, env=env) as worker:
            run = Run(plane, worker, temp, bucket)
            kinds = list_job_kinds(volume)
            first = max(jobs // 3, len(kinds))
            usages = []
            for count in (first, jobs - first):
                for job in run.submit(kinds, draw, count):
                    run.finish(job)
                usages.append(run.measure())
            worker.terminate()
            if code := worker.exit_code():
                run.problems.append(f"the worker ended with exit code {code}")
            if "Traceback" in worker.read_output():
                run.problems.append("the log contains a traceback")
    server.stop()
    return {
        "seed": seed,
        "jobs": dict(sorted(run.names.items())),
        "seconds": round(time.monotonic() - started, 1),
        f"after {first} jobs": asdict(usages[0]),
        f"after {jobs} jobs": asdict(usages[1]),
        "problems": run.problems,
        "growth": find_growth(*usages),
    }


def find_growth(early: Usage, late: Usage) -> dict[str, list[float]]:
    """The values, before and after, of everything that grew by more than the tolerance."""
    before, after = asdict(early), asdict(late)
    return {name: [before[name], after[name]] for name in before if after[name] > before[name] * (1 + TOLERANCE)}


def _create_bucket(url: str) -> dict[str, str]:
    import boto3

    names = {"endpoint_url": url, "aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    boto3.client("s3", region_name="us-east-1", **names).create_bucket(Bucket=BUCKET)
    return {"endpointUrl": url, "accessId": "key", "accessSecret": "secret", "bucketName": BUCKET}


def main() -> int:
    """Prints the figures; returns 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=360, help="number of jobs (default: 360)")
    parser.add_argument("--seed", type=int, default=None, help="a random one if left out")
    parser.add_argument("--concurrency", type=int, default=2, help="jobs at the same time (default: 2)")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"soak: seed {seed}, {arguments.jobs} jobs", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures = run_soak(Path(folder), jobs=arguments.jobs, seed=seed, concurrency=arguments.concurrency)
    print(json.dumps(figures, indent=2))
    return 1 if figures["problems"] or figures["growth"] else 0


if __name__ == "__main__":
    sys.exit(main())
