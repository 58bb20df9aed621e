"""The training loop of the separation models: AdamW, a warm-up, a falling rate, a running mean of the weights."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

EMA_DECAY = 0.995
SAVE_EVERY_S = 180.0
LOG_EVERY = 25
WARM_UP = 50
_SILENCE = 1e-3  # energy that counts as none, as a fraction of the mix's
_CEILING = 1e-3  # error that is good enough, as a fraction of the stem's energy: 30 dB


@dataclass(frozen=True)
class Schedule:
    """How long a training takes, and how fast it learns.

    Args:
        steps: after which it ends.
        minutes: of wall time after which it ends; the learning rate then falls by time and not by steps. None: no
            limit.
        peak_lr: the highest learning rate.
    """

    steps: int
    minutes: float | None = None
    peak_lr: float = 1e-3

    def fraction(self, step: int, elapsed_s: float) -> float:
        """How much of the training is done, from 0 to 1."""
        if self.minutes is None:
            return min(1.0, step / self.steps)
        return min(1.0, max(elapsed_s / (60 * self.minutes), step / self.steps))

    def learning_rate(self, step: int, fraction: float) -> float:
        falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fraction))
        return self.peak_lr * min(1.0, (step + 1) / WARM_UP) * falling


def sdr_loss(estimates: torch.Tensor, stems: torch.Tensor, shares: Sequence[float] | None = None) -> torch.Tensor:
    """The mean of minus the stems' signal-to-distortion ratios in dB, of `[B, S, 2, T]` each.

    It is bounded at 30 dB, and a silent stem is asked to stay 30 dB below the mix.

    Args:
        shares: how much each stem counts, 1 on average; None: all the same.
    """
    mix_energy = stems.sum(1).square().sum((1, 2))[:, None]
    energy = stems.square().sum((2, 3))
    error = (estimates.float() - stems).square().sum((2, 3))
    floor = _SILENCE * mix_energy + 1e-6
    ratios = 10 * torch.log10((error + _CEILING * energy + floor) / (energy + floor))
    return (ratios if shares is None else ratios * torch.tensor(shares, device=ratios.device)).mean()


def train(  # noqa: PLR0913  (by keyword)
    network: nn.Module,
    draw: Callable[[int], Iterator[torch.Tensor]],
    separate: Callable[[torch.Tensor], torch.Tensor],
    *,
    schedule: Schedule,
    path: Path,
    shares: Sequence[float] | None = None,
) -> None:
    """Train a network on the GPU if there is one, or go on with a training that was interrupted.

    Args:
        network: in training mode.
        draw: batches of stems `[B, S, 2, T]` without end, from the given step on.
        separate: the network's answer, `[B, S, 2, T]`, to a mix `[B, 2, T]`.
        path: the training's state, written every three minutes. If it is there, the training goes on from it.
        shares: how much each stem counts in the loss.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=1e-3)
    mean = deepcopy(network).eval().requires_grad_(False)
    step, elapsed = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True, map_location=device)
        network.load_state_dict(state["network"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        step, elapsed = state["step"], state["elapsed"]
    batches = draw(step)
    began, saved, losses = time.monotonic() - elapsed, elapsed, list[float]()
    while (fraction := schedule.fraction(step, time.monotonic() - began)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step, fraction)
        stems = next(batches).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            estimates = separate(stems.sum(1))
        loss = sdr_loss(estimates, stems, shares)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        losses.append(loss.item())
        decay = min(EMA_DECAY, step / (step + 20))
        for kept, new in zip(mean.parameters(), network.parameters(), strict=True):
            kept.lerp_(new.detach(), 1 - decay)
        elapsed = time.monotonic() - began
        if step % LOG_EVERY == 0:
            recent = fmean(losses[-LOG_EVERY:])
            print(f"step {step} {elapsed / 60:.1f} min loss {recent:.2f} dB, gradient {norm:.2f}", flush=True)
        if elapsed - saved > SAVE_EVERY_S:
            _save(path, network, mean, optimizer, step, elapsed)
            saved = elapsed
    _save(path, network, mean, optimizer, step, elapsed)


def load_mean(path: Path) -> dict[str, torch.Tensor]:
    """The running mean of the weights in a training's state."""
    mean: dict[str, torch.Tensor] = torch.load(path, weights_only=True, map_location="cpu")["mean"]
    return mean


def _save(  # noqa: PLR0913  (what a state consists of)
    path: Path, network: nn.Module, mean: nn.Module, optimizer: torch.optim.Optimizer, step: int, elapsed: float
) -> None:
    state = {
        "network": network.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict(),
        "step": step, "elapsed": elapsed,
    }  # fmt: skip
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)
