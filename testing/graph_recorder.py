"""A recorder of CUDA graphs that needs no GPU: replays run the work again, and pools live as long as torch's do."""

from __future__ import annotations

import itertools
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from models.runtime.cuda_graph import GraphCaptureError


@dataclass(eq=False)
class EagerRecorder:
    """Runs captured work eagerly, and counts.

    A pool is as in torch 2.11: its first capture creates it, it dies with its last graph, and a capture into a dead
    pool fails, as does every capture after a failed one.

    Args:
        refuses: whether captures fail after the warm-up.
        out_of_memory: how many captures fail, after the warm-up, because the device's memory does not suffice.
    """

    refuses: bool = False
    out_of_memory: int = 0
    captures: int = 0
    events: int = 0
    waited: int = 0
    has_failed: bool = False
    graphs: Counter[int] = field(default_factory=Counter)
    _pools: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def num_graphs(self) -> int:
        """How many graphs there are now."""
        return self.graphs.total()

    def create_pool(self) -> int:
        return next(self._pools)

    def capture(self, work: Callable[[], None], repeats: int, pool: int) -> Callable[[], None]:
        self.captures += 1
        work()
        if self.out_of_memory:
            self.out_of_memory -= 1
            self.graphs[pool] += 0
            raise RuntimeError("CUDA out of memory.")
        is_dead = pool in self.graphs and not self.graphs[pool]
        if self.refuses or self.has_failed or is_dead:
            self.has_failed = True
            raise GraphCaptureError(f"pool {pool} is dead" if is_dead else "operation not permitted")

        def replay() -> None:
            assert not self.has_failed, "a graph is replayed after a failed capture, which spoils it"
            for _ in range(repeats):
                work()

        self.graphs[pool] += 1
        weakref.finalize(replay, self.graphs.subtract, [pool])
        return replay

    def record_event(self) -> Callable[[], None]:
        self.events += 1

        def wait() -> None:
            self.waited += 1

        return wait
