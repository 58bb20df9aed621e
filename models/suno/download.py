"""Downloads a finished task's clips and checks that they are what the provider reported.

Observed with providers: 404, 502 or nothing at all for half a minute after SUCCESS, an error page with status 200, the
same bytes for both clips. Each clip is therefore tried several times, at its other URLs too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from audio import Audio
from errors import AudioError, ErrorCode, SourceError, UpstreamError
from models.runtime.progress import Check, Progress
from models.suno.polling import Deadline
from models.suno.responses import Clip

logger = logging.getLogger(__name__)

DOWNLOAD_S = 120.0  # for all clips of a task together
RETRY_DELAYS_S = (0.0, 2.0, 5.0, 12.0, 35.0)
ATTEMPTS_FOR_BETTER = 3  # at a file that is audio, but not quite what the provider reported
MIN_CLIP_S = 1.0
NEVER_RETRIED = frozenset({ErrorCode.PRIVATE_URL, ErrorCode.UNSUPPORTED_URL})


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """A downloaded file as audio, and the digest of its bytes."""

    audio: Audio
    sha256: str


FetchClip = Callable[[str, Check, float], DecodedFile]


@dataclass(frozen=True, slots=True)
class DownloadedClip:
    """A clip and its audio."""

    clip: Clip
    audio: Audio


def download_clips(
    clips: Sequence[Clip], *, fetch: FetchClip, deadline: Deadline, progress: Progress
) -> tuple[list[DownloadedClip], list[str]]:
    """The clips that could be downloaded, and a warning for each that could not, or that is not as reported.

    Args:
        fetch: `(url, check, timeout in seconds)` -> the decoded file; raises `SourceError` or `AudioError`.
        deadline: ends all attempts.
        progress: receives the completed fraction, 0..1.

    Raises:
        UpstreamError: `result_unusable` if no clip could be downloaded; its details give the reasons.
    """
    downloads: list[DownloadedClip] = []
    warnings: list[str] = []
    digests: set[str] = set()
    for number, clip in enumerate(clips, 1):
        file, problem = _download_best(clip, digests, fetch=fetch, deadline=deadline)
        if file is not None:
            downloads.append(DownloadedClip(clip, file.audio))
            digests.add(file.sha256)
        if problem:
            warnings.append(f"Clip {clip.index + 1}: {problem}")
        progress(number / len(clips))
    if not downloads:
        raise UpstreamError(
            f"Suno made the song and it is paid, but its audio could not be downloaded. {' '.join(warnings)} Send "
            "'task_id' again; this costs nothing.",
            code=ErrorCode.RESULT_UNUSABLE,
            details={"reasons": warnings, "source_urls": [clip.urls[0] for clip in clips]},
        )
    return downloads, warnings


def _download_best(
    clip: Clip, digests: set[str], *, fetch: FetchClip, deadline: Deadline
) -> tuple[DecodedFile | None, str]:
    """The first file without a problem, else the last one that is audio at all; and the problem, if there is one."""
    urls = list(clip.urls)
    best: DecodedFile | None = None
    problem = ""
    for attempt, delay in enumerate(RETRY_DELAYS_S):
        deadline.sleep(delay)
        if deadline.has_passed or not urls:
            break
        url = urls[min(attempt // 2, len(urls) - 1)]
        try:
            file = fetch(url, deadline.check, deadline.remaining)
        except (SourceError, AudioError) as error:
            problem = problem if best else error.message
            if error.error_code in NEVER_RETRIED:
                urls.remove(url)
            logger.info("Suno clip %d not downloaded (attempt %d): %s", clip.index, attempt + 1, error.error_code)
            continue
        best, problem = file, _find_problem(file, clip, digests)
        if not problem or attempt + 1 >= ATTEMPTS_FOR_BETTER:
            break
    return best, problem if best or problem else "its download did not finish in time."


def _find_problem(file: DecodedFile, clip: Clip, digests: set[str]) -> str:
    seconds = file.audio.duration
    if file.sha256 in digests:
        return "the provider serves the same bytes as for another clip."
    if seconds < MIN_CLIP_S:
        return f"it is only {seconds:.2f} s long."
    if clip.duration and abs(seconds - clip.duration) > max(3.0, 0.05 * clip.duration):
        return f"it is {seconds:.1f} s long, but the provider reports {clip.duration:.1f} s."
    return ""
