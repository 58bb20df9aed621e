"""Names for the files of a result, and what is said about the rest of it."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import click

from music_worker.downloads import PartialFile, choose_name, clean_name
from music_worker.results import ARTEFACT_KEYS, FileOutput, Result

MAX_SLUG = 48
MAX_SHOWN = 6
# Shown elsewhere, or of no use to people.
LEFT_OUT = ARTEFACT_KEYS | {
    *("success", "operation", "parameters", "timings", "warnings", "outputs", "stems", "files", "schemas", "seeds"),
    *("features", "search_paths", "codes", "audio_codes", "request"),
}


def make_base_name(params: Mapping[str, Any]) -> str:
    """A name for the results of a request, from its text or its input: `calm-piano-80-bpm`, `song`; may be empty."""
    for name in ("audio", "voice_audio", "src_audio", "continuation_audio", "melody_audio"):
        if isinstance(source := params.get(name), str) and not source.startswith("data:"):
            path = urlsplit(source).path if source.startswith(("http://", "https://")) else source
            return clean_name(PurePosixPath(path.replace("\\", "/")).stem)
    for name in ("title", "prompt", "description", "text", "sample_query"):
        if isinstance(text := params.get(name), str) and (slug := make_slug(text)):
            return slug
    return ""


def make_slug(text: str) -> str:
    """Letters and digits of `text` in lower case, with hyphens between its words."""
    plain = unicodedata.normalize("NFC", text).casefold()
    words = re.findall(r"\w+", plain.replace("_", " "))
    slug = ""
    for word in words:
        if slug and len(slug) + 1 + len(word) > MAX_SLUG:
            break
        slug = f"{slug}-{word}" if slug else word[:MAX_SLUG]
    return slug


def save_files(result: Result, *, output: str | None, base: str, has_input: bool, folder: str = "") -> dict[str, Path]:
    """Saves every file of the result and returns the paths by name. No file is overwritten.

    Args:
        output: a folder (it exists, or ends with a slash), a file, or None for `folder`.
        base: what the results are called after without `output`.
        has_input: whether `base` is the name of an input, which the results are then told apart from.
        folder: where files go without `output`; default: the current one.
    """
    files = result.all_files()
    saved = {}
    for name, file in files.items():
        if output is None:
            path = str(Path(folder) / _make_name(name, file, base=base, is_only=len(files) == 1, has_input=has_input))
        else:
            path = _choose_path(name, file, output, is_only=len(files) == 1)
        saved[name] = file.save(path)
    return saved


def _make_name(name: str, file: FileOutput, *, base: str, is_only: bool, has_input: bool) -> str:
    """`calm-piano.wav`, `song-vocals.wav`, or the worker's own name for it."""
    given = PurePosixPath(clean_name(file.filename))
    if not base:
        return str(given)
    if is_only and not has_input:
        return f"{base}{given.suffix}"
    label = name.replace(" ", "-") if name.startswith("audio ") else given.stem
    return clean_name(f"{base}-{label}{given.suffix}")


def _choose_path(name: str, file: FileOutput, output: str, *, is_only: bool) -> str:
    given, target = PurePosixPath(clean_name(file.filename)), Path(output).expanduser()
    if output.endswith(("/", os.sep)) or target.is_dir() or not (is_only or target.suffix):
        return str(target / given)
    if is_only:
        return str(target if target.suffix else target.with_name(target.name + given.suffix))
    label = clean_name(name.replace(" ", "-"))
    return str(target.with_name(f"{target.stem}-{label}{given.suffix}"))


def write_to_stdout(result: Result) -> None:
    """Writes the one file of the result to standard output."""
    files = result.all_files()
    if len(files) != 1:
        raise click.UsageError(f"The result has {len(files)} files; `-o -` takes one. Use `-o FOLDER/`.")
    sys.stdout.buffer.write(next(iter(files.values())).bytes())
    sys.stdout.buffer.flush()


def save_reply(result: Result, output: str) -> Path:
    """Writes the reply of an operation without files as JSON, and returns the path."""
    target = choose_name(output, f"{result.operation}.json")
    content = json.dumps(result.reply, ensure_ascii=False, indent=2) + "\n"
    return PartialFile(target if target.suffix else target.with_name(f"{target.name}.json")).write(content.encode())


def describe_file(name: str, file: FileOutput, path: Path) -> dict[str, Any]:
    """What `--json` says of a saved file."""
    facts = {
        key: getattr(file, key, None) for key in ("format", "size", "sample_rate", "channels", "duration", "sha256")
    }
    return {"name": name, "path": str(path), **{key: value for key, value in facts.items() if value is not None}}


def describe_reply(result: Result) -> list[str]:
    """The reply's own fields, a line each."""
    return [
        f"{key}: {text}"
        for key, value in result.reply.items()
        if key not in LEFT_OUT and (text := describe_value(value))
    ]


def describe_value(value: Any, *, depth: int = 0) -> str:
    """A value on one line; long lists are shortened. Empty for what says nothing."""
    if value is None or value == "" or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        parts = [f"{key} {text}" for key, item in value.items() if (text := describe_value(item, depth=depth + 1))]
        return f"({', '.join(parts)})" if depth else ", ".join(parts)
    if isinstance(value, list | tuple):
        shown = [text for item in value[:MAX_SHOWN] if (text := describe_value(item, depth=depth + 1))]
        more = f", ... ({len(value)} in all)" if len(value) > MAX_SHOWN else ""
        return ", ".join(shown) + more
    return " / ".join(str(value).split("\n"))
