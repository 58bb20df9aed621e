"""A short run of `make chaos`: the whole worker against a platform that fails at random."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.chaos import run_chaos


@pytest.mark.slow
def test_every_job_has_one_result_or_a_logged_reason_while_the_platform_fails_at_random(tmp_path: Path) -> None:
    figures = run_chaos(tmp_path, seed=11, jobs=30, concurrency=3)
    assert figures["problems"] == []
    assert figures["jobs"] == 33 and figures["faults"] >= 10
