"""Fetches a finished task's takes and looks whether they are what was promised. Knows neither network nor decoder.

Seen at providers: 404, 502 or nothing at all for half a minute after SUCCESS, an error page with status 200, the same
bytes for both takes. So each take is tried several times, at its other addresses too, and what is left is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from audio import Audio
from errors import AudioError, ErrorCode, SourceError, UpstreamError
from models.suno.deadline import Check, Wait
from models.suno.responses import Clip

logger = logging.getLogger(__name__)

COLLECT_S = 120.0
DELAYS_S = (0.0, 2.0, 5.0, 12.0, 35.0)
TRIES_FOR_BETTER = 2  # of a file that is audio, but not quite as promised
SHORTEST_S = 1.0
NEVER_FETCHED = frozenset({"private_url", "unsupported_url"})


@dataclass(frozen=True)
class Loaded:
    """A download, decoded, and the digest of its bytes."""

    audio: Audio
    sha256: str


Load = Callable[[str, Check, float], Loaded]


@dataclass(frozen=True)
class DownloadedClip:
    """A take as audio."""

    take: Clip
    audio: Audio


def collect(
    takes: Sequence[Clip], *, load: Load, wait: Wait, progress: Callable[[float], None]
) -> tuple[list[DownloadedClip], list[str]]:
    """The takes that could be had, and a warning for each that could not or is not as it should be.

    Args:
        load: `(url, check, timeout in seconds)` -> the decoded file; raises `SourceError` or `AudioError`.
        wait: its deadline ends all tries.
        progress: takes the share done, 0..1.

    Raises:
        UpstreamError: `result_unusable`, where not one take could be had; its details name why.
    """
    sounds: list[DownloadedClip] = []
    warnings: list[str] = []
    digests: set[str] = set()
    for number, take in enumerate(takes, 1):
        loaded, flaw = _best(take, digests, load=load, wait=wait)
        if loaded is not None:
            sounds.append(DownloadedClip(take, loaded.audio))
            digests.add(loaded.sha256)
        if flaw:
            warnings.append(f"Take {take.index + 1}: {flaw}")
        progress(number / len(takes))
    if not sounds:
        raise UpstreamError(
            "The song is made and paid, but its audio could not be fetched: "
            + " ".join(warnings)
            + " Ask again with its 'task_id'; that costs nothing.",
            code=ErrorCode.RESULT_UNUSABLE,
            details={"reasons": warnings, "source_urls": [take.urls[0] for take in takes]},
        )
    return sounds, warnings


def _best(take: Clip, digests: set[str], *, load: Load, wait: Wait) -> tuple[Loaded | None, str]:
    """The first download without a flaw, else the last one that is audio at all; with what is wrong, if anything."""
    urls = list(take.urls)
    loaded: Loaded | None = None
    flaw = ""
    for attempt, delay in enumerate(DELAYS_S):
        wait.sleep(delay)
        if wait.over or not urls:
            break
        url = urls[min(attempt // 2, len(urls) - 1)]
        try:
            candidate = load(url, wait.check, wait.remaining)
        except (SourceError, AudioError) as error:
            flaw = flaw if loaded else error.message
            if error.error_code in NEVER_FETCHED:
                urls.remove(url)
            logger.info("Suno take not fetched yet (try %d): %s", attempt + 1, error.error_code)
            continue
        loaded, flaw = candidate, _flaw(candidate, take, digests)
        if not flaw or attempt >= TRIES_FOR_BETTER:
            break
    return loaded, flaw if loaded or flaw else "its download did not end in time."


def _flaw(loaded: Loaded, take: Clip, digests: set[str]) -> str:
    seconds = loaded.audio.duration
    if loaded.sha256 in digests:
        return "the provider serves the same bytes as for another take."
    if seconds < SHORTEST_S:
        return f"it is only {seconds:.2f} s long."
    if take.duration and abs(seconds - take.duration) > max(3.0, 0.05 * take.duration):
        return f"it is {seconds:.1f} s long, and the provider speaks of {take.duration:.1f} s."
    return ""
