"""A short run of `make soak`: one worker, mixed jobs, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.soak import Usage, find_growth, run_soak


@pytest.mark.slow
def test_jobs_of_every_kind_leave_no_descriptor_thread_or_temporary_file_behind(tmp_path: Path) -> None:
    figures = run_soak(tmp_path, jobs=30, seed=5)
    print(figures)
    assert figures["problems"] == []
    # Memory settles only after more jobs than fit into a test; `make soak` measures it.
    assert not set(figures["growth"]) - {"rss_mb"}


def test_growth_of_more_than_five_percent_is_found() -> None:
    before = Usage(rss_mb=1000.0, descriptors=20, threads=5, temp_files=0)
    after = Usage(rss_mb=1049.0, descriptors=22, threads=5, temp_files=1)
    assert find_growth(before, after) == {"descriptors": [20, 22], "temp_files": [0, 1]}
