"""The markup of the page: one file without scripts or outside resources, that is read from disk as from a server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from demo.page.run import Artefact, Result
from demo.page.sound import Sound, is_sound, make_sound

CSS = Path(__file__).with_name("page.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
OPERATIONS = (  # in the order of the page; others follow
    "generate_music",
    "separate",
    "generate_cover",
    "edit_music",
    "mix_audio",
    "analyze",
    "pipeline",
    "encode_audio",
    "decode_audio",
)


def write_page(results: Sequence[Result], summaries: Mapping[str, str], *, version: str, device: str) -> str:
    """The whole page.

    Args:
        results: of every example.
        summaries: one sentence for each operation.
        version: of the worker.
        device: `cpu`, `cuda` or `mps`.
    """

    def rank(result: Result) -> tuple[int, str, str]:
        known = result.operation in OPERATIONS
        return OPERATIONS.index(result.operation) if known else len(OPERATIONS), result.operation, result.name

    ordered = sorted(results, key=rank)
    sections = [(name, list(group)) for name, group in groupby(ordered, key=lambda result: result.operation)]
    links = "".join(f'<li><a href="#{escape(name)}">{escape(name)}</a></li>' for name, _ in sections)
    body = "".join(_write_operation(name, group, summaries.get(name, "")) for name, group in sections)
    done = sum(not result.error for result in results)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>Music AI Worker: what each operation does</title>
<style>
{CSS.read_text(encoding="utf-8")}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the results</a>
<header>
<h1>Music AI Worker: what each operation does</h1>
<p class="lead">Every request in <code>examples/</code>, with what went in and what came out, made offline with the
models on this machine. Replies by demo models say so; they do not show the quality of real models.</p>
<nav aria-label="Operations"><ul>{links}</ul></nav>
</header>
<main id="content">
{body}</main>
<footer><p>{done} of {len(results)} requests succeeded. Worker {escape(version)} on {escape(device)}. Times include
loading a model for its first request. Sounds are mp3 copies; levels and pictures are those of the
originals.</p></footer>
</body>
</html>
"""


def _write_operation(name: str, results: Sequence[Result], summary: str) -> str:
    head = f'<h2 id="{escape(name)}"><code>{escape(name)}</code></h2>\n<p class="lead">{escape(summary)}</p>'
    articles = "".join(map(_write_result, results))
    return f'<section aria-labelledby="{escape(name)}">\n{head}\n{articles}</section>\n'


def _write_result(result: Result) -> str:
    title = escape(result.name.replace("_", " "))
    state = f"Refused after {result.seconds:.1f} s" if result.error else f"{result.seconds:.1f} s"
    model = f" with the model <code>{escape(str(used))}</code>" if (used := result.reply.get("model_used")) else ""
    parts = [
        f'<article aria-labelledby="example-{escape(result.name)}">',
        f'<h3 id="example-{escape(result.name)}">{title}</h3>',
        f'<p class="facts">{state}{model}. File: <code>examples/{escape(result.name)}.json</code></p>',
        f"<h4>Request</h4>\n{_show_json(result.request, f'Request {title}')}",
        _write_files("What went in", result.inputs),
        _write_notice(result),
        _write_files("What came out", result.outputs),
        f"<details><summary>Reply</summary>\n{_show_json(result.reply, f'Reply {title}')}</details>",
        "</article>\n",
    ]
    return "\n".join(part for part in parts if part)


def _write_notice(result: Result) -> str:
    if result.error:
        return f'<p class="notice"><strong>Not possible on this worker.</strong> {escape(result.error)}</p>'
    items = "".join(f"<li>{escape(str(warning))}</li>" for warning in result.reply.get("warnings", ()))
    return f'<div class="notice"><strong>Warnings in the reply</strong><ul>{items}</ul></div>' if items else ""


def _write_files(heading: str, artefacts: Sequence[Artefact]) -> str:
    if not artefacts:
        return ""
    return f'<h4>{heading}</h4>\n<div class="sounds">\n{"".join(_iter_figures(artefacts))}</div>'


def _iter_figures(artefacts: Sequence[Artefact]) -> Iterator[str]:
    for artefact in artefacts:
        if is_sound(artefact.filename):
            yield _write_sound(artefact, make_sound(artefact.data))
        elif artefact.filename.endswith(".png"):
            caption = _write_caption(artefact.label, artefact.filename, "")
            yield f"<figure>{caption}{_write_image(artefact.data, f'{artefact.label}: picture')}</figure>\n"
        else:
            caption = _write_caption(artefact.label, artefact.filename, f"{len(artefact.data) / 1000:.1f} kB")
            yield f"<figure>{caption}</figure>\n"


def _write_sound(artefact: Artefact, sound: Sound) -> str:
    label = escape(artefact.label)
    channels = "stereo" if sound.channels == 2 else "mono"  # noqa: PLR2004
    peak = "silent" if sound.peak_db is None else f"peak {sound.peak_db:.1f} dBFS"
    loudness = "" if sound.loudness_lufs is None else f", {sound.loudness_lufs:.1f} LUFS"
    facts = f"{sound.duration:.2f} s, {sound.sample_rate / 1000:g} kHz {channels}, {peak}{loudness}"
    return (
        f"<figure>{_write_caption(artefact.label, artefact.filename, facts)}"
        f'<audio controls preload="metadata" aria-label="{label}, {sound.duration:.1f} s" '
        f'src="data:audio/mpeg;base64,{_encode(sound.mp3)}"></audio>'
        f"{_write_image(sound.waveform_png, f'Waveform of {artefact.label}')}"
        f"{_write_image(sound.spectrogram_png, f'Spectrogram of {artefact.label}')}</figure>\n"
    )


def _write_caption(label: str, filename: str, facts: str) -> str:
    shown = f"{escape(filename)}{': ' if facts else ''}{escape(facts)}"
    return f"<figcaption><strong>{escape(label)}</strong><br><small>{shown}</small></figcaption>"


def _write_image(png: bytes, alt: str) -> str:
    return f'<img loading="lazy" alt="{escape(alt)}" src="data:image/png;base64,{_encode(png)}">'


def _show_json(value: Any, label: str) -> str:
    """JSON that can be scrolled by keyboard."""
    text = escape(json.dumps(value, indent=2, ensure_ascii=False))
    return f'<pre tabindex="0" role="region" aria-label="{label}">{text}</pre>'


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()
