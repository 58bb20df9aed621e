"""The list of models for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FAMILIES = {
    "music": "Music",
    "planners": "Planners of songs",
    "separation": "Separation",
    "voices": "Voices",
    "suno": "Suno",
    "f0_methods": "Pitch methods",
    "content_encoders": "Content encoders",
    "codecs": "Codecs",
    "beat_models": "Beat models",
}


def show_models(reply: Mapping[str, Any]) -> None:
    """One table for each family that has models."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for family, title in FAMILIES.items():
        rows = [row for row in reply.get(family) or () if isinstance(row, Mapping)]
        if not rows:
            continue
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in ("name", "available", "licence"):
            table.add_column(column, overflow="fold")
        for row in rows:
            available = str(row.get("available", ""))
            colour = {"local": "green", "download": "cyan"}.get(available, "yellow")
            table.add_row(
                Text(str(row.get("name", ""))), Text(available, style=colour), Text(str(row.get("licence", "")))
            )
        console.print(table)
        console.print()
