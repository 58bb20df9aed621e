"""The limits of each Suno version: text lengths, upload and output lengths.

The figures come from the providers' documentation (docs.sunoapi.org, docs.kie.ai). The list of versions changes
without notice, so a name that is not in it is passed on with the loosest limits and a warning.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DEFAULT_VERSION = "V4_5"
MAX_DESCRIPTION_CHARS = 500
CLIPS_PER_REQUEST = 2


@dataclass(frozen=True)
class Version:
    """One Suno version: the maximum characters of each text, and the longest source and result in seconds."""

    name: str
    prompt_chars: int
    style_chars: int
    title_chars: int
    upload_s: float
    output_s: float
    note: str = ""


CATALOG: Mapping[str, Version] = MappingProxyType(
    {
        version.name: version
        for version in (
            Version("V3_5", 3000, 200, 80, 120, 240, "retired by most providers"),
            Version("V4", 3000, 200, 80, 480, 240),
            Version("V4_5", 5000, 1000, 100, 480, 480),
            Version("V4_5PLUS", 5000, 1000, 100, 480, 480),
            Version("V4_5ALL", 5000, 1000, 80, 60, 480),
            Version("V5", 5000, 1000, 100, 480, 480),
            Version("V5_5", 5000, 1000, 100, 480, 480),
        )
    }
)
MAX_PROMPT_CHARS = max(version.prompt_chars for version in CATALOG.values())
MAX_STYLE_CHARS = max(version.style_chars for version in CATALOG.values())
MAX_TITLE_CHARS = max(version.title_chars for version in CATALOG.values())
MAX_UPLOAD_S = max(version.upload_s for version in CATALOG.values())


def find_version(name: str) -> tuple[Version, str | None]:
    """The version behind `name` ("V4_5", "v4.5", "V5"), and a warning if it is unknown or retired."""
    canonical = name.strip().upper().replace(".", "_")
    if canonical in CATALOG:
        version = CATALOG[canonical]
        return version, f"Suno {canonical} is {version.note}." if version.note else None
    near = difflib.get_close_matches(canonical, list(CATALOG), n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    warning = (
        f"This worker does not know the Suno model '{name}'; the name was passed on unchanged.{hint} "
        f"Known: {', '.join(CATALOG)}."
    )
    loosest = Version(name, MAX_PROMPT_CHARS, MAX_STYLE_CHARS, MAX_TITLE_CHARS, MAX_UPLOAD_S, 480)
    return loosest, warning
