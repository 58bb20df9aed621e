"""Whole requests against diffusers' `AceStepPipeline` on the same weights and the same noise, as far as the two agree.

The differences are in the latents before the VAE's decoder. A codec without networks encodes the recordings for both.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from audio import Audio
from models.acestep.engine import AceStepEngine
from models.acestep.metas import Metas
from models.acestep.network import Components
from models.acestep.request import DiffusionSampling, Repainting, Song, SongRequest
from models.acestep.tokens import format_codes
from testing.acestep_reference import build_pipeline
from testing.quick_codec import QuickCodec
from testing.signals import make_noise
from testing.tiny_acestep import build_tiny_components

SECONDS = 6.0  # more than the least that is sampled
RATE = 48_000
TURBO = DiffusionSampling(num_steps=8, cfg_coef=1.0, shift=3.0)
BASE = DiffusionSampling(num_steps=6, cfg_coef=7.0, shift=1.0)
SONG = Song(
    caption="warm house with a soft bass",
    seed=11,
    lyrics="[Verse]\nnobody is awake\n[Chorus]\nall of the town",
    language="en",
    metas=Metas(bpm=124, key="F# minor", time_signature=4, duration=SECONDS),
)


class QuickVae(nn.Module):
    """Encodes for the pipeline as `QuickCodec` does; the pipeline would draw a sample of the VAE's distribution."""

    def __init__(self, vae: Any, codec: QuickCodec) -> None:
        super().__init__()
        self.config, self.dtype, self.device, self._codec = vae.config, vae.dtype, vae.device, codec

    def encode(self, waveform: torch.Tensor) -> Any:
        latents = self._codec.encode(waveform[0]).transpose(1, 2)
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: latents))


class Pair:
    """Ours and diffusers' on the same networks."""

    def __init__(self, components: Components) -> None:
        self._codec = QuickCodec(components.vae)
        self._engine = AceStepEngine(components, codec=self._codec)
        self._pipeline = build_pipeline(components)
        self._pipeline.register_modules(vae=QuickVae(components.vae, self._codec))

    def compare(self, request: SongRequest, **theirs: Any) -> tuple[float, float]:
        """The largest difference of the latents, and the largest latent."""
        song, sampling = request.songs[0], request.sampling
        self._codec.decoded.clear()
        self._engine.generate(request)
        (ours,) = self._codec.decoded
        noise = torch.randn(ours.shape, generator=torch.Generator().manual_seed(song.seed))
        expected = self._pipeline(
            prompt=song.caption,
            lyrics=song.lyrics,
            vocal_language=song.language,
            audio_duration=song.metas.duration,
            bpm=song.metas.bpm,
            keyscale=song.metas.key,
            timesignature=str(song.metas.time_signature),
            num_inference_steps=sampling.num_steps,
            shift=sampling.shift,
            guidance_scale=sampling.cfg_coef,
            timesteps=None if sampling.timesteps is None else list(sampling.timesteps),
            latents=noise,
            output_type="latent",
            **theirs,
        ).audios
        assert expected.shape == ours.shape
        return float((ours - expected).abs().max()), float(expected.abs().max())


@pytest.fixture(scope="module")
def turbo() -> Pair:
    return Pair(build_tiny_components(seed=3))


@pytest.fixture(scope="module")
def base() -> Pair:
    return Pair(build_tiny_components(seed=4, is_turbo=False))


def make_recording(seed: int, seconds: float = SECONDS) -> Audio:
    return Audio(make_noise(2, round(seconds * RATE), seed=seed, level=0.1), RATE)


def to_tensor(audio: Audio) -> torch.Tensor:
    return torch.from_numpy(audio.waveform)


def ask(sampling: DiffusionSampling, **fields: Any) -> SongRequest:
    return SongRequest(songs=[SONG], duration=SECONDS, sampling=sampling, **fields)


def report(case: str, result: tuple[float, float]) -> float:
    difference, largest = result
    print(f"{case}: largest difference to AceStepPipeline {difference:.3g} in latents up to {largest:.3g}")
    return difference / largest


def test_music_from_text_equals_the_pipeline_exactly(turbo: Pair) -> None:
    assert report("text2music, turbo", turbo.compare(ask(TURBO))) == 0.0


def test_custom_timesteps_equal_the_pipeline_exactly(turbo: Pair) -> None:
    sampling = DiffusionSampling(num_steps=4, cfg_coef=1.0, shift=1.0, timesteps=(1.0, 0.83, 0.5, 0.2))
    assert report("text2music, custom timesteps", turbo.compare(ask(sampling))) == 0.0


def test_an_xl_model_equals_the_pipeline_exactly() -> None:
    """Its timbre token is in the condition encoder, which both share."""
    pair = Pair(build_tiny_components(seed=5, xl=True))
    assert report("text2music, XL", pair.compare(ask(TURBO))) == 0.0


def test_guided_music_equals_the_pipeline_but_for_rounding(base: Pair) -> None:
    """The unconditional branch's cross-attention is not computed here, which rounds differently by one unit."""
    assert report("text2music, base, APG", base.compare(ask(BASE))) < 1e-4


def test_the_guidance_interval_is_the_pipelines_mirrored(base: Pair) -> None:
    """The pipeline applies guidance while start <= 1 - t <= end, the original and ours while start <= t <= end."""
    sampling = DiffusionSampling(num_steps=6, cfg_coef=7.0, shift=1.0, cfg_interval=(0.4, 1.0))
    result = base.compare(ask(sampling), cfg_interval_start=0.0, cfg_interval_end=0.6)
    assert report("text2music, base, guidance interval", result) < 1e-4


def test_a_cover_with_a_reference_equals_the_pipeline_exactly(turbo: Pair) -> None:
    source, reference = make_recording(1), make_recording(2, 7.0)
    result = turbo.compare(
        ask(TURBO, task="cover", source=source, reference=reference),
        task_type="cover",
        src_audio=to_tensor(source),
        reference_audio=to_tensor(reference),
    )
    assert report("cover with a reference", result) == 0.0


@pytest.mark.parametrize("task", ["extract", "lego"])
def test_a_track_equals_the_pipeline_exactly(turbo: Pair, task: Any) -> None:
    source = make_recording(1)
    result = turbo.compare(
        ask(TURBO, task=task, source=source, tracks=("drums",)),
        task_type=task,
        track_name="drums",
        src_audio=to_tensor(source),
    )
    assert report(task, result) == 0.0


def test_a_track_in_a_window_equals_the_pipeline_exactly(turbo: Pair) -> None:
    source = make_recording(1)
    result = turbo.compare(
        ask(TURBO, task="lego", source=source, tracks=("bass",), repainting=Repainting(start=1.2, end=4.0)),
        task_type="lego",
        track_name="bass",
        src_audio=to_tensor(source),
        repainting_start=1.2,
        repainting_end=4.0,
    )
    assert report("lego in a window", result) == 0.0


def test_completed_music_equals_the_pipeline_exactly(turbo: Pair) -> None:
    source = make_recording(1)
    result = turbo.compare(
        ask(TURBO, task="complete", source=source, tracks=("bass", "drums")),
        task_type="complete",
        complete_track_classes=["bass", "drums"],
        src_audio=to_tensor(source),
    )
    assert report("complete", result) == 0.0


def test_music_from_codes_equals_the_pipeline_exactly(turbo: Pair) -> None:
    codes = tuple(1000 * number for number in range(30))  # six seconds
    song = Song(caption=SONG.caption, seed=11, lyrics=SONG.lyrics, metas=SONG.metas, codes=codes)
    request = SongRequest(songs=[song], duration=SECONDS, sampling=TURBO)
    assert report("audio codes", turbo.compare(request, audio_codes=format_codes(codes))) == 0.0


def test_a_repaint_that_holds_nothing_to_the_source_equals_the_pipeline_exactly(turbo: Pair) -> None:
    source = make_recording(1)
    window = Repainting(start=1.2, end=4.8, strength=1.0)
    result = turbo.compare(
        ask(TURBO, task="repaint", source=source, repainting=window),
        task_type="repaint",
        src_audio=to_tensor(source),
        repainting_start=1.2,
        repainting_end=4.8,
    )
    assert report("repaint at strength 1", result) == 0.0
