"""`demo-mel-band-roformer` and `demo-karaoke`: the network, its training, and the settings of its yaml."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from demo.training.stems.dataset import FOLDER, SAMPLE_RATE, TRAIN, Stems, draw_batches
from demo.training.stems.roformer_network import MelBandRoformer
from demo.training.stems.training import Schedule, load_mean, train

BATCH_SIZE, CROP = 2, 2 * SAMPLE_RATE
CHUNK = 4 * SAMPLE_RATE
SHAPE: dict[str, Any] = {
    "dim": 48,
    "depth": 2,
    "stereo": True,
    "num_stems": 1,
    "time_transformer_depth": 1,
    "freq_transformer_depth": 1,
    "num_bands": 30,
    "dim_head": 16,
    "heads": 4,
    "sample_rate": SAMPLE_RATE,
    "stft_n_fft": 2048,
    "stft_hop_length": 882,
    "stft_win_length": 2048,
    "mask_estimator_depth": 1,
    "mlp_expansion_factor": 1,
}


@dataclass(frozen=True)
class Task:
    """What one model does.

    Args:
        name: of the model.
        stems: what is mixed; the first is what the network gives.
        instruments: names of the first stem and of the rest, in the yaml.
        start: name of the model whose weights the training starts from; None: random ones.
    """

    name: str
    stems: tuple[str, ...]
    instruments: tuple[str, str]
    start: str | None = None

    @property
    def state(self) -> Path:
        return find_state(self.name)

    @property
    def settings(self) -> dict[str, Any]:
        """The yaml."""
        return {
            "audio": {"chunk_size": CHUNK, "num_channels": 2, "sample_rate": SAMPLE_RATE},
            "model": SHAPE,
            "training": {"instruments": list(self.instruments), "target_instrument": self.instruments[0]},
            "inference": {"num_overlap": 2, "batch_size": 1},
        }


TASKS = {
    "vocals": Task("demo-mel-band-roformer", ("vocals", "instrumental"), ("vocals", "other")),
    "karaoke": Task("demo-karaoke", ("lead", "backing"), ("karaoke", "other"), start="demo-mel-band-roformer"),
}


def find_state(name: str) -> Path:
    """The file of a model's training state."""
    return FOLDER / f"{name}.pt"


def train_roformer(task: Task, schedule: Schedule, *, seed: int = 0) -> None:
    """Train on stems of `TRAIN`, from where an interrupted training ended. The loss also counts the rest of the mix."""
    torch.manual_seed(seed)
    network = MelBandRoformer(**SHAPE).train()
    if task.start is not None and not task.state.exists():
        network.load_state_dict(load_mean(find_state(task.start)))

    def draw(step: int) -> Iterator[torch.Tensor]:
        return draw_batches(Stems(TRAIN, task.stems), seed=f"{seed} from {step}", size=BATCH_SIZE, length=CROP)

    train(network, draw, _complete(network), schedule=schedule, path=task.state)


def _complete(network: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def separate(mix: torch.Tensor) -> torch.Tensor:
        stem = network(mix).float()
        return torch.stack([stem, mix - stem], dim=1)

    return separate
