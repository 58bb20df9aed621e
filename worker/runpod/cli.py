"""One job from the command line: reads it, runs it, writes its audio to files and prints the rest. Needs no SDK."""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import logs
from worker.runpod.progress import reporting
from worker.settings import Platform, Settings

if TYPE_CHECKING:
    from worker.runpod.adapter import Serve

logger = logging.getLogger(__name__)

TEST_INPUT = "test_input.json"
NO_BUDGET_BYTES = 4_000_000_000


class LocalRunError(Exception):
    """The job cannot be read or its audio cannot be written; the message is a sentence for the person at hand."""


def run(serve: Serve, test_input: str | None, *, settings: Settings, root: Path) -> int:
    """Runs the job in `test_input` (JSON), else that of test_input.json. Returns the exit code, 0 or 1.

    Args:
        root: the repository; test_input.json is looked for there after the current folder, and a relative
            `OUTPUT_DIR` counts from there.
    """
    try:
        job = _job(test_input, root)
        reply = _reply(serve, job, settings)
        shown = _written(reply, _Folder(root / settings.output_dir))
    except LocalRunError as error:
        return _failed(str(error))
    readable = "utf" in (sys.stdout.encoding or "").lower()
    sys.stdout.write(json.dumps(shown, indent=2, ensure_ascii=not readable) + "\n")
    return _failed(str(reply["error"])) if "error" in reply else 0


def _failed(sentence: str) -> int:
    sys.stderr.write(f"Error: {sentence}\n")
    return 1


def _job(test_input: str | None, root: Path) -> Any:
    """The job, with an id where it has none."""
    name, text = ("--test_input", test_input) if test_input is not None else _file(root)
    try:
        job = json.loads(text)
    except RecursionError:
        raise LocalRunError(f"{name} is nested too deeply to be read.") from None
    except json.JSONDecodeError as error:
        place = f"{error.msg}, line {error.lineno}, column {error.colno}"
        raise LocalRunError(f'{name} is not valid JSON ({place}). It takes {{"input": {{...}}}}.') from None
    except ValueError:  # a number of thousands of digits
        raise LocalRunError(f"{name} holds a number that cannot be read.") from None
    return {"id": "local", **job} if isinstance(job, dict) else job


def _file(root: Path) -> tuple[str, str]:
    for folder in (Path.cwd(), root):
        if (path := folder / TEST_INPUT).is_file():
            try:
                return TEST_INPUT, path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                raise LocalRunError(f"{TEST_INPUT} cannot be read as UTF-8 text.") from None
    raise LocalRunError(
        f"There is no {TEST_INPUT} here or beside handler.py. Write one, or give the job by --test_input JSON."
    )


def _reply(serve: Serve, job: Any, settings: Settings) -> dict[str, Any]:
    """The reply. No platform limits its size here, so unless a budget was set, all audio comes as asked."""
    if settings.inline_budget_bytes == Settings.inline_budget_bytes:
        settings = replace(settings, inline_budget_bytes=NO_BUDGET_BYTES)
    job_id = str(job.get("id")) if isinstance(job, dict) else "local"
    with logs.job_context(job_id), reporting(Platform(), job_id) as report:
        return serve(job, settings=settings, report=report)


class _Folder:
    """Where audio is written; a file of the same name is kept, unless it holds the same sound."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, name: str, content: bytes) -> Path:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            path = self._free(Path(name).name or "audio", content)
            path.write_bytes(content)
        except OSError as error:
            raise LocalRunError(f"The audio cannot be written to {self._path}: {error.strerror}.") from None
        return path

    def _free(self, name: str, content: bytes) -> Path:
        path, number = self._path / name, 1
        stem, suffix = path.stem, path.suffix
        while path.exists() and not (path.stat().st_size == len(content) and path.read_bytes() == content):
            number += 1
            path = self._path / f"{stem}-{number}{suffix}"
        return path


def _written(value: Any, folder: _Folder) -> Any:
    """`value` with each artefact's base64 put into a file and replaced by a word on it; `output_file` says where."""
    if isinstance(value, Mapping):
        shown = {key: _written(item, folder) for key, item in value.items()}
        encoded = value.get("output_audio")
        if isinstance(encoded, str):
            path = folder.write(str(value.get("filename", "")), base64.b64decode(encoded))
            sys.stderr.write(f"Wrote {path}\n")
            shown |= {"output_audio": f"<{len(encoded)} characters of base64>", "output_file": str(path)}
        return shown
    if isinstance(value, (list, tuple)):
        return [_written(item, folder) for item in value]
    return value
