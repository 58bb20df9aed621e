"""The house's imports go down only: handler > operations > models and worker, side by side > audio > errors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.repository import ROOT

MAY_IMPORT = {
    "errors": set(),
    "audio": {"errors"},
    "models": {"audio", "errors"},
    "worker": {"audio", "errors"},
    "operations": {"models", "worker", "audio", "errors"},
    "handler": {"operations", "models", "worker", "audio", "errors"},
}
ROOMS = {*MAY_IMPORT, "demo", "tests", "testing", "tools", "benchmarks"}


def sources() -> list[Path]:
    return [
        path for room in MAY_IMPORT for path in [ROOT / f"{room}.py", *(ROOT / room).rglob("*.py")] if path.exists()
    ]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            yield (node.module or "").split(".")[0]


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_its_own_room_and_those_below(path: Path) -> None:
    allowed = MAY_IMPORT[room(path)] | {room(path)}
    assert {name for name in imported(path) if name in ROOMS} <= allowed


def test_there_is_no_other_top_level_package() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= ROOMS


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_environment_is_read_in_settings_only(path: Path) -> None:
    if path != ROOT / "worker/settings.py":
        names = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
        assert not names & {"environ", "getenv"}
