"""What is heard in a recording of a request, for parameters that are `auto`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audio.analysis.music import Music
    from audio.types import AudioSource
    from worker.job import Job

AUTO = "auto"


def listen(recording: AudioSource, job: Job) -> Music:
    """Tempo and key of the recording; a stage of its own, which does not count in the progress."""
    from audio.analysis.music import analyze_music

    with job.stage("listen", (0.0, 0.0)):
        return analyze_music(recording, job.progress)
