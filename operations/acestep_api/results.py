"""Results as the ACE-Step API has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operations.songs.values import parse_time_signature


def write_beats(time_signature: str | None) -> str | None:
    """`4/4` as `4`."""
    return None if time_signature is None else str(parse_time_signature(time_signature))


def rename_metas(metas: Mapping[str, Any]) -> dict[str, Any]:
    """The metas of a reply with those that the API calls otherwise."""
    beats = write_beats(metas["time_signature"])
    return {**metas, "keyscale": metas["key"], "timesignature": beats}
