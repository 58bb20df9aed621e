"""Runs work in batches, and in smaller ones when the device's memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from models.device import is_out_of_memory

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchRunner:
    """Runs one piece of work (a separation, a conversion) in batches, and halves them when memory runs out.

    Smaller batches stay until the work ends, so that not every batch fails first. Make a new runner for the next piece:
    other work may have taken the memory. Batches of another size give the same results except for rounding.

    Args:
        what: the items, in the plural, for the log.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._limit: int | None = None

    def run(
        self, items: Sequence[Item], function: Callable[[Sequence[Item]], Result], *, size: int
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Yields consecutive batches of `items`, at most `size` of them in each, with `function` of each batch.

        All batches but the last have the same size, so that a GPU sees few shapes: it selects kernels anew for each.

        Raises:
            RuntimeError: from `function`; if it is about memory, a single item was too much.
        """
        assert size >= 1, f"a batch cannot have at most {size} items"
        start = 0
        while start < len(items):
            batch = items[start : start + min(size, self._limit or size)]
            try:
                result = function(batch)
            except RuntimeError as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
            else:
                yield batch, result
                start += len(batch)
                continue
            # Outside the except block, so that the failed attempt's tensors have been freed.
            self._limit = len(batch) // 2
            logger.warning(
                "Out of memory with a batch of %d %s; continuing with %d", len(batch), self._what, self._limit
            )
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def look_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each one after the next one has been taken from `items`."""
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
