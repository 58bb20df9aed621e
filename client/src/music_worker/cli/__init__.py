"""The command `music-worker`."""

from __future__ import annotations

import signal


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    from music_worker.cli.app import run

    signal.signal(signal.SIGTERM, _interrupt)  # ends as Ctrl-C does: the job is cancelled
    raise SystemExit(run())


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
