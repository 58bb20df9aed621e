"""The demo's separation models: their files, what they do to an unseen mix, and the training they come from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml  # type: ignore[import-untyped]
from torch import nn

from audio import Audio
from audio.dsp.resample import resample
from demo.training.measures import measure_si_sdr_db
from demo.training.stems import checkpoint, htdemucs, roformer
from demo.training.stems.dataset import (
    HEADROOM,
    SAMPLES,
    Split,
    Stems,
    change_speed,
    draw_batches,
    halve_rate,
    write_stems,
)
from demo.training.stems.evaluate import Waveform, run_stock_demucs, separate_mix
from demo.training.stems.roformer_network import MelBandRoformer
from demo.training.stems.training import Schedule, sdr_loss, train
from models.checkpoints.locations import WeightLocations
from models.demucs import DemucsFamily
from models.demucs.engine import Runtime
from models.demucs.family import load_separator
from models.demucs.repository import ModelRepository
from models.roformer.checkpoint import ModelFiles, RoformerCheckpoint
from models.roformer.family import RoformerFamily
from models.roformer.network import RoformerNetwork
from models.separation import Mix
from testing.repository import ROOT

RATE = 44_100
STEMS = Path(__file__).parent / "data" / "stems"


@pytest.fixture(scope="module")
def truth() -> dict[str, Waveform]:
    """Three seconds of a piece that no training has heard, one stem a file; the mix is their sum."""
    return {name: soundfile.read(STEMS / f"{name}.ogg", dtype="float32")[0].T for name in htdemucs.STEMS}


@pytest.fixture(scope="module")
def mix(truth: dict[str, Waveform]) -> Waveform:
    return np.asarray(np.sum(list(truth.values()), axis=0), np.float32)


@pytest.mark.parametrize(("family", "most_bytes"), [("demucs", 9_000_000), ("roformer", 6_000_000)])
def test_the_folder_of_a_family_is_small(family: str, most_bytes: int) -> None:
    sizes = [path.stat().st_size for path in (checkpoint.WEIGHTS / family).rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= most_bytes


def test_demo_htdemucs_takes_each_stem_out_of_an_unseen_mix(truth: dict[str, Waveform], mix: Waveform) -> None:
    family = DemucsFamily(WeightLocations(), demo=ROOT / "demo/weights/demucs")
    estimates = separate_mix(family.load(htdemucs.NAME, device="cpu"), mix, residual=True)
    assert list(estimates) == list(htdemucs.STEMS)
    for name, estimate in estimates.items():
        gain = measure_si_sdr_db(estimate, truth[name]) - measure_si_sdr_db(mix, truth[name])
        assert gain > (1 if name == "other" else 4), name


def test_demo_mel_band_roformer_parts_vocals_and_instrumental(truth: dict[str, Waveform], mix: Waveform) -> None:
    task = roformer.TASKS["vocals"]
    family = RoformerFamily(WeightLocations(), demo=ROOT / "demo/weights/roformer")
    assert family.describe(task.name).role == "vocals"
    estimates = separate_mix(family.load(task.name, device="cpu"), mix)
    truth = {"vocals": truth["vocals"], "other": mix - truth["vocals"]}
    for name, least in (("vocals", 2), ("other", 1)):
        gain = measure_si_sdr_db(estimates[name], truth[name]) - measure_si_sdr_db(mix, truth[name])
        assert gain > least, name


def test_demucs_itself_gives_the_same_stems_from_demo_htdemucs(mix: Waveform) -> None:
    folder = ModelRepository(WeightLocations(explicit=ROOT / "demo/weights/demucs"))
    separator = load_separator(folder, htdemucs.NAME, Runtime("cpu", "float32"))
    # Where the mix is empty but for rounding errors, they are the phase of what the network puts there; the noise of
    # 16 bits is louder.
    audio = resample(Audio(np.round(mix * 32767) / np.float32(32767), RATE), separator.sample_rate)
    ours = np.concatenate(list(separator.separate(Mix(audio, separator.sample_rate), separator.stems)), axis=2)
    np.testing.assert_allclose(ours, run_stock_demucs(audio.read(0, audio.num_samples)), atol=1e-4)
    assert np.abs(ours).max() > 0.1


def test_an_exported_roformer_computes_in_the_worker_what_it_computed_in_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = roformer.TASKS["vocals"]
    network = MelBandRoformer(**roformer.SHAPE)
    network.load_state_dict({name: weight.half().float() for name, weight in network.state_dict().items()})
    torch.save({"mean": network.state_dict()}, tmp_path / "state.pt")
    folder = checkpoint.export_roformer(tmp_path / "state.pt", task.settings, task.name, root=tmp_path)
    files = ModelFiles(folder / f"{task.name}.ckpt", folder / f"{task.name}.yaml")
    loaded = RoformerCheckpoint(files)
    assert loaded.config.outputs == ("vocals", "other")
    mix = torch.randn(1, 2, RATE // 2)
    with torch.no_grad():
        torch.testing.assert_close(
            RoformerNetwork(loaded.config, loaded.read, "cpu", "float32")(mix)[:, 0], network(mix), atol=1e-5, rtol=0
        )


def test_an_exported_htdemucs_is_loaded_by_the_worker_and_by_demucs(tmp_path: Path) -> None:
    from demucs.hf import load_safetensors_model

    torch.manual_seed(0)
    network = htdemucs.build_network()
    torch.save({"mean": network.state_dict()}, tmp_path / "state.pt")
    folder = checkpoint.export_demucs(tmp_path / "state.pt", network, htdemucs.NAME, root=tmp_path)
    assert yaml.safe_load((folder / f"{htdemucs.NAME}.yaml").read_text()) == {"models": [htdemucs.NAME]}
    family = DemucsFamily(WeightLocations(explicit=tmp_path / "demucs"))
    assert family.describe(htdemucs.NAME).stems == htdemucs.STEMS
    theirs = load_safetensors_model(folder / f"{htdemucs.NAME}.safetensors")
    assert theirs.segment == htdemucs.SEGMENT
    name = "encoder.0.conv.weight"
    assert torch.equal(theirs.state_dict()[name], network.state_dict()[name].half().float())


def test_the_weights_of_the_first_stage_fit_the_network_of_the_second() -> None:
    half, full = htdemucs.build_network(RATE // 2), htdemucs.build_network(RATE)
    full.load_state_dict(htdemucs.double_bands(half.state_dict()))


def test_halving_the_rate_keeps_what_is_below_the_new_limit_and_removes_what_is_above() -> None:
    seconds = torch.arange(RATE) / RATE
    low, high = torch.sin(2 * math.pi * 1000 * seconds), torch.sin(2 * math.pi * 15_000 * seconds)
    torch.testing.assert_close(halve_rate(low + high), low[::2], atol=5e-3, rtol=0)


@pytest.mark.parametrize("length", [80, 90, 100])
def test_changed_speed_keeps_the_number_of_waves(length: int) -> None:
    def make_waves(samples: int) -> Waveform:
        waves: Waveform = np.sin(np.arange(samples) * (2 * np.pi * 7 / samples))[None].astype(np.float32)
        return waves

    np.testing.assert_allclose(change_speed(make_waves(90), length), make_waves(length), atol=1e-5)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Two pieces whose stems are constant, each at a level of its own."""
    split = Split("train", 0, 2, root=tmp_path)
    for piece in range(2):
        levels = {"drums": 0.1, "bass": 0.2, "other": 0.3, "lead": 0.4, "backing": -0.1}
        write_stems(split, {name: np.full((2, SAMPLES), level + piece, np.float32) for name, level in levels.items()})
    return split


def test_stems_are_read_as_they_were_written_and_sum_to_the_mix(split: Split) -> None:
    stems = Stems(split, ("vocals", "instrumental"))
    assert stems.pieces == 2
    step = HEADROOM / 32767
    np.testing.assert_allclose(stems.read_all(0, 5, 3)[:, 0, 0], [0.3, 0.6], atol=3 * step)
    np.testing.assert_allclose(Stems(split, ("bass",)).read("bass", 1, 0, 2), 1.2, atol=step)


def test_a_piece_is_complete_if_every_stem_is_heard(split: Split) -> None:
    silence = np.zeros((2, SAMPLES), np.float32)
    write_stems(split, {"lead": silence + 0.1, "backing": silence})
    assert Stems(split, ("lead", "backing")).find_complete() == [0, 1]
    assert Stems(split, ("lead",)).find_complete() == [0, 1, 2]
    drawn = next(draw_batches(Stems(split, ("lead", "backing")), seed=0, size=64, length=4))
    assert (drawn[:, 1] == 0).flatten(1).all(1).float().mean() < 0.2


def test_batches_repeat_for_a_seed_and_change_levels(split: Split) -> None:
    def draw(seed: int) -> torch.Tensor:
        batches = draw_batches(Stems(split, htdemucs.STEMS), seed=seed, size=8, length=4)
        return torch.stack([next(batches) for _ in range(4)])

    first = draw(1)
    assert first.shape == (4, 8, 4, 2, 4)
    assert torch.equal(first, draw(1)) and not torch.equal(first, draw(2))
    assert (first == 0).flatten(3).all(-1).any(), "a stem is silent now and then"
    assert len(set(first[..., 0, 0].flatten().tolist())) > 50


def test_the_loss_is_minus_the_ratio_in_db_and_bounded() -> None:
    generator = torch.Generator().manual_seed(0)
    stems = torch.randn(3, 2, 2, 4000, generator=generator)
    assert sdr_loss(torch.zeros_like(stems), stems).item() == pytest.approx(0, abs=0.05)
    assert sdr_loss(stems * 0.9, stems).item() == pytest.approx(-20, abs=1.5)
    drums_only = torch.cat([stems[:, :1], torch.zeros_like(stems[:, 1:])], dim=1)
    assert sdr_loss(drums_only, stems, (2.0, 0.0)).item() < -24 < sdr_loss(drums_only, stems, (0.0, 2.0)).item()
    assert -31 < sdr_loss(stems, stems).item() < -24


class _Gain(nn.Module):
    """Gives each of two stems a share of the mix."""

    def __init__(self) -> None:
        super().__init__()
        self.shares = nn.Parameter(torch.zeros(2))

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        return mix[:, None] * self.shares[:, None, None]


def test_a_training_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    starts = []

    def draw(step: int) -> Iterator[torch.Tensor]:
        starts.append(step)
        generator = torch.Generator().manual_seed(step)
        while True:
            loud = torch.randn(2, 1, 2, 100, generator=generator)
            yield torch.cat([loud, 0.25 * loud], dim=1)

    path = tmp_path / "state.pt"
    for steps in (30, 150):
        network = _Gain()
        train(network, draw, network, schedule=Schedule(steps, peak_lr=0.05), path=path)
        state = torch.load(path, weights_only=True)
        assert state["step"] == steps
    assert starts == [0, 30]
    assert state["mean"]["shares"].tolist() == pytest.approx([0.8, 0.2], abs=0.05)


def test_the_learning_rate_warms_up_and_falls_with_the_steps_or_the_minutes() -> None:
    by_steps, by_time = Schedule(1000), Schedule(1000, minutes=10)
    assert by_steps.fraction(500, 0) == 0.5 and by_time.fraction(10, 300) == 0.5 and by_time.fraction(10, 6000) == 1
    rates = [by_steps.learning_rate(step, by_steps.fraction(step, 0)) for step in (0, 60, 500, 999)]
    assert rates[1] > rates[2] > max(rates[0], rates[3])
