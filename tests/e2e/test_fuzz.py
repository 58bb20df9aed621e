"""A short run of `make fuzz`: random requests and damaged files against the whole worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testing.fuzz import check_reply, run_fuzz

ERROR = {"error": "A sentence.", "error_code": "invalid_request", "details": {}}


@pytest.mark.slow
def test_random_requests_and_damaged_files_end_with_clean_replies(tmp_path: Path) -> None:
    figures = run_fuzz(tmp_path, requests=150, seed=7, timeout_s=30.0)
    print(figures)
    assert figures["problems"] == []
    assert figures["requests"] >= 10 and "success" in figures["replies"]


@pytest.mark.parametrize(
    "reply",
    [
        None,
        {},
        {"success": True, "value": float("nan")},
        {"success": True, "path": "secret-7"},
        ERROR | {"error": ""},
        ERROR | {"error_code": "unheard_of"},
        ERROR | {"error_code": "internal_error"},
        ERROR | {"error": "at /srv/app/x.py"},
        ERROR | {"error": "A" * 300},
        ERROR | {"error": "word " * 3000},
        ERROR | {"error": "Traceback (most recent call last)"},
    ],
)
def test_a_reply_that_is_not_clean_is_found(reply: Any) -> None:
    assert check_reply(reply, ["secret-7", "/srv/app"])


def test_a_clean_error_is_not_reported() -> None:
    assert check_reply(ERROR, ["secret-7"]) == []
