"""The lock's export, the image, CI and the Hub files agree with each other and with the tree."""

from __future__ import annotations

import ast
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from models.cuda_driver import MIN_CUDA
from testing.control_plane import MAX_BODY_BYTES
from testing.image import read_instructions
from testing.repository import ROOT

NAMED_PACKAGES = {
    "runpod", "torch", "torchaudio", "audiocraft", "demucs", "rvc-python", "pedalboard", "pydub", "requests"
}  # fmt: skip


def run_uv() -> str:
    found = os.environ.get("UV") or shutil.which("uv")
    if not found:
        pytest.skip("uv is not on the path; `uv run pytest` puts it there")
    return found


INSTALL = "pip install --no-deps -r requirements.txt"


def test_requirements_txt_is_the_export_of_the_lock_below_the_command_that_installs_it() -> None:
    export = ["export", "--frozen", "--offline", "--no-dev", "--no-emit-project", "--no-header"]
    fresh = subprocess.run([run_uv(), *export], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "requirements.txt").read_text() == f"# {INSTALL}\n{fresh}", "run `make requirements`"


def test_readme_and_deployment_page_install_requirements_txt_by_its_first_line() -> None:
    assert INSTALL in (ROOT / "README.md").read_text() and INSTALL in (ROOT / "docs/deployment.md").read_text()


def test_every_requirement_has_hashes_because_pip_accepts_all_or_none() -> None:
    text = (ROOT / "requirements.txt").read_text().replace("\\\n", "")
    requirements = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(requirements) > 100 and [line for line in requirements if "--hash=sha256:" not in line] == []


def list_imported_packages() -> set[str]:
    """Every package that the worker's own code imports, at the top of a module or within a function."""
    sources = [ROOT / "handler.py", ROOT / "errors.py"]
    for package in ("audio", "models", "operations", "worker"):
        sources += (ROOT / package).rglob("*.py")
    names = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return {name for name in names if name not in sys.stdlib_module_names and not list(ROOT.glob(f"{name}*"))}


def test_every_package_that_the_worker_imports_is_in_requirements_txt() -> None:
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    providers = dict(packages_distributions())
    providers["parselmouth"] = ["praat-parselmouth"]  # a single extension module, which importlib does not list
    for name in sorted(list_imported_packages()):
        found = {re.sub(r"[-_.]+", "-", each).lower() for each in providers.get(name, [])}
        assert found & locked, f"{name} is imported, and requirements.txt has no package that provides it"


def test_packages_that_only_training_or_reference_libraries_need_are_not_in_the_image() -> None:
    requirements = (ROOT / "requirements.txt").read_text()
    unneeded = ("av", "inquirerpy", "librosa", "llvmlite", "numba", "resampy", "rich", "scikit-learn", "sphn", "uvloop")
    assert [name for name in unneeded if re.search(rf"^{name}==", requirements, re.MULTILINE)] == []


def test_all_nine_named_packages_are_locked() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    assert {package["name"] for package in lock["package"]} >= NAMED_PACKAGES


def list_copied_sources() -> list[str]:
    copies = [rest for keyword, rest in read_instructions() if keyword == "COPY" and "--from=" not in rest]
    return [source for rest in copies for source in rest.split()[:-1]]


def test_every_file_that_the_image_copies_exists() -> None:
    assert list_copied_sources()
    assert [source for source in list_copied_sources() if not (ROOT / source).exists()] == []


def test_every_file_that_the_image_copies_is_let_through_by_dockerignore() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = [line[1:] for line in lines if line.startswith("!")]
    assert [source for source in list_copied_sources() if source.removeprefix("./") not in let_through] == []


def test_the_image_holds_every_package_of_the_worker() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {
        "tests",
        "testing",
        "tools",
        "benchmarks",
        "demo",
    }
    assert packages <= set(list_copied_sources())


def list_commands() -> list[str]:
    """Every command that building and starting the image runs, with its paths and variables as CI has them."""
    found = []
    for keyword, rest in read_instructions():
        if keyword == "RUN":
            found += re.sub(r"--mount=\S+\s+", "", rest).replace("/app/", "").replace("${BAKE_MODELS}", "").split("&&")
        if keyword == "CMD":
            found.append(" ".join(json.loads(rest)))
    return [command.strip() for command in found]


def test_every_command_of_the_image_is_also_run_by_ci() -> None:
    ci = (ROOT / ".ci/run").read_text().replace('"$OLDPWD/', "").replace('"', "").replace("$OLDPWD/", "")
    assert len(list_commands()) >= 6
    assert [command for command in list_commands() if command not in ci] == []


def test_ci_checks_the_client_in_an_environment_of_its_own() -> None:
    commands = (ROOT / ".ci/run").read_text().partition("\ncd client\n")[2].split("\n")
    assert {"uv sync --locked", "uv run mypy", "uv run pytest"} <= set(commands)
    assert "cd client && uv run pytest" in (ROOT / "README.md").read_text()
    assert "cd client && uv run pytest" in (ROOT / "Makefile").read_text()


def test_the_client_stays_out_of_the_image_and_out_of_the_workers_environment() -> None:
    assert not [source for source in list_copied_sources() if "client" in source]
    worker, client = (tomllib.loads((ROOT / name).read_text()) for name in ("pyproject.toml", "client/pyproject.toml"))
    assert "music-worker" not in str(worker["project"]["dependencies"])
    names = {re.split(r"[<>=\[]", requirement)[0] for requirement in client["project"]["dependencies"]}
    assert names and not names & {"torch", "numpy", "runpod"}


def test_the_dockerfile_is_clean_by_its_linter() -> None:
    linter = shutil.which("hadolint") or str(Path(sys.executable).parent / "hadolint")
    if not Path(linter).exists():
        pytest.skip("hadolint has no build for this machine")
    found = subprocess.run([linter, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert found.stdout == "" and found.returncode == 0


def test_the_image_does_not_run_as_root() -> None:
    users = [rest for keyword, rest in read_instructions() if keyword == "USER"]
    assert users and users[-1].split(":")[0] not in ("root", "0")


def test_nothing_that_is_ignored_by_git_is_copied_into_the_image() -> None:
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line]
    assert not [s for s in list_copied_sources() if any(fnmatch.fnmatch(s.removeprefix("./"), p) for p in ignored)]


class Strict(BaseModel):
    """The Hub's reference tables (docs: hub/publishing-guide), field by field."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Option(Strict):
    label: str
    value: str


class EnvInput(Strict):
    name: str
    type: Literal["string", "number", "boolean", "huggingface"]
    description: str = ""
    default: str | int | float | bool | None = None
    options: list[Option] | None = None
    min: float | None = None
    max: float | None = None
    required: bool = False
    advanced: bool = False
    trueValue: str | None = None  # noqa: N815 (the Hub's own spelling)
    falseValue: str | None = None  # noqa: N815


class EnvItem(Strict):
    key: str
    value: str | None = None
    input: EnvInput | None = None


class Preset(Strict):
    name: str
    defaults: dict[str, str | int | float | bool]


class HubConfig(Strict):
    runsOn: Literal["GPU", "CPU"]  # noqa: N815
    containerDiskInGb: int  # noqa: N815
    gpuCount: int  # noqa: N815
    gpuIds: str  # noqa: N815
    allowedCudaVersions: list[str] = []  # noqa: N815
    env: list[EnvItem] = []
    presets: list[Preset] = []


class Hub(Strict):
    title: str
    description: str
    type: Literal["serverless"]
    category: Literal["audio"]
    iconUrl: str | None = None  # noqa: N815
    config: HubConfig


class HubTest(Strict):
    name: str
    input: dict[str, Any]
    timeout: int


class HubTestConfig(Strict):
    gpuTypeId: str  # noqa: N815
    gpuCount: int  # noqa: N815
    env: list[EnvItem] = []
    allowedCudaVersions: list[str] = []  # noqa: N815


class HubTests(Strict):
    tests: list[HubTest]
    config: HubTestConfig


def test_hub_json_is_valid_by_the_published_reference() -> None:
    hub = Hub.model_validate_json((ROOT / ".runpod/hub.json").read_text())
    assert all((item.value is None) != (item.input is None) for item in hub.config.env)


def test_hub_json_allows_no_reply_that_the_platform_drops() -> None:
    hub = Hub.model_validate_json((ROOT / ".runpod/hub.json").read_text())
    (budget,) = (item.input for item in hub.config.env if item.key == "INLINE_BUDGET_BYTES")
    assert budget is not None and budget.max is not None
    assert budget.max <= MAX_BODY_BYTES - 1000  # the SDK adds a few keys around the reply


def test_the_hub_runs_the_worker_only_on_hosts_whose_driver_can_run_it() -> None:
    hub = Hub.model_validate_json((ROOT / ".runpod/hub.json").read_text())
    tests = HubTests.model_validate_json((ROOT / ".runpod/tests.json").read_text())
    for versions in (hub.config.allowedCudaVersions, tests.config.allowedCudaVersions):
        assert versions and min(tuple(map(int, version.split("."))) for version in versions) >= MIN_CUDA


def test_the_hubs_tests_run_every_operation_that_needs_no_key_and_no_voice() -> None:
    tests = HubTests.model_validate_json((ROOT / ".runpod/tests.json").read_text())
    assert {case.input["operation"] for case in tests.tests} >= {
        "health_check",
        "list_models",
        "generate_music",
        "separate",
    }


def test_hub_json_offers_only_settings_that_the_worker_reads() -> None:
    from dataclasses import fields

    from worker.settings import Settings

    hub = Hub.model_validate_json((ROOT / ".runpod/hub.json").read_text())
    known = {field.metadata["variable"]: field.default for field in fields(Settings)}
    assert {item.key for item in hub.config.env} <= set(known)
    offered = {item.key: item.input.default for item in hub.config.env if item.input}
    assert {key: default for key, default in offered.items() if str(default) != str(known[key] or "")} == {}


def test_hub_tests_are_valid_by_the_published_reference_and_pass_validation() -> None:
    from operations.operation import find_operation

    tests = HubTests.model_validate_json((ROOT / ".runpod/tests.json").read_text())
    for case in tests.tests:
        _, operation = find_operation(case.input["operation"])
        operation.params.parse(case.input.get("params") or {k: v for k, v in case.input.items() if k != "operation"})
