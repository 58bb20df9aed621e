"""Converts a whole vocal to a voice, chunk by chunk.

The steps are those of RVC's pipeline; their timing differs. Chunks lie on an absolute grid of frames and are padded so
that HuBERT gives exactly two 100 Hz frames for each of its own. (RVC loses one or two at every chunk, so what follows
comes early.) Noise and phase depend on the position in the song, not on the chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, gcd
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from audio.types import Audio, Waveform
from models.device import prepare_device
from models.f0.catalog import HOP_LENGTH, SAMPLE_RATE
from models.f0.contour import fill_gaps, quantize_f0, transpose
from models.f0.estimator import F0Contour
from models.runtime.batches import BatchRunner, look_ahead
from models.runtime.chunks import crossfade, reflect_pad
from models.runtime.dtype import Precision, tf32_products
from models.runtime.host_transfer import start_download
from models.runtime.progress import Progress, ignore_progress
from models.rvc.checkpoint import Checkpoint
from models.rvc.chunks import CONTEXT, ENCODER_TAIL, FADE, ChunkPlan, plan_chunks
from models.rvc.config import FEATURE_WIDTHS
from models.rvc.envelope import RmsEnvelopeMatcher, apply_noise_gate, compute_rms_envelope, detect_activity
from models.rvc.excitation import FrameNoise, accumulate_phase, generate_sine
from models.rvc.index import Index
from models.rvc.preprocess import PreprocessedVocal, preprocess
from models.rvc.retrieval import Retrieval, RetrievalMode
from models.rvc.synthesizer import Synthesizer

NumberT = TypeVar("NumberT", np.float32, np.bool_)

_LATENT_STREAM, _SOURCE_STREAM = 0, 1


@dataclass(frozen=True, slots=True)
class ConversionSettings:
    """Settings of one conversion.

    Args:
        semitones: added to f0.
        index_rate: share of the features that comes from the voice's index. 0 = none, 1 = all.
        protect: protects unvoiced sounds (consonants, breaths) from the index. 0 = full protection, 0.5 = off.
        rms_mix_rate: whose RMS envelope the result has. 0 = the source's, 1 = its own.
        fill_gaps: interpolates f0 through unvoiced sounds, which `protect` still counts as unvoiced.
        formant_shift: semitones by which the voice's resonances move; f0 stays.
        seed: of the noise, at least 0.
        retrieval: `ivf` searches the nearest clusters of the index as faiss does, `exact` all of it.
    """

    semitones: float = 0.0
    index_rate: float = 0.5
    protect: float = 0.33
    rms_mix_rate: float = 0.25
    fill_gaps: bool = False
    formant_shift: float = 0.0
    seed: int = 0
    retrieval: RetrievalMode = "ivf"


class FeatureExtractor(Protocol):
    """What the converter uses of a `ContentEncoder`."""

    def extract_features(self, waveform: torch.Tensor, *, version: str) -> torch.Tensor:
        """`[B, T]` at 16 kHz -> `[B, (T - 400) // 320 + 1, D]`."""


@dataclass(frozen=True, slots=True)
class _BlankEncoder:
    """A `FeatureExtractor` that runs no network.

    Args:
        width: of its features, which are zeros.
    """

    width: int

    def extract_features(self, waveform: torch.Tensor, *, version: str) -> torch.Tensor:
        return waveform.new_zeros(len(waveform), waveform.shape[1] // (2 * HOP_LENGTH), self.width)


class SynthesizerProtocol(Protocol):
    """What the converter uses of a `Synthesizer`."""

    sample_rate: int
    hop_length: int
    inter_channels: int

    @property
    def uses_f0(self) -> bool: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def memory_bytes(self) -> int: ...

    def sample_latents(
        self, features: torch.Tensor, pitch: torch.Tensor | None, noise: torch.Tensor
    ) -> torch.Tensor: ...

    def project_excitation(self, sine: torch.Tensor) -> torch.Tensor: ...

    def decode(self, latents: torch.Tensor, excitation: torch.Tensor | None) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class Execution:
    """How a converter uses its device.

    Args:
        max_chunk_size: frames of 10 ms that a chunk contributes at most.
        chunk_multiple: frames; each chunk contributes a multiple.
        batch_size: chunks that are converted together; fewer if memory runs out.
        tf32: whether the synthesizer's float32 matrix products are in TF32. The search in the index never is.
        warm_up_size: frames of noise that `warm_up` converts.
        looks_ahead: whether a batch is started before the samples of the one before it are used, so that a GPU works
            while the CPU does.
    """

    max_chunk_size: int = 3000
    chunk_multiple: int = 2
    batch_size: int = 1
    tf32: bool = False
    warm_up_size: int = 100
    looks_ahead: bool = False


# A GPU selects kernels anew for each shape, which takes longer than the frames that a larger multiple adds. On a CPU
# the frames take longer. A batch of four chunks, two minutes, keeps a GPU busy.
_EXECUTION = {"cuda": Execution(chunk_multiple=500, batch_size=4, tf32=True, warm_up_size=12_000, looks_ahead=True)}


@dataclass(frozen=True, slots=True, eq=False)
class _Conversion:
    """The inputs of one conversion that every chunk takes its part of.

    Args:
        f0: `[frames]` from the first chunk's start on, transposed; None for a voice without f0.
        voiced: `[frames]`, whether the source has a pitch, also if `f0` was interpolated there.
        phase: `[frames]`, of the sine at the start of each frame, in periods.
        active: `[frames of the vocal]`, False where the noise gate is closed.
        shifted_hop: samples per frame that are synthesized; differs from the voice's hop length if formants are moved.
    """

    vocal: PreprocessedVocal
    plan: ChunkPlan
    encoder: FeatureExtractor
    settings: ConversionSettings
    f0: F0Contour | None
    voiced: NDArray[np.bool_] | None
    phase: NDArray[np.float32] | None
    active: NDArray[np.bool_]
    latent_noise: FrameNoise
    source_noise: FrameNoise
    shifted_hop: int

    def slice(self, contour: NDArray[NumberT], chunk: int) -> NDArray[NumberT]:
        """The chunk's part, `[plan.length]`, of a contour that begins with the first chunk."""
        start = chunk * self.plan.size
        return contour[start : start + self.plan.length]

    def is_audible(self, chunk: int) -> bool:
        """Whether the noise gate passes any of the frames that the chunk contributes or fades into."""
        start = max(chunk * self.plan.size - FADE, 0)
        return bool(self.active[start : (chunk + 1) * self.plan.size + FADE].any())


class VoiceConverter:
    """Converts vocals to one loaded voice.

    Args:
        network: the voice's `Synthesizer`.
        version: `v1` or `v2`, the kind of features that the voice was trained on.
        retrieval: the voice's index, or None.
        execution: None chooses by device.
    """

    def __init__(
        self,
        network: SynthesizerProtocol,
        *,
        version: str,
        retrieval: Retrieval | None = None,
        execution: Execution | None = None,
    ) -> None:
        self.sample_rate = network.sample_rate
        self.uses_f0 = network.uses_f0
        self._network = network
        self._version = version
        self._retrieval = retrieval
        self._execution = execution or _EXECUTION.get(network.device.type, Execution())

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights and of the index."""
        return self._network.memory_bytes + (self._retrieval.memory_bytes if self._retrieval else 0)

    def warm_up(self) -> None:
        """Converts noise, with features of zeros: on a GPU a whole batch of the longest chunks."""
        noise = np.random.default_rng(0).standard_normal((1, self._execution.warm_up_size * HOP_LENGTH))
        vocal = preprocess(Audio(0.1 * noise.astype(np.float32), SAMPLE_RATE), ignore_progress)
        f0 = np.full(self._execution.warm_up_size, 220, np.float32)
        encoder = _BlankEncoder(FEATURE_WIDTHS[self._version])
        for _ in self.convert(vocal, f0, encoder, settings=ConversionSettings(), progress=ignore_progress):
            pass

    def convert(
        self,
        vocal: PreprocessedVocal,
        f0: F0Contour | None,
        encoder: FeatureExtractor,
        *,
        settings: ConversionSettings,
        progress: Progress,
    ) -> Iterator[Waveform]:
        """Converts a vocal, aligned with the source to the sample.

        If the vocal stays below -80 dB of full scale (or 60 dB below its loudest frame, whichever is lower) for more
        than a quarter of a second, the result is exactly zero there. The same arguments give the same samples.

        Args:
            vocal: of any length, down to a single sample.
            f0: `[T]` in Hz at 100 frames/s, 0 = unvoiced; None for a voice without f0.
            encoder: on the voice's device.
            settings: of this conversion.
            progress: called with the fraction done before each batch and at the end; what it raises ends the work.

        Yields:
            `[1, n]` float32 at the voice's sample rate; `round(vocal.duration * sample_rate)` samples in all.
        """
        assert vocal.waveform.ndim == 1, f"the vocal is mono, [T], not {list(vocal.waveform.shape)}"
        num_samples = round(vocal.duration * self.sample_rate)
        if not num_samples:
            return
        if not len(vocal.waveform):  # a single sample at a high rate gives none at 16 kHz
            vocal = PreprocessedVocal(np.zeros(1, np.float32), vocal.duration)
        conversion = self._prepare(vocal, f0, encoder, settings, num_samples)
        blocks = crossfade(self._convert_chunks(conversion, progress), FADE * self._network.hop_length)
        blocks = _truncate(blocks, num_samples)
        if settings.rms_mix_rate < 1:
            envelope = compute_rms_envelope(vocal.waveform, SAMPLE_RATE)
            blocks = RmsEnvelopeMatcher(envelope, settings.rms_mix_rate, self.sample_rate, num_samples).match(blocks)
        for block in apply_noise_gate(blocks, conversion.active, self._network.hop_length):
            yield block[None]
        progress(1.0)

    def _prepare(
        self,
        vocal: PreprocessedVocal,
        f0: F0Contour | None,
        encoder: FeatureExtractor,
        settings: ConversionSettings,
        num_samples: int,
    ) -> _Conversion:
        hop, device = self._network.hop_length, self._network.device
        execution = self._execution
        plan = plan_chunks(ceil(num_samples / hop), execution.max_chunk_size, multiple=execution.chunk_multiple)
        contour = self._place_on_grid(f0, plan, settings.semitones)
        voiced = None if contour is None else contour > 0
        if contour is not None and settings.fill_gaps:
            contour = fill_gaps(contour)
        shifted_hop = round(hop * 2 ** (settings.formant_shift / 12))
        return _Conversion(
            vocal=vocal,
            plan=plan,
            encoder=encoder,
            settings=settings,
            f0=contour,
            voiced=voiced,
            phase=None if contour is None else accumulate_phase(contour, self.sample_rate / hop),
            active=detect_activity(vocal.waveform),
            latent_noise=FrameNoise(settings.seed, _LATENT_STREAM, self._network.inter_channels, device),
            source_noise=FrameNoise(settings.seed, _SOURCE_STREAM, shifted_hop, device),
            shifted_hop=shifted_hop,
        )

    def _place_on_grid(self, f0: F0Contour | None, plan: ChunkPlan, semitones: float) -> F0Contour | None:
        """f0 of all frames from the first chunk's start to the last chunk's end, transposed."""
        if not self.uses_f0:
            return None
        assert f0 is not None and f0.ndim == 1, "a voice with f0 needs an f0 contour, [T] in Hz"
        contour = f0 if len(f0) else np.zeros(1, np.float32)
        contour = reflect_pad(contour, -CONTEXT, plan.count * plan.size + CONTEXT)
        return transpose(contour, semitones) if semitones else contour

    def _convert_chunks(self, conversion: _Conversion, progress: Progress) -> Iterator[Waveform]:
        """The audio of each chunk, half a fade longer on each side than what the chunk contributes."""
        plan, hop = conversion.plan, self._network.hop_length
        start = (CONTEXT - FADE // 2) * hop
        silence = np.zeros((plan.size + FADE) * hop, np.float32)
        groups = self._start_groups(conversion, progress)
        for group, batches in look_ahead(groups) if self._execution.looks_ahead else groups:
            converted: dict[int, Waveform] = {}
            for batch, finish in batches:
                converted |= zip(batch, finish(), strict=True)
            for chunk in group:
                yield converted[chunk][start : start + len(silence)] if chunk in converted else silence

    def _start_groups(
        self, conversion: _Conversion, progress: Progress
    ) -> Iterator[tuple[range, list[tuple[Sequence[int], Callable[[], list[Waveform]]]]]]:
        """Consecutive chunks, with the batches of those that are audible; a GPU may still compute them."""
        count, size, runner = conversion.plan.count, self._execution.batch_size, BatchRunner("chunks")
        for first in range(0, count, size):
            progress(first / count)
            group = range(first, min(first + size, count))
            audible = [chunk for chunk in group if conversion.is_audible(chunk)]
            yield group, list(runner.run(audible, partial(self._start_batch, conversion), size=size))

    @torch.inference_mode()
    def _start_batch(self, conversion: _Conversion, chunks: Sequence[int]) -> Callable[[], list[Waveform]]:
        """The returned function gives the audio of whole chunks with their context, `[length * hop]` each."""
        plan, hop, shifted_hop = conversion.plan, self._network.hop_length, conversion.shifted_hop
        features = self._extract_features(conversion, chunks)
        pitch = None
        if conversion.f0 is not None:
            pitch = self._to_tensor([quantize_f0(conversion.slice(conversion.f0, chunk)) for chunk in chunks])
        noise = torch.stack([conversion.latent_noise.draw(plan.start(chunk), plan.length) for chunk in chunks])
        with tf32_products(self._execution.tf32):
            latents = self._network.sample_latents(features, pitch, noise.transpose(1, 2))
            excitation = self._generate_excitation(conversion, chunks)
            if shifted_hop != hop:
                # Synthesized at another tempo and resampled to the song's, which moves the formants; f0 accounts for
                # it.
                latents = _stretch(latents, shifted_hop / hop)
                if excitation is not None:
                    excitation = F.pad(excitation, (0, latents.shape[2] * hop - excitation.shape[1]))
            waveforms = self._network.decode(latents, excitation)[:, : plan.length * shifted_hop]
        receive = start_download(waveforms)
        if shifted_hop == hop:
            return lambda: list(receive())
        return lambda: [_change_tempo(waveform, shifted_hop, hop) for waveform in receive()]

    def _extract_features(self, conversion: _Conversion, chunks: Sequence[int]) -> torch.Tensor:
        """Content features at 100 frames/s, `[B, length, D]`, mixed with those of the index."""
        plan, settings, waveform = conversion.plan, conversion.settings, conversion.vocal.waveform
        starts = [plan.start(chunk) * HOP_LENGTH for chunk in chunks]
        num_samples = plan.length * HOP_LENGTH + ENCODER_TAIL
        waveforms = self._to_tensor([reflect_pad(waveform, start, start + num_samples) for start in starts])
        own = conversion.encoder.extract_features(waveforms, version=self._version)
        mixed, rate = own, settings.index_rate
        if self._retrieval is not None and rate > 0:
            retrieved = self._retrieval.blend_nearest(own.flatten(0, 1), mode=settings.retrieval)
            mixed = retrieved.view_as(own) * rate + own * (1 - rate)
        own, mixed = own.repeat_interleave(2, dim=1), mixed.repeat_interleave(2, dim=1)
        if conversion.voiced is None or settings.protect >= 0.5 or rate == 0:
            return mixed
        voiced = self._to_tensor([conversion.slice(conversion.voiced, chunk) for chunk in chunks])
        return torch.where(voiced[..., None], mixed, mixed * settings.protect + own * (1 - settings.protect))

    def _generate_excitation(self, conversion: _Conversion, chunks: Sequence[int]) -> torch.Tensor | None:
        """`[B, length * shifted_hop]`; None for a voice without f0."""
        if conversion.f0 is None or conversion.phase is None:
            return None
        plan = conversion.plan
        f0 = self._to_tensor([conversion.slice(conversion.f0, chunk) for chunk in chunks])
        phase = self._to_tensor([conversion.slice(conversion.phase, chunk) for chunk in chunks])
        noise = torch.stack([conversion.source_noise.draw(plan.start(chunk), plan.length) for chunk in chunks])
        sample_rate = self.sample_rate * conversion.shifted_hop / self._network.hop_length
        return self._network.project_excitation(generate_sine(f0, phase, noise, sample_rate=sample_rate))

    def _to_tensor(self, rows: Sequence[NDArray[np.generic]]) -> torch.Tensor:
        return torch.from_numpy(np.stack(rows)).to(self._network.device)


def load_voice_converter(
    checkpoint: Checkpoint, index: Index | None, *, device: str, precision: Precision = "auto"
) -> VoiceConverter:
    """Builds a checkpoint's voice, with its index, on a device.

    Raises:
        ModelError: the checkpoint's weights do not fit its config.
    """
    prepare_device(device)
    synthesizer = Synthesizer(checkpoint, device=device, precision=precision)
    retrieval = Retrieval(index, device) if index is not None else None
    return VoiceConverter(synthesizer, version=checkpoint.version, retrieval=retrieval)


def _stretch(latents: torch.Tensor, factor: float) -> torch.Tensor:
    """Interpolates `[B, C, T]` linearly to `factor` times as many frames: `[B, C, ceil(T * factor)]`."""
    frames = latents.shape[2]
    positions = (torch.arange(ceil(frames * factor), device=latents.device) + 0.5) / factor - 0.5
    positions = positions.clamp(0, frames - 1)
    left = positions.floor().long()
    right = (left + 1).clamp(max=frames - 1)
    return torch.lerp(latents[..., left], latents[..., right], (positions - left).to(latents.dtype))


def _change_tempo(waveform: Waveform, from_samples: int, to_samples: int) -> Waveform:
    """Resamples every `from_samples` samples to exactly `to_samples`."""
    import soxr

    common = gcd(from_samples, to_samples)
    length = len(waveform) // from_samples * to_samples
    resampled = soxr.resample(waveform, from_samples // common, to_samples // common, quality="HQ")[:length]
    return np.pad(resampled, (0, length - len(resampled))).astype(np.float32)


def _truncate(blocks: Iterator[Waveform], num_samples: int) -> Iterator[Waveform]:
    """The first `num_samples` samples. All of `blocks` is consumed, so that progress is reported to the end."""
    remaining = num_samples
    for block in blocks:
        if remaining:
            yield block[:remaining]
        remaining -= min(remaining, len(block))
