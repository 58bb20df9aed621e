"""Sounds to files: one common level, encoding side by side, names, sizes before encoding. Knows no routes."""

from __future__ import annotations

import hashlib
import math
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np

from audio import Audio
from audio.dsp.gain import bring_below_full_scale
from audio.dsp.normalize import normalize
from audio.files.encode import Encoding, encode
from audio.types import AudioSource
from errors import InternalError
from worker.job import Job
from worker.reply import AudioOut, Reply

SPOOL_BYTES = 16 << 20
MAX_THREADS = 4
MAX_NAME_BYTES = 120
EXCERPT_SLICES = 12
EXCERPT_SLICE_S = 1.0
FLAC_SPREAD = (0.8, 1.25)
# What becomes of a nominal bitrate, measured on noise, tones and silence: mp3 is constant, opus goes far below and
# little above, ogg (a quality, not a bitrate) anywhere.
BITRATE_SPREAD = {"mp3": (0.97, 1.03), "opus": (0.0, 1.1), "ogg": (0.0, math.inf)}
LOUDNESS_TOLERANCE = 0.5
HEADER_BYTES = 4096
MPEG1_HZ = 32000  # below, mp3 knows no bitrates above 160 kbit/s

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Artefact:
    """One encoded sound: an open file and what the reply says of it."""

    file: BinaryIO
    content_type: str
    facts: dict[str, Any]
    warnings: Sequence[str]

    @property
    def size(self) -> int:
        return int(self.facts["size"])

    @property
    def filename(self) -> str:
        return str(self.facts["filename"])


@dataclass(frozen=True)
class Estimate:
    """Bytes of each sound's file before it is encoded: the likely size, and what it is never below and never above."""

    likely: Sequence[float]
    low: float = 0.0
    high: float = math.inf

    @property
    def least(self) -> list[int]:
        return [int(size * self.low) for size in self.likely]

    @property
    def most(self) -> list[int] | None:
        """None where nothing is known."""
        return None if math.isinf(self.high) else [int(size * self.high) + HEADER_BYTES for size in self.likely]


class Sounds:
    """The sounds of one reply: finite, normalised, and below full scale where a format asks for that.

    Each of `outputs` is a piece of its own, levelled by itself, so that an item of a batch is what it would be alone;
    the stems are parts of one piece and share one gain.

    Args:
        reply: whose `outputs` and then `stems` these are.
        audio_out: how they leave.
        job: is told what was changed, and ends the work where it is cancelled.
    """

    def __init__(self, reply: Reply, audio_out: AudioOut, job: Job) -> None:
        self._audio_out, self._job = audio_out, job
        outputs = [*reply.outputs, *reply.stems.values()]
        self._names = _unique([safe_name(output.name) for output in outputs])
        self._pieces = [[index] for index in range(len(reply.outputs))]
        self._pieces += [list(range(len(reply.outputs), len(outputs)))] * bool(reply.stems)
        if not all(math.isfinite(output.audio.peak) for output in outputs):
            raise InternalError("The result holds values that are not numbers, so nothing was delivered.")
        if not all(output.audio.num_samples for output in outputs):
            raise InternalError("The result is empty, so nothing was delivered.")
        self._audios = self._by_piece([output.audio for output in outputs], self._normalized)
        self._bounded: list[AudioSource] | None = None

    def estimate(self, encoding: Encoding) -> Estimate:
        """What each sound's file will take; encodes nothing but short excerpts, and those for flac only."""
        if encoding.format == "wav":
            return Estimate(
                [audio.channels * audio.num_samples * encoding.bits / 8 for audio in self._audios], low=1.0, high=1.0
            )
        if encoding.format == "flac":
            audios = self._levelled(encoding)
            return Estimate(self._side_by_side(lambda audio: _extrapolated(audio, encoding), audios), *FLAC_SPREAD)
        low, high = BITRATE_SPREAD[encoding.format]
        fixed = all(audio.sample_rate >= MPEG1_HZ for audio in self._audios)
        return Estimate([audio.duration * encoding.kbits * 125 for audio in self._audios], low * fixed, high)

    def outlines(self) -> list[dict[str, Any]]:
        """Facts as long as the real ones will be, for measuring a reply before its sounds are encoded."""
        return [
            {
                "filename": f"{name}.flac",
                "format": "flac",
                "size": audio.channels * audio.num_samples * 4,
                "sample_rate": audio.sample_rate,
                "channels": audio.channels,
                "duration": round(audio.duration, 6),
                "sha256": "0" * 64,
            }
            for audio, name in zip(self._audios, self._names, strict=True)
        ]

    def accept(self, artefacts: Sequence[Artefact]) -> None:
        """Tells the job what the chosen format made necessary."""
        for artefact in artefacts:
            for sentence in artefact.warnings:
                self._job.warn(sentence)

    @contextmanager
    def encoded(self, encoding: Encoding) -> Iterator[list[Artefact]]:
        """Every sound as a file of this encoding; the files are gone at the end. `accept` them where they are used."""
        audios = self._levelled(encoding)
        artefacts = self._side_by_side(
            lambda index: _artefact(audios[index], encoding, self._names[index]), range(len(audios))
        )
        try:
            yield artefacts
        finally:
            for artefact in artefacts:
                artefact.file.close()

    def _levelled(self, encoding: Encoding) -> list[AudioSource]:
        """The sounds as this encoding can hold them; float wav holds any peak."""
        if encoding.keeps_overs:
            return self._audios
        if self._bounded is None:
            self._bounded = self._by_piece(self._audios, self._below_full_scale)
        return self._bounded

    def _by_piece(
        self, audios: Sequence[AudioSource], work: Callable[[list[AudioSource], str], Sequence[AudioSource]]
    ) -> list[AudioSource]:
        return [
            audio
            for piece in self._pieces
            for audio in work([audios[index] for index in piece], ", ".join(self._names[index] for index in piece))
        ]

    def _normalized(self, audios: list[AudioSource], names: str) -> Sequence[AudioSource]:
        target = self._audio_out.loudness_lufs
        done = normalize(audios, self._audio_out.normalize, loudness_lufs=target)
        if self._audio_out.normalize != "none" and done.gain_db is None:
            self._job.warn(f"{names}: silent, so it was not normalised.")
        elif done.loudness_lufs is not None and abs(done.loudness_lufs - target) > LOUDNESS_TOLERANCE:
            self._job.warn(
                f"{names}: the loudness is {done.loudness_lufs:.1f} LUFS and not {target:g};"
                " more would have taken it above -1 dBTP."
            )
        return done.sources

    def _below_full_scale(self, audios: list[AudioSource], names: str) -> Sequence[AudioSource]:
        lowered, gain_db = bring_below_full_scale(audios)
        if gain_db is not None:
            self._job.warn(
                f"{names}: the peak was above full scale, so the level was changed by {gain_db:.2f} dB"
                " (wav with bit_depth 32 keeps it)."
            )
        return lowered

    def _side_by_side(self, work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        def checked(item: Item) -> Made:
            self._job.check()
            return work(item)

        items = list(items)
        with ThreadPoolExecutor(max_workers=min(MAX_THREADS, len(items), os.cpu_count() or 1)) as pool:
            return list(pool.map(checked, items))


def safe_name(name: str) -> str:
    """`name` as a file name of ours: letters, digits, `.`, `-`, `_` and blanks, no path, never hidden, never empty."""
    clean = re.sub(r"[^\w.\- ]+", "_", unicodedata.normalize("NFC", name)).strip(". ")
    return clean.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip(". ") or "audio"


def _unique(names: Sequence[str]) -> list[str]:
    """The names in their order, later ones numbered where file systems might take them for an earlier one."""
    unique: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate.casefold() in {taken.casefold() for taken in unique}:
            number += 1
            candidate = f"{name}-{number}"
        unique.append(candidate)
    return unique


def _extrapolated(audio: AudioSource, encoding: Encoding) -> float:
    """File size from slices spread over the sound; a short one is encoded whole."""
    slice_samples = int(EXCERPT_SLICE_S * audio.sample_rate)
    excerpt: AudioSource = audio
    if audio.num_samples > EXCERPT_SLICES * slice_samples:
        starts = np.linspace(0, audio.num_samples - slice_samples, EXCERPT_SLICES).astype(int)
        slices = [audio.read(int(start), slice_samples) for start in starts]
        excerpt = Audio(np.concatenate(slices, axis=1), audio.sample_rate)
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as file:
        encode(excerpt, encoding, cast(BinaryIO, file))
        return int(file.tell()) * audio.num_samples / excerpt.num_samples


def _artefact(audio: AudioSource, encoding: Encoding, name: str) -> Artefact:
    file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  (`encoded` closes it)
    written = encode(audio, encoding, cast(BinaryIO, file))
    size = file.tell()
    file.seek(0)
    facts = {
        "filename": f"{name}.{encoding.extension}",
        "format": encoding.format,
        "size": size,
        "sample_rate": written.sample_rate,
        "channels": written.channels,
        "duration": round(written.num_samples / written.sample_rate, 6),
        "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
    }
    file.seek(0)
    return Artefact(
        cast(BinaryIO, file), encoding.content_type, facts, [f"{name}: {sentence}" for sentence in written.warnings]
    )
