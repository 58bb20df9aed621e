"""Which bins of the spectrum belong to each band of a RoFormer. Imports numpy only."""

from __future__ import annotations

from itertools import accumulate, groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from models.runtime.mel_scale import hz_to_slaney_mel, slaney_mel_to_hz

Bands = tuple[range, ...]


def split_bins(widths: tuple[int, ...]) -> Bands:
    """Returns adjacent bands of so many bins each, as BS RoFormer has them."""
    return tuple(range(start, stop) for start, stop in pairwise((0, *accumulate(widths))))


def make_mel_bands(sample_rate: int, n_fft: int, num_bands: int) -> Bands:
    """Returns the bins in which each band of Slaney's mel filterbank is above 0; neighbours overlap by half.

    The first and the last bin of the spectrum, in which the filterbank is 0, belong to the first and the last band.
    """
    top = sample_rate / 2
    low, high = hz_to_slaney_mel(np.array([0.0, top]))
    edges = slaney_mel_to_hz(np.linspace(low, high, num_bands + 2))
    bins = np.linspace(0, top, n_fft // 2 + 1)
    starts = np.searchsorted(bins, edges[:-2], side="right")
    stops = np.searchsorted(bins, edges[2:], side="left")
    starts[0], stops[-1] = 0, len(bins)
    return tuple(range(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))


def covers_spectrum(bands: Bands, num_bins: int) -> bool:
    """Whether every bin from 0 to `num_bins` belongs to a band, and no band is empty or reaches beyond them."""
    ends = [band.stop for band in bands]
    starts = [band.start for band in bands]
    gapless = all(start <= end for start, end in zip(starts[1:], ends, strict=False))
    return all(bands) and starts[:1] == [0] and ends[-1:] == [num_bins] and max(ends) == num_bins and gapless


def group_equal_widths(bands: Bands) -> list[slice]:
    """Returns runs of adjacent bands that have as many bins."""
    ends = [0, *accumulate(len(list(run)) for _, run in groupby(bands, key=len))]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def index_masks(bands: Bands, num_bins: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Finds the values of all bands' masks, one band after the other, that belong to each bin.

    Returns:
        Their positions `[K, F]`, for at most K bands to a bin, and the weights `[K, F]` with which they are added: 1
        divided by the number of the bin's bands, and 0 for a position that stands for no band.
    """
    offsets = (0, *accumulate(map(len, bands)))
    found: list[list[int]] = [[] for _ in range(num_bins)]
    for band, offset in zip(bands, offsets, strict=False):
        for position, index in enumerate(band):
            found[index].append(offset + position)
    most = max(map(len, found))
    positions = np.array([[*of_bin, *[0] * (most - len(of_bin))] for of_bin in found], np.int64).T
    weights = np.array([[1 / len(of_bin) if k < len(of_bin) else 0 for of_bin in found] for k in range(most)])
    return np.ascontiguousarray(positions), weights.astype(np.float32)
