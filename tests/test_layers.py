"""Imports go down only (handler > operations > models and worker, side by side > audio > errors), without cycles."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
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
PRODUCT = {*MAY_IMPORT, "demo"}
ALL_PACKAGES = {*PRODUCT, "tests", "testing", "tools", "benchmarks"}


def list_files(*packages: str) -> list[Path]:
    """The Python files of these top-level packages and modules."""
    folders = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    return sorted(folders + [path for package in packages if (path := ROOT / f"{package}.py").exists()])


SOURCES = list_files(*MAY_IMPORT)
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in list_files(*ALL_PACKAGES)}


def find_module(name: str) -> str | None:
    """The key in `MODULES` of the module or package called `name`."""
    return next((key for key in (name, f"{name}.__init__") if key in MODULES), None)


def list_imports(path: Path) -> Iterator[str]:
    """The names of all imported modules, also within functions and under `TYPE_CHECKING`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports must be absolute"
            # `from package import name` imports the submodule `name`, or else the package itself.
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if find_module(submodule) else str(node.module)


def build_import_graph() -> dict[str, set[str]]:
    """For each module of the repository, the modules of the repository that it imports."""
    graph = {}
    for module, path in MODULES.items():
        imported = {find_module(name) for name in list_imports(path)}
        graph[module] = {name for name in imported if name is not None}
    return graph


def find_cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one import cycle, in order; empty if there is none."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in finished:
            for imported in sorted(graph.get(module, ())):
                if cycle := visit(imported, [*path, module]):
                    return cycle
            finished.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), [])


def test_a_cycle_is_found() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert find_cycle({"a": {"a"}}) == ["a", "a"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_each_other_in_a_cycle() -> None:
    assert " > ".join(find_cycle(build_import_graph())) == ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_its_own_package_and_from_lower_ones(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    imported = {name.split(".")[0] for name in list_imports(path)}
    assert imported & ALL_PACKAGES <= MAY_IMPORT[package] | {package}


def test_there_is_no_other_top_level_package() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= ALL_PACKAGES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_environment_is_read_in_settings_only(path: Path) -> None:
    if path != ROOT / "worker/settings.py":
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not names & {"environ", "getenv"}
