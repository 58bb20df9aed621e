"""The environment that the test suite sets up for itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from testing.repository import ROOT


def run_with_environment(code: str, **env: str) -> str:
    """What `code` prints after the suite's conftest was imported in a process with these variables."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT), **env}
    process = subprocess.run(
        [sys.executable, "-c", f"import tests.conftest; {code}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout.strip()


def test_an_offline_hub_in_the_shell_does_not_reach_the_tests() -> None:
    code = "from huggingface_hub import constants; print(constants.HF_HUB_OFFLINE)"
    assert run_with_environment(code, HF_HUB_OFFLINE="1") == "False"


@pytest.mark.parametrize(("ci", "fixed"), [("", "False"), ("true", "True")])
def test_property_tests_draw_fixed_examples_in_ci_and_have_no_deadline(ci: str, fixed: str) -> None:
    code = "from hypothesis import settings; print(settings.default.derandomize, settings.default.deadline)"
    assert run_with_environment(code, CI=ci) == f"{fixed} None"
