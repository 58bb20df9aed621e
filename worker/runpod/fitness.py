"""Tells the platform that this worker cannot take jobs, as the SDK does when one of its own fitness checks fails."""

from __future__ import annotations

import asyncio


def report_unfit(problem: str) -> None:
    """Has the SDK log `problem` and report it to the platform, and ends the process with exit code 1."""
    from runpod.serverless.modules.rp_fitness import register_fitness_check, run_fitness_checks

    def check_device() -> None:
        raise RuntimeError(problem)

    register_fitness_check(check_device)  # the SDK's own checks come after it
    asyncio.run(run_fitness_checks())
