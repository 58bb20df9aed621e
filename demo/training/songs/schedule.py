"""The steps of a training run: learning rate, reports, checkpoints, continuing after an interruption."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

_WARM_UP = 40
_REPORT_STEPS = 25
_MEAN_SHARE = 0.04  # of a new value in a running mean
_SAVE_SECONDS = 120.0


def is_unfinished(path: Path) -> bool:
    """Returns whether a checkpoint holds a run that can go on."""
    return path.exists() and not torch.load(path, weights_only=True)["finished"]


class TrainingClock:
    """Counts the steps of a run up to a number of them or of minutes, whichever is reached first.

    The learning rate rises over the first steps and then falls as a cosine to a fiftieth of its peak.

    Args:
        path: of the checkpoint. If it holds an unfinished run, that run goes on.
        steps: of the whole run.
        minutes: of the whole run, over all of its parts.
    """

    def __init__(
        self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int, minutes: float
    ) -> None:
        self._path, self._model, self._optimizer = path, model, optimizer
        self._steps, self._seconds = steps, 60 * minutes
        self._peak: float = optimizer.defaults["lr"]
        self._step, self._earlier, self._started = 0, 0.0, time.monotonic()
        self._saved = self._started
        self._means: dict[str, float] = {}
        if is_unfinished(path):
            state = torch.load(path, weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            self._step, self._earlier = state["step"], state["seconds"]

    @property
    def step(self) -> int:
        """The next step; not 0 if an earlier run goes on."""
        return self._step

    def __iter__(self) -> Iterator[int]:
        while (progress := max(self._step / self._steps, self._elapsed() / self._seconds)) < 1:
            rate = self._peak * min(1.0, (self._step + 1) / _WARM_UP)
            rate *= 0.02 + 0.98 * math.cos(progress * math.pi / 2) ** 2
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            yield self._step
            self._step += 1
            if time.monotonic() - self._saved > _SAVE_SECONDS:
                self.save(finished=False)

    def report(self, step: int, **values: torch.Tensor) -> None:
        """Prints the running means of values now and then."""
        for name, value in values.items():
            mean = self._means.get(name)
            self._means[name] = value.item() if mean is None else mean + _MEAN_SHARE * (value.item() - mean)
        if step % _REPORT_STEPS == 0:
            figures = " ".join(f"{name} {mean:.4f}" for name, mean in self._means.items())
            print(f"{step} {self._elapsed():.0f}s {figures}", flush=True)

    def save(self, *, finished: bool = True) -> None:
        """Writes the checkpoint."""
        self._saved = time.monotonic()
        state = {"model": self._model.state_dict(), "step": self._step, "seconds": self._elapsed()}
        temporary = self._path.with_suffix(".tmp")
        torch.save(state | {"optimizer": self._optimizer.state_dict(), "finished": finished}, temporary)
        temporary.replace(self._path)

    def _elapsed(self) -> float:
        return self._earlier + time.monotonic() - self._started
