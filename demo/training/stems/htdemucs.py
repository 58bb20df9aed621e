"""`demo-htdemucs`: the network, its training in three stages, and its files as demucs 4.1 publishes them.

The first stage is at 22.05 kHz with a spectrogram of half the bins: as many frames a second, as many Hz a bin, half the
work. The second goes on at 44.1 kHz from its weights, and the third from those with a rate that falls once more.
"""

import warnings
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import nn

from demo.training.stems.dataset import FOLDER, SAMPLE_RATE, TRAIN, Stems, draw_batches, halve_rate
from demo.training.stems.training import Schedule, load_mean, train

NAME = "demo-htdemucs"
STEMS = ("drums", "bass", "other", "vocals")
HALF_RATE_STATE, FULL_RATE_STATE, STATE = (
    FOLDER / name for name in ("htdemucs-22050.pt", "htdemucs-44100.pt", "htdemucs.pt")
)
BATCH_SIZE, CROP_S = 2, 2
HALF_RATE_SHARES = (0.6, 1.0, 1.4, 1.0)  # of the stems in the loss: drums are learnt first
FULL_RATE_SHARES = (0.5, 0.6, 1.1, 1.8)  # vocals are the last to be good enough
REFINED_SHARES = (0.4, 0.5, 1.1, 2.0)
SEGMENT = Fraction(4)
_EMBEDDING = "freq_emb.embedding.weight"  # `[bands of 4 bins, channels]`


def build_network(sample_rate: int = SAMPLE_RATE) -> nn.Module:
    """The network with random weights. Every branch counts from the first step on: a short training needs them."""
    from demucs.htdemucs import HTDemucs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = HTDemucs(
            list(STEMS),
            channels=24,
            nfft=4096 * sample_rate // SAMPLE_RATE,
            cac=False,
            dconv_mode=0,
            t_layers=2,
            t_heads=4,
            t_hidden_scale=2.0,
            t_layer_scale=False,
            samplerate=sample_rate,
            segment=SEGMENT,
        )
    return network


def train_at_half_rate(schedule: Schedule, *, seed: int = 0) -> None:
    """Train the first stage, from where an interrupted training ended."""
    torch.manual_seed(seed)
    network = _use_mix_phase(build_network(SAMPLE_RATE // 2)).train()

    def draw(step: int) -> Iterator[torch.Tensor]:
        return map(halve_rate, _draw(seed, step))

    train(network, draw, network, schedule=schedule, path=HALF_RATE_STATE, shares=HALF_RATE_SHARES)


def train_at_full_rate(schedule: Schedule, *, seed: int = 1) -> None:
    """Train the second stage, from where an interrupted training ended, or from the first stage."""
    torch.manual_seed(seed)
    network = _use_mix_phase(build_network()).train()
    if not FULL_RATE_STATE.exists():
        network.load_state_dict(double_bands(load_mean(HALF_RATE_STATE)))
    draw = partial(_draw, seed)
    train(network, draw, network, schedule=schedule, path=FULL_RATE_STATE, shares=FULL_RATE_SHARES)


def refine(schedule: Schedule, *, seed: int = 2) -> None:
    """Train the third stage, from where an interrupted training ended, or from the second stage."""
    torch.manual_seed(seed)
    network = _use_mix_phase(build_network()).train()
    if not STATE.exists():
        network.load_state_dict(load_mean(FULL_RATE_STATE))
    train(network, partial(_draw, seed), network, schedule=schedule, path=STATE, shares=REFINED_SHARES)


def _draw(seed: int, step: int) -> Iterator[torch.Tensor]:
    stems = Stems(TRAIN, STEMS)
    return draw_batches(stems, seed=f"{seed} from {step}", size=BATCH_SIZE, length=CROP_S * SAMPLE_RATE)


def _use_mix_phase(network: Any) -> nn.Module:
    """Have the network give its magnitudes the mix's phase by a division, in training.

    In evaluation it does so by the angle, in blocks, as a Wiener filter without iterations; the results are the same.
    """
    network.end_iters = -1
    trained: nn.Module = network
    return trained


def double_bands(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights for twice the bins: the bands above get the embedding of the highest band."""
    embedding = state[_EMBEDDING]
    return dict(state) | {_EMBEDDING: torch.cat([embedding, embedding[-1:].expand_as(embedding)])}
