"""Measures how well the demo's separation models separate mixes of unseen pieces, and that the public code agrees."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median

import numpy as np
import torch
from numpy.typing import NDArray

from audio import Audio
from audio.dsp.resample import resample
from demo.training.measures import measure_si_sdr_db
from demo.training.stems import roformer
from demo.training.stems.checkpoint import WEIGHTS
from demo.training.stems.dataset import SAMPLE_RATE, Split, Stems
from demo.training.stems.htdemucs import NAME
from models.checkpoints.locations import WeightLocations
from models.demucs import DemucsFamily
from models.demucs.engine import Runtime
from models.demucs.family import load_separator
from models.demucs.repository import ModelRepository
from models.roformer.checkpoint import ModelFiles, RoformerCheckpoint
from models.roformer.engine import RoformerSeparator
from models.roformer.family import RoformerFamily
from models.roformer.network import RoformerNetwork
from models.runtime.progress import ignore_progress
from models.separation import InferenceOptions, Mix, Separator, plan_stems, separate

Waveform = NDArray[np.float32]
OPTIONS = InferenceOptions()
COMPARED = 5  # mixes that the public code separates, too


@dataclass(frozen=True)
class Measured:
    """What one stem of one mix reached.

    Args:
        improvement_db: of the estimate's SI-SDR over the mix's.
        si_sdr_db: of the estimate.
    """

    improvement_db: float
    si_sdr_db: float


def separate_mix(engine: Separator, mix: Waveform, *, residual: bool = False) -> dict[str, Waveform]:
    """The stems that the worker gives for a mix at 44.1 kHz, [2, T] each; `residual` as in a request."""
    plan = plan_stems(engine.stems, stems=None, residual=residual)
    blocks = list(separate(engine, Audio(mix, SAMPLE_RATE), plan, OPTIONS, ignore_progress))
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in plan.outputs}


def evaluate_demucs(split: Split) -> None:
    """Print the table of `demo-htdemucs`, and the largest difference between demucs's own stems and the worker's."""
    stems = Stems(split, ("drums", "bass", "other", "vocals"))
    engine = DemucsFamily(WeightLocations(explicit=WEIGHTS / "demucs")).load(NAME, device="cpu")

    def run(mix: Waveform) -> dict[str, Waveform]:
        estimates = separate_mix(engine, mix)
        residual = mix - np.sum(list(estimates.values()), axis=0)
        return estimates | {"other with the residual": estimates["other"] + residual}

    _print_table(NAME, _measure(stems, run))
    exact = load_separator(
        ModelRepository(WeightLocations(explicit=WEIGHTS / "demucs")), NAME, Runtime("cpu", "float32")
    )
    differences = []
    for piece in range(min(COMPARED, stems.pieces)):
        audio = resample(Audio(stems.read_all(piece).sum(0), SAMPLE_RATE), exact.sample_rate)
        blocks = exact.separate(Mix(audio, exact.sample_rate), exact.stems, options=OPTIONS)
        ours = np.concatenate(list(blocks), axis=2)
        differences.append(float(np.abs(ours - run_stock_demucs(audio.read(0, audio.num_samples))).max()))
    _print_difference("demucs", differences)


def run_stock_demucs(mix: Waveform) -> Waveform:
    """The stems [S, 2, T] of demucs's own code, from the same file, as its Separator calls it."""
    from demucs.apply import BagOfModels, apply_model
    from demucs.hf import load_safetensors_model

    model = BagOfModels([load_safetensors_model(WEIGHTS / "demucs" / NAME / f"{NAME}.safetensors")]).eval()
    tensor = torch.from_numpy(mix)
    mono = tensor.mean(0)
    shift, scale = mono.mean(), mono.std() + 1e-8
    with torch.no_grad():
        stems = apply_model(model, ((tensor - shift) / scale)[None], shifts=0, overlap=0.25)[0]
    result: Waveform = (stems * scale + shift).numpy()
    return result


def evaluate_roformer(task: roformer.Task, split: Split) -> None:
    """Print the table of a RoFormer, and the largest difference between pymss-core's stem and the worker's."""
    from testing.roformer_demix import separate_song
    from testing.roformer_reference import ReferenceNetwork
    from testing.tiny_roformer import Shape

    stems = Stems(split, task.stems)
    family = RoformerFamily(WeightLocations(explicit=WEIGHTS / "roformer"))
    engine = family.load(task.name, device="cpu")

    def run(mix: Waveform) -> dict[str, Waveform]:
        first = separate_mix(engine, mix)[task.instruments[0]]
        return {task.stems[0]: first, task.stems[1]: mix - first}

    _print_table(task.name, _measure(stems, run))
    folder = WEIGHTS / "roformer" / task.name
    files = ModelFiles(folder / f"{task.name}.ckpt", folder / f"{task.name}.yaml")
    checkpoint = RoformerCheckpoint(files)
    exact = RoformerSeparator(RoformerNetwork(checkpoint.config, checkpoint.read, "cpu", "float32"))
    state = {name: tensor.float() for name, tensor in checkpoint.read([""]).items()}
    reference = ReferenceNetwork(Shape(**roformer.SHAPE), state)
    differences = []
    for piece in range(min(COMPARED, stems.pieces)):
        mix = stems.read_all(piece).sum(0)
        blocks = exact.separate(Mix(Audio(mix, SAMPLE_RATE), SAMPLE_RATE), exact.stems[:1], options=OPTIONS)
        ours = np.concatenate(list(blocks), axis=2)
        song = separate_song(reference, torch.from_numpy(mix), chunk_size=roformer.CHUNK, num_overlap=2)
        differences.append(float(np.abs(ours - song.numpy()).max()))
    _print_difference("pymss-core", differences)


def _measure(stems: Stems, run: Callable[[Waveform], dict[str, Waveform]]) -> dict[str, list[Measured]]:
    """What each stem reached, in all mixes in which it is heard."""
    rows: dict[str, list[Measured]] = {}
    for piece in stems.find_complete():
        truth = dict(zip(stems.names, stems.read_all(piece), strict=True))
        mix = sum(truth.values(), np.zeros_like(truth[stems.names[0]]))
        for name, estimate in run(mix).items():
            stem = truth[name.split()[0]]
            reached = measure_si_sdr_db(estimate, stem)
            rows.setdefault(name, []).append(Measured(reached - measure_si_sdr_db(mix, stem), reached))
    return rows


def _print_table(name: str, rows: dict[str, list[Measured]]) -> None:
    print(f"{name}: SI-SDR improvement in dB\n")
    print("| stem | mixes | mean | median | worst | mean SI-SDR |\n|---|---|---|---|---|---|")
    for stem, measured in rows.items():
        gains = [one.improvement_db for one in measured]
        figures = (mean(gains), median(gains), min(gains), mean(one.si_sdr_db for one in measured))
        print(f"| {stem} | {len(gains)} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    print(flush=True)


def _print_difference(package: str, differences: list[float]) -> None:
    figure = f"{max(differences):.1e} in {len(differences)} mixes"
    print(
        f"The worker's float32 samples differ from those of {package} by at most {figure} (full scale 1).\n", flush=True
    )
