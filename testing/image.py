"""The image without Docker: its files, environment, user and command, read from the Dockerfile."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import packages_distributions
from pathlib import Path

from testing.repository import ROOT

_SITE = """
import sys
from importlib.machinery import PathFinder


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in MODULES else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""
BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"  # PATH of the base image


def read_instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions as (keyword, rest), continuation lines joined."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def read_last_stage() -> list[tuple[str, str]]:
    """The instructions of the stage that is shipped."""
    instructions = read_instructions()
    last = max(number for number, (keyword, _) in enumerate(instructions) if keyword == "FROM")
    return instructions[last + 1 :]


def read_environment() -> dict[str, str]:
    """The environment of a container's process: ENV of the shipped stage, and HOME as Docker sets it without one."""
    environment = {"PATH": BASE_PATH, "HOME": "/"}  # of a user without a passwd entry
    for keyword, rest in read_last_stage():
        if keyword == "ENV":
            for assignment in shlex.split(rest):
                name, _, value = assignment.partition("=")
                environment[name] = re.sub(r"\$(\w+)", lambda match: environment.get(match[1], ""), value)
    return environment


def read_user() -> tuple[int, int]:
    """The ids of user and group that the container's process has."""
    user, _, group = [rest for keyword, rest in read_last_stage() if keyword == "USER"][-1].partition(":")
    return int(user), int(group)


def copy_code(app: Path) -> None:
    """Copies what the shipped stage copies from the repository to `app`, which stands for /app."""
    for keyword, rest in read_last_stage():
        if keyword == "COPY" and "--from=" not in rest:
            *sources, target = rest.split()
            for source in sources:
                path = ROOT / source
                if path.is_dir():
                    shutil.copytree(path, app / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(path, app / target)


def read_command() -> list[str]:
    """The image's command, with this interpreter in place of the image's."""
    python, *arguments = json.loads([rest for keyword, rest in read_last_stage() if keyword == "CMD"][-1])
    assert python == "python", f"the image's command starts with {python}"
    return [sys.executable, *arguments]


def list_unlocked_modules() -> list[str]:
    """The top-level modules of every package that is installed here and not in the image."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    locked = {line.partition("==")[0] for line in lines if "==" in line and not line.startswith(("#", " "))}
    return sorted(
        module
        for module, packages in packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", package).lower() for package in packages} & locked
    )


def block_unlocked_packages(folder: Path) -> None:
    """Writes a `sitecustomize` to `folder`; with it on PYTHONPATH, `list_unlocked_modules` cannot be imported."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITE.replace("MODULES", repr(set(list_unlocked_modules()))))


def as_image_user(command: list[str]) -> list[str]:
    """`command` run as the image's user, without any capability of root.

    An interpreter in a folder that only root may enter stays readable by CAP_DAC_READ_SEARCH. It allows nothing that
    the file permissions forbid to write.
    """
    user, group = read_user()
    switch = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    standard_library = sysconfig.get_path("stdlib")
    if subprocess.run([*switch, "test", "-r", standard_library], check=False).returncode != 0:
        switch += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*switch, "--", *command]


def why_not_possible() -> str:
    """Why nothing can be run as the image's user on this machine; empty if it can."""
    if os.getuid() != 0:
        return "only root can switch to the image's user"
    return "" if shutil.which("setpriv") else "setpriv (util-linux) is not installed"
