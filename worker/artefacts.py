"""Sounds to files: one common level, encoding side by side, names, sizes before encoding. Knows no routes."""

from __future__ import annotations

import hashlib
import math
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from audio import Audio
from audio.encode import Encoding, encode
from audio.gain import bring_below_full_scale, normalize
from errors import InternalError
from worker.job import Job
from worker.reply import AudioOut, Output

SPOOL_BYTES = 16 << 20
MAX_THREADS = 4
MAX_NAME_BYTES = 120
EXCERPT_SLICES = 16
EXCERPT_SLICE_S = 1.0


@dataclass(frozen=True)
class Artefact:
    """One encoded sound: an open file and what the reply says of it."""

    file: BinaryIO
    content_type: str
    facts: dict[str, Any]

    @property
    def size(self) -> int:
        return int(self.facts["size"])

    @property
    def filename(self) -> str:
        return str(self.facts["filename"])


class Sounds:
    """The sounds of one reply: finite, normalised once, brought down together where a format cannot hold their peak.

    Args:
        outputs: in the order of the reply.
        audio_out: how they leave.
        job: is told what was changed, and ends the work where it is cancelled.
    """

    def __init__(self, outputs: Sequence[Output], audio_out: AudioOut, job: Job) -> None:
        self._outputs, self._audio_out, self._job = outputs, audio_out, job
        self._names = _unique([safe_name(output.name) for output in outputs])
        self._audios = [output.audio for output in outputs]
        if not all(math.isfinite(audio.peak) for audio in self._audios):
            raise InternalError("The result holds values that are not numbers, so nothing was delivered.")
        if audio_out.normalize != "none":
            self._audios = normalize(self._audios, audio_out.normalize, loudness_lufs=audio_out.loudness_lufs)
        self._bounded: list[Audio] | None = None

    def encoding(self, entry: str) -> Encoding:
        """The encoding that an entry of `auto_order` or a format's name stands for."""
        name, _, bitrate = entry.partition(":")
        return Encoding(
            format=name, bit_depth=self._audio_out.bit_depth, bitrate=int(bitrate or self._audio_out.bitrate)
        )

    def estimate(self, encoding: Encoding) -> list[int]:
        """Bytes of each sound's file: exact but for the header for wav, else scaled up from short excerpts."""
        if encoding.format == "wav":
            return [audio.waveform.size * encoding.bit_depth // 8 for audio in self._audios]
        return self._side_by_side(lambda audio: _estimate(audio, encoding), self._audios)

    @contextmanager
    def encoded(self, encoding: Encoding) -> Iterator[list[Artefact]]:
        """Every sound as a file of this encoding; the files are gone at the end."""
        audios = self._levelled(encoding)
        artefacts = self._side_by_side(
            lambda index: _artefact(audios[index], encoding, self._names[index]), range(len(audios))
        )
        try:
            yield artefacts
        finally:
            for artefact in artefacts:
                artefact.file.close()
