"""Runs the requests in examples/ through the handler, as a worker does, and keeps what went in and what came out."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import handler
from worker.job import build_job
from worker.request_file import MARK, inline_files
from worker.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
INLINE_BUDGET_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Artefact:
    """One file that went in or came out.

    Args:
        label: where it stands in the request or the reply: `tracks[0].audio`, `stems.drums`.
        filename: with the format as its ending.
    """

    label: str
    filename: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """One request and its reply.

    Args:
        name: of the file in examples/, without its ending.
        request: as it stands in the file.
        reply: without the base64 of its files.
        seconds: from the request to the reply; the first request of a model includes loading it.
    """

    name: str
    request: dict[str, Any]
    reply: dict[str, Any]
    seconds: float
    inputs: tuple[Artefact, ...]
    outputs: tuple[Artefact, ...]

    @property
    def operation(self) -> str:
        return str(self.request["input"]["operation"])

    @property
    def error(self) -> str:
        """The reply's error; empty if the request succeeded."""
        return str(self.reply.get("error", ""))


def list_examples() -> list[Path]:
    """The requests, in alphabetical order."""
    return sorted(EXAMPLES.glob("*.json"))


def run_example(path: Path, settings: Settings) -> Result:
    """The result of the request in a file of examples/."""
    request = json.loads(path.read_text(encoding="utf-8"))
    job = build_job(inline_files(request, path.parent, root=ROOT), job_id=path.stem, timeout_s=0)
    started = time.monotonic()
    reply = handler.run_job(job, settings)
    seconds = time.monotonic() - started
    outputs: dict[bytes, Artefact] = {}
    shown = _take_outputs(reply, "", outputs)
    return Result(
        path.stem, request, shown, seconds, tuple(_list_inputs(request, path.parent)), tuple(outputs.values())
    )


def _list_inputs(value: Any, folder: Path, label: str = "") -> Iterator[Artefact]:
    """Every file that a request names, once."""
    if isinstance(value, str) and value.startswith(MARK) and not value.startswith(MARK * 2):
        path = folder / value.removeprefix(MARK)
        yield Artefact(label, path.name, path.read_bytes())
    for key, item in _iter_items(value):
        yield from _list_inputs(item, folder, _join(label, key))


def _take_outputs(value: Any, label: str, outputs: dict[bytes, Artefact]) -> Any:
    """A reply's value without base64; its files are added to `outputs`, each once under its first label."""
    if isinstance(value, Mapping):
        shown = {key: _take_outputs(item, _join(label, key), outputs) for key, item in value.items()}
        for key in ("output_audio", "output_file"):
            if isinstance(encoded := value.get(key), str):
                data = base64.b64decode(encoded)
                outputs.setdefault(data, Artefact(label or "result", str(value["filename"]), data))
                shown[key] = f"<{len(encoded)} characters of base64>"
        return shown
    if isinstance(value, list):
        return [_take_outputs(item, _join(label, key), outputs) for key, item in _iter_items(value)]
    return value


def _iter_items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))


def _join(label: str, key: str) -> str:
    """`tracks` and `[0]` are `tracks[0]`; the envelope is left out."""
    if label in ("", "input", "input.params"):
        return f"{label}.{key}".strip(".") if f"{label}.{key}".strip(".") in ("input", "input.params") else key
    return f"{label}{key}" if key.startswith("[") else f"{label}.{key}"
