"""Collecting audio that is computed block by block: in memory or on disk, with nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from audio import Audio
from audio.disk import materialize, materialize_one
from audio.dsp.mix import Silence
from audio.types import DiskAudio, Waveform
from testing.open_files import list_open_files
from testing.signals import make_noise


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_sources_computed_together_are_collected_in_memory_or_on_disk(no_files_left: Path, memory_bytes: int) -> None:
    first, second = make_noise(2, 5000), make_noise(2, 5000, 1)
    parts = [{"a": first[:, s : s + 700], "b": second[:, s : s + 700]} for s in range(0, 5000, 700)]
    with ExitStack() as stack:
        result = materialize(iter(parts), ["a", "b"], like=Audio(first, 8000), memory_bytes=memory_bytes, stack=stack)
        assert isinstance(result["a"], Audio if memory_bytes else DiskAudio)
        np.testing.assert_array_equal(result["a"].read(0, 9999), first)
        np.testing.assert_array_equal(result["b"].read(0, 9999), second)
        assert result["a"].sample_rate == 8000


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_without_a_stack_disk_space_is_freed_with_the_last_reference(no_files_left: Path, memory_bytes: int) -> None:
    result = materialize_one([make_noise(1, 500)], like=Silence(8000, 1, 500), memory_bytes=memory_bytes)
    np.testing.assert_array_equal(result.read(0, 500), make_noise(1, 500))


@pytest.mark.parametrize("memory_bytes", [-1, 1 << 30])
def test_no_samples_give_an_empty_source(memory_bytes: int) -> None:
    assert materialize_one([], like=Silence(8000, 2, 0), memory_bytes=memory_bytes).read(0, 10).shape == (2, 0)


def test_an_error_halfway_leaves_nothing_on_disk(no_files_left: Path) -> None:
    def yield_one_block_and_fail() -> Iterator[dict[str, Waveform]]:
        yield {"a": make_noise(1, 100)}
        raise RuntimeError("broken")

    with ExitStack() as stack:
        before = list_open_files()
        with pytest.raises(RuntimeError):
            materialize(
                yield_one_block_and_fail(), ["a"], like=Audio(make_noise(1, 500), 8000), memory_bytes=0, stack=stack
            )
        assert not list_open_files() - before
