"""Imports go down only (handler > operations > models and worker, side by side > audio > errors), without cycles.

And what holds for all product code: settings are read in one place, and exceptions that mean a bug are not caught.
"""

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
# A bug raises these. Code that catches them to translate them reports a bug of ours as a mistake of the caller.
BUGS = {"BaseException", "Exception", "AttributeError", "TypeError", "LookupError", "AssertionError"}
# The exceptions to that rule: file, function -> exceptions. Each is raised by code that is not ours.
MAY_CATCH = {
    ("handler.py", "catch_errors"): {"Exception"},  # the only catch-all
    ("models/demucs/load.py", "_build"): {"AssertionError"},  # demucs asserts its requirements in its constructors
    ("models/device.py", "find_gpu"): {"AttributeError"},  # ctypes, for a function that the driver does not have
    ("models/device.py", "_measure_free"): {"AttributeError"},  # as above
    ("models/checkpoints/hf_folder.py", "read_tokenizer_file"): {"Exception"},  # tokenizers raises no class below it
    ("models/runtime/linear.py", "can_pack"): {"AttributeError"},  # an operator that this torch does not have
    ("worker/logs.py", "_format_message"): {"TypeError"},  # any library's message, formatted with unsuitable arguments
    ("worker/output/strict_json.py", "dump_json"): {"TypeError"},  # json, for a value that JSON cannot represent
}
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


def list_caught_bugs(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The function and the name of each of `BUGS` that is caught and not raised again. Tuples may have a name."""
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def list_names(node: ast.expr | None) -> Iterator[str]:
        if node is None:  # `except:`
            yield "BaseException"
        elif isinstance(node, ast.Name) and node.id in constants:
            yield from list_names(constants[node.id])
        elif node is not None:
            yield from (name.id for name in ast.walk(node) if isinstance(name, ast.Name))

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        caught: list[str] = []
        if isinstance(node, ast.ExceptHandler):
            raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            caught = [] if raises_again else list(list_names(node.type))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            caught = [name for argument in node.args for name in list_names(argument)]
        yield from ((function, name) for name in caught if name in BUGS)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return visit(tree, "")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_exceptions_that_mean_a_bug_are_not_caught(path: Path) -> None:
    caught: dict[tuple[str, str], set[str]] = {}
    for function, name in list_caught_bugs(ast.parse(path.read_text())):
        caught.setdefault((str(path.relative_to(ROOT)), function), set()).add(name)
    assert caught == {place: names for place, names in MAY_CATCH.items() if place[0] == str(path.relative_to(ROOT))}


def test_a_caught_bug_is_found_in_every_spelling() -> None:
    source = """
ERRORS = (ValueError, TypeError)
def f():
    try: ...
    except ERRORS: ...
    except (OSError, LookupError) as error: raise ValueError from error
    except BaseException: raise
    except: ...
    with contextlib.suppress(AttributeError): ...
"""
    names = ["TypeError", "LookupError", "BaseException", "AttributeError"]
    assert list(list_caught_bugs(ast.parse(source))) == [("f", name) for name in names]
