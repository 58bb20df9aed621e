"""Runs work that releases the GIL (encoding, time stretching) in a few threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_MAX_THREADS = 4

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def map_parallel(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, max_threads: int = _MAX_THREADS
) -> Iterator[ResultT]:
    """`function` of each item, in order, with at most as many items in progress as there are threads.

    The first exception is raised when its result is due; items that were not started by then are never started.
    """
    threads = min(max_threads, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[ResultT]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
