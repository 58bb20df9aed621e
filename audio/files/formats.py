"""The output formats: one table that request validation, the encoder, the reply and the documentation read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from errors import InvalidRequestError

FormatName = Literal["wav", "flac", "mp3", "ogg", "opus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """One file format that audio can be delivered in.

    A lossless format is set by its bit depth, a lossy one by its bitrate in kbit/s; the other tuple is empty.

    Args:
        name: value of the request field `output_format`; also the file extension, without a dot.
        mime_type: for HTTP and object storage.
        bit_depths: allowed values, ascending; 32 is floating point.
        bitrates: allowed values in kbit/s, ascending; a `range` if every integer in it is allowed.
        default: bit depth or bitrate if the request names none.
        sample_rates: allowed rates in Hz, ascending; empty if every rate is allowed.
        bitrate_limits: (sample rate in Hz, highest bitrate up to that rate), ascending.
        auto: bit depths or bitrates that `output_format: "auto"` tries, best first; None stands for the requested one.
        suggested: bit depths or bitrates to suggest when a reply is too large, largest first.
    """

    name: FormatName
    mime_type: str
    bit_depths: tuple[int, ...] = ()
    bitrates: Sequence[int] = ()
    default: int
    sample_rates: tuple[int, ...] = ()
    bitrate_limits: tuple[tuple[int, int], ...] = ()
    auto: tuple[int | None, ...] = ()
    suggested: tuple[int, ...] = ()

    @property
    def option(self) -> Literal["bit_depth", "bitrate"]:
        """The request field that sets this format's quality."""
        return "bit_depth" if self.bit_depths else "bitrate"

    @property
    def allowed(self) -> Sequence[int]:
        """Allowed values of `option`."""
        return self.bit_depths or self.bitrates

    def check(self, value: int) -> None:
        """Raises `InvalidRequestError` if `value` is not an allowed bit depth or bitrate."""
        if value in self.allowed:
            return
        if isinstance(self.allowed, range):
            choices = f"Choose from {self.allowed[0]} to {self.allowed[-1]}."
        else:
            choices = f"Choose one of: {', '.join(map(str, self.allowed))}" + (
                ", or wav for 32-bit float." if self.name == "flac" else "."
            )
        amount = f"{value} bits" if self.bit_depths else f"{value} kbit/s"
        raise InvalidRequestError(f"{self.name} cannot be written with {amount}. {choices}")


OUTPUT_FORMATS: dict[FormatName, OutputFormat] = {
    entry.name: entry
    for entry in (
        OutputFormat(
            name="wav",
            mime_type="audio/wav",
            bit_depths=(16, 24, 32),
            default=16,
            auto=(None,),
            suggested=(24, 16),
        ),
        OutputFormat(
            name="flac",
            mime_type="audio/flac",
            bit_depths=(16, 24),
            default=16,
            auto=(None,),
            suggested=(24, 16),
        ),
        OutputFormat(
            name="mp3",
            mime_type="audio/mpeg",
            bitrates=(32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
            default=320,
            sample_rates=(8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
            bitrate_limits=((12000, 64), (24000, 160)),  # MPEG-2.5 and MPEG-2, limits of LAME
            auto=(320, 192, 128),
            suggested=(320, 256, 192, 128, 96, 64, 32),
        ),
        # The size of a Vorbis file is not predictable from its bitrate, so none is suggested.
        OutputFormat(name="ogg", mime_type="audio/ogg", bitrates=range(64, 501), default=192),
        OutputFormat(
            name="opus",
            mime_type="audio/ogg",
            bitrates=range(12, 513),
            default=192,
            sample_rates=(48000,),
            suggested=(192, 96, 32),
        ),
    )
}
"""Every output format by name, in the order in which `auto` tries them."""

FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)
ALL_BIT_DEPTHS = tuple(sorted({depth for entry in OUTPUT_FORMATS.values() for depth in entry.bit_depths}))
BITRATE_RANGE = (
    min(entry.bitrates[0] for entry in OUTPUT_FORMATS.values() if entry.bitrates),
    max(entry.bitrates[-1] for entry in OUTPUT_FORMATS.values() if entry.bitrates),
)
"""Lowest and highest bitrate of any format, in kbit/s."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A format with its bit depth or bitrate; `InvalidRequestError` for a combination that does not exist.

    Args:
        format: a name in `OUTPUT_FORMATS`.
        bit_depth: for `wav` (32 is floating point and keeps values above full scale) and `flac`; ignored by the others.
        bitrate: in kbit/s: constant for `mp3`, a target for `ogg` (Vorbis) and `opus`; ignored by the others.
    """

    format: FormatName
    bit_depth: int | None = None
    bitrate: int | None = None

    def __post_init__(self) -> None:
        if self.format not in OUTPUT_FORMATS:
            raise InvalidRequestError(f"Unknown audio format. Choose one of: {', '.join(FORMAT_NAMES)}.")
        self.output_format.check(self.value)

    @property
    def output_format(self) -> OutputFormat:
        """This format's entry in the table."""
        return OUTPUT_FORMATS[self.format]

    @property
    def value(self) -> int:
        """The bit depth of a lossless format, the bitrate in kbit/s of a lossy one."""
        requested = self.bit_depth if self.output_format.bit_depths else self.bitrate
        return self.output_format.default if requested is None else requested

    @property
    def bits(self) -> int:
        """Bit depth of a lossless format; 0 for a lossy one."""
        return self.value if self.output_format.bit_depths else 0

    @property
    def kbits(self) -> int:
        """Bitrate in kbit/s of a lossy format; 0 for a lossless one."""
        return self.value if self.output_format.bitrates else 0

    def kbits_at(self, sample_rate: int) -> int:
        """`kbits`, or the highest bitrate that the format has at `sample_rate` (Hz) if that is lower."""
        limits = (limit for rate, limit in self.output_format.bitrate_limits if sample_rate <= rate)
        return min(self.kbits, next(limits, self.kbits))

    @property
    def content_type(self) -> str:
        return self.output_format.mime_type

    @property
    def extension(self) -> str:
        """File extension, without a dot."""
        return self.format

    @property
    def keeps_overs(self) -> bool:
        """Whether samples above full scale survive."""
        return self.bits == 32

    @property
    def request_fields(self) -> dict[str, str | int]:
        """The request fields that ask for this encoding."""
        return {"output_format": self.format, self.output_format.option: self.value}


def auto_encodings(
    bit_depth: int, bitrate: int | None, *, formats: Iterable[FormatName] = FORMAT_NAMES
) -> list[Encoding]:
    """What `output_format: "auto"` tries, best first.

    Args:
        bit_depth: as requested; lowered to the highest that the format has.
        bitrate: as requested, in kbit/s: an upper limit on those tried; None: no limit.
        formats: only these are tried.
    """
    encodings = []
    for entry in (OUTPUT_FORMATS[name] for name in formats):
        for value in entry.auto:
            if entry.bit_depths:
                encodings.append(Encoding(entry.name, bit_depth=min(value or bit_depth, entry.bit_depths[-1])))
            else:
                limits = [limit for limit in (value, bitrate) if limit is not None]
                encodings.append(Encoding(entry.name, bitrate=min(limits, default=entry.default)))
    return list(dict.fromkeys(encodings))


def suggested_encodings() -> list[Encoding]:
    """What to suggest when a result does not fit as requested: for each format, from large files to small ones."""
    return [
        Encoding(entry.name, bit_depth=value) if entry.bit_depths else Encoding(entry.name, bitrate=value)
        for entry in OUTPUT_FORMATS.values()
        for value in entry.suggested
    ]
