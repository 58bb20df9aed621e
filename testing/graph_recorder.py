"""A recorder of CUDA graphs that needs no GPU: replays run the work again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class EagerRecorder:
    """Runs captured work eagerly, and counts.

    Args:
        error: raised by every capture after the warm-up, as a device that refuses in the midst of it does.
    """

    error: Exception | None = None
    captures: int = 0
    events: int = 0
    waited: int = 0

    def capture(self, work: Callable[[], None], repeats: int) -> Callable[[], None]:
        self.captures += 1
        work()
        if self.error is not None:
            raise self.error

        def replay() -> None:
            for _ in range(repeats):
                work()

        return replay

    def record_event(self) -> Callable[[], None]:
        self.events += 1

        def wait() -> None:
            self.waited += 1

        return wait
