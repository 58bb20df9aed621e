"""The audio of one reply as encoded files: a common level, parallel encoding, file names, sizes before encoding; and
its other files as they are."""

from __future__ import annotations

import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np

from audio import Audio
from audio.dsp.gain import bring_below_full_scale
from audio.dsp.normalize import normalize
from audio.files.encode import encode
from audio.files.formats import Encoding
from audio.parallel import map_parallel
from audio.temporary import SpooledFile
from audio.types import AudioSource
from errors import InternalError
from worker.job import Job
from worker.reply import AudioOut, FileOutput, Reply

SPOOL_BYTES = 4 << 20  # of each of up to 32 files
MAX_NAME_BYTES = 120
EXCERPT_SLICES = 12
EXCERPT_SLICE_S = 1.0
FLAC_SPREAD = (0.8, 1.25)
# Real size as a fraction of the nominal one, measured on noise, tones and silence: mp3 is constant, opus goes far below
# and little above, ogg (a quality, not a bitrate) anywhere.
BITRATE_SPREAD = {"mp3": (0.97, 1.03), "opus": (0.0, 1.1), "ogg": (0.0, math.inf)}
LOUDNESS_TOLERANCE = 0.5
HEADER_BYTES = 4096
HASH_BYTES = 1 << 20
MPEG1_HZ = 32000  # below this sample rate mp3 has no bitrates above 160 kbit/s

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Artefact:
    """One complete file, open at its start.

    Args:
        fields: what the reply says about it: `filename`, `format`, `size` and so on.
        warnings: what the format made necessary.
    """

    file: BinaryIO
    content_type: str
    fields: dict[str, Any]
    warnings: Sequence[str]

    @property
    def size(self) -> int:
        """In bytes."""
        return int(self.fields["size"])

    @property
    def filename(self) -> str:
        return str(self.fields["filename"])


@dataclass(frozen=True, slots=True)
class SizeEstimate:
    """Bytes of each file before it is encoded.

    Args:
        expected: the likely sizes.
        low: smallest possible size as a fraction of the expected one.
        high: largest possible size as a fraction of the expected one, without headers; `inf` if it is unknown.
    """

    expected: Sequence[float]
    low: float = 0.0
    high: float = math.inf

    @property
    def minimum(self) -> list[int]:
        return [int(size * self.low) for size in self.expected]

    @property
    def maximum(self) -> list[int] | None:
        """None if it is unknown."""
        return None if math.isinf(self.high) else [int(size * self.high) + HEADER_BYTES for size in self.expected]


class OutputEncoder:
    """Encodes the audio of one reply, normalised, and below full scale if the format requires it.

    Each of `reply.outputs` is levelled by itself, so that an item of a batch equals the same item alone. The stems
    belong together and share one gain.

    Args:
        reply: its outputs, then its stems, are encoded in that order.
        job: gets the warnings, and ends the work if it is cancelled.

    Attributes:
        has_audio: whether there is audio at all.
        files: those of `reply.files`, which are not encoded.
    """

    def __init__(self, reply: Reply, audio_out: AudioOut, job: Job) -> None:
        self._audio_out, self._job = audio_out, job
        outputs = reply.all_outputs
        if not all(math.isfinite(output.audio.peak) for output in outputs):
            raise InternalError("The result contains samples that are not finite, so nothing was delivered.")
        if not all(output.audio.num_samples for output in outputs):
            raise InternalError("The result is empty, so nothing was delivered.")
        self._names = make_unique([make_file_name(output.name) for output in outputs])
        count = len(reply.outputs)
        self._groups = [[index] for index in range(count)] + [list(range(count, len(outputs)))] * bool(reply.stems)
        self._audios = self._map_groups([output.audio for output in outputs], self._normalize)
        self._below_full_scale: list[AudioSource] | None = None
        self.has_audio = bool(outputs)
        self.files = make_file_artefacts(list(reply.files.values()))

    def estimate_sizes(self, encoding: Encoding) -> SizeEstimate:
        """The sizes that the files will have. Encodes nothing, except short excerpts for flac."""
        if encoding.format == "wav":
            sizes = [audio.channels * audio.num_samples * encoding.bits / 8 for audio in self._audios]
            return SizeEstimate(sizes, low=1.0, high=1.0)
        if encoding.format == "flac":
            audios = self._fit_level(encoding)
            return SizeEstimate(
                self._map_parallel(lambda audio: _extrapolate_size(audio, encoding), audios), *FLAC_SPREAD
            )
        low, high = BITRATE_SPREAD[encoding.format]
        has_all_bitrates = all(audio.sample_rate >= MPEG1_HZ for audio in self._audios)
        sizes = [audio.duration * encoding.kbits * 125 for audio in self._audios]
        return SizeEstimate(sizes, low if has_all_bitrates else 0.0, high)

    def build_placeholders(self) -> list[dict[str, Any]]:
        """Fields as long as the real ones will be, to measure a reply before its audio is encoded."""
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

    @contextmanager
    def encode(self, encoding: Encoding) -> Iterator[list[Artefact]]:
        """Every output as a file, closed at the end. Call `record_warnings` if the files are used."""
        audios = self._fit_level(encoding)
        artefacts = self._map_parallel(
            lambda index: self._encode_artefact(audios[index], encoding, self._names[index]), range(len(audios))
        )
        try:
            yield artefacts
        finally:
            for artefact in artefacts:
                artefact.file.close()

    def record_warnings(self, artefacts: Sequence[Artefact]) -> None:
        """Adds what the chosen format made necessary to the job's warnings."""
        for artefact in artefacts:
            for sentence in artefact.warnings:
                self._job.warn(sentence)

    def _fit_level(self, encoding: Encoding) -> list[AudioSource]:
        """The audio at a level that the encoding can represent; float wav represents any peak."""
        if encoding.keeps_overs:
            return self._audios
        if self._below_full_scale is None:
            self._below_full_scale = self._map_groups(self._audios, self._bring_below_full_scale)
        return self._below_full_scale

    def _map_groups(
        self, audios: Sequence[AudioSource], work: Callable[[list[AudioSource], str], Sequence[AudioSource]]
    ) -> list[AudioSource]:
        return [
            audio
            for group in self._groups
            for audio in work([audios[index] for index in group], ", ".join(self._names[index] for index in group))
        ]

    def _normalize(self, audios: list[AudioSource], names: str) -> Sequence[AudioSource]:
        target = self._audio_out.loudness_lufs
        result = normalize(audios, self._audio_out.normalize, loudness_lufs=target)
        if self._audio_out.normalize != "none" and result.gain_db is None:
            self._job.warn(f"{names}: silent, so it was not normalised.")
        elif result.loudness_lufs is not None and abs(result.loudness_lufs - target) > LOUDNESS_TOLERANCE:
            self._job.warn(
                f"{names}: the loudness is {result.loudness_lufs:.1f} LUFS instead of {target:g};"
                " a higher level would have raised the true peak above -1 dBTP."
            )
        return result.sources

    def _bring_below_full_scale(self, audios: list[AudioSource], names: str) -> Sequence[AudioSource]:
        lowered, gain_db = bring_below_full_scale(audios)
        if gain_db is not None:
            self._job.warn(
                f"{names}: the peak was above full scale, so the level was changed by {gain_db:.2f} dB"
                " (wav with bit_depth 32 keeps it)."
            )
        return lowered

    def _encode_artefact(self, audio: AudioSource, encoding: Encoding, name: str) -> Artefact:
        file = SpooledFile(SPOOL_BYTES)  # `OutputEncoder.encode` closes it
        written = encode(audio, encoding, cast(BinaryIO, file), check=self._job.check)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        fields = {
            "filename": f"{name}.{encoding.extension}",
            "format": encoding.format,
            "size": size,
            "sample_rate": written.sample_rate,
            "channels": written.channels,
            "duration": round(written.num_samples / written.sample_rate, 6),
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
        file.seek(0)
        warnings = [f"{name}: {sentence}" for sentence in written.warnings]
        return Artefact(cast(BinaryIO, file), encoding.content_type, fields, warnings)

    def _map_parallel(self, work: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
        def work_unless_cancelled(item: ItemT) -> ResultT:
            self._job.check()
            return work(item)

        return list(map_parallel(work_unless_cancelled, items))


def make_file_name(name: str) -> str:
    """`name` as a file name: letters, digits, `.`, `-`, `_` and spaces; no path, not hidden, not empty."""
    clean = re.sub(r"[^\w.\- ]+", "_", unicodedata.normalize("NFC", name)).strip(". ")
    return clean.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip(". ") or "audio"


def make_unique(names: Sequence[str]) -> list[str]:
    """The names in their order; one that a file system might take for an earlier one gets a number."""
    unique: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate.casefold() in {taken.casefold() for taken in unique}:
            number += 1
            candidate = f"{name}-{number}"
        unique.append(candidate)
    return unique


def make_file_artefacts(outputs: Sequence[FileOutput]) -> list[Artefact]:
    """The files as artefacts, each with its size and checksum."""
    names = make_unique([make_file_name(output.name) for output in outputs])
    artefacts = []
    for output, name in zip(outputs, names, strict=True):
        output.file.seek(0)
        digest = hashlib.sha256()
        while block := output.file.read(HASH_BYTES):
            digest.update(block)
        fields = {
            "filename": f"{name}.{output.format}",
            "format": output.format,
            "size": output.file.tell(),
            "sha256": digest.hexdigest(),
        }
        output.file.seek(0)
        artefacts.append(Artefact(output.file, output.content_type, fields, ()))
    return artefacts


def _extrapolate_size(audio: AudioSource, encoding: Encoding) -> float:
    """File size in bytes, from slices spread over the audio; short audio is encoded whole."""
    slice_samples = int(EXCERPT_SLICE_S * audio.sample_rate)
    excerpt: AudioSource = audio
    if audio.num_samples > EXCERPT_SLICES * slice_samples:
        starts = np.linspace(0, audio.num_samples - slice_samples, EXCERPT_SLICES).astype(int)
        slices = [audio.read(int(start), slice_samples) for start in starts]
        excerpt = Audio(np.concatenate(slices, axis=1), audio.sample_rate)
    with SpooledFile(SPOOL_BYTES) as file:
        encode(excerpt, encoding, cast(BinaryIO, file))
        return file.seek(0, os.SEEK_END) * audio.num_samples / excerpt.num_samples
