"""Where the time of a run goes, by stage; waits for the GPU at each stop, so that its work counts where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.machine import Clock


class Stopwatch:
    """Seconds by stage since the last `reset`.

    Args:
        clock: seconds.
        device: waited for at each stop where it is CUDA.
    """

    def __init__(self, clock: Clock, device: str) -> None:
        self._clock = clock
        self._waits = device == "cuda"
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        """The clock, once the device has done all that it was given."""
        if self._waits:
            torch.cuda.synchronize()
        return self._clock()

    def reset(self) -> None:
        self.seconds = {}

    def watched(self, stage: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """`action`, its time added to `stage` at each call."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self.now()
            try:
                return action(*args, **kwargs)
            finally:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + self.now() - started

        return timed
