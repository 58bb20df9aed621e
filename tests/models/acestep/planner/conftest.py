"""A tiny planner on disk and loaded in float32, once for all tests of a module."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.acestep.planner.checkpoint import read_checkpoint
from models.acestep.planner.engine import PlannerEngine
from models.acestep.planner.load import load_engine
from testing.tiny_planner import write_tiny_planner


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_planner(tmp_path_factory.mktemp("planner"))


@pytest.fixture(scope="package")
def engine(folder: Path) -> PlannerEngine:
    return load_engine(read_checkpoint(folder), device="cpu", dtype=torch.float32)
