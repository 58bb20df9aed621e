"""Checks of a request's recordings that need their samples, but no model."""

from __future__ import annotations

from audio.types import AudioSource
from errors import AudioError, ErrorCode
from models.acestep.metas import MAX_DURATION_S

SILENCE = 1e-6  # largest sample of a recording that counts as silent


def require_length(recording: AudioSource, field: str) -> None:
    """Raises `AudioError` if the recording is longer than ACE-Step takes."""
    if recording.duration > MAX_DURATION_S:
        raise AudioError(
            f"'{field}' is {recording.duration:.1f} s long, and ACE-Step takes at most {MAX_DURATION_S} s. Send a part "
            "of it.",
            code=ErrorCode.AUDIO_TOO_LONG,
            details={"field": field, "duration": round(recording.duration, 2), "limit_s": MAX_DURATION_S},
        )


def require_sound(recording: AudioSource, field: str) -> None:
    """Raises `AudioError` if the recording is silent throughout."""
    if recording.peak <= SILENCE:
        raise AudioError(
            f"'{field}' is silent. Send a recording with music.",
            code=ErrorCode.SILENT_AUDIO,
            details={"field": field},
        )
