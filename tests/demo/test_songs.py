"""The demo checkpoint of ACE-Step: small, in the published layout, loaded by the family, audible, in time."""

import librosa
import numpy as np
import pytest
import torch

from audio import Audio
from demo.training.measures import follows_tempo
from demo.training.songs.clock import make_silence
from demo.training.songs.evaluate import compute_rises, estimate_tempo
from demo.training.songs.export import FOLDER
from models.acestep.catalog import TURBO
from models.acestep.checkpoint import ModelFolders, read_model, read_text_encoder, read_vae
from models.acestep.codec import LatentCodec
from models.acestep.engine import AceStepEngine
from models.acestep.family import AceStepFamily
from models.acestep.load import load_components
from models.acestep.metas import Metas
from models.acestep.network import Components
from models.acestep.repository import AceStepRepository
from models.acestep.request import DiffusionSampling, Repainting, Song, SongRequest
from models.checkpoints.locations import WeightLocations
from testing.acestep_reference import build_published_pipeline

SECONDS = 10.0
LOCATIONS = WeightLocations(explicit=FOLDER.parent)
SAMPLING = DiffusionSampling(num_steps=TURBO.num_steps, cfg_coef=TURBO.cfg_coef, shift=TURBO.shift)
SONG = Song(
    caption="upbeat house, 120 bpm, drums and bass guitar",
    seed=1,
    lyrics="[Verse]\nlove is a river",
    metas=Metas(bpm=120, time_signature=4, key="A minor", duration=SECONDS),
)


class RecordingCodec(LatentCodec):
    """Keeps the latents that it decodes."""

    decoded: torch.Tensor

    def decode(self, latents: torch.Tensor, **options: object) -> torch.Tensor:
        """Decodes as `LatentCodec` does."""
        self.decoded = latents
        return super().decode(latents)


@pytest.fixture(scope="module")
def folders() -> ModelFolders:
    found = AceStepRepository(LOCATIONS).find(FOLDER.name)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def components(folders: ModelFolders) -> Components:
    model = read_model(folders)
    vae, text = read_vae(folders, model.config), read_text_encoder(folders, model.config)
    exact = torch.float32
    return load_components(model, vae, text, defaults=TURBO, device="cpu", dtype=exact, vae_dtype=exact)


def test_folder_is_complete_and_at_most_14_mb() -> None:
    info = AceStepFamily(LOCATIONS).describe(FOLDER.name)
    assert info.availability.source == "local"
    assert (info.is_turbo, info.num_steps, info.shift, info.cfg_coef) == (True, 8, 3.0, 1.0)
    assert set(info.tasks) == {"text2music", "cover", "repaint"}
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 14_000_000


def test_latents_of_silence_are_the_clock_that_training_saw(components: Components) -> None:
    assert components.silence_latent.shape == (1, 15_000, 16)
    assert (components.silence_latent - make_silence()).abs().max() < 1e-3


def test_a_song_at_120_bpm_is_audible_in_time_and_equal_to_that_of_diffusers(components: Components) -> None:
    pipeline = build_published_pipeline(components)
    codec = RecordingCodec(components.vae)
    engine = AceStepEngine(components, codec=codec)
    (clip,) = engine.generate(SongRequest(songs=[SONG], duration=SECONDS, sampling=SAMPLING)).clips

    expected = pipeline(
        prompt=SONG.caption,
        lyrics=SONG.lyrics,
        vocal_language=SONG.language,
        audio_duration=SECONDS,
        bpm=120,
        keyscale="A minor",
        timesignature="4",
        num_inference_steps=8,
        shift=3.0,
        latents=torch.randn(codec.decoded.shape, generator=torch.Generator().manual_seed(SONG.seed)),
        output_type="latent",
    ).audios
    assert (codec.decoded - expected.view_as(codec.decoded)).abs().max() < 1e-3

    samples = clip.waveform[0]
    assert clip.waveform.shape == (2, 480_000)
    assert np.sqrt(np.mean(samples**2)) > 0.02
    assert np.abs(samples).max() < 1.0
    heard = librosa.resample(samples, orig_sr=48_000, target_sr=24_000, res_type="soxr_hq")
    assert follows_tempo(estimate_tempo(compute_rises(heard)), 120)


@pytest.mark.parametrize("task", ["cover", "repaint"])
def test_edits_of_a_recording_are_audible(components: Components, task: str) -> None:
    engine = AceStepEngine(components)
    time = np.arange(6 * 48_000) / 48_000
    beats = np.exp(-20 * (time % 0.5)) * np.sin(2 * np.pi * 110 * time)
    source = Audio(np.stack([beats, beats]).astype(np.float32) * 0.4, 48_000)
    request = SongRequest(
        songs=[SONG],
        duration=6.0,
        sampling=SAMPLING,
        task=task,  # type: ignore[arg-type]  # a name of a task
        source=source,
        repainting=Repainting(start=2.0, end=5.0) if task == "repaint" else None,
    )
    (clip,) = engine.generate(request).clips
    made = clip.waveform[:, 2 * 48_000 : 5 * 48_000]
    assert clip.duration == pytest.approx(6.0, abs=0.01)
    assert 0.01 < np.sqrt(np.mean(made**2)) < 0.5
