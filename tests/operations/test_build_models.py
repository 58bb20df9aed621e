"""The models get what the settings say."""

from __future__ import annotations

import pytest

from operations.build_models import models_for
from worker.settings import Settings


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True), ("", True)])
def test_cuda_graphs_can_be_switched_off(value: str, expected: bool) -> None:
    families = models_for(Settings.from_env({"CUDA_GRAPHS": value})).families
    assert families.music._cuda_graphs is expected
