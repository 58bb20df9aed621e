"""What a codec is, from its settings: rates, channels, codebooks, bandwidths, segments. Importable without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings

MAX_SEGMENT_S = 60.0
MAX_CARDINALITY = 1 << 15  # codes are stored as int16
MAX_CODEBOOKS = 256


@dataclass(frozen=True, slots=True)
class Segments:
    """How a codec cuts audio into segments that are encoded by themselves, as EnCodec at 48 kHz does.

    Args:
        length: samples of a segment; the last one may be shorter.
        stride: samples from the start of a segment to that of the next; they overlap if it is less than the length.
        normalize: whether a segment is divided by its root mean square, its scale, which is kept with its codes.
    """

    length: int
    stride: int
    normalize: bool

    def count_frames(self, num_samples: int, hop_length: int) -> list[int]:
        """Frames of each segment of audio with `num_samples` samples."""
        full = -(-self.length // hop_length)
        whole, rest = self._count_whole(num_samples), self._measure_rest(num_samples)
        return [full] * whole + [-(-length // hop_length) for length in rest]

    def sum_frames(self, num_samples: int, hop_length: int) -> int:
        """Frames of all segments; quick for any length."""
        full = -(-self.length // hop_length)
        return full * self._count_whole(num_samples) + sum(
            -(-length // hop_length) for length in self._measure_rest(num_samples)
        )

    def _count_whole(self, num_samples: int) -> int:
        return max((num_samples - self.length) // self.stride + 1, 0)

    def _measure_rest(self, num_samples: int) -> list[int]:
        """Samples of the segments that are not whole: the last ones."""
        first = self._count_whole(num_samples) * self.stride
        return [num_samples - start for start in range(first, num_samples, self.stride)]


@dataclass(frozen=True, slots=True)
class CodecSpec:
    """The shape of a codec's codes.

    Args:
        sample_rate: of the audio, Hz.
        channels: of the audio.
        hop_length: samples per frame.
        codebooks: the most that audio is encoded with, of all channels together.
        cardinality: codes in each codebook.
        bandwidths: kbit/s that the model was trained for, ascending.
        group: codebooks that belong together: 2 if the codebooks of two channels are interleaved, else 1.
        segments: None: audio is encoded as a whole.
    """

    sample_rate: int
    channels: int
    hop_length: int
    codebooks: int
    cardinality: int
    bandwidths: tuple[float, ...]
    group: int = 1
    segments: Segments | None = None

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.sample_rate / self.hop_length

    def bandwidth(self, codebooks: int) -> float:
        """kbit/s of this many codebooks, without scales."""
        return round(codebooks * self.frame_rate * math.log2(self.cardinality) / 1000, 4)

    def codebooks_at(self, bandwidth: float) -> int:
        """The most codebooks whose codes fit into `bandwidth`, kbit/s; at least one of each channel."""
        fitting = int(bandwidth * 1000 / (self.frame_rate * math.log2(self.cardinality)) + 1e-6)
        return min(max(fitting // self.group * self.group, self.group), self.codebooks)

    def count_frames(self, num_samples: int) -> int:
        """Frames of audio with `num_samples` samples, of all segments together."""
        if self.segments is None:
            return -(-num_samples // self.hop_length)
        return self.segments.sum_frames(num_samples, self.hop_length)

    def count_segments(self, num_samples: int) -> int:
        """Segments of audio with `num_samples` samples; 1 if it is encoded as a whole."""
        return 1 if self.segments is None else -(-num_samples // self.segments.stride)

    def longest_audio(self, frames: int) -> int:
        """The most samples that audio with at most this many frames may have."""
        low, high = 0, frames * self.hop_length
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.count_frames(middle) <= frames else (low, middle - 1)
        return low


def read_spec(config: Settings) -> CodecSpec:
    """What the `config.json` of transformers' EnCodec says.

    Raises:
        CheckpointError: a setting is missing, out of range, or asks for what is not supported.
    """
    sample_rate, cardinality = config.integer("sampling_rate", 24_000), config.integer("codebook_size", 1024, least=2)
    hop_length = math.prod(config.integers("upsampling_ratios", (8, 5, 4, 2)))
    if hop_length > sample_rate:
        raise CheckpointError("its frames are longer than a second, by 'upsampling_ratios' in config.json")
    bandwidths = sorted(config.numbers("target_bandwidths"))
    return make_spec(
        sample_rate=sample_rate,
        channels=config.integer("audio_channels", 1),
        hop_length=hop_length,
        codebooks=int(1000 * bandwidths[-1] / (sample_rate / hop_length * math.log2(cardinality)) + 1e-6),
        cardinality=cardinality,
        bandwidths=bandwidths,
        segments=_read_segments(config, sample_rate, hop_length),
    )


def make_spec(  # noqa: PLR0913  (a value for each field)
    *,
    sample_rate: int,
    channels: int,
    hop_length: int,
    codebooks: int,
    cardinality: int,
    bandwidths: Sequence[float] = (),
    group: int = 1,
    segments: Segments | None = None,
) -> CodecSpec:
    """A spec whose values fit each other. Without `bandwidths`, there is one: that of all codebooks.

    Raises:
        CheckpointError: they are such that no audio can be encoded.
    """
    if not 1 <= codebooks <= MAX_CODEBOOKS:
        raise CheckpointError(f"it has {codebooks} codebooks, and may have 1 to {MAX_CODEBOOKS}")
    if cardinality > MAX_CARDINALITY:
        raise CheckpointError(f"its codebooks have {cardinality} codes, and may have {MAX_CARDINALITY}")
    if channels not in (1, 2):
        raise CheckpointError(f"it has {channels} channels, and may have 1 or 2")
    spec = CodecSpec(sample_rate, channels, hop_length, codebooks, cardinality, (), group, segments)
    offered = tuple(bandwidths) or (spec.bandwidth(codebooks),)
    return CodecSpec(sample_rate, channels, hop_length, codebooks, cardinality, offered, group, segments)


def _read_segments(config: Settings, sample_rate: int, hop_length: int) -> Segments | None:
    config.require("norm_type", None, "weight_norm", "time_group_norm")
    normalize = config.flag("normalize", False)
    if config.get("chunk_length_s") is None:
        config.require("normalize", None, False)  # the level of hours of audio is not known when they begin
        config.require("norm_type", None, "weight_norm")
        return None
    overlap = config.number("overlap", least=-1e-9, most=0.95)
    length = int(config.number("chunk_length_s", most=MAX_SEGMENT_S) * sample_rate)
    if length < hop_length:
        raise CheckpointError("its segments ('chunk_length_s' in config.json) are shorter than a frame")
    return Segments(length, max(1, int((1.0 - overlap) * length)), normalize)
