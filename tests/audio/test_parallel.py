"""Work in a few threads: results in order, bounded work in progress, errors where they occur."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from audio.parallel import map_parallel


def test_results_keep_the_order_of_their_items() -> None:
    def sleep_and_return(number: int) -> int:
        time.sleep(0.001 * (7 * number % 5))
        return number

    assert list(map_parallel(sleep_and_return, range(20))) == list(range(20))
    assert list(map_parallel(sleep_and_return, [])) == []


def test_items_are_taken_only_as_results_are_consumed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_parallel(lambda number: number, items())
    assert next(results) == 0
    assert len(taken) <= 4
    results.close()  # type: ignore[attr-defined]
    taken.clear()
    assert list(map_parallel(lambda number: len(taken) - number, items(), max_threads=1)) == [1] * 100


def test_an_error_is_raised_and_ends_the_work() -> None:
    started: list[int] = []

    def fail_at_three(number: int) -> int:
        started.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    results: list[int] = []
    with pytest.raises(ValueError, match="three"):
        results.extend(map_parallel(fail_at_three, range(100)))
    assert len(started) < 10
