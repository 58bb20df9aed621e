"""Prints what was measured beside what it may be at most."""

from __future__ import annotations

from collections.abc import Mapping


def print_figures(figures: Mapping[str, float | bool], limits: Mapping[str, float]) -> None:
    for name, figure in figures.items():
        limit = f"  (at most {limits[name]:g})" if name in limits else ""
        value = str(figure) if isinstance(figure, bool) else f"{figure:.3g}"
        print(f"{name:36} {value:>12}{limit}", flush=True)
