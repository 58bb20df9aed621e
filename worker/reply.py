"""What an operation returns, before the delivery turns its audio and its files into artefacts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

from audio.dsp.normalize import DEFAULT_LUFS, NormalizeMode
from audio.files.formats import FORMAT_NAMES, Encoding, FormatName, auto_encodings
from audio.types import AudioSource

BitDepth = Literal[16, 24, 32]
Delivery = Literal["auto", "inline", "bucket", "volume"]


@dataclass(frozen=True)
class AudioOut:
    """How audio leaves the worker: the audio-out fields of a request, with the defaults of all operations.

    Args:
        output_format: `auto` is the first of `auto_formats` that fits inline.
        bit_depth: of wav and flac; 32 is floating point.
        bitrate: of mp3, ogg and opus in kbit/s; None is the format's own default. With `auto` it is an upper limit.
        delivery: `auto` is the bucket if one is configured, else inline.
        normalize: `peak` brings the true peak to -1 dBTP, `loudness` the integrated loudness to `loudness_lufs`.
        loudness_lufs: in LUFS.
        auto_formats: what `auto` tries, best first.
    """

    output_format: FormatName | Literal["auto"] = "auto"
    bit_depth: BitDepth = 16
    bitrate: int | None = None
    delivery: Delivery = "auto"
    normalize: NormalizeMode = "none"
    loudness_lufs: float = DEFAULT_LUFS
    auto_formats: tuple[FormatName, ...] = FORMAT_NAMES

    def list_encodings(self) -> list[Encoding]:
        """The encodings that may be written, best first; exactly one unless `output_format` is `auto`.

        Raises `InvalidRequestError` for a combination that does not exist, such as flac with 32 bits.
        """
        if self.output_format == "auto":
            return auto_encodings(self.bit_depth, self.bitrate, formats=self.auto_formats)
        return [Encoding(self.output_format, bit_depth=self.bit_depth, bitrate=self.bitrate)]

    @property
    def prefers_float(self) -> bool:
        """Whether `auto` starts with 32-bit float wav."""
        return self.output_format == "auto" and self.list_encodings()[0].keeps_overs


@dataclass(frozen=True)
class Output:
    """One piece of audio to deliver.

    Args:
        name: the file name without its extension.
        extra: further keys beside the artefact's own.
    """

    audio: AudioSource
    name: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FileOutput:
    """One file to deliver as it is: a picture, or an archive of arrays.

    Args:
        file: seekable; delivered from its start, and not closed by the delivery.
        name: the file name without its extension.
        format: the format's name in the reply, which is also the extension: `png`, `npz`.
        content_type: the media type, for a bucket.
        extra: further keys beside the artefact's own.
    """

    file: BinaryIO
    name: str
    format: str
    content_type: str = "application/octet-stream"
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """An operation's result.

    Args:
        fields: keys at the top level of the reply.
        outputs: the artefacts of a list; the first one's keys are at the top level as well.
        stems: artefacts by name.
        parameters: values that replace the request's own because they were really used (a random seed, a default
            model).
        unused: parameters that are left out of the reply, because what ran has no such settings.
        always_list: puts `outputs` into the reply even if there is only one.
        aliases: further names of stems, by alias.
        files: artefacts that are not audio, by name; they are delivered in the same way as the audio.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[Output] = ()
    stems: Mapping[str, Output] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    unused: Collection[str] = ()
    always_list: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileOutput] = field(default_factory=dict)

    @property
    def all_outputs(self) -> list[Output]:
        """`outputs`, then the stems in their order."""
        return [*self.outputs, *self.stems.values()]

    @property
    def has_list(self) -> bool:
        """Whether the reply has `outputs`; the first item is then in the reply twice."""
        return len(self.outputs) > 1 or (self.always_list and len(self.outputs) > 0)
